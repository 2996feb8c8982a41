"""The three heads of a Mask R-CNN, as functional models.

What they give is float32 under every dtype policy: their last layers are.
"""

import keras
from keras import initializers
from keras import layers


def make_rpn_head(variant):
    """The region proposal network, which all levels of the pyramid share.

    Args:
        variant: A `DetectorVariant`: `pyramid_channels`, `num_anchors` (A).

    Returns:
        A functional `keras.Model` from a level `(B, H, W, C)` to the logits of
        an object at each anchor, `(B, H, W, A)`, and the deltas of its box,
        `(B, H, W, 4 * A)`, anchor by anchor. Layers: `rpn_conv`,
        `rpn_objectness`, `rpn_deltas`.

    Source: "Faster R-CNN" (Ren et al., NeurIPS 2015), section 3.1.
    """
    inputs = layers.Input((None, None, variant.pyramid_channels), name="level")
    x = layers.Conv2D(
        variant.pyramid_channels,
        3,
        padding="same",
        activation="relu",
        kernel_initializer=initializers.RandomNormal(stddev=0.01),
        name="rpn_conv",
    )(inputs)
    outputs = [
        _last_conv(filters, 0.01, name)(x)
        for name, filters in (
            ("rpn_objectness", variant.num_anchors),
            ("rpn_deltas", 4 * variant.num_anchors),
        )
    ]
    return keras.Model(inputs, outputs, name="rpn_head")


def make_box_head(variant):
    """What classifies a region and refines its box.

    Args:
        variant: A `DetectorVariant`: `box_size` (S), `pyramid_channels` (C),
            `box_units`, `classes` (K).

    Returns:
        A functional `keras.Model` from regions `(N, S, S, C)` to logits
        `(N, K + 1)`, the background last, and the deltas of the box for each
        class but the background, `(N, 4 * K)`. Layers: `box_fc1`, `box_fc2`,
        `box_classes`, `box_deltas`.

    Source: "Feature Pyramid Networks for Object Detection" (Lin et al., CVPR
    2017), section 4.2.
    """
    size = variant.box_size
    inputs = layers.Input((size, size, variant.pyramid_channels), name="region")
    x = layers.Flatten(name="box_flatten")(inputs)
    for name in ("box_fc1", "box_fc2"):
        x = layers.Dense(
            variant.box_units,
            activation="relu",
            kernel_initializer=initializers.VarianceScaling(
                1.0, "fan_in", "uniform"
            ),
            name=name,
        )(x)
    outputs = [
        layers.Dense(
            units,
            kernel_initializer=initializers.RandomNormal(stddev=deviation),
            dtype="float32",
            name=name,
        )(x)
        for name, units, deviation in (
            ("box_classes", variant.classes + 1, 0.01),
            ("box_deltas", 4 * variant.classes, 0.001),
        )
    ]
    return keras.Model(inputs, outputs, name="box_head")


def make_mask_head(variant):
    """What draws the mask of a region, one for each class.

    Args:
        variant: A `DetectorVariant`: `mask_size` (S), `pyramid_channels` (C),
            `mask_channels`, `mask_convs`, `classes` (K).

    Returns:
        A functional `keras.Model` from regions `(N, S, S, C)` to logits
        `(N, 2 * S, 2 * S, K)`. Layers: `mask_fcn1` to `mask_fcn4`,
        `mask_deconv`, `mask_logits`.

    Source: "Mask R-CNN" (He et al., ICCV 2017), figure 4.
    """
    size = variant.mask_size
    inputs = layers.Input((size, size, variant.pyramid_channels), name="region")
    x = inputs
    for number in range(1, variant.mask_convs + 1):
        x = layers.Conv2D(
            variant.mask_channels,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=_msra(),
            name=f"mask_fcn{number}",
        )(x)
    x = layers.Conv2DTranspose(
        variant.mask_channels,
        2,
        strides=2,
        activation="relu",
        kernel_initializer=_msra(),
        name="mask_deconv",
    )(x)
    x = _last_conv(variant.classes, 0.001, "mask_logits")(x)
    return keras.Model(inputs, x, name="mask_head")


def _msra():
    return initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _last_conv(filters, deviation, name):
    return layers.Conv2D(
        filters,
        1,
        kernel_initializer=initializers.RandomNormal(stddev=deviation),
        dtype="float32",
        name=name,
    )
