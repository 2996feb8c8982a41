"""Which boxes stand for which objects, and which of them a loss looks at.

A box that overlaps an object enough is a positive example, one that overlaps
all too little is a negative one, and those between are ignored (Ren et al.
2015, "Faster R-CNN", section 3.1.2). Of these a few are drawn, lest the many
negative ones outweigh the rest.
"""

from typing import Any
from typing import NamedTuple

import keras
from keras import ops

POSITIVE = 1
NEGATIVE = 0
IGNORED = -1


class Sample(NamedTuple):
    """What `sample` draws: `number` slots for each list of boxes.

    Attributes:
        index: int32, `(..., number)`, the box in each slot, once at most;
            0 in slots without one.
        is_live: Boolean, likewise: whether the slot has a box.
        is_positive: Boolean, likewise. Positive boxes are in the first slots.
    """

    index: Any
    is_live: Any
    is_positive: Any


def match(iou, low, high, low_quality, valid):
    """Assigns each box the object that it overlaps most.

    Args:
        iou: `(..., N, G)`, of N boxes with G objects, as `pairwise_iou` gives.
        low: Boxes whose best overlap is below are negative.
        high: Boxes whose best overlap is at least this are positive; those
            between are ignored.
        low_quality: Whether the boxes that overlap an object most, of all
            boxes, are positive too, however little that is, so that no object
            that a box touches goes without. They keep the object that they
            overlap most themselves, as in Detectron. As there, equal are equal
            float32 numbers: of boxes that only differ in their place around a
            small object, another compiler may find some more or some less.
        valid: Boolean, `(..., G)`: the objects that are there. Without any,
            all boxes are negative.

    Returns:
        Two int32 tensors `(..., N)`: the object, the first among equals (0
        where there is none), and the label: 1 positive, 0 negative,
        -1 ignored.

    Raises:
        ValueError: If `low` is above `high`, or if G is 0.

    Example:

    >>> iou = np.array([[0.8, 0.1], [0.5, 0.0], [0.0, 0.2]])
    >>> index, label = match(iou, 0.3, 0.7, False, valid=[True, True])
    >>> np.array(index), np.array(label)
    (array([0, 0, 1], dtype=int32), array([ 1, -1,  0], dtype=int32))
    >>> np.array(match(iou, 0.3, 0.7, True, valid=[True, True])[1])
    array([ 1, -1,  1], dtype=int32)
    """
    if low > high:
        raise ValueError(
            f"`low` must be at most `high`. Received: low={low}, high={high}"
        )
    iou = ops.cast(iou, "float32")
    if iou.shape[-1] == 0:
        raise ValueError(
            "`iou` must have a slot for an object, which need not be valid. "
            f"Received: shape {tuple(iou.shape)}"
        )
    iou = ops.where(ops.convert_to_tensor(valid)[..., None, :], iou, -1.0)
    best = ops.max(iou, axis=-1)
    label = ops.where(best < low, NEGATIVE, IGNORED)
    label = ops.where(best >= high, POSITIVE, label)
    if low_quality:
        most = ops.max(iou, axis=-2, keepdims=True)
        is_most = ops.logical_and(iou == most, most > 0)
        label = ops.where(ops.any(is_most, axis=-1), POSITIVE, label)
    return ops.cast(ops.argmax(iou, axis=-1), "int32"), ops.cast(label, "int32")


def sample(label, number, positive_share, seed):
    """Draws boxes at random, without putting back.

    At most `positive_share` of them are positive; where there are too few of
    those, negative ones take their slots, as in Detectron. Ignored boxes are
    never drawn. Where `number` is no less than the number of boxes, nothing is
    left to chance: all are taken, except positive ones beyond their share.

    Args:
        label: `(..., N)`, as `match` gives: 1 positive, 0 negative, others
            ignored.
        number: Slots for each list of N boxes.
        positive_share: From 0 to 1.
        seed: An integer, which draws the same each time, or a
            `keras.random.SeedGenerator`.

    Returns:
        A `Sample`, whose shapes are known where those of `label` are not.

    Raises:
        ValueError: If `number` is not positive, or the share is no share.

    Example:

    >>> label = np.array([0, 0, 1, -1, 0, 1])
    >>> drawn = sample(label, number=4, positive_share=0.25, seed=0)
    >>> np.array(drawn.is_positive)
    array([ True, False, False, False])
    >>> sorted(label[drawn.index].tolist())
    [0, 0, 0, 1]
    """
    if number < 1 or not 0 <= positive_share <= 1:
        raise ValueError(
            "`number` must be positive and `positive_share` from 0 to 1. "
            f"Received: number={number}, positive_share={positive_share}"
        )
    label = ops.convert_to_tensor(label)
    most = int(number * positive_share)
    order = keras.random.uniform(ops.shape(label), dtype="float32", seed=seed)
    positive, num_positive = _draw(label == POSITIVE, order, most)
    negative, num_negative = _draw(label == NEGATIVE, order, number)
    slot = ops.arange(number, dtype="int32")
    is_positive = slot < num_positive
    is_live = slot < num_positive + num_negative
    # The drawn ones one after the other.
    place = ops.where(is_positive, slot, most + slot - num_positive)
    index = ops.take_along_axis(
        ops.concatenate([positive, negative], axis=-1), place, axis=-1
    )
    return Sample(ops.where(is_live, index, 0), is_live, is_positive)


def _draw(is_candidate, order, number):
    """Up to `number` candidates in front, and how many they are `(..., 1)`."""
    order = ops.where(is_candidate, order, -1.0)
    # There may be fewer boxes than slots.
    leading = ops.shape(is_candidate)[:-1]
    nothing = ops.full((*leading, number), -1.0, dtype="float32")
    order = ops.concatenate([order, nothing], axis=-1)
    values, index = ops.top_k(order, number)
    drawn = ops.cast(values >= 0, "int32")
    return ops.cast(index, "int32"), ops.sum(drawn, axis=-1, keepdims=True)
