"""RoIAlign on the levels of a feature pyramid.

A region is cut into size x size bins. The value of a bin is the mean of a grid
of samples in it, each interpolated bilinearly between the four cells around it
(He et al. 2017, "Mask R-CNN", section 3). So it is a weighted sum of cells, and
the weight of a cell is one of its row times one of its column: a *tap*. Where
samples are no further apart than cells they share them, and r samples a side
need r + 1 taps instead of 2 r.

All regions take their first few taps at a time, then their next few, until the
region that needs most of them has had all.
"""

import functools
import math
from typing import Any
from typing import NamedTuple

from keras import backend
from keras import ops

from keras_nonlocal.detection.boxes import area
from keras_nonlocal.detection.boxes import as_boxes

LEVEL_RULES = ("scale", "level")
# The side of the object that ImageNet's networks were trained on, and the
# level that takes it (Lin et al. 2017, "Feature Pyramid Networks", equation 1).
_SIDE = 224.0
_LEVEL_OF_SIDE = 4
# Taps at a time: each takes as much memory as the result. The gradient adds
# them to a map as large as the pyramid, which pays for more at a time.
_TAPS, _GRADIENT_TAPS = 4, 8


def assign_levels(
    boxes, lowest=2, highest=5, epsilon=1e-8, rule="scale", offset=0.0
):
    """The level of the feature pyramid that each region is looked up on.

    floor(4 + log2(side / 224)), side being the square root of the area, within
    lowest..highest (Lin et al. 2017, equation 1). No logarithm is taken, so a
    side of 112 is on level 3 however a compiler rounds.

    Args:
        boxes: `(..., 4)`.
        lowest: Level of the finest map, whose cells are 2 ** lowest pixels.
        highest: Level of the coarsest map.
        epsilon: Lifts sides that are just below a limit.
        rule: What it is added to: "scale", side / 224 (Detectron and
            detectron2), or "level", the level itself (torchvision).
        offset: Added to each side: 1.0 for boxes of Detectron.

    Returns:
        int32, `(...)`.

    Raises:
        ValueError: If the rule is unknown.

    Example:

    >>> np.array(assign_levels([[0, 0, 112, 112], [0, 0, 111.9, 112]]))
    array([3, 2], dtype=int32)
    """
    if rule not in LEVEL_RULES:
        raise ValueError(
            f"`rule` must be one of {LEVEL_RULES}. Received: rule={rule!r}"
        )
    scale = ops.sqrt(area(boxes, offset)) / _SIDE
    lift = 0.0
    if rule == "scale":
        scale = scale + epsilon
    else:
        lift = epsilon
    limits = [
        2.0 ** (level - _LEVEL_OF_SIDE - lift)
        for level in range(lowest + 1, highest + 1)
    ]
    passed = scale[..., None] >= ops.convert_to_tensor(limits, "float32")
    return lowest + ops.sum(ops.cast(passed, "int32"), axis=-1)


def roi_align(
    features,
    strides,
    boxes,
    size,
    sampling_ratio=2,
    aligned=True,
    levels=None,
    max_ratio=16,
):
    """Features of regions, each from its level of a feature pyramid.

    Sizes may be unknown in graphs. Positions and sums are float32 (float64 for
    float64 features). The gradient is that of the features; none goes to the
    boxes. Memory is a few times that of the result and, in training, of the
    pyramid, whatever the ratio.

    A sample up to one cell outside of its map takes the value at the border;
    beyond, it is 0.

    Args:
        features: The maps, a sequence of `(batch, height, width, channels)`.
        strides: Pixels from cell to cell, for each map.
        boxes: `(batch, N, 4)`, pixels of the images.
        size: Bins a side of a region.
        sampling_ratio: Samples a side of a bin. 0 is as many as the bin has
            cells, rounded up: none if the region is empty.
        aligned: Whether the centre of cell 0 is at half a cell (detectron2).
            If not it is at 0, half a cell off, and a region is at least one
            cell wide and high (the original code).
        levels: `(batch, N)`, integers, 0 for the first of `features`: which
            map each region is looked up on. With one map it can be left out.
        max_ratio: Of a sampling ratio of 0, most samples a side of a bin.
            Only a region of more than `max_ratio * size` cells on its own
            level has fewer than it asks for. Time goes by what the largest
            region needs, not by this bound.

    Returns:
        `(batch, N, size, size, channels)`, in the dtype of the features.

    Raises:
        ValueError: If maps, strides and levels do not fit together, or a
            number is out of its range.

    Example:

    >>> x = np.arange(25, dtype="float32").reshape(1, 5, 5, 1)
    >>> np.array(roi_align([x], [1], [[[1, 1, 3, 3]]], size=2))[0, 0, ..., 0]
    array([[ 6.,  7.],
           [11., 12.]], dtype=float32)
    """
    _check(features, strides, size, sampling_ratio, levels, max_ratio)
    features = [ops.convert_to_tensor(x) for x in features]
    boxes = ops.stop_gradient(as_boxes(boxes))
    rows, maps = _lay_out(features, strides, boxes, levels)
    vertical, horizontal = (
        _find_taps(
            boxes[..., first],
            boxes[..., first + 2],
            maps.strides,
            extent,
            size,
            sampling_ratio,
            aligned,
            max_ratio,
        )
        for first, extent in ((1, maps.heights), (0, maps.widths))
    )
    y = _weighted_sums(rows, maps, vertical, horizontal)
    return ops.cast(y, features[0].dtype)


