"""Video networks from image networks.

A 2-D kernel becomes a 3-D one by repeating it over t frames and dividing by t
(paper, section 3.3; "Quo Vadis, Action Recognition?", section 2.4): a clip of
one repeated frame then gives what the image network gives for that frame. Near
the first and the last frame it does not: there a kernel reaches into the zeros
that pad the clip. How many frames that concerns grows by t // 2 with every
such kernel, times the stride in time before it.
"""

import dataclasses
import re

import keras
import numpy as np
from keras import layers

from keras_nonlocal.layers.batch_norm import EPSILON
from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.batch_norm import BatchNormalization
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models import applications
from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS

# What keras.applications subtracts from blue, green and red, as RGB.
_CAFFE_MEAN = (123.68, 116.779, 103.939)
_CLASSIFIER = "logits"


def inflate(model, variant=None, temporal_kernel=3, strict=True, **kwargs):
    """Builds a video network with the weights of an image network.

    With a `variant`, `model` must be a `ResNet2D` or a ResNet50 or ResNet101 of
    `keras.applications`; the result is `ResNet3D(variant)`.
    Without, `model` may be any functional image model of layers that have a
    3-D counterpart; the result has the same layers in 3-D, under the same
    names, with the same pooling over space and none over time.

    Args:
        model: The image network.
        variant: A `Variant` or the name of one in `VARIANTS`. Its `mean` and
            `std` are replaced by those of the image network. Non-local blocks
            are fresh: they change nothing before they are trained.
        temporal_kernel: Without a variant: the extent in time of the kernels
            larger than 1x1, an odd number; or a function from a layer of
            `model` to the extent of its kernel.
        strict: Whether to refuse a variant whose spatial strides and paddings
            are not the image network's. If not, its features differ from the
            image network's until it is trained.
        **kwargs: With a variant: arguments of `ResNet3D`. The classifier is
            taken over if `classes` is the image network's number of classes.

    Returns:
        A `keras.Model` on clips. Its interior frames give the image network's
        features for a clip of one repeated frame.

    Raises:
        ValueError: If the image network has a layer without counterpart, or
            does not fit the variant; the message says which field to change.

    Example:

    >>> image = keras.Sequential([keras.Input((8, 8, 3)),
    ...                           layers.Conv2D(4, 3, padding="same")])
    >>> inflate(image).output_shape
    (None, None, 8, 8, 4)
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if variant is None:
        if kwargs:
            raise ValueError(
                f"{sorted(kwargs)} are for inflation into a `variant`."
            )
        return _inflate_graph(model, temporal_kernel)
    variant = applications.look_up(variant, VARIANTS)
    source = _Source(model)
    if strict:
        _check_fits(source, variant)
    if kwargs.get("include_preprocessing", True):
        mean, std = source.mean_and_std()
        variant = dataclasses.replace(variant, mean=mean, std=std)
    video = ResNet3D(variant, **kwargs)
    ours = [
        layer
        for layer in video.layers
        if layer.weights and not layer.name.startswith("nonlocal_")
    ]
    source.check_all_used({layer.name for layer in ours})
    for layer in ours:
        _fill(layer, source)
    return video


class _Source:
    """The layers of an image ResNet by our names."""

    def __init__(self, model):
        self.name = model.name
        self.layers = {
            _our_name(layer.name): layer
            for layer in model.layers
            if layer.weights
        }
        # Only keras.applications has biases before its batch norms, and only
        # it reads blue, green, red.
        self.is_keras = any(x.name == "conv1_conv" for x in model.layers)
        self._normalize = next(
            (x for x in model.layers if isinstance(x, ClipNormalization)), None
        )
        if not {"conv1", "conv1_bn", "res5_2_branch2c"} <= self.layers.keys():
            raise ValueError(
                "With a variant, `model` must be a ResNet2D, or a ResNet50 "
                "or 101 of keras.applications (not V2). Received: "
                f"model {model.name!r}. Leave `variant` out to inflate layer "
                "by layer."
            )

    def check_all_used(self, names):
        """Refuses a network with more layers, or fewer, than the variant."""
        different = (names ^ self.layers.keys()) - {_CLASSIFIER}
        if different:
            raise ValueError(
                f"Model {self.name!r} and the variant differ in "
                f"{len(different)} layers, {min(different)} for one: their "
                "depths must be equal, and the model without groups and "
                "without non-local blocks."
            )
        inner = self.layers["res2_0_branch2b"]
        if inner.groups != 1:
            raise ValueError(
                f"Model {self.name!r} has groups={inner.groups} in its 3x3 "
                "convolutions; the video networks have none."
            )

    @property
    def stride_in_1x1(self):
        return self.layers["res3_0_branch2a"].strides[0] == 2

    def mean_and_std(self):
        if self.is_keras:
            return _CAFFE_MEAN, (1.0, 1.0, 1.0)
        if self._normalize is None:
            raise ValueError(
                f"Model {self.name!r} has no preprocessing that the video "
                "network could take over: pass include_preprocessing=False."
            )
        return _as_fields(self._normalize)

    def kernel(self, name):
        kernel = keras.ops.convert_to_numpy(self.layers[name].kernel)
        if self.is_keras and name == "conv1":
            kernel = kernel[:, :, ::-1]
        return kernel

    def norm(self, name):
        """gamma, beta, mean and variance, for our epsilon and no bias."""
        norm = self.layers[name]
        convolution = self.layers[name.removesuffix("_bn")]
        numpy = keras.ops.convert_to_numpy
        gamma, beta = numpy(norm.gamma), numpy(norm.beta)
        if isinstance(norm, Affine):
            return gamma, beta, np.zeros_like(beta), 1 - EPSILON + 0 * beta
        mean, variance = numpy(norm.moving_mean), numpy(norm.moving_variance)
        if convolution.use_bias:
            mean = mean - numpy(convolution.bias)
        return gamma, beta, mean, variance + (norm.epsilon - EPSILON)


def _as_fields(normalize):
    def field(value):
        return tuple(value) if isinstance(value, list) else value

    return field(normalize.mean), field(normalize.std)


def _our_name(name):
    """Names of keras.applications in our words; others as they are.

    >>> _our_name("conv3_block2_1_bn")
    'res3_1_branch2a_bn'
    """
    if name in ("conv1_conv", "predictions"):
        return {"conv1_conv": "conv1", "predictions": _CLASSIFIER}[name]
    match = re.fullmatch(r"conv(\d)_block(\d+)_([0-3])_(conv|bn)", name)
    if match is None:
        return name
    stage, block, number, kind = match.groups()
    branch = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}[number]
    suffix = "_bn" if kind == "bn" else ""
    return f"res{stage}_{int(block) - 1}_branch{branch}{suffix}"


def _check_fits(source, variant):
    """The fields of a variant that change what a single frame gives."""
    wanted = {
        "pool1_padding": 1,
        "stride_in_1x1": source.stride_in_1x1,
        "res5_stride": 2,
    }
    wrong = [
        f"{name}={value}"
        for name, value in wanted.items()
        if getattr(variant, name) != value
    ]
    if wrong:
        raise ValueError(
            f"The image network {source.name!r} needs another variant: "
            f"dataclasses.replace(variant, {', '.join(wrong)}), or "
            "strict=False to begin with other features."
        )


def _fill(layer, source):
    """Gives a layer of the video network the weights of the image network's."""
    if layer.name == _CLASSIFIER:
        theirs = source.layers.get(_CLASSIFIER)
        if theirs is not None and theirs.units == layer.units:
            layer.set_weights(theirs.get_weights())
    elif layer.name.endswith("_bn"):
        gamma, beta, mean, variance = source.norm(layer.name)
        if isinstance(layer, Affine):
            gamma = gamma / np.sqrt(variance + EPSILON)
            layer.set_weights([gamma, beta - mean * gamma])
        else:
            layer.set_weights([gamma, beta, mean, variance])
    else:
        layer.set_weights([repeat(source.kernel(layer.name), layer.kernel)])


