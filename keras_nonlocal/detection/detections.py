"""From the outputs of the heads to the objects of an image."""

from keras import ops

from keras_nonlocal.detection.gather import best
from keras_nonlocal.detection.gather import take_rows
from keras_nonlocal.detection.losses import maps_of_class
from keras_nonlocal.detection.nms import nms
from keras_nonlocal.detection.proposals import decode_in_images
from keras_nonlocal.detection.targets import BOX_WEIGHTS


def detect(logits, deltas, proposals, sizes, v):
    """The objects that the box head finds.

    Every proposal is an object of every class whose probability exceeds
    `v.score_threshold`; of those of one class that overlap the most probable
    one remains.

    Args:
        logits: Of the classes, the background last, `(B, P, K + 1)`.
        deltas: Of the box for every class, `(B, P, 4 * K)`.
        proposals: `Proposals`.
        sizes: Height and width of every image without padding, `(B, 2)`.
        v: A `DetectorVariant`: `score_threshold`, `nms`, `max_detections`,
            `max_candidates` (before the suppression), `min_detection_size`,
            `box_offset`.

    Returns:
        A dict, the most probable objects first: `"boxes"`
        `(B, D, 4)` float32, clipped to the image, `"scores"` `(B, D)` float32,
        `"classes"` `(B, D)` int32 and `"num_detections"` `(B,)` int32, with D
        `v.max_detections`. Slots without an object are 0, their class is -1.

    Source: "Mask R-CNN" (He et al., ICCV 2017), section 3.1.
    """
    scores, index = _candidates(logits, proposals.valid, v)
    number = logits.shape[-1] - 1
    classes = index % number
    boxes, valid = decode_in_images(
        _rows_of_four(deltas, index),
        take_rows(proposals.boxes, index // number),
        sizes,
        smallest=v.min_detection_size,
        weights=BOX_WEIGHTS,
        offset=v.box_offset,
    )
    valid = valid & (scores > v.score_threshold)
    keep = nms(boxes, v.nms, valid=valid, groups=classes, offset=v.box_offset)
    return _first(boxes, scores, classes, keep, v.max_detections)


def select_masks(logits, classes):
    """The masks of the detections, of the maps of all classes.

    Args:
        logits: `(B, D, M, M, K)`.
        classes: `(B, D)`, int32, -1 in slots without an object.

    Returns:
        Probabilities `(B, D, M, M)`, float32; 0 in slots without an object.
    """
    masks = ops.sigmoid(maps_of_class(logits, classes))
    return ops.where(classes[..., None, None] >= 0, masks, 0.0)


def _candidates(logits, valid, v):
    """The most probable pairs of a proposal and a class.

    Returns:
        Their scores and positions among all pairs, `(B, C)`, as many as
        `v.max_candidates` or as there are pairs.
    """
    scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., :-1]
    scores = ops.where(valid[..., None], scores, float("-inf"))
    pairs = scores.shape[1] * scores.shape[2]
    scores = ops.reshape(scores, (-1, pairs))
    return best(scores, min(pairs, v.max_candidates))


def _rows_of_four(deltas, index):
    pairs = deltas.shape[1] * deltas.shape[2] // 4
    return take_rows(ops.reshape(deltas, (-1, pairs, 4)), index)


def _first(boxes, scores, classes, keep, number):
    """The first `number` kept ones; slots filled up with none."""
    spare = max(0, number - keep.shape[1])
    scores = ops.where(keep, scores, float("-inf"))
    scores = ops.pad(
        scores, ((0, 0), (0, spare)), constant_values=float("-inf")
    )
    boxes = ops.pad(boxes, ((0, 0), (0, spare), (0, 0)))
    classes = ops.pad(classes, ((0, 0), (0, spare)))
    scores, index = best(scores, number)
    found = scores > float("-inf")
    classes = ops.take_along_axis(classes, index, axis=1)
    return {
        "boxes": ops.where(found[..., None], take_rows(boxes, index), 0.0),
        "scores": ops.where(found, scores, 0.0),
        "classes": ops.where(found, ops.cast(classes, "int32"), -1),
        "num_detections": ops.sum(ops.cast(found, "int32"), axis=1),
    }
