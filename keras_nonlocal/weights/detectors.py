"""Which detector trained weights can be loaded into.

Those of a network without a non-local block serve one with a block too: the
block is the identity until it is trained.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_nonlocal.models import applications
from keras_nonlocal.models import detector_variants
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.resnet2d import ImageVariant

# Beginnings of the names of layers that a detector may have on top of its
# file, and a trunk on top of an image network.
FRESH = ("nonlocal_",)
FRESH_OF_TRUNK = (*FRESH, "fpn_")

# Fields of a trunk that mean nothing without the block.
_OF_BLOCK = ("num_nonlocal", "use_scale", "sub_sample", "nonlocal_norm")


def with_block_of(
    published: DetectorVariant, asked: DetectorVariant
) -> DetectorVariant:
    """The published detector, with the block that was asked for if it has none.

    >>> table = detector_variants.DETECTOR_VARIANTS
    >>> with_block_of(table["mask_rcnn_r50"], table["nl_mask_rcnn_r50"]) == (
    ...     table["nl_mask_rcnn_r50"]
    ... )
    True
    """
    trunk = trunk_with_block_of(published.trunk, asked.trunk)
    return dataclasses.replace(published, trunk=trunk)


def trunk_with_block_of(
    published: ImageVariant, asked: ImageVariant
) -> ImageVariant:
    """The published trunk, frozen, with the block that was asked for."""
    fields: dict[str, Any] = {"norm": asked.norm}
    if not published.num_nonlocal:
        fields |= {name: getattr(asked, name) for name in _OF_BLOCK}
    return dataclasses.replace(published, **fields)


def differences(
    published: DetectorVariant, asked: DetectorVariant
) -> dict[str, tuple[Any, Any]]:
    """Fields in which weights are of another detector than the one asked for.

    Returns:
        By field the published and the asked value; those of the trunk are
        called `trunk.depth`. Fields of training and of what becomes of the
        scores are free.

    >>> table = detector_variants.DETECTOR_VARIANTS
    >>> differences(table["mask_rcnn_r50"], table["nl_mask_rcnn_r101"])
    {'trunk.depth': (50, 101)}
    """
    found = {
        f"trunk.{name}": values
        for name, values in trunk_differences(
            published.trunk, asked.trunk
        ).items()
    }
    free = detector_variants.TRAINING_FIELDS | {"trunk"}
    return found | _unequal(published, asked, free)


def trunk_differences(
    published: ImageVariant, asked: ImageVariant
) -> dict[str, tuple[Any, Any]]:
    """The same for a trunk: of a detector, or an image network for one."""
    free = set(applications.TRAINING_FIELDS)
    if not published.num_nonlocal:
        free |= set(_OF_BLOCK)
    return _unequal(published, asked, free)


def differences_in_size(
    published: DetectorVariant, asked: DetectorVariant
) -> dict[str, tuple[Any, Any]]:
    """The same for what makes another trunk: depth, width and block."""
    sizes = {
        f"trunk.{name}"
        for name in ("depth", "groups", "group_width", "width", "num_nonlocal")
    }
    return {
        name: values
        for name, values in differences(published, asked).items()
        if name in sizes
    }


def wrong_sizes(
    network: DetectorVariant, tensors: Mapping[str, np.ndarray]
) -> list[str]:
    """Arrays of our own layout that are of other sizes than a detector's.

    Few of them, but all that the sizes in a description decide: it is not to
    be believed before a network of its sizes is built.
    """
    inputs = network.box_size**2 * network.pyramid_channels
    channels, classes = network.mask_channels, network.classes
    width, inner = network.trunk.width, network.trunk.inner_width
    expected: dict[str, tuple[int, ...]] = {
        "conv1_bn/beta": (width,),
        "res2_0_branch2b_bn/beta": (inner,),
        "rpn_objectness/bias": (network.num_anchors,),
        "box_fc1/kernel": (inputs, network.box_units),
        "box_classes/bias": (classes + 1,),
        f"mask_fcn{network.mask_convs}/bias": (channels,),
        "mask_logits/bias": (classes,),
    }
    return [
        path
        for path, shape in expected.items()
        if path not in tensors or tensors[path].shape != shape
    ]


def _unequal(one: Any, other: Any, free: Any) -> dict[str, tuple[Any, Any]]:
    return {
        name: (value, getattr(other, name))
        for name, value in vars(one).items()
        if name not in free and value != getattr(other, name)
    }