def repeat(kernel, like):
    """A 2-D kernel repeated over the frames of a 3-D one and divided by them.

    Args:
        kernel: `(height, width, in, out)`.
        like: The variable to fill, `(frames, height, width, in, out)`.
    """
    frames = like.shape[0]
    return np.repeat(kernel[np.newaxis], frames, axis=0) / frames


# Layers that treat the last axis alike whatever stands before it.
_RANK_FREE = (
    layers.Activation,
    layers.Add,
    layers.Average,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.Maximum,
    layers.Multiply,
    layers.Normalization,
    layers.ReLU,
    layers.Rescaling,
    layers.Softmax,
    layers.Subtract,
    ClipNormalization,
    NetworkRecord,
    BatchNormalization,
    Affine,
)
# 3-D counterpart, and what stands in time beside the two axes of space.
_SPATIAL: dict = {
    layers.AveragePooling2D: (
        layers.AveragePooling3D,
        {"pool_size": 1, "strides": 1},
    ),
    layers.Cropping2D: (layers.Cropping3D, {"cropping": (0, 0)}),
    layers.GlobalAveragePooling2D: (layers.GlobalAveragePooling3D, {}),
    layers.GlobalMaxPooling2D: (layers.GlobalMaxPooling3D, {}),
    layers.MaxPooling2D: (layers.MaxPooling3D, {"pool_size": 1, "strides": 1}),
    layers.UpSampling2D: (layers.UpSampling3D, {"size": 1}),
    layers.ZeroPadding2D: (layers.ZeroPadding3D, {"padding": (0, 0)}),
}


