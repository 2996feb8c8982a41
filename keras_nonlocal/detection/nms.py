"""Greedy non-maximum suppression, exact, with static shapes.

Boxes are looked at in blocks: those of a block that no box kept earlier
suppresses are settled among themselves, as a fixed point of

    keep_i = candidate_i and no j < i with keep_j and IoU_ij > threshold.

What is kept of the best boxes depends on nothing else, so each repetition
settles at least one more box; the fixed point is what the greedy loop gives.
"""

import functools
import operator

from keras import ops

from keras_nonlocal.detection.boxes import as_boxes
from keras_nonlocal.detection.boxes import pairwise_iou

# Boxes of a block. All pairs of 2000 boxes on 5 levels would take 80 MB for
# each number of a pair; those of a block with all take an eighth.
_BLOCK = 256


def nms(boxes, threshold, valid=None, groups=None, offset=0.0):
    """Greedy non-maximum suppression: which boxes to keep.

    The best box is kept, those that overlap it by more than the threshold are
    dropped, and so on with the best that is left. Eager mode, graphs of unknown
    sizes and XLA give the same, but for overlaps that differ from the threshold
    by no more than rounding errors.

    It takes one pass over the pairs of boxes, some of them at a time: N^2 time,
    256 N memory for each list of boxes. Blocks after the last valid box cost
    nothing: put those that do not count at the end.

    Args:
        boxes: `(..., N, 4)`, by falling score. Each list of N boxes is treated
            for itself. Boxes that are not finite are dropped and drop none.
        threshold: Intersection over union above which a box is dropped.
        valid: Boolean, `(..., N)`: boxes that count at all. By default all.
        groups: Integers, `(..., N)`: classes or pyramid levels. Boxes of
            different groups do not drop each other.
        offset: Added to each side: 1.0 for boxes of Detectron.

    Returns:
        Boolean, `(..., N)`: the boxes that are kept.

    Raises:
        ValueError: If `boxes` does not have four numbers in the last of at
            least two axes, or if `valid` or `groups` has other axes.

    Example:

    >>> boxes = [[0, 0, 10, 10], [0, 1, 10, 10], [20, 0, 30, 10]]
    >>> np.array(nms(boxes, threshold=0.5))
    array([ True, False,  True])
    >>> np.array(nms(boxes, threshold=0.5, groups=[0, 1, 0]))
    array([ True,  True,  True])
    """
    boxes = ops.stop_gradient(as_boxes(boxes, rank=2))
    candidate = ops.all(ops.isfinite(boxes), axis=-1)
    if valid is not None:
        valid = _like(boxes, valid, "valid")
        candidate = ops.logical_and(candidate, valid)
    described = [boxes]
    if groups is not None:
        described.append(_like(boxes, groups, "groups"))
    rank = len(candidate.shape)
    keep = _keep_blocks(
        _split(candidate, rank),
        [_split(x, rank) for x in described],
        functools.partial(_overlap, threshold=threshold, offset=offset),
    )
    lists, blocks, size = ops.shape(keep)
    shape = ops.shape(candidate)
    keep = ops.reshape(keep, (lists, blocks * size))[:, : shape[-1]]
    return ops.reshape(keep, shape)


def _like(boxes, x, name):
    """`x` as a tensor, whose shape is that of `boxes` without the last axis."""
    x = ops.convert_to_tensor(x)
    wanted, found = tuple(boxes.shape)[:-1], tuple(x.shape)
    is_right = len(wanted) == len(found) and all(
        a == b or None in (a, b) for a, b in zip(wanted, found, strict=True)
    )
    if not is_right:
        raise ValueError(
            f"`{name}` must have one value for each box, shape {wanted}. "
            f"Received: shape {found}"
        )
    return x


def _split(x, rank):
    """Blocks `(lists, blocks, size, ...)` of what is `(..., N, ...)`.

    N is the last of `rank` dimensions. Zeros fill the last block.
    """
    *leading, count = ops.shape(x)[:rank]
    width = x.shape[rank:]
    lists = functools.reduce(operator.mul, leading, 1)
    if isinstance(count, int):
        # At least one block of one box: JAX takes nothing from no blocks.
        size = max(1, min(count, _BLOCK))
        blocks = max(1, -(-count // size))
    else:
        size = _BLOCK
        blocks = -(-count // size)
    x = ops.reshape(x, (lists, count, *width))
    zeros = ops.zeros((lists, blocks * size - count, *width), x.dtype)
    x = ops.concatenate([x, zeros], axis=1)
    return ops.reshape(x, (lists, blocks, size, *width))


def _overlap(boxes, others, threshold, offset):
    """Pairs `(lists, n, m)` of which one box drops the other.

    Args:
        boxes: A list of boxes `(lists, n, 4)` and, if there are groups, these,
            `(lists, n)`.
        others: Likewise, `(lists, m, 4)` and `(lists, m)`.
        threshold: As given to `nms`.
        offset: As given to `nms`.
    """
    pairs = pairwise_iou(boxes[0], others[0], offset) > threshold
    for mine, theirs in zip(boxes[1:], others[1:], strict=True):
        is_same = mine[:, :, None] == theirs[:, None]
        pairs = ops.logical_and(pairs, is_same)
    return pairs


def _keep_blocks(candidate, described, overlap):
    """Which boxes to keep, `(lists, blocks, size)`, block by block.

    Args:
        candidate: `(lists, blocks, size)`, boolean.
        described: A list of boxes `(lists, blocks, size, 4)` and, if there are
            groups, these, `(lists, blocks, size)`.
        overlap: From two such lists without blocks to pairs, as `_overlap`.
    """
    lists, blocks, size = ops.shape(candidate)
    flat = lists, blocks * size
    number = ops.arange(blocks, dtype="int32")
    place = ops.arange(size, dtype="int32")
    is_before = place[:, None] > place
    # Overlaps nothing, whatever the offset.
    no_box = ops.convert_to_tensor([0.0, 0.0, -1.0, -1.0], "float32")
    boxes, *groups = described

    def step(i, keep):
        block = [ops.take(x, i, axis=1) for x in described]
        # In place of a mask of pairs; and it makes a graph wait for `keep`
        # rather than start on the pairs of ten blocks at once.
        kept = ops.where(keep[..., None], boxes, no_box)
        kept = [ops.reshape(kept, (*flat, 4))]
        kept += [ops.reshape(x, flat) for x in groups]
        is_dropped = ops.any(overlap(block, kept), axis=-1)
        left = ops.logical_and(
            ops.take(candidate, i, axis=1), ops.logical_not(is_dropped)
        )
        drops = ops.logical_and(overlap(block, block), is_before)
        settled = _settle(left, drops)
        is_now = (number == i)[:, None]
        return i + 1, ops.where(is_now, settled[:, None], keep)

    is_used = ops.any(candidate, axis=(0, 2))
    num_used = ops.max(ops.where(is_used, number + 1, 0), initial=0)
    start = ops.zeros((), "int32"), ops.zeros_like(candidate)
    return ops.while_loop(lambda i, _: i < num_used, step, start)[1]


def _settle(candidate, drops):
    """The greedy choice among candidates.

    Args:
        candidate: `(lists, n)`, boolean.
        drops: `(lists, n, n)`, whether box i is dropped if box j is kept, for
            j < i only.
    """

    def step(keep, _):
        dropped = ops.any(ops.logical_and(drops, keep[:, None]), axis=-1)
        new = ops.logical_and(candidate, ops.logical_not(dropped))
        return new, ops.any(new != keep)

    start = candidate, ops.any(candidate)
    return ops.while_loop(lambda _, changed: changed, step, start)[0]
