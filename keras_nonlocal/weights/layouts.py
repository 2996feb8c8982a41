"""What other code bases store in another order than ours.

Detectron and Detectron2 take blue, green, red. Detectors number the
background first or last, flatten the maps of a region channel by channel, and
torchvision's has room for the classes that COCO left out. After `reordered`
only the axes of kernels differ from ours.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_nonlocal.layers.batch_norm import EPSILON
from keras_nonlocal.weights.content import OWN
from keras_nonlocal.weights.content import CheckpointFile
from keras_nonlocal.weights.names import FAMILIES

# The categories of COCO that have no objects.
_ABSENT = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_CATEGORIES = tuple(n for n in range(1, 91) if n not in _ABSENT)
# Every detector has it, no other network.
_SCORES = "box_classes/bias"
# Of a detector by class: numbers of a class, and whether the background has
# some.
BY_CLASS = {
    "box_classes": (1, True),
    "box_deltas": (4, False),
    "mask_logits": (1, False),
}
# What one can do whose classes are others than those of a detector's weights.
OTHER_CLASSES = (
    "have all but the layers of the classes filled: MaskRCNN50(weights=..., "
    "classes=...), or its likes"
)


def is_detector(tensors: Mapping[str, Any]) -> bool:
    """Whether these variables, by their paths, are of a detector."""
    return _SCORES in tensors


def reordered(
    checkpoint: CheckpointFile, wanted: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors of a file with colours, classes and features in our order.

    Args:
        checkpoint: What `open_checkpoint` gave.
        wanted: The variables to fill, by path.

    Returns:
        Arrays by the path of our variable, kernels still in the source's
        layout. Those that do not fit remain as they are, to be told.
    """
    tensors = dict(checkpoint.tensors)
    if checkpoint.family == OWN:
        return tensors
    if checkpoint.is_bgr:
        _flip_colours(tensors)
    if checkpoint.epsilon != EPSILON:
        _shift_variances(tensors, checkpoint.epsilon - EPSILON)
    if is_detector(tensors):
        _reorder_features(tensors)
        _reorder_classes(
            tensors, wanted, FAMILIES[checkpoint.family].background
        )
    return tensors


def class_count(tensors: Mapping[str, Any]) -> int | None:
    """Classes of a network or file without the background; `None` if none.

    >>> class_count({"box_classes/bias": np.zeros(81), "conv1/kernel": 0})
    80
    """
    for path, background in (("logits/bias", 0), (_SCORES, 1)):
        if path in tensors:
            return math.prod(tensors[path].shape) - background
    return None


def _flip_colours(tensors: dict[str, np.ndarray]) -> None:
    kernel = tensors.get("conv1/kernel")
    if kernel is not None and kernel.ndim > 1:
        tensors["conv1/kernel"] = kernel[:, ::-1]


def _shift_variances(tensors: dict[str, np.ndarray], difference: float) -> None:
    """Lets our epsilon give what the file's gives."""
    for path, array in tensors.items():
        if path.endswith("/moving_variance") and array.dtype.kind == "f":
            tensors[path] = array.astype("float64") + difference


def _reorder_features(tensors: dict[str, np.ndarray]) -> None:
    """Maps of a region: channel after channel to position after position."""
    kernel, bias = (
        tensors.get("box_fc1/kernel"),
        tensors.get("fpn_layer_res2/bias"),
    )
    if kernel is None or bias is None or kernel.ndim != 2 or not bias.size:
        return
    side = math.isqrt(kernel.shape[1] // bias.size)
    if not side or kernel.shape[1] != bias.size * side * side:
        return
    maps = kernel.reshape(-1, bias.size, side, side)
    tensors["box_fc1/kernel"] = maps.transpose(0, 2, 3, 1).reshape(kernel.shape)


def _reorder_classes(
    tensors: dict[str, np.ndarray],
    wanted: Mapping[str, Any],
    background: str | None,
) -> None:
    """The classes that are wanted, the background after them or left out."""
    here, there = class_count(wanted), class_count(tensors)
    if here is None or there is None:
        return
    is_first = background == "first"
    classes = [number + is_first for number in range(here)]
    if is_first and (here, there) == (
        len(COCO_CATEGORIES),
        COCO_CATEGORIES[-1],
    ):
        classes = list(COCO_CATEGORIES)
    elif here != there:
        return  # Is told.
    # What has no background in the file is complete without.
    for layer, (size, has_background) in BY_CLASS.items():
        rows = there + (has_background or is_first)
        last = [0 if is_first else there] * has_background
        for leaf in ("kernel", "bias"):
            array = tensors.get(f"{layer}/{leaf}")
            if array is None or array.shape[:1] != (rows * size,):
                continue
            groups = array.reshape(rows, size, *array.shape[1:])
            chosen = groups[classes + last]
            tensors[f"{layer}/{leaf}"] = chosen.reshape(-1, *array.shape[1:])