class _Maps(NamedTuple):
    """Of the map of each region, `(batch, N)`: where, how large, how coarse."""

    starts: Any
    heights: Any
    widths: Any
    strides: Any


class _Taps(NamedTuple):
    """Along one axis: cells and weights `(batch, N, size, most)`.

    `number` `(batch, N)` is how many of them each region has.
    """

    cells: Any
    weights: Any
    number: Any


def _lay_out(features, strides, boxes, levels):
    """All maps as rows of channels, and which of them are each region's."""
    shapes = [ops.shape(x) for x in features]
    batch, channels = shapes[0][0], features[0].shape[-1]
    cells = [shape[1] * shape[2] for shape in shapes]
    rows = ops.concatenate(
        [
            ops.reshape(x, (batch, number, channels))
            for x, number in zip(features, cells, strict=True)
        ],
        axis=1,
    )
    count = sum(cells)
    number = ops.shape(boxes)[1]
    if levels is None:
        levels = ops.zeros((batch, number), "int32")
    levels = ops.cast(levels, "int32")

    def of_regions(numbers, dtype="int32"):
        """The number of each region's level, one being given for each."""
        numbers = [ops.cast(x, dtype) for x in numbers]
        return ops.take(ops.stack(numbers), levels, axis=0)

    starts = of_regions([sum(cells[:i]) for i in range(len(cells))])
    starts = starts + count * ops.arange(batch, dtype="int32")[:, None]
    return ops.reshape(rows, (batch * count, channels)), _Maps(
        starts,
        of_regions([shape[1] for shape in shapes]),
        of_regions([shape[2] for shape in shapes]),
        of_regions(strides, "float32"),
    )


def _find_taps(
    first, last, strides, extent, size, sampling_ratio, aligned, max_ratio
):
    """The taps of regions from `first` to `last`, `(batch, N)`, in pixels."""
    samples, ratio, gap = _place_samples(
        first / strides,
        (last - first) / strides,
        size,
        sampling_ratio,
        aligned,
        max_ratio,
    )
    end = ops.cast(extent, "float32")[..., None, None]
    is_live = ops.logical_and(samples >= -1.0, samples <= end)
    index = _range(samples.shape[-1])
    is_live = ops.logical_and(is_live, index < ratio[..., None, None])
    share = ops.cast(is_live, "float32")
    share = share / ops.maximum(ratio, 1.0)[..., None, None]
    # What is not a number has no share, but a position.
    samples = ops.clip(ops.where(is_live, samples, 0.0), 0.0, end - 1.0)
    is_dense = ops.logical_and(gap >= 0.0, gap <= 1.0)
    cells, weights = (
        ops.where(is_dense[..., None, None], dense, sparse)
        for dense, sparse in zip(
            _dense_taps(samples, share),
            _sparse_taps(samples, share),
            strict=True,
        )
    )
    cells = ops.minimum(ops.cast(cells, "int32"), extent[..., None, None] - 1)
    number = ops.where(is_dense, ratio + 1.0, 2.0 * ratio)
    return _Taps(cells, weights, ops.maximum(ops.cast(number, "int32"), 1))


def _place_samples(start, length, size, sampling_ratio, aligned, max_ratio):
    """Where the samples of all bins are, in cells, `(batch, N, size, most)`.

    Also how many of them a side of each region's bins has, and the gap between
    two, `(batch, N)`.
    """
    if aligned:
        start = start - 0.5
    else:
        length = ops.maximum(length, 1.0)
    bin_length = length / size
    most = sampling_ratio or max_ratio
    if sampling_ratio:
        ratio = ops.full_like(bin_length, most)
    else:
        ratio = ops.clip(ops.ceil(bin_length), 0.0, most)
        # There is none of what is not a number.
        ratio = ops.where(bin_length < math.inf, ratio, 0.0)
    gap = bin_length / ops.maximum(ratio, 1.0)
    samples = (
        start[..., None, None]
        + _range(size)[:, None] * bin_length[..., None, None]
        + (_range(most) + 0.5) * gap[..., None, None]
    )
    return samples, ratio, gap


