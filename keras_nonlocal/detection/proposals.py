"""Region proposals: where an object may be, whatever it is."""

import typing

from keras import KerasTensor
from keras import ops

from keras_nonlocal.detection.boxes import clip
from keras_nonlocal.detection.boxes import decode
from keras_nonlocal.detection.gather import best
from keras_nonlocal.detection.gather import take_rows
from keras_nonlocal.detection.nms import nms


class Proposals(typing.NamedTuple):
    """Boxes of a batch, the most probable of an image first.

    Attributes:
        boxes: `(B, P, 4)`, float32; zeros in slots without a proposal.
        valid: `(B, P)`, boolean: which slots have one.
        scores: `(B, P)`, float32 logits; minus infinity in the others.
    """

    boxes: KerasTensor
    valid: KerasTensor
    scores: KerasTensor


def propose(logits, deltas, anchors, sizes, v, training):
    """The proposals of a region proposal network.

    Of every level the anchors with the highest logits become boxes, which are
    clipped to their image and lose those that overlap a better one of their
    level; then the best of all levels remain. No gradient passes.

    Args:
        logits: Of an object at every anchor, `(B, A_l)` for each level.
        deltas: Of its box, `(B, A_l, 4)` for each level.
        anchors: Boxes, `(A_l, 4)` for each level.
        sizes: Height and width of every image without padding, `(B, 2)`.
        v: A `DetectorVariant`: `pre_nms` boxes of a level and `post_nms` of an
            image, `rpn_nms`, `rpn_min_size`, `box_offset`.
        training: Whether the numbers for training or those for testing hold.

    Returns:
        `Proposals` with `post_nms` slots, fewer if there are not as many
        anchors. What is not finite is never proposed.

    Source: "Faster R-CNN" (Ren et al., NeurIPS 2015), section 3.1; with a
    pyramid, "Feature Pyramid Networks for Object Detection" (Lin et al., CVPR
    2017), section 4.1.
    """
    mode = 0 if training else 1
    number = _boxes_of_level(logits, v.pre_nms[mode])
    levels = [
        _best_of_level(*level, number)
        for level in zip(logits, deltas, anchors, strict=True)
    ]
    # (B, levels, number, ...)
    scores, deltas, anchors = (
        ops.stop_gradient(ops.stack(values, axis=1))
        for values in zip(*levels, strict=True)
    )
    boxes, valid = decode_in_images(
        deltas,
        anchors,
        sizes[:, None],
        smallest=v.rpn_min_size,
        offset=v.box_offset,
    )
    valid = valid & ops.isfinite(scores)
    keep = nms(boxes, v.rpn_nms, valid=valid, offset=v.box_offset)
    scores = ops.where(keep, scores, float("-inf"))
    slots = len(levels) * number
    scores, index = best(
        ops.reshape(scores, (-1, slots)), min(slots, v.post_nms[mode])
    )
    valid = scores > float("-inf")
    boxes = take_rows(ops.reshape(boxes, (-1, slots, 4)), index)
    return Proposals(ops.where(valid[..., None], boxes, 0.0), valid, scores)


def decode_in_images(
    deltas, source, sizes, smallest, weights=(1.0, 1.0, 1.0, 1.0), offset=0.0
):
    """Moves boxes by deltas and clips them to their images.

    Args:
        deltas: `(..., N, 4)`.
        source: `(..., N, 4)`.
        sizes: Height and width of every image, `(..., 2)`.
        smallest: Boxes that are not wider and higher than this are not valid,
            nor are those that are not finite before they are clipped.
        weights: As of `decode`.
        offset: As of `decode`.

    Returns:
        The boxes, `(..., N, 4)`, zeros in place of those that are not valid,
        and which are valid, `(..., N)`, boolean.
    """
    boxes = decode(deltas, source, weights, offset)
    is_finite = ops.all(ops.isfinite(boxes), axis=-1)
    boxes = clip(boxes, sizes, offset)
    sides = boxes[..., 2:] - boxes[..., :2] + offset
    valid = is_finite & ops.all(sides > smallest, axis=-1)
    return ops.where(valid[..., None], boxes, 0.0), valid


def _boxes_of_level(logits, number):
    """`number`, or the anchors of the largest level if these are fewer."""
    sizes = [level.shape[-1] for level in logits]
    return number if None in sizes else min(number, max(sizes))


def _best_of_level(logits, deltas, anchors, number):
    """Scores, deltas and anchors of the highest `number` logits.

    A level with fewer anchors, or with an unknown number of them, is filled up
    with logits that cannot win.
    """
    logits = ops.cast(logits, "float32")
    anchors = ops.convert_to_tensor(anchors)
    size = logits.shape[-1]
    if size is None or size < number:
        spare = ((0, 0), (0, number))
        logits = ops.pad(logits, spare, constant_values=float("-inf"))
    scores, index = best(logits, number)
    index = ops.minimum(index, ops.shape(anchors)[0] - 1)
    return scores, take_rows(deltas, index), ops.take(anchors, index, axis=0)
