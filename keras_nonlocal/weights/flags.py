"""What a checkpoint tells of the network it belongs to.

Names and shapes show some fields of a `Variant`; others are the same in all
networks of a code base. What neither shows has to come from the catalogue or
from the caller, never from a guess.
"""

import operator
import re
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_nonlocal.models import resnet2d
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.variants import BLOCKS
from keras_nonlocal.models.variants import STAGES
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.ops.pairwise import MODES
from keras_nonlocal.weights.content import OWN
from keras_nonlocal.weights.content import CheckpointFile

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

_PIXELS_OF_SLOWFAST: dict[str, tuple[Any, ...]] = {
    "mean": (114.75,),
    "std": (57.375,),
}
_PIXELS_OF_IMAGENET: dict[str, tuple[Any, ...]] = {
    "mean": (IMAGENET_MEAN,),
    "std": (IMAGENET_STD,),
}
# No code base but keras.applications has the stride elsewhere, and only the
# paper's has groups and other axes.
_USUAL: dict[str, tuple[Any, ...]] = {
    "stride_in_1x1": (False,),
    "attention_axes": ("spacetime",),
    "res5_stride": (2,),
    "res3_group": (None,),
    "pool2": (True,),
}
# Allowed values of fields that are the same in all video networks of a code
# base, as far as they are.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "caffe2": {
        "stride_in_1x1": (False,),
        "attention_axes": ("spacetime",),
        "sub_sample": ("input",),
    },
    "slowfast": {
        "stride_in_1x1": (False,),
        "stem": ("stride1",),
        "pool1_padding": (1,),
        "sub_sample": ("input", None),
        "use_scale": (True,),
        "head": ("probability",),
        **_PIXELS_OF_SLOWFAST,
    },
    "pytorchvideo": {
        **_USUAL,
        "stem": ("stride1",),
        "pool1_padding": (1,),
        "head": ("logit",),
        **_PIXELS_OF_SLOWFAST,
    },
    "mmaction2": {
        **_USUAL,
        "stem": ("stride4_skip",),
        "pool1_padding": (1,),
        "use_scale": (False,),
        "head": ("feature",),
        **_PIXELS_OF_IMAGENET,
    },
    "gluoncv": {
        **_USUAL,
        "mode": ("embedded_gaussian",),
        "stem": ("stride4_skip",),
        "pool1_padding": (1,),
        "sub_sample": (None,),
        "use_scale": (True,),
        "head": ("feature",),
        **_PIXELS_OF_IMAGENET,
    },
    # Video networks under torchvision's names are other people's ports.
    "torchvision": {},
}
# The same for files of image kernels, and for networks that differ from the
# others of their code base in which blocks are inflated.
_IMAGE_KERNELS: dict[str, dict[str, tuple[Any, ...]]] = {
    "mmaction2": {
        **_USUAL,
        "pool2": (True, False),
        "stem": ("stride1",),
        "head": ("feature",),
        **_PIXELS_OF_IMAGENET,
    },
    "torchvision": {
        "stride_in_1x1": (False,),
        "pool1_padding": (1,),
        "res5_stride": (2,),
        **_PIXELS_OF_IMAGENET,
    },
}
_HEAVY = {"stem": ("stride1",)}
_SLOW_ONLY = {**_HEAVY, "pool2": (False,), "use_scale": (True,)}
# Code bases of which files of image networks are read.
_IMAGE_FAMILIES = ("torchvision", "caffe2", "slowfast", "detectron2", OWN)
# Of the code bases that publish detectors, the preset, and its fields that are
# the same in all detectors of theirs. Those of a trunk and its pixels are not:
# configurations differ in them.
_DETECTORS: dict[str, tuple[str, dict[str, tuple[Any, ...]]]] = {
    "detectron": (
        "detectron",
        {
            "anchor_style": ("detectron",),
            "box_offset": (1,),
            "aligned": (False,),
            "level_rule": ("scale",),
        },
    ),
    "detectron2": (
        "detectron2",
        {
            "anchor_style": ("exact",),
            "box_offset": (0,),
            "level_rule": ("scale",),
        },
    ),
    "torchvision_detection": (
        "torchvision",
        {
            "anchor_style": ("rounded",),
            "box_offset": (0,),
            "aligned": (False,),
            "level_rule": ("level",),
            "trunk.stride_in_1x1": (False,),
        },
    ),
}
# Fields that the configuration in a file tells: where they stand in its text,
# and what their values are here.
_IN_CONFIG: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "slowfast": {
        "mode": (
            r"INSTANTIATION: *\W?(\w+)",
            {"softmax": "embedded_gaussian", "dot_product": "dot_product"},
        ),
    },
    "mmaction2": {
        "mode": (
            r"non_local_cfg=dict\(.{,500}?\bmode='(\w+)'",
            {mode: mode for mode in MODES},
        ),
        "use_scale": (
            r"non_local_cfg=dict\(.{,500}?\buse_scale=(\w+)",
            {"True": True, "False": False},
        ),
    },
}
# Fields that mean nothing without non-local blocks.
_OF_BLOCKS = (
    "attention_axes",
    "mode",
    "res3_group",
    "sub_sample",
    "use_scale",
)
# Fields that mean nothing where the model does not read pixels.
_OF_PIXELS = ("mean", "std")


