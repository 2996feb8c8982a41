"""The residual networks of the paper (table 1 and section 3.3)."""

from keras import initializers
from keras import layers

from keras_nonlocal.layers.batch_norm import make_norm
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import PositionAverage
from keras_nonlocal.layers.pooling import PositionPooling
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models import applications
from keras_nonlocal.models.variants import STAGES
from keras_nonlocal.models.variants import STEMS
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant


def ResNet3D(
    variant=None,
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=400,
    classifier_activation="softmax",
    name=None,
    include_preprocessing=True,
):
    """Builds any network of the paper.

    Layers have stable names: `conv1`, `pool1`, `pool2`, `res4_1` (the output
    of block 1 of res4), `nonlocal_res4_1` (the non-local block after it),
    `pool5`, `logits`, `predictions`.

    Args:
        variant: A `Variant`, the name of one in `VARIANTS`, or `None`: the
            network to which `weights` belong.
        include_top: Whether to end with the classifier.
        weights: `None` (random weights); the name of an entry of
            `list_weights()`; a data set, `"kinetics400"`, for the entry of
            just this network; or the path of a file: our own, or of any code
            base that the package reads. A file has to fit exactly, and
            `variant` must agree with all that an entry or a file tells of the
            network. With `include_top=False` the file's classifier is left
            out.
        input_tensor: Optional Keras tensor to take as the input.
        input_shape: `(frames, height, width, 3)`. Any size but the channels
            may be `None`; by default all are.
        pooling: Without top: `None` gives the maps of res5, `"avg"` and
            `"max"` one vector a clip.
        classes: Number of classes.
        classifier_activation: Of the scores; `None` gives logits.
        name: Of the model. Default: the variant's name.
        include_preprocessing: Whether the model takes RGB in 0..255 (uint8 or
            float). If not, it takes what `ClipNormalization` would give.

    Returns:
        A `keras.Model` from `(batch, frames, height, width, 3)` to
        `(batch, classes)`, or without top to `(batch, T, H, W, channels)` or
        `(batch, channels)`.

    Raises:
        ValueError: If an argument is not as described, if the clip is smaller
            than the network can take, or if the file does not fit.

    Example:

    >>> import dataclasses
    >>> base = VARIANTS["nl_i3d_r50"]
    >>> small = dataclasses.replace(base, depth=26, width=8, num_nonlocal=1)
    >>> ResNet3D(small, classes=5, input_shape=(8, 64, 64, 3)).output_shape
    (None, 5)
    """
    applications.check_arguments(include_top, pooling, classes)
    if isinstance(variant, str) and name is None:
        name = variant
    variant = applications.look_up(variant, VARIANTS)
    checkpoint, variant = applications.find_weights(
        weights,
        variant,
        Variant,
        classifier_activation if include_top else None,
    )
    inputs = applications.make_input(
        input_tensor,
        input_shape,
        (None, None, None, 3),
        "clip",
        lambda shape: _check_shape(variant, shape),
    )
    x = inputs
    if include_preprocessing:
        x = ClipNormalization(variant.mean, variant.std, name="normalize")(x)
    x = _trunk(applications.record(x, variant), variant)
    if include_top:
        x = _head(x, variant, classes, classifier_activation)
    else:
        x = applications.pool(x, pooling)
    if name is None:
        known = (key for key, value in VARIANTS.items() if value == variant)
        name = next(known, "resnet3d")
    return applications.make_model(inputs, x, name, checkpoint, variant)


def _check_shape(variant, shape):
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(
            "The input must be RGB clips, (frames, height, width, 3). "
            f"Received: {shape}"
        )
    frames, side = variant.minimum_size()
    if any(
        size is not None and size < least
        for size, least in zip(shape[:3], (frames, side, side), strict=True)
    ):
        raise ValueError(
            f"The clips are too small for this network: it takes {frames} "
            f"frames and {side} x {side} pixels or more. Received: {shape}"
        )


