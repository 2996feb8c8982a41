"""What is compared: one network in three forms."""

import dataclasses

import keras

from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models.insertion import insert_nonlocal
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import Variant
from zoo.studies.control import MatchedControl
from zoo.studies.control import with_controls

BASELINE, CONTROL, NONLOCAL = ARMS = ("baseline", "control", "nonlocal")
_DROPOUT = 0.5


@dataclasses.dataclass(frozen=True)
class Block:
    """The non-local blocks of a comparison.

    Attributes:
        mode: Pairwise function.
        attention_axes: Which positions see each other.
        inter_channels: Width of theta, phi and g; `None` for half the
            channels.
        number: How many blocks there are.
    """

    mode: str = "embedded_gaussian"
    attention_axes: str = "spacetime"
    inter_channels: int | None = None
    number: int = 1


def head(
    arm: str, shape: tuple[int, ...], classes: int, block: Block
) -> keras.Model:
    """A classifier of feature maps; it gives logits.

    With one seed, the classifiers of all arms start with the same weights.

    Args:
        arm: `"baseline"`: an average over all positions and a linear layer.
            `"control"` and `"nonlocal"`: those behind blocks of the kind.
        shape: `(T, H, W, channels)`.
        classes: Number of classes.
        block: The blocks.
    """
    logits = keras.layers.Dense(classes, name="logits")
    logits.build((None, shape[-1]))
    x = inputs = keras.Input(shape)
    if arm != BASELINE:
        for _ in range(block.number):
            x = _block(arm, block)(x)
    x = keras.layers.GlobalAveragePooling3D()(x)
    x = keras.layers.Dropout(_DROPOUT)(x)
    return keras.Model(inputs, logits(x), name=arm)


def network(
    arm: str, variant: Variant, classes: int, block: Block
) -> keras.Model:
    """A whole network of the paper; it gives logits.

    With one seed, the trunks of all arms start with the same weights.

    Args:
        arm: As for `head`; the blocks are at the paper's places.
        variant: The network, whose own non-local blocks are left out.
        classes: Number of classes.
        block: The blocks.
    """
    plain = dataclasses.replace(variant, num_nonlocal=0, nonlocal_places=None)
    model = ResNet3D(plain, classes=classes, classifier_activation=None)
    if arm == BASELINE:
        return model
    places = dataclasses.replace(
        plain, num_nonlocal=block.number
    ).nonlocal_blocks()
    model = insert_nonlocal(
        model,
        [f"{stage}_{number}" for stage, number in places],
        mode=block.mode,
        attention_axes=block.attention_axes,
        inter_channels=block.inter_channels,
        # In narrow networks, what the default lets reach the block's norm is
        # far below the norm's epsilon.
        kernel_initializer="he_normal",
    )
    return model if arm == NONLOCAL else with_controls(model)


def _block(arm: str, block: Block) -> keras.layers.Layer:
    if arm == CONTROL:
        return MatchedControl(block.mode, block.inter_channels)
    return NonLocal(
        block.mode,
        inter_channels=block.inter_channels,
        attention_axes=block.attention_axes,
    )
