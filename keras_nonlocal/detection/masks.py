"""Masks of objects: what the mask head learns, and what becomes of its maps.

A mask is a small square map that covers a box: of the object's own box in the
data, of a region in the mask head. Both ways between a map and pixels are
bilinear interpolation, the map being 0 outside. The weights are those of a row
times those of a column, so it is two matrix products.
"""

from keras import ops

from keras_nonlocal.detection.boxes import as_boxes
from keras_nonlocal.detection.gather import take_rows

# Of a bin, to be inside. A half would decide by rounding: a straight edge along
# the middle of the bins leaves one of two samples inside of each.
_INSIDE = 0.499
# Samples a side of a bin.
_RATIO = 2


def mask_targets(masks, truth_boxes, regions, matched, size=28):
    """What the mask head should find in each region: its object's mask.

    The object's mask is averaged over size x size bins of the region, as
    RoIAlign does it (aligned, 2 x 2 samples a bin), 0 outside of its box. Bins
    that are inside by half count as inside.

    Args:
        masks: `(batch, G, S, S)`, 0 and 1, any dtype: each object's mask in its
            own box.
        truth_boxes: `(batch, G, 4)`, the boxes of the objects.
        regions: `(batch, N, 4)`, in the same frame.
        matched: `(batch, N)`, integers in 0..G - 1: the object of each region.
        size: Bins a side.

    Returns:
        `(batch, N, size, size)`, float32, 0 and 1. All 0 where the object's
        box is empty.

    Example:

    >>> masks = np.ones((1, 1, 4, 4), "uint8")
    >>> targets = mask_targets(
    ...     masks, [[[0, 0, 4, 4]]], [[[2, 0, 6, 4]]], [[0]], size=4
    ... )
    >>> np.array(targets)[0, 0, 0]
    array([1., 1., 0., 0.], dtype=float32)
    """
    matched = ops.cast(matched, "int32")
    masks = ops.cast(ops.convert_to_tensor(masks), "float32")
    batch, count, side = ops.shape(masks)[:3]
    number = ops.shape(matched)[1]
    rows = ops.reshape(masks, (batch, count, side * side))
    masks = ops.reshape(take_rows(rows, matched), (batch, number, side, side))
    truth = take_rows(as_boxes(truth_boxes), matched)
    regions = as_boxes(regions)
    samples = (ops.arange(size * _RATIO, dtype="float32") + 0.5) / _RATIO
    samples = samples / size

    def weights(first):
        start, length = regions[..., first], _length(regions, first)
        positions = start[..., None] + samples * length[..., None]
        each = _weights(positions, truth, first, side)
        each = ops.reshape(each, (batch, number, size, _RATIO, side))
        return ops.mean(each, axis=-2)

    share = _interpolate(masks, weights(1), weights(0))
    return ops.stop_gradient(ops.cast(share >= _INSIDE, "float32"))


def paste_masks(masks, boxes, height, width, threshold=0.5):
    """Puts masks where their boxes are in an image.

    Each pixel takes the value at its centre, 0 outside of the map (detectron2's
    `grid_sample` with zeros and `align_corners=False`). One mask is pasted
    after the other: memory is that of the result, a byte a pixel, and of a few
    maps of the image's size.

    Args:
        masks: `(N, M, M)`, float, each in its box: probabilities.
        boxes: `(N, 4)`, in the frame of the image. Empty ones get empty masks.
        height: Of the image, an integer.
        width: Of the image.
        threshold: Least value of a pixel of the object.

    Returns:
        Boolean, `(N, height, width)`.

    Example:

    >>> pasted = paste_masks(np.ones((1, 28, 28)), [[0, 1, 2, 3]], 3, 3)
    >>> np.array(pasted).astype(int)
    array([[[0, 0, 0],
            [1, 1, 0],
            [1, 1, 0]]])
    """
    masks = ops.cast(ops.convert_to_tensor(masks), "float32")
    boxes = as_boxes(boxes)
    side = ops.shape(masks)[-1]
    if masks.shape[0] == 0:  # PyTorch cannot map over nothing.
        return ops.zeros((0, height, width), "bool")

    def paste(args):
        mask, box = args
        value = _interpolate(
            mask,
            _weights(_centres(height), box, 1, side),
            _weights(_centres(width), box, 0, side),
        )
        return value >= threshold

    return ops.map(paste, (masks, boxes))


def _interpolate(maps, down, across):
    """`(..., rows, columns)` from maps and the weights of both axes."""
    return ops.matmul(ops.matmul(down, maps), ops.swapaxes(across, -1, -2))


def _weights(positions, boxes, first, side):
    """Shares of the cells of a map over a box in positions along one axis.

    Args:
        positions: `(..., P)`, in pixels.
        boxes: `(..., 4)`.
        first: 0 along x, 1 along y.
        side: Cells of the map.

    Returns:
        `(..., P, side)`, 0 where the box is empty.
    """
    length = _length(boxes, first)
    is_real = length > 0
    scale = ops.cast(side, "float32") / ops.where(is_real, length, 1.0)
    start = boxes[..., first, None]
    cells = (positions - start) * scale[..., None] - 0.5
    away = ops.abs(cells[..., None] - ops.arange(side, dtype="float32"))
    weights = ops.relu(1.0 - away)
    return ops.where(is_real[..., None, None], weights, 0.0)


def _length(boxes, first):
    return boxes[..., first + 2] - boxes[..., first]


def _centres(number):
    """Of pixels."""
    return ops.arange(number, dtype="float32") + 0.5