def _trunk(x, variant):
    """conv1 to res5."""
    conv1_stride, pool1_kernel, pool1_stride = STEMS[variant.stem]
    x = _conv(
        x,
        variant,
        filters=variant.width,
        kernel=(variant.conv1_frames, 7, 7),
        strides=(conv1_stride, 2, 2),
        name="conv1",
    )
    if variant.pool1_padding:
        # Zeros are as good as minus infinity here: the input is a ReLU's.
        x = layers.ZeroPadding3D((0, 1, 1), name="pool1_pad")(x)
    x = MaxPooling((pool1_kernel, 3, 3), (pool1_stride, 2, 2), name="pool1")(x)
    after = variant.nonlocal_blocks()
    for stage in STAGES:
        for block in range(variant.blocks[stage]):
            x = _bottleneck(x, variant, stage, block)
            if (stage, block) in after:
                x = _non_local(x, variant, stage, block)
        if stage == "res2" and variant.pool2:
            x = MaxPooling((2, 1, 1), name="pool2")(x)
    return x


@applications.outside_remat_scope
def _bottleneck(x, variant, stage, block):
    """1x1x1, 3x3 and 1x1x1 convolutions around which the input is added."""
    name = f"{stage}_{block}"
    inner = variant.width * 2 ** STAGES.index(stage)
    stride = 1
    if block == 0 and stage != "res2":
        stride = variant.res5_stride if stage == "res5" else 2
    kernel_a, kernel_b = (1, 1, 1), (1, 3, 3)
    if variant.is_inflated(stage, block):
        if variant.inflation == "3x1x1":
            kernel_a = (3, 1, 1)
        else:
            kernel_b = (3, 3, 3)
    strides, ones = (1, stride, stride), (1, 1, 1)
    first, second = (
        (strides, ones) if variant.stride_in_1x1 else (ones, strides)
    )
    y = _conv(x, variant, inner, kernel_a, first, name=f"{name}_branch2a")
    y = _conv(y, variant, inner, kernel_b, second, name=f"{name}_branch2b")
    y = _conv(
        y,
        variant,
        4 * inner,
        name=f"{name}_branch2c",
        activation=False,
        gamma_initializer="zeros",
    )
    if block == 0:
        x = _conv(
            x,
            variant,
            4 * inner,
            strides=strides,
            name=f"{name}_branch1",
            activation=False,
        )
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=name)(x)


@applications.outside_remat_scope
def _conv(
    x,
    variant,
    filters,
    kernel=(1, 1, 1),
    strides=(1, 1, 1),
    *,
    name,
    activation=True,
    gamma_initializer="ones",
):
    """Convolution without bias, norm and ReLU; padding explicit, symmetric.

    "same" is the same thing only at stride 1; with strides it would shift the
    windows.
    """
    strided = strides != (1, 1, 1)
    if strided and kernel != (1, 1, 1):
        padding = tuple(k // 2 for k in kernel)
        x = layers.ZeroPadding3D(padding, name=f"{name}_pad")(x)
    x = Conv3D(
        filters,
        kernel,
        strides=strides,
        padding="valid" if strided else "same",
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
        name=name,
    )(x)
    x = make_norm(
        variant.norm, gamma_initializer=gamma_initializer, name=f"{name}_bn"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def _non_local(x, variant, stage, block):
    return NonLocal(
        mode=variant.mode,
        attention_axes=variant.attention_axes,
        sub_sample=variant.sub_sample,
        use_scale=variant.use_scale,
        temporal_group=variant.res3_group if stage == "res3" else None,
        norm=variant.nonlocal_norm,
        out_bias=variant.nonlocal_bias,
        name=f"nonlocal_{stage}_{block}",
    )(x)


@applications.outside_remat_scope
def _head(x, variant, classes, activation):
    # The window is what res5 covers at the training size, at least a position.
    sizes = variant.stage_sizes(variant.num_frames, variant.crop_size)
    window = max(sizes["res5"][1], 1)
    if variant.head == "feature":
        window = None
    x = PositionPooling(window, name="pool5")(x)
    x = layers.Dropout(variant.dropout_rate, name="dropout")(x)
    x = layers.Dense(
        classes,
        kernel_initializer=initializers.RandomNormal(stddev=0.01),
        name="logits",
    )(x)
    average = "probability" if variant.head == "probability" else "logit"
    return PositionAverage(activation, average, name="predictions")(x)
