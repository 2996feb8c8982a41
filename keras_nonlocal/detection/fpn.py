"""The feature pyramid on top of a residual network."""

import keras
from keras import initializers
from keras import layers

from keras_nonlocal.models.resnet2d import trunk_stages
from keras_nonlocal.models.variants import STAGES

# Height and width of the images have to be multiples of this.
MULTIPLE = 32
# conv1 comes before the stages.
_FREEZABLE = ("conv1", *STAGES)


def make_trunk(variant):
    """A residual network with a feature pyramid.

    Layers of the residual network are called as those of `ResNet2D`; those of
    the pyramid `fpn_inner_res2` (1x1) and `fpn_layer_res2` (3x3) to
    `..._res5`. What `variant.frozen_stages` says is not trainable.

    Args:
        variant: A `DetectorVariant`.

    Returns:
        A functional `keras.Model` from normalised images `(B, H, W, 3)`, whose
        height and width are multiples of 32, to P2, P3, P4, P5 and P6: a list
        of `(B, H / s, W / s, C)` with strides s from 4 to 64 and
        `variant.pyramid_channels` channels. P6 has half the size of P5, rounded
        up.

    Source: "Feature Pyramid Networks for Object Detection" (Lin et al., CVPR
    2017), section 3; P6 from section 4.1, footnote 2.
    """
    inputs = layers.Input((None, None, 3), name="image")
    stages = trunk_stages(inputs, variant.trunk)
    levels = _pyramid(stages, variant.pyramid_channels)
    trunk = keras.Model(inputs, levels, name="trunk")
    freeze_stages(trunk, variant.frozen_stages)
    return trunk


def freeze_stages(trunk, number):
    """Lets conv1 and the first stages keep their weights in training.

    A non-local block in a frozen stage is trained all the same.

    Args:
        trunk: What `make_trunk` gave.
        number: 0 for none, 1 for conv1, 2 for res2 as well, to 5 for all.
    """
    for index, stage in enumerate(_FREEZABLE):
        for layer in trunk.layers:
            if layer.name.partition("_")[0] == stage:
                layer.trainable = index >= number


def _pyramid(stages, channels):
    levels: list = []
    x = None
    for stage in reversed(STAGES):
        inner = _conv(channels, 1, f"fpn_inner_{stage}")(stages[stage])
        if x is not None:
            x = layers.UpSampling2D(2, name=f"fpn_upsample_{stage}")(x)
            inner = layers.Add(name=f"fpn_add_{stage}")([inner, x])
        x = inner
        levels.insert(0, _conv(channels, 3, f"fpn_layer_{stage}")(x))
    last = layers.MaxPooling2D(1, 2, name="fpn_pool")(levels[-1])
    return [*levels, last]


def _conv(channels, kernel, name):
    return layers.Conv2D(
        channels,
        kernel,
        padding="same",
        kernel_initializer=initializers.VarianceScaling(
            1.0, "fan_in", "uniform"
        ),
        name=name,
    )
