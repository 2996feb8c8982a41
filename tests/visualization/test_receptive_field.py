import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal import NonLocal
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import PositionPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.visualization.receptive_field import ReceptiveFields
from keras_nonlocal.visualization.receptive_field import receptive_field
from tests import checks


def seen(model, size):
    """Which frames, rows and columns each position depends on, measured.

    All kernels are positive and nothing is added, so that an output is positive
    where it sees a frame (row, column) that is not black.

    Returns:
        For each axis booleans `(positions, size)`.
    """
    # Fresh blocks are the identity, and stay so.
    weights = [
        weight
        for layer in model.layers
        if not isinstance(layer, NonLocal)
        for weight in layer.weights
    ]
    for weight in weights:
        if "moving" not in weight.path and len(weight.shape) > 1:
            # Averages: through many layers sums would overflow.
            weight.assign(np.full(weight.shape, 1 / weight.shape[-2]))
        elif "gamma" in weight.path:
            weight.assign(np.ones(weight.shape))
    clips = []
    for axis, count in enumerate(size):
        for place in range(count):
            clip = np.zeros((*size, model.input_shape[-1]), "float32")
            clip[(slice(None),) * axis + (place,)] = 1
            clips.append(clip)
    outputs = model.predict(np.array(clips), verbose=0, batch_size=32)
    depends = outputs.max(axis=-1) > 0
    found = []
    for axis, part in enumerate(
        np.split(depends, np.cumsum(size)[:-1].tolist())
    ):
        others = [i for i in range(1, part.ndim) if i != axis + 1]
        found.append(part.any(axis=tuple(others)).T)
    return found


def check_as_measured(model, size):
    """Boxes, cut at the border of the clip, are what was measured."""
    field = receptive_field(model, model.output, size)
    centres = (field.times, field.rows, field.columns)[-len(size) :]
    extents = field.size[-len(size) :]
    for axis, depends in enumerate(seen(model, size)):
        assert len(depends) == len(centres[axis])
        for centre, row in zip(centres[axis], depends, strict=True):
            reach = (extents[axis] - 1) / 2
            inside = np.abs(np.arange(size[axis]) - centre) <= reach
            np.testing.assert_array_equal(row, inside)
    return field


def same_with_strides(x):
    x = layers.Conv3D(2, 3, 2, padding="same")(x)
    x = MaxPooling((2, 3, 3), (1, 2, 2), padding="same")(x)
    return Conv3D(2, (3, 1, 1), padding="same", lowering="conv2d")(x)


def explicit_paddings(x):
    x = layers.ZeroPadding3D(((0, 1), (2, 1), (0, 3)))(x)
    x = layers.Conv3D(2, (2, 3, 5), strides=(1, 2, 2), use_bias=False)(x)
    x = layers.BatchNormalization()(layers.ReLU()(x))
    x = layers.Cropping3D(((1, 0), (0, 1), (1, 1)))(x)
    return layers.AveragePooling3D(2, 1)(x)


def dilated_and_windowed(x):
    x = layers.Conv3D(2, 2, dilation_rate=(1, 2, 3), padding="same")(x)
    return WindowAverage((2, 3, 3))(x)


def branches(x):
    """Their centres differ: a window of 3 by "same" begins at the position."""
    wide = layers.Conv3D(2, 3, 2, padding="same")(x)
    thin = layers.Conv3D(2, 1, 2)(x)
    x = layers.Add()([wide, thin])
    x = layers.Concatenate()([x, layers.Conv3D(1, 3, padding="same")(x)])
    return NonLocal()(x)


def up_and_down(x):
    y = layers.Conv3D(2, 2, 2)(x)
    y = layers.Conv3D(2, (1, 3, 3), padding="same")(y)
    return layers.UpSampling3D(2)(y)


def moved_axes(x):
    """Time and rows change places and back; frames one by one."""
    x = layers.Permute((2, 1, 3, 4))(x)
    x = layers.Conv3D(2, (3, 1, 1), strides=(2, 1, 1))(x)
    x = layers.Permute((2, 1, 3, 4))(x)
    inner = keras.Sequential(
        [
            keras.Input(x.shape[2:]),
            layers.TimeDistributed(layers.ZeroPadding1D((2, 0))),
            layers.DepthwiseConv2D(3),
        ]
    )
    return layers.TimeDistributed(inner)(x)


@pytest.mark.parametrize("size", [(4, 10, 12), (5, 9, 11)])
@pytest.mark.parametrize(
    "build",
    [
        same_with_strides,
        explicit_paddings,
        dilated_and_windowed,
        branches,
        up_and_down,
        moved_axes,
    ],
)
def test_as_measured(build, size):
    if build is up_and_down:
        size = (4, 8, 12)
    entry = keras.Input((*size, 2))
    model = keras.Model(entry, build(entry))
    if build is dilated_and_windowed:
        # Holes of a kernel are in its box: only the ends are compared.
        field = receptive_field(model, model.output)
        for rows, centres in zip(
            seen(model, size),
            (field.times, field.rows, field.columns),
            strict=True,
        ):
            middle = rows[len(rows) // 2]
            ends = np.flatnonzero(middle)[[0, -1]]
            assert ends.mean() == centres[len(rows) // 2]
        return
    check_as_measured(model, size)


@pytest.mark.parametrize(
    "arguments",
    [
        {"stem": "stride1"},
        {"stem": "stride4", "pool1_padding": 1, "inflation": "3x3x3"},
    ],
)
def test_networks_of_the_paper_as_measured(arguments):
    variant = Variant(depth=26, width=2, num_nonlocal=1, **arguments)
    network = ResNet3D(variant, include_top=False, include_preprocessing=False)
    model = keras.Model(network.input, network.get_layer("res3_1").output)
    field = check_as_measured(model, (8, 44, 20))
    assert field.stride == ((2 if variant.stem == "stride1" else 8), 8, 8)


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


def test_context_of_whole_channels_is_left_out():
    """A squeeze-and-excitation does not make every position see all."""
    entry = keras.Input((16, 16, 4))
    x = layers.Conv2D(4, 3, name="conv")(entry)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    assert receptive_field(keras.Model(entry, x), "gated").size == (1, 3, 3)


@keras.saving.register_keras_serializable(package="test")
class EveryThird(layers.Layer):
    def call(self, inputs):
        return inputs[:, 1::3]

    def compute_output_shape(self, shape):
        return (shape[0], (shape[1] + 1) // 3, shape[2])


class Telling(EveryThird):
    def receptive_windows(self, sizes):
        return [(1, 3, -1)]


def test_layers_of_others():
    entry = keras.Input((9, 2))

    def field(layer):
        outputs = layers.ReLU(name="relu")(layer(entry))
        return receptive_field(keras.Model(entry, outputs), "relu")

    with pytest.raises(ValueError, match=r"'third' \(EveryThird\)"):
        field(EveryThird(name="third"))
    np.testing.assert_array_equal(field(Telling()).times, [1, 4, 7])
    with pytest.raises(ValueError, match="Conv1DTranspose"):
        field(layers.Conv1DTranspose(2, 3, padding="same"))


def test_rematerialized_models_have_the_names_of_their_layers():
    variant = Variant(depth=26, width=2, num_nonlocal=1)
    model = ResNet3D(variant, include_top=False, input_shape=(8, 40, 40, 3))
    plain = receptive_field(model, "nonlocal_res4_0")
    other = receptive_field(rematerialize(model), "nonlocal_res4_0")
    np.testing.assert_array_equal(plain.rows, other.rows)


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
