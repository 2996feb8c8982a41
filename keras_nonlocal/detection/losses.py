"""The five losses of a Mask R-CNN.

All are sums over the batch divided by a count, in float32. On several devices
the count is the mean of theirs (`replicas.mean`), so that the mean of the
losses is the loss of the whole batch on one device.
"""

from keras import ops

from keras_nonlocal.detection import replicas
from keras_nonlocal.detection.gather import take_rows


def rpn_losses(logits, deltas, targets, v):
    """Losses of the proposals.

    Args:
        logits: Of an object at every anchor, `(B, A)`.
        deltas: Of its box, `(B, A, 4)`.
        targets: `RpnTargets`.
        v: A `DetectorVariant`: `rpn_beta`, `rpn_samples`.

    Returns:
        Two scalars: binary cross-entropy of the sampled anchors and smooth L1
        of the positive ones, both sums divided by `v.rpn_samples` an image
        (also where fewer were found).

    Source: "Faster R-CNN" (Ren et al., NeurIPS 2015), equation 1.
    """
    logits = ops.take_along_axis(logits, targets.index, axis=1)
    of_classes = _cross_entropy(logits, targets.is_positive)
    errors = _as_float(take_rows(deltas, targets.index)) - targets.deltas
    of_boxes = smooth_l1(errors, v.rpn_beta)
    images = ops.cast(ops.shape(logits)[0], "float32")
    count = replicas.mean(images * v.rpn_samples)
    return (
        _sum(of_classes, targets.is_live) / _not_zero(count),
        _sum(of_boxes, targets.is_positive[..., None]) / _not_zero(count),
    )


def box_losses(logits, deltas, regions, v):
    """Losses of the box head.

    Args:
        logits: Of the classes, the background last, `(B, S, K + 1)`.
        deltas: Of the box for every class, `(B, S, 4 * K)`.
        regions: `Regions`.
        v: A `DetectorVariant`: `box_beta`.

    Returns:
        Two scalars: cross-entropy of the sampled regions and smooth L1, for
        the true class, of those with an object. Both sums are divided by the
        number of all sampled regions.

    Source: "Fast R-CNN" (Girshick, ICCV 2015), equations 1 to 3.
    """
    of_classes = -ops.take_along_axis(
        ops.log_softmax(_as_float(logits), axis=-1),
        regions.classes[..., None],
        axis=-1,
    )
    of_boxes = smooth_l1(
        deltas_of_class(deltas, regions.classes) - regions.deltas, v.box_beta
    )
    live = regions.is_live[..., None]
    count = _not_zero(replicas.mean(_count(live)))
    return (
        _sum(of_classes, live) / count,
        _sum(of_boxes, regions.is_positive[..., None]) / count,
    )


def mask_loss(logits, targets, classes, is_positive):
    """Loss of the mask head.

    Args:
        logits: Of every pixel for every class, `(B, F, M, M, K)`.
        targets: 0 or 1, `(B, F, M, M)`.
        classes: Of the regions, `(B, F)`, int32.
        is_positive: `(B, F)`, boolean: which regions have an object.

    Returns:
        A scalar: the mean over the pixels of the regions with an object of the
        binary cross-entropy for the true class; 0 without such regions.

    Source: "Mask R-CNN" (He et al., ICCV 2017), section 3.
    """
    of_pixels = _cross_entropy(maps_of_class(logits, classes), targets)
    of_regions = ops.mean(of_pixels, axis=(2, 3))
    count = replicas.mean(_count(is_positive))
    return _sum(of_regions, is_positive) / _not_zero(count)


def smooth_l1(errors, beta):
    """`errors**2 / (2 * beta)` up to `beta`, `abs(errors) - beta / 2` above.

    Args:
        errors: Tensor of any shape.
        beta: A number; 0 gives the absolute values.

    Returns:
        A tensor of the same shape.

    Example:

    >>> np.array(smooth_l1(np.array([0.5, -2.0], "float32"), 1.0))
    array([0.125, 1.5  ], dtype=float32)
    """
    errors = ops.abs(errors)
    if beta == 0:
        return errors
    return ops.where(
        errors < beta, errors * errors * (0.5 / beta), errors - 0.5 * beta
    )


def deltas_of_class(deltas, classes):
    """Of the deltas of all classes those of one, float32.

    Args:
        deltas: `(B, S, 4 * K)`.
        classes: `(B, S)`, int32. Those beyond K - 1 get the last one's.

    Returns:
        `(B, S, 4)`.
    """
    number = deltas.shape[-1] // 4
    deltas = ops.reshape(deltas, (*ops.shape(deltas)[:2], number, 4))
    index = ops.clip(classes, 0, number - 1)[..., None]
    return _as_float(take_rows(deltas, index)[:, :, 0])


def maps_of_class(maps, classes):
    """Of the maps of all classes that of one, float32.

    Args:
        maps: `(B, F, M, M, K)`.
        classes: `(B, F)`, int32. Those beyond 0..K - 1 get the nearest one's.

    Returns:
        `(B, F, M, M)`.
    """
    index = ops.clip(classes, 0, maps.shape[-1] - 1)[..., None, None, None]
    return _as_float(ops.take_along_axis(maps, index, axis=-1)[..., 0])


def _cross_entropy(logits, truth):
    """Binary, of logits and of `truth`, 0 or 1."""
    logits = _as_float(logits)
    return ops.softplus(ops.where(ops.cast(truth, "bool"), -logits, logits))


def _as_float(x):
    return ops.cast(x, "float32")


def _sum(values, which):
    return ops.sum(ops.where(which, values, 0.0))


def _count(which):
    return ops.sum(_as_float(which))


def _not_zero(count):
    """Sums of nothing are 0 and may be divided by any number."""
    return ops.maximum(count, 1e-6)
