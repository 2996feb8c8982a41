"""Boxes: areas, overlaps, and the four numbers that move one box to another.

A box is x1, y1, x2, y2 in pixels, where pixel i covers [i, i + 1]; all results
are float32. Detectron (the first one, in Caffe2) counts pixels instead: a box
from x1 to x2 is x2 - x1 + 1 wide. `offset=1.0` computes as it does.
"""

import math

from keras import ops

# How much wider or higher than its source a box can be decoded: an object that
# fills an image of 1000 pixels, from the 16 of a cell.
MAX_LOG_SCALE = math.log(1000 / 16)


def as_boxes(boxes, name="boxes", rank=1):
    """`boxes` as a float32 tensor.

    Raises:
        ValueError: If the last axis does not have four numbers, or if there are
            fewer than `rank` axes. Its message calls the argument `name`.
    """
    boxes = ops.cast(boxes, "float32")
    if len(boxes.shape) < rank or boxes.shape[-1] != 4:
        shape = ", ".join(["...", "N", "4"] if rank > 1 else ["...", "4"])
        raise ValueError(
            f"`{name}` must be ({shape}). Received: shape {tuple(boxes.shape)}"
        )
    return boxes


def area(boxes, offset=0.0):
    """Areas of boxes; 0 where x2 is not beyond x1, or y2 not beyond y1.

    Args:
        boxes: `(..., 4)`.
        offset: Added to each side: 1.0 for boxes of Detectron.

    Returns:
        `(...)`, float32, square pixels.

    Example:

    >>> np.array(area([[0, 0, 2, 3], [2, 2, 1, 9]]))
    array([6., 0.], dtype=float32)
    """
    boxes = as_boxes(boxes)
    sides = ops.relu(boxes[..., 2:] - boxes[..., :2] + offset)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(boxes, others, offset=0.0):
    """Intersection over union of every box with every other one.

    0 where a box is empty, and where one is not finite or so large that its
    area is not: such a box overlaps nothing, itself included.

    Args:
        boxes: `(..., N, 4)`.
        others: `(..., M, 4)`. The leading dimensions of the two are broadcast.
        offset: Added to each side: 1.0 for boxes of Detectron.

    Returns:
        `(..., N, M)`, float32, from 0 to 1.

    Example:

    >>> boxes = [[0, 0, 1, 1]]
    >>> others = [[0, 0, 1, 1], [0, 0, 1, 0.5], [2, 2, 3, 3]]
    >>> np.array(pairwise_iou(boxes, others))
    array([[1. , 0.5, 0. ]], dtype=float32)
    """
    boxes = as_boxes(boxes, rank=2)[..., :, None, :]
    others = as_boxes(others, "others", rank=2)[..., None, :, :]

    def shared(axis):
        """How far two boxes overlap along x (0) or y (1)."""
        first = ops.maximum(boxes[..., axis], others[..., axis])
        last = ops.minimum(boxes[..., axis + 2], others[..., axis + 2])
        return ops.relu(last - first + offset)

    intersection = shared(0) * shared(1)
    union = area(boxes, offset) + area(others, offset) - intersection
    # Not a number fails both comparisons.
    is_real = ops.logical_and(intersection > 0, union < math.inf)
    # The inner choice keeps gradients finite.
    return ops.where(
        is_real, intersection / ops.where(is_real, union, 1.0), 0.0
    )


def encode(source, target, weights=(1.0, 1.0, 1.0, 1.0), offset=0.0):
    """The deltas that move source boxes to target boxes.

    dx and dy are the way between the centres, in widths and heights of the
    source; dw and dh the logarithms of the ratios of widths and heights
    (equations 6 to 9 of Girshick et al. 2014, "Rich feature hierarchies").

    An empty side counts as one pixel. So the deltas of boxes that only fill up
    a batch are finite, and gradients through them too; they mean nothing.

    Args:
        source: `(..., 4)`, anchors or proposals.
        target: `(..., 4)`, broadcast with `source`.
        weights: Factors of dx, dy, dw, dh, which bring them to about one size:
            (10, 10, 5, 5) in the box head of Mask R-CNN.
        offset: Added to each side: 1.0 for boxes of Detectron.

    Returns:
        `(..., 4)`, float32: dx, dy, dw, dh.

    Example:

    >>> np.array(encode([0, 0, 2, 2], [1, 0, 3, 2]))
    array([0.5, 0. , 0. , 0. ], dtype=float32)
    """
    centre, size = _centre_and_size(as_boxes(source, "source"), offset)
    size = _not_empty(size)
    target = as_boxes(target, "target")
    target_centre, target_size = _centre_and_size(target, offset)
    shift = (target_centre - centre) / size
    scale = ops.log(_not_empty(target_size) / size)
    return ops.concatenate([shift, scale], axis=-1) * ops.convert_to_tensor(
        weights, "float32"
    )


def decode(deltas, source, weights=(1.0, 1.0, 1.0, 1.0), offset=0.0):
    """Moves boxes by deltas: undoes `encode`.

    dw and dh above `MAX_LOG_SCALE` count as that much, lest a network at the
    start of its training gives boxes without bounds. Deltas that are not
    finite give boxes that are not, which `nms` never keeps.

    Args:
        deltas: `(..., 4)`: dx, dy, dw, dh.
        source: `(..., 4)`, broadcast with `deltas`.
        weights: As given to `encode`.
        offset: As given to `encode`.

    Returns:
        `(..., 4)`, float32.

    Example:

    >>> np.array(decode([0.5, 0, 0, 0], [0, 0, 2, 2]))
    array([1., 0., 3., 2.], dtype=float32)
    """
    centre, size = _centre_and_size(as_boxes(source, "source"), offset)
    deltas = as_boxes(deltas, "deltas") / ops.convert_to_tensor(
        weights, "float32"
    )
    centre = centre + deltas[..., :2] * size
    half = 0.5 * size * ops.exp(ops.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return ops.concatenate([centre - half, centre + half - offset], axis=-1)


def clip(boxes, sizes, offset=0.0):
    """Cuts boxes off at the border of their image.

    Args:
        boxes: `(..., N, 4)`.
        sizes: `(..., 2)`, height and width of each image, any dtype.
        offset: 1.0 for boxes of Detectron, which end at width - 1.

    Returns:
        `(..., N, 4)`, float32. A box outside of its image becomes empty, on
        the border; one of Detectron becomes the row or column of pixels there.

    Example:

    >>> np.array(clip([[-1, -1, 5, 5]], (3, 4)))
    array([[0., 0., 4., 3.]], dtype=float32)
    """
    boxes = as_boxes(boxes)
    sizes = ops.cast(sizes, "float32")
    height, width = sizes[..., 0], sizes[..., 1]
    ends = ops.stack([width, height, width, height], axis=-1) - offset
    return ops.maximum(ops.minimum(boxes, ends[..., None, :]), 0.0)


def _centre_and_size(boxes, offset):
    first, last = boxes[..., :2], boxes[..., 2:]
    size = last - first + offset
    return first + 0.5 * size, size


def _not_empty(size):
    return ops.where(size > 0, size, 1.0)
