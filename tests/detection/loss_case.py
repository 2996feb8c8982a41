"""Outputs of heads and targets for four images of different difficulty."""

import numpy as np
from keras import ops

from keras_nonlocal.detection.losses import box_losses
from keras_nonlocal.detection.losses import mask_loss
from keras_nonlocal.detection.losses import rpn_losses
from keras_nonlocal.detection.targets import Regions
from keras_nonlocal.detection.targets import RpnTargets

IMAGES, ANCHORS, SLOTS, CLASSES, SIDE = 4, 20, 6, 3, 4
# Sampled and positive slots of each image; the last has no object.
LIVE, POSITIVE = (6, 4, 5, 3), (3, 1, 2, 0)


def make():
    """Outputs by name, `RpnTargets`, `Regions` and masks, numpy arrays."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype("float32")

    heads = {
        "rpn_logits": normal(IMAGES, ANCHORS),
        "rpn_deltas": normal(IMAGES, ANCHORS, 4),
        "logits": normal(IMAGES, SLOTS, CLASSES + 1),
        "deltas": normal(IMAGES, SLOTS, 4 * CLASSES),
        "masks": normal(IMAGES, SLOTS, SIDE, SIDE, CLASSES),
    }
    slot = np.arange(SLOTS)
    live = slot < np.array(LIVE)[:, None]
    positive = slot < np.array(POSITIVE)[:, None]
    index = [rng.permutation(ANCHORS)[:SLOTS] for _ in range(IMAGES)]
    classes = rng.integers(0, CLASSES, (IMAGES, SLOTS))
    targets = RpnTargets(
        np.array(index, "int32"), normal(IMAGES, SLOTS, 4), live, positive
    )
    regions = Regions(
        np.zeros((IMAGES, SLOTS, 4), "float32"),
        np.where(positive, classes, CLASSES).astype("int32"),
        np.zeros((IMAGES, SLOTS), "int32"),
        normal(IMAGES, SLOTS, 4),
        live,
        positive,
    )
    masks = (normal(IMAGES, SLOTS, SIDE, SIDE) > 0).astype("float32")
    return heads, targets, regions, masks


def losses(heads, targets, regions, masks, variant):
    """The five losses of outputs in the order of `make`."""
    rpn_logits, rpn_deltas, logits, deltas, maps = heads
    targets, regions = (
        type(values)(*map(ops.convert_to_tensor, values))
        for values in (targets, regions)
    )
    return (
        *rpn_losses(rpn_logits, rpn_deltas, targets, variant),
        *box_losses(logits, deltas, regions, variant),
        mask_loss(maps, masks, regions.classes, regions.is_positive),
    )


def total(*arguments):
    """Their sum."""
    return sum(losses(*arguments))