def _inflate_graph(model, temporal_kernel):
    graph = functional_graph(model)
    if graph is None or len(graph.inputs) != 1:
        raise ValueError(
            "`model` must be a functional Keras model with one input. "
            f"Received: {model!r}"
        )
    without = [
        f"{layer.name} ({type(layer).__name__})"
        for layer in model.layers
        if not _has_counterpart(layer)
    ]
    if without:
        raise ValueError(
            f"Layers of {model.name!r} that have no 3-D counterpart: "
            f"{', '.join(without)}"
        )
    source = graph.inputs[0]
    made = {}

    def call(layer, *args, **kwargs):
        if isinstance(layer, NetworkRecord):
            return args[0]  # The result is another network.
        if isinstance(layer, layers.Conv3D) and layer.padding == "valid":
            frames = layer.kernel_size[0] // 2
            args = (_pad(args[0], frames, layer.name), *args[1:])
        return layer(*args, **kwargs)

    def clone(layer):
        made[layer.name] = _counterpart(layer, temporal_kernel)
        return made[layer.name]

    video = keras.models.clone_model(
        graph,
        input_tensors=layers.Input(
            (None, *source.shape[1:]), dtype=source.dtype, name=source.name
        ),
        clone_function=clone,
        call_function=call,
    )
    for layer in model.layers:
        if layer.weights:
            _copy(layer, made[layer.name])
    return video


def _pad(x, frames, name):
    if frames == 0:
        return x
    padding = ((frames, frames), (0, 0), (0, 0))
    return layers.ZeroPadding3D(padding, name=f"{name}_pad_time")(x)


def _has_counterpart(layer):
    if isinstance(layer, layers.InputLayer):
        return True
    if type(layer) in _RANK_FREE:
        axis = getattr(layer, "axis", -1)
        return axis in (-1, 3, [-1], [3], (-1,), (3,), None)
    is_known = type(layer) in _SPATIAL or type(layer) is layers.Conv2D
    return is_known and layer.data_format == "channels_last"


def _counterpart(layer, temporal_kernel):
    """The same layer on clips, without weights yet."""
    config = layer.get_config()
    if type(layer) in _RANK_FREE:
        if getattr(layer, "axis", None) is not None:
            config["axis"] = -1
        return type(layer).from_config(config)
    if type(layer) in _SPATIAL:
        kind, in_time = _SPATIAL[type(layer)]
        for key, value in in_time.items():
            config[key] = (value, *config[key])
        if config.pop("interpolation", "nearest") != "nearest":
            raise ValueError(
                f"{layer.name}: UpSampling3D interpolates by 'nearest' only."
            )
        return kind.from_config(config)
    frames = _extent(layer, temporal_kernel)
    for key, value in (("strides", 1), ("dilation_rate", 1)):
        config[key] = (value, *config[key])
    config["kernel_size"] = (frames, *config["kernel_size"])
    return layers.Conv3D.from_config(config)


def _extent(layer, temporal_kernel):
    """Frames of a convolution's kernel."""
    if callable(temporal_kernel):
        frames = temporal_kernel(layer)
    else:
        frames = temporal_kernel if max(layer.kernel_size) > 1 else 1
    is_integer = isinstance(frames, int) and not isinstance(frames, bool)
    if not is_integer or frames < 1 or frames % 2 == 0:
        raise ValueError(
            "`temporal_kernel` must be an odd positive integer, or give one. "
            f"Received: {frames!r} for layer {layer.name!r}"
        )
    return frames


def _copy(source, target):
    values = source.get_weights()
    if isinstance(target, layers.Conv3D):
        values[0] = repeat(values[0], target.kernel)
    target.set_weights(values)
