"""Image ResNets and ResNeXts: where the video networks are inflated from."""

import dataclasses

from keras import initializers
from keras import layers

from keras_nonlocal.layers.batch_norm import NORMS
from keras_nonlocal.layers.batch_norm import make_norm
from keras_nonlocal.layers.non_local import SUB_SAMPLES
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models import applications
from keras_nonlocal.models.variants import STAGES

BLOCKS = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_NONLOCAL_NORMS = (*NORMS, None)


@dataclasses.dataclass(frozen=True)
class ImageVariant:
    """One image network: what `ResNet2D` builds.

    The defaults are torchvision's networks.

    Attributes:
        depth: 50, 101 or 152; 26 has two blocks a stage.
        groups: Groups of the 3x3 convolutions; 32 for ResNeXt.
        group_width: Channels of a group in res2, at width 64.
        stride_in_1x1: Whether the first 1x1 convolution of a stage has its
            stride (the original ResNets, Detectron's R-50 and R-101,
            `keras.applications`) or the 3x3 one.
        num_nonlocal: 0, or 1 for a non-local block before the last residual
            block of res4 (section 5, Mask R-CNN).
        nonlocal_norm: `norm` of `NonLocal`. `None`, as networks with frozen
            batch norm have it.
        norm: `"batch"`, `"sync_batch"` or `"affine"`, for the whole trunk.
        mean: Subtracted from RGB in 0..255.
        std: RGB is divided by it.
        width: Channels of conv1; all others follow.
        use_scale: As `NonLocal`.
        sub_sample: As `NonLocal`.
    """

    depth: int = 50
    groups: int = 1
    group_width: int = 64
    stride_in_1x1: bool = False
    num_nonlocal: int = 0
    nonlocal_norm: str | None = None
    norm: str = "batch"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    width: int = 64
    use_scale: bool = True
    sub_sample: str | None = "input"

    def __post_init__(self) -> None:
        allowed: dict[str, tuple] = {
            "depth": tuple(BLOCKS),
            "stride_in_1x1": (False, True),
            "num_nonlocal": (0, 1),
            "nonlocal_norm": _NONLOCAL_NORMS,
            "norm": NORMS,
            "use_scale": (False, True),
            "sub_sample": SUB_SAMPLES,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"ImageVariant: `{name}` must be one of {values}. "
                    f"Received: {getattr(self, name)!r}"
                )
        if not isinstance(self.width, int) or self.width < 1:
            raise ValueError(
                "ImageVariant: `width` must be a positive integer. "
                f"Received: {self.width!r}"
            )
        if self.group_width * self.width % 64:
            raise ValueError(
                "ImageVariant: a group of the 3x3 convolutions of res2 has "
                "`group_width * width / 64` channels, which must be a whole "
                f"number. Received: group_width={self.group_width}, "
                f"width={self.width}"
            )

    @property
    def blocks(self) -> dict[str, int]:
        """Number of residual blocks of each stage."""
        return dict(zip(STAGES, BLOCKS[self.depth], strict=True))

    @property
    def inner_width(self) -> int:
        """Channels of the 3x3 convolutions of res2."""
        return self.groups * self.group_width * self.width // 64


IMAGE_VARIANTS: dict[str, ImageVariant] = {
    "resnet50": ImageVariant(),
    "resnet101": ImageVariant(depth=101),
    "resnet152": ImageVariant(depth=152),
    "resnext101_32x8d": ImageVariant(depth=101, groups=32, group_width=8),
    "resnext152_32x8d": ImageVariant(depth=152, groups=32, group_width=8),
}


