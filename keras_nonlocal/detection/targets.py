"""What the heads of a Mask R-CNN are to learn from an image."""

import typing

from keras import KerasTensor
from keras import ops

from keras_nonlocal.detection.boxes import encode
from keras_nonlocal.detection.boxes import pairwise_iou
from keras_nonlocal.detection.gather import take_rows
from keras_nonlocal.detection.matching import match
from keras_nonlocal.detection.matching import sample

# Of dx, dy, dw and dh of a region's box: about one over their deviations.
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class RpnTargets(typing.NamedTuple):
    """The anchors of a batch which the loss of the proposals looks at.

    Positive ones are first.

    Attributes:
        index: `(B, S)`, int32: their positions among all anchors.
        deltas: `(B, S, 4)`, float32: from the anchor to its object.
        is_live: `(B, S)`, boolean: whether the slot is used.
        is_positive: `(B, S)`, boolean: whether the anchor has an object.
    """

    index: KerasTensor
    deltas: KerasTensor
    is_live: KerasTensor
    is_positive: KerasTensor


class Regions(typing.NamedTuple):
    """The regions of a batch which the losses of the heads look at.

    Those with an object are first.

    Attributes:
        boxes: `(B, S, 4)`, float32.
        classes: `(B, S)`, int32; the number of classes is the background.
        matched: `(B, S)`, int32: the slot of the object.
        deltas: `(B, S, 4)`, float32: from the region to its object, times
            `BOX_WEIGHTS`.
        is_live: `(B, S)`, boolean: whether the slot is used.
        is_positive: `(B, S)`, boolean: whether the region has an object.
    """

    boxes: KerasTensor
    classes: KerasTensor
    matched: KerasTensor
    deltas: KerasTensor
    is_live: KerasTensor
    is_positive: KerasTensor


def rpn_targets(anchors, truth_boxes, truth_valid, sizes, v, seed):
    """Draws anchors, and says which of them have an object and where.

    An anchor has one from an IoU of `v.rpn_high` on, or as the best anchor of
    an object; it has none below `v.rpn_low`; others are left out.

    Args:
        anchors: `(A, 4)`, of all levels.
        truth_boxes: Objects, `(B, G, 4)`, G at least 1.
        truth_valid: `(B, G)`, boolean: which slots have an object.
        sizes: Height and width of every image without padding, `(B, 2)`.
        v: A `DetectorVariant`: `rpn_low`, `rpn_high`, `rpn_samples`,
            `rpn_positive_share`, `inside_only`, `box_offset`.
        seed: Of the draw: an integer or a `keras.random.SeedGenerator`.

    Returns:
        `RpnTargets` with `v.rpn_samples` slots.

    Source: "Faster R-CNN" (Ren et al., NeurIPS 2015), section 3.1.2.
    """
    anchors = ops.convert_to_tensor(anchors)[None]
    iou = pairwise_iou(anchors, truth_boxes, offset=v.box_offset)
    if v.inside_only:
        inside = _inside(anchors, sizes, v.box_offset)
        # Nor are they the best of an object.
        iou = ops.where(inside[..., None], iou, 0.0)
    index, label = match(iou, v.rpn_low, v.rpn_high, True, truth_valid)
    if v.inside_only:
        label = ops.where(inside, label, -1)
    drawn = sample(label, v.rpn_samples, v.rpn_positive_share, seed)
    matched = ops.take_along_axis(index, drawn.index, axis=1)
    deltas = encode(
        ops.take(anchors[0], drawn.index, axis=0),
        take_rows(truth_boxes, matched),
        offset=v.box_offset,
    )
    deltas = ops.where(drawn.is_positive[..., None], deltas, 0.0)
    return RpnTargets(
        drawn.index,
        ops.stop_gradient(deltas),
        drawn.is_live,
        drawn.is_positive,
    )


def region_targets(proposals, truth_boxes, truth_classes, v, seed):
    """Draws regions for the heads, and says what they show.

    The objects themselves are among the proposals, so that there are regions
    with objects from the first step on. A region has the object with which it
    has the highest IoU if that is `v.region_threshold` or more.

    Args:
        proposals: `Proposals`.
        truth_boxes: Objects, `(B, G, 4)`, G at least 1.
        truth_classes: `(B, G)`, int32; -1 in slots without an object.
        v: A `DetectorVariant`: `region_threshold`, `region_samples`,
            `region_positive_share`, `classes`, `box_offset`.
        seed: Of the draw: an integer or a `keras.random.SeedGenerator`.

    Returns:
        `Regions` with `v.region_samples` slots.

    Source: "Fast R-CNN" (Girshick, ICCV 2015), section 2.3.
    """
    truth_valid = truth_classes >= 0
    boxes = ops.concatenate([proposals.boxes, truth_boxes], axis=1)
    valid = ops.concatenate([proposals.valid, truth_valid], axis=1)
    iou = pairwise_iou(boxes, truth_boxes, offset=v.box_offset)
    threshold = v.region_threshold
    index, label = match(iou, threshold, threshold, False, truth_valid)
    drawn = sample(
        ops.where(valid, label, -1),
        v.region_samples,
        v.region_positive_share,
        seed,
    )
    boxes = take_rows(boxes, drawn.index)
    boxes = ops.where(drawn.is_live[..., None], boxes, 0.0)
    matched = ops.take_along_axis(index, drawn.index, axis=1)
    classes = ops.take_along_axis(truth_classes, matched, axis=1)
    classes = ops.cast(classes, "int32")
    deltas = encode(
        boxes, take_rows(truth_boxes, matched), BOX_WEIGHTS, v.box_offset
    )
    deltas = ops.where(drawn.is_positive[..., None], deltas, 0.0)
    return Regions(
        ops.stop_gradient(boxes),
        ops.where(drawn.is_positive, classes, v.classes),
        matched,
        ops.stop_gradient(deltas),
        drawn.is_live,
        drawn.is_positive,
    )


def mask_slots(v):
    """How many of the regions, the first ones, can have an object.

    Only these go through the mask head in training.
    """
    return int(v.region_samples * v.region_positive_share)


def _inside(boxes, sizes, offset):
    """Which boxes `(1, A, 4)` lie within their image, `(B, A)`."""
    sizes = ops.cast(sizes, boxes.dtype)
    height, width = sizes[:, :1], sizes[:, 1:]
    return (
        (ops.min(boxes[..., :2], axis=-1) >= 0.0)
        & (boxes[..., 2] + offset <= width)
        & (boxes[..., 3] + offset <= height)
    )
