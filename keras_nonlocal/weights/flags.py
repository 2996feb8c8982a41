"""What a checkpoint tells of the network it belongs to.

Names and shapes show some fields of a `Variant`; others are the same in all
networks of a code base. What neither shows has to come from the catalogue or
from the caller, never from a guess.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_nonlocal.models.variants import BLOCKS
from keras_nonlocal.models.variants import STAGES
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights.files import CheckpointFile

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# Allowed values of fields that are the same in all video networks of a code
# base. mmaction2's and GluonCV's rows hold for inflated networks; mmaction2's
# C2D is an image network and is told by its kernels.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "caffe2": {"sub_sample": ("input",), "head": ("probability",)},
    "slowfast": {
        "stem": ("stride1",),
        "pool1_padding": (1,),
        "sub_sample": ("input", None),
        "use_scale": (True,),
        "head": ("probability",),
        "mean": (114.75,),
        "std": (57.375,),
    },
    "pytorchvideo": {
        "stem": ("stride1",),
        "pool1_padding": (1,),
        "head": ("logit",),
        "mean": (114.75,),
        "std": (57.375,),
    },
    "mmaction2": {
        "stem": ("stride4_skip", "stride1"),
        "pool1_padding": (1,),
        "head": ("feature",),
        "mean": (IMAGENET_MEAN,),
        "std": (IMAGENET_STD,),
    },
    "mmaction2 2-D": {
        "stem": ("stride1",),
        "head": ("feature",),
        "mean": (IMAGENET_MEAN,),
        "std": (IMAGENET_STD,),
    },
    "gluoncv": {
        "stem": ("stride4_skip",),
        "pool1_padding": (1,),
        "sub_sample": (None,),
        "use_scale": (True,),
        "head": ("feature",),
        "mean": (IMAGENET_MEAN,),
        "std": (IMAGENET_STD,),
    },
    # Video networks under torchvision's names are other people's ports.
    "torchvision": {},
}
# Fields that mean nothing without non-local blocks.
_OF_BLOCKS = ("sub_sample", "use_scale")
# Fields that mean nothing where the model does not read pixels.
_OF_PIXELS = ("mean", "std")


def contradictions(
    checkpoint: CheckpointFile, variant: Variant, reads_pixels: bool
) -> list[str]:
    """Fields of a variant that a checkpoint contradicts, a line each.

    Args:
        checkpoint: The file.
        variant: The network that it is to be loaded into.
        reads_pixels: Whether the model has its preprocessing.
    """
    lines = []
    for name, allowed in shown(checkpoint).items():
        if name in _OF_PIXELS and not reads_pixels:
            continue
        if name in _OF_BLOCKS and not variant.num_nonlocal:
            continue
        if name == "use_scale" and variant.mode != "embedded_gaussian":
            continue
        value = _FIELDS.get(name, _field(name))(variant)
        if value not in allowed:
            values = " or ".join(repr(item) for item in allowed)
            lines.append(f"{name}: {values} in the file, {value!r} here")
    return lines


def shown(checkpoint: CheckpointFile) -> dict[str, tuple[Any, ...]]:
    """The fields of a `Variant` that a checkpoint shows, with their values.

    Returns:
        For each field the values that agree with names, shapes and code base.
    """
    if checkpoint.family not in _FIXED:
        return {}  # Our own files; networks without variants.
    tensors = checkpoint.tensors
    is_image = tensors["conv1/kernel"].ndim == 4
    family = checkpoint.family
    if family == "mmaction2" and is_image:
        family = "mmaction2 2-D"
    fields = dict(_FIXED.get(family, {}))
    places = _places(tensors)
    fields["nonlocal blocks after"] = (places,)
    fields["depth"] = _depths(tensors)
    fields["norm"] = ("affine",)
    if "conv1_bn/moving_mean" in tensors:
        # Batch norms can be folded, but not unfolded.
        fields["norm"] = ("batch", "sync_batch", "affine")
    if not is_image:
        fields["inflated kernels"] = (_inflated(tensors),)
    if places:
        fields |= _of_blocks(
            checkpoint, f"nonlocal_{places[0][0]}_{places[0][1]}"
        )
    return fields


def _of_blocks(
    checkpoint: CheckpointFile, block: str
) -> dict[str, tuple[Any, ...]]:
    tensors = checkpoint.tensors
    fields: dict[str, tuple[Any, ...]] = {}
    fields["mode"] = ("embedded_gaussian", "dot_product")
    if f"{block}/w_f" in tensors:
        fields["mode"] = ("concatenation",)
    elif f"{block}/theta/kernel" not in tensors:
        fields["mode"] = ("gaussian",)
    fields["nonlocal_bias"] = (f"{block}/out/bias" in tensors,)
    if f"{block}/norm/moving_mean" in tensors:
        fields["nonlocal_norm"] = ("batch", "sync_batch", "affine")
    else:
        has_norm = f"{block}/norm/gamma" in tensors
        fields["nonlocal_norm"] = ("affine" if has_norm else None,)
    if checkpoint.family == "mmaction2":
        # Pooled after the convolution, which then is the first of two.
        is_pooled = checkpoint.sources[f"{block}/g/kernel"][0]
        fields["sub_sample"] = (
            ("projection",) if ".g.0.conv." in is_pooled else (None,)
        )
    return fields


def _places(tensors: dict[str, np.ndarray]) -> tuple[tuple[str, int], ...]:
    found = {
        (match[1], int(match[2]))
        for match in (
            re.match(r"nonlocal_(res\d)_(\d+)/", path) for path in tensors
        )
        if match
    }
    return tuple(sorted(found))


def _depths(tensors: dict[str, np.ndarray]) -> tuple[int, ...]:
    counts = tuple(
        len(
            {
                p.split("/")[0]
                for p in tensors
                if re.match(rf"{s}_\d+_branch2a/", p)
            }
        )
        for s in STAGES
    )
    return tuple(depth for depth, blocks in BLOCKS.items() if blocks == counts)


def _inflated(tensors: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The layers whose kernels have an extent in time."""
    return tuple(
        sorted(
            path.partition("/")[0]
            for path, array in tensors.items()
            if array.ndim == 5 and array.shape[2] > 1
        )
    )


def _inflated_of(variant: Variant) -> tuple[str, ...]:
    letter = {"3x1x1": "a", "3x3x3": "b"}.get(str(variant.inflation))
    layers = [
        f"{stage}_{block}_branch2{letter}"
        for stage, number in variant.blocks.items()
        for block in range(number)
        if variant.is_inflated(stage, block)
    ]
    return tuple(sorted(layers + ["conv1"] * (variant.conv1_frames > 1)))


def _places_of(variant: Variant) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(variant.nonlocal_blocks()))


def _field(name: str) -> Callable[[Variant], Any]:
    return lambda variant: getattr(variant, name)


# How a variant says what is not one field of it.
_FIELDS: dict[str, Callable[[Variant], Any]] = {
    "nonlocal blocks after": _places_of,
    "inflated kernels": _inflated_of,
}
# Fields that another user of the same weights may choose differently.
OF_TRAINING = (
    "norm",
    "nonlocal_norm",
    "dropout_rate",
    "num_frames",
    "sampling_rate",
    "crop_size",
)


def same_network(one: Any, other: Any) -> bool:
    """Whether two networks differ in nothing but how they are trained."""
    if type(one) is not type(other):
        return False
    names = (field.name for field in dataclasses.fields(one))
    return all(
        getattr(one, name) == getattr(other, name)
        for name in names
        if name not in OF_TRAINING
    )