def _sparse_taps(samples, share):
    """The cells on both sides of every sample, `(..., 2 * most)`."""
    low = ops.floor(samples)
    part = samples - low
    cells = ops.stack([low, low + 1.0], axis=-1)
    weights = ops.stack([(1.0 - part) * share, part * share], axis=-1)
    shape = (*ops.shape(samples)[:-1], 2 * samples.shape[-1])
    return ops.reshape(cells, shape), ops.reshape(weights, shape)


def _dense_taps(samples, share):
    """The cells from the first sample on, one after the other, as many.

    They are all that samples which are no further apart than cells touch; the
    last ones of `(..., 2 * most)` are of no weight.
    """
    most = samples.shape[-1]
    cells = ops.floor(samples[..., :1]) + _range(2 * most)
    touched = cells[..., : most + 1]
    away = ops.abs(samples[..., :, None] - touched[..., None, :])
    weights = ops.sum(share[..., None] * ops.relu(1.0 - away), axis=-2)
    missing = [(0, 0)] * (len(weights.shape) - 1) + [(0, most - 1)]
    return cells, ops.pad(weights, missing)


def _weighted_sums(rows, maps, vertical, horizontal):
    """The weighted sum of the cells of every bin, float32 or float64.

    Of the forward pass the gradient keeps no more than the taps.
    """
    dtype = backend.result_type(rows.dtype, "float32")
    channels = rows.shape[-1]
    find = functools.partial(_pick_taps, maps, vertical, horizontal)
    taps = ops.max(vertical.number * horizontal.number, initial=0)

    @ops.custom_gradient
    def sums(rows):
        def forward(step, total):
            row, weight = find(step, _TAPS)
            cells = ops.cast(ops.take(rows, row, axis=0), dtype)
            cells = cells * ops.cast(weight, dtype)[..., None]
            return step + _TAPS, total + ops.sum(cells, axis=-2)

        batch, number, size, _ = ops.shape(vertical.cells)
        zeros = ops.zeros((batch, number, size, size, channels), dtype)
        y = _loop(forward, taps, zeros)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            dy = dy[..., None, :]

            def backward(step, total):
                row, weight = find(step, _GRADIENT_TAPS)
                change = dy * ops.cast(weight, dtype)[..., None]
                added = ops.segment_sum(
                    ops.reshape(change, (-1, channels)),
                    ops.reshape(row, (-1,)),
                    ops.shape(rows)[0],
                )
                return step + _GRADIENT_TAPS, total + added

            zeros = ops.zeros(ops.shape(rows), dtype)
            return ops.cast(_loop(backward, taps, zeros), rows.dtype)

        return y, gradient

    return sums(rows)


def _pick_taps(maps, vertical, horizontal, step, count):
    """Rows and weights of `count` taps, `(batch, N, size, size, count)`.

    Weights of taps that a region has not are 0.
    """
    step = step + ops.arange(count, dtype="int32")
    down = step // horizontal.number[..., None]
    across = step % horizontal.number[..., None]
    is_there = down < vertical.number[..., None]
    down = ops.where(is_there, down, 0)

    def pick(x, index):
        return ops.take_along_axis(x, index[:, :, None], axis=-1)

    y = pick(vertical.cells, down) * maps.widths[..., None, None]
    y = y + maps.starts[..., None, None]
    x = pick(horizontal.cells, across)
    of_y = pick(vertical.weights, down)
    of_y = of_y * ops.cast(is_there, "float32")[:, :, None]
    of_x = pick(horizontal.weights, across)
    return (
        y[:, :, :, None] + x[:, :, None],
        of_y[:, :, :, None] * of_x[:, :, None],
    )


def _loop(body, taps, total):
    """Runs `body` from (step, total) to the next ones until no tap is left."""

    def run(step, total):
        step, total = body(step, total)
        # 0, but known only with the total: else TensorFlow gathers the cells
        # of up to ten steps at once, and holds them.
        first = ops.reshape(total, (-1,))[:1]
        wait = ops.minimum(ops.cast(ops.any(ops.isnan(first)), "int32"), 0)
        return step + wait, total

    _, total = ops.while_loop(
        lambda step, _: step < taps, run, (ops.zeros((), "int32"), total)
    )
    return total


def _range(number):
    return ops.arange(number, dtype="float32")


def _check(features, strides, size, sampling_ratio, levels, max_ratio):
    if not features or len(features) != len(strides):
        raise ValueError(
            "`features` must be at least one map and `strides` a number for "
            f"each. Received: {len(features)} maps, strides={strides}"
        )
    if levels is None and len(features) > 1:
        raise ValueError(
            "`levels` must tell the map of each region if there are several. "
            f"Received: levels=None, {len(features)} maps"
        )
    for name, value, least in (
        ("size", size, 1),
        ("sampling_ratio", sampling_ratio, 0),
        ("max_ratio", max_ratio, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"`{name}` must be an integer of at least {least}. "
                f"Received: {name}={value!r}"
            )
