import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal.layers.pooling import PositionAverage
from keras_nonlocal.layers.pooling import PositionPooling
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.visualization.receptive_field import ReceptiveFields
from keras_nonlocal.visualization.receptive_field import receptive_field
from tests import checks


def test_published_receptive_field():
    """MobileNet: 315 pixels (Araujo et al., Distill 2019, table 1)."""
    model = keras.applications.MobileNet(
        (224, 224, 3), alpha=0.25, include_top=False, weights=None
    )
    field = receptive_field(model, "conv_pw_13_relu")
    assert field.size == (1, 315, 315) and field.stride == (1, 32, 32)
    # All sizes unknown but for the clip's own.
    free = keras.applications.MobileNet(
        (None, None, 3), alpha=0.25, include_top=False, weights=None
    )
    other = receptive_field(free, "conv_pw_13_relu", (224, 224))
    np.testing.assert_array_equal(field.rows, other.rows)
    # Padded behind alone: every stride moves the centre by half a step.
    np.testing.assert_array_equal(field.rows, 31 + 32 * np.arange(7))


def test_names_and_layouts(rng):
    entry = keras.Input((6, 8, 9, 3))
    x = layers.Conv3D(2, 3, 2, padding="same", name="conv")(entry)
    inner = keras.Model(entry, layers.ReLU(name="relu")(x), name="inner")
    outer = keras.Input((6, 8, 9, 3))
    x = layers.Conv3D(2, (1, 3, 3), name="last")(inner(outer))
    x = PositionPooling(name="pool")(x)
    model = keras.Model(outer, layers.Flatten(name="flat")(x))
    fields = ReceptiveFields(model)
    assert fields.of("inner/relu").shape == (3, 4, 5)
    np.testing.assert_array_equal(fields.of("last").rows, [3, 5])
    assert fields.of("pool").shape == (1, 1, 1)
    with pytest.raises(ValueError, match=r"'nowhere'.*inner/conv, inner/relu"):
        fields.of("nowhere")
    with pytest.raises(ValueError, match=r"'flat' \(Flatten\) is not known"):
        fields.of("flat")
    with pytest.raises(ValueError, match="`size` must give the positions"):
        receptive_field(model, "pool", (6, 9, 9))
    first = keras.Input((3, 6, 8, 9))
    x = layers.Conv3D(
        2, 3, 2, padding="same", data_format="channels_first", name="conv"
    )(first)
    same = receptive_field(keras.Model(first, x), "conv")
    last = fields.of("inner/conv")
    for name in ("times", "rows", "columns", "size"):
        np.testing.assert_array_equal(getattr(same, name), getattr(last, name))


def test_rematerialized_models_have_the_names_of_their_layers():
    variant = Variant(depth=26, width=2, num_nonlocal=1)
    model = ResNet3D(variant, include_top=False, input_shape=(8, 40, 40, 3))
    plain = receptive_field(model, "nonlocal_res4_0")
    other = receptive_field(rematerialize(model), "nonlocal_res4_0")
    np.testing.assert_array_equal(plain.rows, other.rows)


def test_channels_that_a_permute_moves():
    entry = keras.Input((3, 4, 6, 8))
    x = layers.Permute((2, 3, 4, 1))(entry)
    x = layers.MaxPooling3D((1, 2, 2), name="pool")(x)
    model = keras.Model(entry, layers.Permute((4, 1, 2, 3), name="back")(x))
    fields = ReceptiveFields(model)
    assert fields.clip_size == (4, 6, 8)
    assert fields.of("back").rows.tolist() == [0.5, 2.5, 4.5]
    assert fields.channel_axis("pool") == 4
    assert fields.channel_axis("back") == 1
    # Without positions there is no layout.
    entry = keras.Input((4, 6, 8, 3))
    x = PositionAverage()(PositionPooling()(entry))
    model = keras.Model(entry, layers.Flatten()(x))
    assert ReceptiveFields(model).clip_size == (4, 6, 8)
    # A layer that works on frames one by one tells nothing of the clip.
    entry = keras.Input((4, 6, 8, 3))
    inner = layers.Conv2D(2, 3, data_format="channels_first")
    model = keras.Model(entry, layers.TimeDistributed(inner)(entry))
    assert ReceptiveFields(model).clip_size == (4, 6, 8)