def contradictions(
    checkpoint: CheckpointFile, network: Any, reads_pixels: bool
) -> list[str]:
    """Fields of a network that a checkpoint contradicts, a line each.

    Args:
        checkpoint: The file.
        network: The network that it is to be loaded into, or `None`.
        reads_pixels: Whether the model has its preprocessing.
    """
    if isinstance(network, ImageVariant):
        return _not_of_images(checkpoint)
    if isinstance(network, DetectorVariant):
        return _not_of_detectors(checkpoint, network)
    if not isinstance(network, Variant):
        return []
    variant, lines = network, []
    for name, allowed in shown(checkpoint).items():
        if name in _OF_PIXELS and not reads_pixels:
            continue
        if name in _OF_BLOCKS and not variant.num_nonlocal:
            continue
        if name == "use_scale" and variant.mode != "embedded_gaussian":
            continue
        value = _FIELDS.get(name, _field(name))(variant)
        lines += _contradiction(name, allowed, value)
    return lines


def _contradiction(
    name: str, allowed: tuple[Any, ...], value: Any
) -> list[str]:
    if value in allowed:
        return []
    values = " or ".join(repr(item) for item in allowed)
    return [f"{name}: {values or 'another'} in the file, {value!r} here"]


def shown(checkpoint: CheckpointFile) -> dict[str, tuple[Any, ...]]:
    """The fields of a `Variant` that a checkpoint shows, with their values.

    Returns:
        For each field the values that agree with names, shapes and code base.
    """
    if checkpoint.family not in _FIXED:
        return {}  # Our own files; networks without variants.
    tensors = checkpoint.tensors
    kernel = tensors.get("conv1/kernel")
    is_image = kernel is not None and kernel.ndim == 4
    places = _places(tensors)
    fields: dict[str, tuple[Any, ...]] = {
        "nonlocal blocks after": (places,),
        "depth": _depths(tensors),
        "norm": ("affine",),
    }
    if "conv1_bn/moving_mean" in tensors:
        # Batch norms can be folded, but not unfolded.
        fields["norm"] = ("batch", "sync_batch", "affine")
    if not is_image:
        fields["inflated kernels"] = (_inflated(tensors),)
    if places:
        fields |= _of_blocks(
            checkpoint, f"nonlocal_{places[0][0]}_{places[0][1]}"
        )
    return fields | _fixed(checkpoint, is_image) | _configured(checkpoint)


def _fixed(
    checkpoint: CheckpointFile, is_image: bool
) -> dict[str, tuple[Any, ...]]:
    """What the code base of a file shows."""
    family = checkpoint.family
    if is_image:
        return dict(_IMAGE_KERNELS.get(family, _FIXED[family]))
    fields = dict(_FIXED[family])
    inflated = _inflated(checkpoint.tensors)
    if family == "mmaction2" and inflated:
        if "conv1" not in inflated:
            fields |= _SLOW_ONLY
        elif any(layer.startswith("res3_1_") for layer in inflated):
            fields |= _HEAVY
    return fields


def _configured(checkpoint: CheckpointFile) -> dict[str, tuple[Any, ...]]:
    """What the configuration in a file tells."""
    fields = {}
    for name, (pattern, values) in _IN_CONFIG.get(
        checkpoint.family, {}
    ).items():
        match = re.search(pattern, checkpoint.config, re.DOTALL)
        if match and match[1] in values:
            fields[name] = (values[match[1]],)
    return fields


def _not_of_images(checkpoint: CheckpointFile) -> list[str]:
    """What tells a checkpoint from one of an image network."""
    if checkpoint.family not in _IMAGE_FAMILIES:
        return [f"the file is of a video network of {checkpoint.family}"]
    kernel = checkpoint.tensors.get("conv1/kernel")
    if kernel is None or kernel.ndim == 4:
        return []
    # SlowFast trains image networks as videos of one frame.
    if checkpoint.family == "slowfast" and kernel.shape[2] == 1:
        return []
    return ["the file is of a video network: its kernels are 3-D"]


def _not_of_detectors(
    checkpoint: CheckpointFile, network: DetectorVariant
) -> list[str]:
    """The fields of a detector that a checkpoint contradicts."""
    tensors, family = checkpoint.tensors, checkpoint.family
    if family not in _DETECTORS:
        return []
    preset, allowed = _DETECTORS[family]
    lines = _contradictions(network, allowed)
    if lines:
        lines.append(f"(all of these are set by preset={preset!r})")
    of_trunk = {"trunk.depth": _depths(tensors, resnet2d.BLOCKS)}
    if _places(tensors):
        of_trunk["trunk.num_nonlocal"] = (len(_places(tensors)),)
    return lines + _contradictions(network, of_trunk)


def _contradictions(
    network: DetectorVariant, allowed: dict[str, tuple[Any, ...]]
) -> list[str]:
    return [
        line
        for name, values in allowed.items()
        for line in _contradiction(
            name, values, operator.attrgetter(name)(network)
        )
    ]


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
        names = checkpoint.sources.get(f"{block}/g/kernel", [""])
        is_pooled = ".g.0.conv." in names[0]
        fields["sub_sample"] = ("projection",) if is_pooled else (None,)
    return fields


def _places(tensors: dict[str, np.ndarray]) -> tuple[tuple[str, int], ...]:
    found = {
        (match[1], int(match[2]))
        for match in (
            re.match(r"nonlocal_(res\d)_(\d{1,3})/", path, re.ASCII)
            for path in tensors
        )
        if match
    }
    return tuple(sorted(found))


def _depths(
    tensors: dict[str, np.ndarray],
    table: Mapping[int, tuple[int, ...]] = BLOCKS,
) -> tuple[int, ...]:
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
    return tuple(depth for depth, blocks in table.items() if blocks == counts)


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
