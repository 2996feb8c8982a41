"""Building the networks that the study compares."""

import math

import keras
import numpy as np

from keras_nonlocal.models.insertion import insert_nonlocal
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import Variant
from zoo.studies.control import MatchedControl
from zoo.studies.control import with_controls
from zoo.studies.long_range import task
from zoo.studies.long_range.arms import PLACES
from zoo.studies.long_range.arms import Arm
from zoo.studies.long_range.settings import Settings

# As the paper's text. The code's normal of deviation 0.01 is made for hundreds
# of channels: with these few the variance before the block's norm is below the
# norm's epsilon, so that the block stays the identity.
_INITIALIZER = "he_normal"


def build(arm: Arm, settings: Settings, trunk: str | None) -> keras.Model:
    """A network that computes, before it is trained, what all others do.

    Fresh blocks are the identity, and kernels of I3D reach into other frames
    by zeros.

    Args:
        arm: Which network.
        settings: Sizes.
        trunk: Weights file of a pretrained `trunk_model`; `None` for random
            weights.
    """
    model = _resnet(settings, arm.inflation, settings.num_frames, classes=2)
    if trunk is not None:
        _fill(model, trunk, settings)
    if arm.blocks == 0:
        return model
    model = insert_nonlocal(
        model,
        after=list(PLACES[arm.blocks]),
        mode=arm.mode,
        attention_axes=arm.attention_axes,
        kernel_initializer=_INITIALIZER,
    )
    return with_controls(model) if arm.is_control else model


def count(model: keras.Model, settings: Settings) -> int:
    """Multiply-adds for a clip, with those of controls."""
    controls = [x for x in model.layers if isinstance(x, MatchedControl)]
    if not controls:
        return count_macs(model, model.input_shape[1:])
    trunk = _resnet(settings, None, settings.num_frames, classes=2)
    return count_macs(trunk, trunk.input_shape[1:]) + sum(
        math.prod(control.output.shape[1:-1]) * math.prod(kernel.shape)
        for control in controls
        for kernel in (control.inner.kernel, control.out.kernel)
    )


def trunk_model(settings: Settings, classes: int) -> keras.Model:
    """C2D on single frames, which learns colours and shapes."""
    return _resnet(settings, None, 1, classes)


def _resnet(
    settings: Settings, inflation: str | None, num_frames: int, classes: int
) -> keras.Model:
    variant = Variant(
        depth=26,
        inflation=inflation,
        # No pooling over time: C2D scores frames one by one, and the average
        # of features, of which the scores are linear, makes them additive.
        stem="stride1",
        pool2=False,
        head="feature",
        pool1_padding=1,
        dropout_rate=0.0,
        width=settings.width,
        num_frames=num_frames,
        sampling_rate=1,
        crop_size=settings.size,
    )
    shape = (num_frames, settings.size, settings.size, 3)
    return ResNet3D(variant, classes=classes, input_shape=shape)


def _fill(model: keras.Model, path: str, settings: Settings) -> None:
    """Gives a model the trunk in a file, its classifier excepted."""
    source = trunk_model(settings, len(task.COLOURS))
    source.load_weights(path)
    for layer in model.layers:
        if layer.weights and layer.name != "logits":
            found = source.get_layer(layer.name).get_weights()
            layer.set_weights(
                [
                    _centred(old, new.shape)
                    for old, new in zip(found, layer.weights, strict=True)
                ]
            )


def _centred(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A kernel in the middle of one that is longer in time."""
    if kernel.shape == tuple(shape):
        return kernel
    longer = np.zeros(shape, kernel.dtype)
    longer[shape[0] // 2] = kernel[0]
    return longer