def test_axes_in_another_order_have_no_field():
    entry = keras.Input((6, 6, 6, 3))
    x = layers.Permute((2, 3, 1, 4), name="moved")(entry)
    x = layers.Permute((3, 1, 2, 4), name="back")(x)
    fields = ReceptiveFields(keras.Model(entry, x))
    assert fields.of("back").shape == (6, 6, 6)
    with pytest.raises(ValueError, match="order of the clip.*'moved'"):
        fields.of("moved")


def test_of_several_calls_a_tensor_is_that_of_the_last():
    entry = keras.Input((None, 3))
    x = layers.Conv1D(3, 3, padding="same", name="conv")(entry)
    inner = keras.Model(entry, x, name="inner")
    entry = keras.Input((9, 3))
    model = keras.Model(entry, inner(inner(entry)))
    fields = ReceptiveFields(model)
    assert fields.of("inner/conv").size == (3, 1, 1)
    assert fields.of("inner/conv", 1).size == (5, 1, 1)
    assert fields.of(inner.output).size == (5, 1, 1)


def test_values_on_the_clip(rng):
    entry = keras.Input((6, 12, 12, 1))
    x = layers.Conv3D(1, (2, 4, 3), (2, 4, 3), name="conv")(entry)
    field = receptive_field(keras.Model(entry, x), "conv")
    values = rng.random((2, 3, 3, 4)).astype("float32")
    spread = field.on_clip(values)
    assert spread.shape == (2, 6, 12, 12)
    # Columns 1, 4, 7, 10; times 0.5, 2.5, 4.5; rows 1.5, 5.5, 9.5.
    between = values[:, :2, :2].mean((1, 2))
    between = (
        np.stack(
            [field.on_clip(values)[:, 1:3, 3:5, 1 + 3 * i] for i in range(4)]
        ).mean((2, 3))
        - between.T
    )
    np.testing.assert_allclose(between, 0, atol=1e-6)
    # Outside of the centres as at the outermost.
    np.testing.assert_allclose(
        spread[:, 0, 0, 0], values[:, 0, 0, 0], rtol=1e-6
    )
    # A coarser picture of the same: each pixel is the middle of a block.
    small = field.on_clip(values, (3, 3, 4))
    np.testing.assert_allclose(small, values, rtol=1e-5)
    with pytest.raises(ValueError, match="`values` must have"):
        field.on_clip(values[:, 1:])
    # The middle time and the last two columns alone: up to half the way.
    seen = (
        np.array([False, True, False]),
        np.ones(3, bool),
        np.array([False, False, True, True]),
    )
    some = field.on_clip(values, seen=seen)
    assert (some[:, [0, 1, 4, 5]] == 0).all() and (some[..., :6] == 0).all()
    np.testing.assert_allclose(some[:, 2, 0, 6], values[:, 1, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(
        some[:, 3, 0, 8],
        values[:, 1, 0, 2:] @ np.array([2, 1], "float32") / 3,
        rtol=1e-5,
    )


def test_nearest_and_pooled():
    entry = keras.Input((8, 8, 3))
    x = layers.Conv2D(1, 2, 2, name="conv")(entry)
    field = receptive_field(keras.Model(entry, x), "conv")
    assert field.nearest([[0, 7, 3.4], [0, -0.5, 1.4]]).tolist() == [
        [0, 3, 1],
        [0, 0, 0],
    ]
    pooled = field.pooled((1, 3, 2))
    assert pooled.rows.tolist() == [2.5] and pooled.columns.tolist() == [
        1.5,
        5.5,
    ]
    assert pooled.size == (1, 6, 4) and pooled.stride == (1, 6, 4)
    assert checks.numpy(pooled.centres([[0, 0, 1]])).tolist() == [[0, 2.5, 5.5]]