def ResNet2D(
    variant=None,
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
    include_preprocessing=True,
):
    """Builds an image ResNet or ResNeXt.

    Layers are called as those of `ResNet3D`: `conv1`, `pool1`, `res4_1`,
    `nonlocal_res4_4`, `logits`.

    Args:
        variant: An `ImageVariant`, the name of one in `IMAGE_VARIANTS`, or
            `None`: the network to which `weights` belong.
        include_top: Whether to end with the classifier.
        weights: `None` (random weights), a name of `list_weights()`,
            `"imagenet"` or the path of a file: torchvision's, Caffe2's or our
            own.
        input_tensor: Optional Keras tensor to take as the input.
        input_shape: `(height, width, 3)`. Height and width may be `None`; by
            default they are.
        pooling: Without top: `None` gives the maps of res5, `"avg"` and
            `"max"` one vector an image.
        classes: Number of classes.
        classifier_activation: Of the scores; `None` gives logits.
        name: Of the model. Default: the variant's name.
        include_preprocessing: Whether the model takes RGB in 0..255. If not,
            it takes what the preprocessing would give.

    Returns:
        A `keras.Model` from `(batch, height, width, 3)` to `(batch, classes)`,
        or without top to `(batch, H, W, 2048)` or `(batch, 2048)`.

    Raises:
        ValueError: If an argument is not as described, or if the file does not
            fit.

    Source: "Deep Residual Learning for Image Recognition" (He et al., CVPR
    2016), with the stride in the 3x3 convolution as all networks of the
    non-local paper; "Aggregated Residual Transformations for Deep Neural
    Networks" (Xie et al., CVPR 2017).

    Example:

    >>> trunk = ResNet2D("resnet50", include_top=False)
    >>> trunk.get_layer("res4_5").output.shape
    (None, None, None, 1024)
    """
    applications.check_arguments(include_top, pooling, classes)
    if isinstance(variant, str) and name is None:
        name = variant
    variant = applications.look_up(variant, IMAGE_VARIANTS)
    checkpoint, variant = applications.find_weights(
        weights,
        variant,
        ImageVariant,
        classifier_activation if include_top else None,
    )
    inputs = applications.make_input(
        input_tensor, input_shape, (None, None, 3), "image", _check_shape
    )
    x = inputs
    if include_preprocessing:
        x = ClipNormalization(variant.mean, variant.std, name="normalize")(x)
    x = trunk_stages(applications.record(x, variant), variant)["res5"]
    if include_top:
        x = _head(x, classes, classifier_activation)
    else:
        x = applications.pool(x, pooling)
    if name is None:
        known = (k for k, value in IMAGE_VARIANTS.items() if value == variant)
        name = next(known, "resnet2d")
    return applications.make_model(inputs, x, name, checkpoint, variant)


def _check_shape(shape):
    if len(shape) != 3 or shape[-1] != 3:
        raise ValueError(
            "The input must be RGB images, (height, width, 3). "
            f"Received: {shape}"
        )


def trunk_stages(x, variant):
    """conv1 to res5, as layers of a functional model.

    Args:
        x: Keras tensor `(batch, H, W, 3)`, normalised.
        variant: An `ImageVariant`.

    Returns:
        A dict from `"res2"` to `"res5"`, the last maps of each stage: at
        strides 4 to 32, of `4 * variant.width` to `32 * variant.width`
        channels.
    """
    x = _conv(x, variant, variant.width, 7, 2, name="conv1")
    # Zeros are as good as minus infinity here: the input is a ReLU's.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    stages = {}
    for stage, number in variant.blocks.items():
        for block in range(number):
            x = _bottleneck(x, variant, stage, block)
            is_before_last = (stage, block) == ("res4", number - 2)
            if variant.num_nonlocal and is_before_last:
                x = NonLocal(
                    sub_sample=variant.sub_sample,
                    use_scale=variant.use_scale,
                    norm=variant.nonlocal_norm,
                    name=f"nonlocal_{stage}_{block}",
                )(x)
        stages[stage] = x
    return stages


@applications.outside_remat_scope
def _bottleneck(x, variant, stage, block):
    """1x1, 3x3 and 1x1 convolutions around which the input is added."""
    name, index = f"{stage}_{block}", STAGES.index(stage)
    inner = variant.inner_width * 2**index
    width = 4 * variant.width * 2**index
    stride = 2 if block == 0 and stage != "res2" else 1
    first, second = (stride, 1) if variant.stride_in_1x1 else (1, stride)
    y = _conv(x, variant, inner, 1, first, name=f"{name}_branch2a")
    y = _conv(
        y,
        variant,
        inner,
        3,
        second,
        groups=variant.groups,
        name=f"{name}_branch2b",
    )
    y = _conv(y, variant, width, name=f"{name}_branch2c", activation=False)
    if block == 0:
        x = _conv(
            x,
            variant,
            width,
            strides=stride,
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
    kernel=1,
    strides=1,
    groups=1,
    *,
    name,
    activation=True,
):
    """Convolution without bias, norm and ReLU; padding explicit, symmetric."""
    if kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        groups=groups,
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
        name=name,
    )(x)
    x = make_norm(variant.norm, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


@applications.outside_remat_scope
def _head(x, classes, activation):
    x = layers.GlobalAveragePooling2D(name="pool5")(x)
    x = layers.Dense(classes, name="logits")(x)
    return layers.Activation(activation, dtype="float32", name="predictions")(x)
