import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_nonlocal
from keras_nonlocal import NonLocal
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal.models.insertion import insert_nonlocal
from keras_nonlocal.models.insertion import nonlocal_layers
from tests import checks

SIZE = (12, 12, 3)
APPLICATIONS = {
    "ResNet50": r"conv4_block[35]_out",
    "EfficientNetV2B0": ["block5a_activation", "block6a_project_bn"],
    "MobileNetV3Small": r"expanded_conv_[36]_add|activation_.",
    "ConvNeXtTiny": lambda layer: "_block_1_identity" in layer.name,
    "DenseNet121": ["conv3_block5_concat", "pool4_pool"],
}


class Halving(layers.Layer):
    """A layer without a config of its own."""

    def call(self, inputs):
        return inputs / 2


class Offset(layers.Layer):
    """A layer with a state that is neither config nor variable."""

    offset = 0.0

    def call(self, inputs):
        return inputs + self.offset

    def save_assets(self, dir_path):
        pathlib.Path(dir_path, "offset").write_text(str(self.offset))

    def load_assets(self, dir_path):
        self.offset = float(pathlib.Path(dir_path, "offset").read_text())


class Trainer(keras.Model):
    """A model with a way of its own to train."""


class Net(keras.Model):
    """A functional model with arguments of its own."""

    def __init__(self, filters):
        inputs = keras.Input(SIZE)
        outputs = layers.Conv2D(filters, 1, name="conv")(inputs)
        super().__init__(inputs, outputs)


class Transposed(layers.Layer):
    """A layer with the weights of another."""

    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def get_config(self):
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config):
        dense = keras.saving.deserialize_keras_object(config.pop("dense"))
        return cls(dense, **config)

    def call(self, inputs):
        return inputs @ ops.transpose(self.dense.kernel)


def random_model(inputs, outputs, **kwargs):
    model = keras.Model(inputs, outputs, **kwargs)
    checks.randomize(model)
    return model


def plain(**kwargs):
    """Two branches that meet, in layers and in operations."""
    x = entry = keras.Input(SIZE, name="image")
    x = layers.Conv2D(4, 3, name="conv1")(x)
    x = layers.BatchNormalization(name="norm")(x, training=False)
    x = layers.ReLU(name="relu")(x)
    y = ops.concatenate([ops.tanh(x[:, ::2, ::2]) * 2, x[:, 1::2, 1::2]], -1)
    y = layers.Conv2D(4, 1, name="conv2")(y)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Add(name="sum")([x, y + 1.0])
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return random_model(entry, layers.Dense(2, name="top")(x), **kwargs)


def backbone():
    x = entry = keras.Input(SIZE, name="image")
    for name in ("conv1", "conv2", "conv3"):
        x = layers.Conv2D(3, 3, padding="same", name=name)(x)
    return keras.Model(entry, x, name="backbone")


def nested():
    """Calls another model twice, and holds a Sequential."""
    x = entry = keras.Input(SIZE, name="image")
    base = backbone()
    base.trainable = False
    base.get_layer("conv3").trainable = True
    tail = keras.Sequential(
        [layers.Conv2D(3, 1, name="conv1"), layers.ReLU(name="relu")],
        name="tail",
        trainable=False,
    )
    x = layers.Add(name="add")([base(x, training=False), base(x * 2)])
    return random_model(entry, tail(x), name="outer")


def images(rng, *shape):
    return rng.normal(size=(2, *(shape or SIZE))).astype("float32")


def values(outputs):
    return [checks.numpy(x) for x in keras.tree.flatten(outputs)]


def assert_same(one, other, inputs):
    """The same outputs, which are not constant."""
    pairs = zip(values(one(inputs)), values(other(inputs)), strict=True)
    for x, y in pairs:
        np.testing.assert_array_equal(x, y)
        assert np.all(np.isfinite(x)) and np.ptp(x) > 0


def train(model, inputs):
    model.compile(keras.optimizers.SGD(0.1), "mse")
    target = keras.tree.map_structure(
        lambda x: np.ones(x.shape, "float32"), model(inputs)
    )
    model.fit(inputs, target, epochs=2, verbose=0)


def names(model):
    return {operation.name for operation in model.operations}


def check(model, after, expected, inputs, tmp_path, **kwargs):
    """Blocks where they are expected and nothing else changed."""
    result = insert_nonlocal(model, after, **kwargs)
    assert nonlocal_layers(result) == expected
    assert_same(result, model, inputs)
    assert result.name == model.name
    assert names(result) == names(model) | {x for x in expected if "/" not in x}
    result.save(tmp_path / "result.keras")
    reloaded = keras.models.load_model(tmp_path / "result.keras")
    assert nonlocal_layers(reloaded) == expected
    assert_same(reloaded, model, inputs)
    return result


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("conv1", ["conv1"]),
        ("norm", ["norm"]),
        ("relu", ["relu"]),
        ("conv.", ["conv1", "conv2"]),
        (re.compile("conv.|sum"), ["conv1", "conv2", "sum"]),
        (["pool", "re.*", "pool"], ["relu", "pool"]),
        (lambda x: isinstance(x, layers.Dropout), ["dropout"]),
    ],
)
def test_where(after, expected, share_weights, rng, tmp_path):
    expected = {f"nonlocal_{name}": name for name in expected}
    check(
        plain(name="net"),
        after,
        expected,
        images(rng),
        tmp_path,
        share_weights=share_weights,
    )


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name, rng, tmp_path):
    if keras.backend.backend() == "jax" and name != "ResNet50":
        pytest.skip("JAX compiles each operation by itself: half a minute")
    build = getattr(keras.applications, name)
    model = build(
        input_shape=(64, 64, 3),
        weights=None,
        classes=7,
        classifier_activation=None,
    )
    checks.randomize(model, scale=0.05)
    result = insert_nonlocal(model, APPLICATIONS[name])
    found = nonlocal_layers(result)
    assert len(found) > 1
    assert all(block == f"nonlocal_{after}" for block, after in found.items())
    assert names(result) == names(model) | set(found)
    assert_same(result, model, images(rng, 64, 64, 3))


def test_every_consumer_takes_the_block(rng):
    """Two of them and an output of the model."""
    entry = keras.Input(SIZE)
    x = layers.Conv2D(4, 1, name="conv")(entry)
    outputs = [x, x * 2.0, layers.ReLU(name="relu")(x)]
    model = random_model(entry, outputs)
    result = insert_nonlocal(model, "conv")
    checks.randomize(result.get_layer("nonlocal_conv"))
    before, after = values(model(images(rng))), values(result(images(rng)))
    assert np.max(np.abs(after[0] - before[0])) > 0.1
    np.testing.assert_array_equal(after[1], 2 * after[0])
    np.testing.assert_array_equal(after[2], np.maximum(after[0], 0))


def test_small_c2d_becomes_small_nl_c2d(rng):
    """With layers of the same names that do the same."""
    variant = Variant(depth=26, inflation=None, width=4, num_nonlocal=0)
    model = ResNet3D(variant, classes=5, name="net")
    checks.randomize(model, scale=0.1)
    result = insert_nonlocal(model, ["res3_1", "res4_1"])
    assert nonlocal_layers(result) == {
        "nonlocal_res3_1": "res3_1",
        "nonlocal_res4_1": "res4_1",
    }
    variant = Variant(depth=26, inflation=None, width=4, num_nonlocal=2)
    built = ResNet3D(variant, classes=5, name="net")
    assert nonlocal_layers(built) == nonlocal_layers(result)
    names = [x.name for x in built.layers if x.name != "network"]
    assert names == [x.name for x in result.layers]
    checks.randomize(result.get_layer("nonlocal_res4_1"))
    built.set_weights(result.get_weights())
    clip = rng.integers(0, 256, (2, 8, 40, 48, 3), "uint8")
    assert_same(built, result, clip)
    macs = keras_nonlocal.count_macs(result, (8, 40, 48, 3))
    assert macs == keras_nonlocal.count_macs(built, (8, 40, 48, 3))


@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize(
    "after", [["backbone"], ["backbone/conv2"], ["tail/relu"], ["tail", "add"]]
)
def test_nested_models(after, share_weights, rng, tmp_path):
    model = nested()
    expected = {re.sub(r"(\w+)$", r"nonlocal_\1", x): x for x in after}
    check(
        model,
        after,
        expected,
        images(rng),
        tmp_path,
        share_weights=share_weights,
    )


def test_nested_models_keep_what_is_trainable():
    model = nested()
    for after in ("add", "backbone/conv2"):
        result = insert_nonlocal(model, after)
        for name in ("conv1", "conv2", "conv3"):
            theirs = model.get_layer("backbone").get_layer(name)
            ours = result.get_layer("backbone").get_layer(name)
            assert ours.trainable == theirs.trainable
        tail = result.get_layer("tail")
        assert isinstance(tail, keras.Sequential)
        assert not tail.trainable and not tail.trainable_variables
    added = len(result.trainable_variables) - len(model.trainable_variables)
    assert added == 10


@pytest.mark.parametrize("share_weights", [False, True])
def test_layer_called_twice(share_weights, rng, tmp_path):
    """Has one block, behind both calls; others stay shared."""
    one, two = keras.Input(SIZE, name="one"), keras.Input(SIZE, name="two")
    first, second = layers.Conv2D(3, 1, name="a"), layers.Conv2D(3, 1, name="b")
    outputs = layers.Subtract(name="out")(
        [second(first(one)), second(second(first(two)))]
    )
    model = random_model([one, two], outputs)
    inputs = [images(rng), images(rng)]
    for after in ("a", "b"):
        result = check(
            model,
            after,
            {f"nonlocal_{after}": after},
            inputs,
            tmp_path,
            share_weights=share_weights,
        )
        assert len(result.weights) == 4 + 12
    checks.randomize(result.get_layer("nonlocal_b"))
    reloaded = keras.models.load_model(tmp_path / "result.keras")
    reloaded.set_weights(result.get_weights())
    assert_same(reloaded, result, inputs)


def test_layer_called_on_different_channels():
    relu = layers.ReLU(name="relu")
    entry = keras.Input(SIZE)
    x = relu(layers.Conv2D(8, 1)(relu(entry)))
    with pytest.raises(ValueError, match="'relu', of 3 and 8 channels"):
        insert_nonlocal(keras.Model(entry, x), "relu")


def test_structures(rng, tmp_path):
    entry = {name: keras.Input(SIZE, name=name) for name in "ab"}
    p, q = layers.Conv2D(3, 1, name="p"), layers.Conv2D(3, 1, name="q")
    x = p(entry["a"] + entry["b"])
    model = random_model(entry, {"x": x, "more": [q(x), (q(entry["a"]),)]})
    inputs = {name: images(rng) for name in "ab"}
    for after in ("p", "q"):
        expected = {f"nonlocal_{after}": after}
        result = check(model, after, expected, inputs, tmp_path)
        keras.tree.assert_same_structure(result.input, model.input)
        keras.tree.assert_same_structure(result.output, model.output)


def test_inputs_are_kept():
    entry = keras.Input(batch_shape=(4, *SIZE), dtype="uint8", name="image")
    other = keras.Input(SIZE, name="other", optional=True)
    x = layers.Conv2D(3, 1, name="conv")(layers.Rescaling(0.1)(entry))
    model = keras.Model([entry, other], [x, layers.ReLU()(other)])
    result = insert_nonlocal(model, "conv")
    assert [x.name for x in result.inputs] == ["image", "other"]
    assert [x.dtype for x in result.inputs] == ["uint8", "float32"]
    assert result.input_shape == [(4, *SIZE), (None, *SIZE)]
    assert result.get_layer("other").optional


def test_sequences(rng, tmp_path):
    x = entry = keras.Input((9,), dtype="int32")
    x = layers.Embedding(10, 4, name="embedding")(x)
    x = layers.LSTM(4, return_sequences=True, name="lstm")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(
        x, x, use_causal_mask=True
    )
    x = layers.Bidirectional(layers.LSTM(3), name="last")(x)
    model = random_model(entry, x)
    after = ["embedding", "lstm", "attention"]
    check(
        model,
        after,
        {f"nonlocal_{name}": name for name in after},
        rng.integers(0, 10, (2, 9)),
        tmp_path,
    )


def test_masks_elsewhere_are_kept(rng, tmp_path):
    x = entry = keras.Input((9,), dtype="int32")
    x = layers.Embedding(3, 4, mask_zero=True, name="embedding")(x)
    x = layers.LSTM(6, name="lstm")(x)
    model = random_model(entry, layers.Reshape((3, 2), name="reshape")(x))
    tokens = rng.integers(0, 3, (2, 9))
    expected = {"nonlocal_reshape": "reshape"}
    check(model, "reshape", expected, tokens, tmp_path)
    with pytest.raises(ValueError, match="'embedding', with a mask"):
        insert_nonlocal(model, "embedding")


def test_sequential(rng, tmp_path):
    model = keras.Sequential(
        [
            keras.Input(SIZE),
            layers.Normalization(name="normalization"),
            layers.Conv2D(4, 3, name="conv"),
        ],
        name="stack",
    )
    model.get_layer("normalization").adapt(3 * images(rng) + 1)
    result = insert_nonlocal(model, "conv", mode="dot_product")
    assert nonlocal_layers(result) == {"nonlocal_conv": "conv"}
    assert result.get_layer("nonlocal_conv").mode == "dot_product"
    assert result.name == "stack"
    assert_same(result, model, images(rng))
    result.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(reloaded, model, images(rng))


def test_reloaded_model(rng, tmp_path):
    plain().save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    expected = {"nonlocal_sum": "sum"}
    result = check(model, "sum", expected, images(rng), tmp_path)
    train(result, images(rng))
    reloaded = keras.models.load_model(tmp_path / "result.keras")
    expected = {"nonlocal_sum": "sum", "nonlocal_pool": "pool"}
    check(reloaded, "pool", expected, images(rng), tmp_path)


def test_part_of_a_model(rng):
    model = plain()
    part = keras.Model(model.get_layer("relu").output, model.output)
    expected = {"nonlocal_conv2": "conv2"}
    result = insert_nonlocal(part, "conv2")
    assert nonlocal_layers(result) == expected
    assert_same(result, part, images(rng, 10, 10, 4))


def test_training(rng):
    """Moves the block and its result, and not the model it came from."""
    model, inputs = plain(), images(rng)
    before = values(model(inputs))
    result = insert_nonlocal(model, "relu")
    block = result.get_layer("nonlocal_relu")
    fresh = values(block.weights)
    train(result, inputs)
    moved = [
        not np.array_equal(x, y)
        for x, y in zip(fresh, values(block.weights), strict=True)
    ]
    # The bias of phi adds the same to all affinities of a query, and that of
    # W_z is taken away by the batch norm.
    assert sum(moved) >= 8
    assert not np.array_equal(values(result(inputs))[0], before[0])
    np.testing.assert_array_equal(values(model(inputs))[0], before[0])
    after = values(result(inputs))
    train(model, inputs)
    np.testing.assert_array_equal(values(result(inputs))[0], after[0])


def test_shared_weights(rng, tmp_path):
    """Are the same objects, and the model remains usable."""
    model, inputs = plain(), images(rng)
    result = insert_nonlocal(model, "relu", share_weights=True)
    assert result.get_layer("conv2") is model.get_layer("conv2")
    train(result, inputs)
    block = result.get_layer("nonlocal_relu")
    block.out_norm.gamma.assign(ops.zeros(4))
    block.out_norm.beta.assign(ops.zeros(4))
    assert_same(model, result, inputs)
    model.save(tmp_path / "model.keras")
    assert_same(
        keras.models.load_model(tmp_path / "model.keras"), model, inputs
    )
    keras.Model(model.input, model.get_layer("pool").output)(inputs)


def test_copied_state(rng):
    """Random states too, and copies can be cut between layers."""
    model, inputs = plain(), images(rng)
    model(inputs, training=True)
    result = insert_nonlocal(model, "conv1")
    state = checks.numpy(model.get_layer("dropout").variables[0])
    copied = checks.numpy(result.get_layer("dropout").variables[0])
    np.testing.assert_array_equal(copied, state)
    one, other = (
        keras.Model(x.input, x.get_layer("pool").output)
        for x in (model, result)
    )
    assert_same(one, other, inputs)


def test_assets_are_copied(rng):
    offset = Offset(name="offset")
    offset.offset = 3.0
    entry = keras.Input(SIZE)
    x = layers.Conv2D(3, 1, name="conv")(offset(entry))
    model = random_model(entry, x)
    assert_same(insert_nonlocal(model, "conv"), model, images(rng))


def test_compiled_model_stays_uncompiled(rng):
    model = plain()
    model.compile("sgd", loss=lambda y_true, y_pred: ops.mean(y_pred))
    assert not insert_nonlocal(model, "sum").compiled


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_types_are_those_of_the_layers(dtype, rng):
    entry = keras.Input(SIZE)
    x = layers.Conv2D(4, 1, name="half", dtype=dtype)(entry)
    y = layers.Conv2D(4, 1, name="full", dtype="float32")(x)
    model = random_model(entry, [ops.cast(x, "float32"), y])
    result = insert_nonlocal(model, ["half", "full"])
    assert_same(result, model, images(rng))
    policies = {
        name: result.get_layer(name).dtype_policy.name
        for name in nonlocal_layers(result)
    }
    assert policies == {"nonlocal_half": dtype, "nonlocal_full": "float32"}
    with pytest.raises(ValueError, match="'half'.*float32, which gives"):
        insert_nonlocal(model, "half", dtype="float32")


def test_data_format():
    def model(*data_formats):
        x = entry = keras.Input((8, 9, 10))
        for data_format in data_formats:
            x = layers.ZeroPadding2D(data_format=data_format)(x)
        return keras.Model(entry, layers.ReLU(name="relu")(x))

    def found(model, **kwargs):
        result = insert_nonlocal(model, "relu", **kwargs)
        return result.get_layer("nonlocal_relu").data_format

    assert found(model()) == "channels_last"
    assert found(model("channels_first")) == "channels_first"
    both = model("channels_first", "channels_last")
    with pytest.raises(ValueError, match="`data_format` must be given: 'relu'"):
        found(both)
    assert found(both, data_format="channels_first") == "channels_first"
    own = insert_nonlocal(both, lambda x: "padding" in x.name)
    assert {
        own.get_layer(name).data_format for name in nonlocal_layers(own)
    } == {
        "channels_first",
        "channels_last",
    }


def test_custom_classes(rng):
    entry = keras.Input(SIZE)
    x = layers.Conv2D(4, 1, name="conv")(Halving(name="halving")(entry))
    model = Trainer(entry, x)
    result = insert_nonlocal(model, "conv")
    assert type(result) is Trainer
    assert result.get_layer("halving") is not model.get_layer("halving")
    assert_same(result, model, images(rng))
    with pytest.raises(ValueError, match="a Net cannot be made"):
        insert_nonlocal(Net(3), "conv")


def test_weights_of_another_layer(rng):
    entry = keras.Input((5, 4))
    dense = layers.Dense(4, use_bias=False, name="dense")
    model = random_model(entry, Transposed(dense, name="tied")(dense(entry)))
    with pytest.raises(ValueError, match="2 variables in place of 1.*share"):
        insert_nonlocal(model, "dense")
    result = insert_nonlocal(model, "dense", share_weights=True)
    assert_same(result, model, images(rng, 5, 4))


def test_layer_that_cannot_be_copied(rng):
    class Local(layers.Layer):
        def __init__(self, function):
            super().__init__(name="local")
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    entry = keras.Input(SIZE)
    model = random_model(
        entry, layers.Conv2D(3, 1, name="conv")(Local(ops.tanh)(entry))
    )
    with pytest.raises(ValueError, match="'local' .*cannot be copied.*share"):
        insert_nonlocal(model, "conv")
    result = insert_nonlocal(model, "conv", share_weights=True)
    assert_same(result, model, images(rng))
    assert nonlocal_layers(result) == {"nonlocal_conv": "conv"}


def test_blocks_after_blocks(rng, tmp_path):
    model = insert_nonlocal(plain(), "relu")
    with pytest.raises(ValueError, match="called 'nonlocal_relu', which is"):
        insert_nonlocal(model, "relu")
    expected = {
        "nonlocal_relu": "relu",
        "nonlocal_nonlocal_relu": "nonlocal_relu",
    }
    check(model, "nonlocal_relu", expected, images(rng), tmp_path)


def test_name():
    result = insert_nonlocal(plain(name="old"), "sum", name="new")
    assert result.name == "new"


def test_blocks_of_operations_are_listed():
    entry = keras.Input(SIZE)
    x = ops.add(entry, 1.0)
    model = keras.Model(entry, NonLocal(name="block")(x))
    (after,) = nonlocal_layers(model).values()
    assert after in names(model)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("conv3", r"'conv3', which no layer matches. Close: \['conv"),
        (["conv1", "x+"], r"'x\+', which no layer"),
        (re.compile("conv3"), "'conv3', which no layer"),
        ("conv(", r"'conv\(', which no layer"),
        ("image", "inputs excepted"),
        ([], "finds none"),
        (lambda layer: False, "finds none"),
        (3, "or a function. Received: 3"),
        (["conv1", lambda layer: True], "or a function. Received: <fun"),
        (layers.ReLU(), "the name of a layer"),
        ("top", r"'top', with shape \(None, 2\)"),
        (".*", "with shape"),
    ],
)
def test_wrong_places(after, message):
    with pytest.raises(ValueError, match=message):
        insert_nonlocal(plain(), after)


def test_name_in_a_nested_model_without_its_path():
    with pytest.raises(ValueError, match=r"Close: \['backbone/conv3'\]"):
        insert_nonlocal(nested(), "conv3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "sum"}, "mode"),
        ({"pool_size": (2, 2, 2)}, "after 'relu': .*must have 2 numbers"),
        ({"pool_size": (20, 20)}, "after 'relu': .*does not fit"),
        ({"heads": 2}, "heads"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        insert_nonlocal(plain(), "relu", **arguments)


def test_wrong_outputs():
    entry = keras.Input((9, 4), name="sequence")
    x = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")
    whole = ops.cast(entry, "int32")
    model = keras.Model(
        entry, [*x(entry), layers.Identity(name="whole", dtype="int32")(whole)]
    )
    with pytest.raises(ValueError, match="'lstm', with (tuple|list) of"):
        insert_nonlocal(model, "lstm")
    with pytest.raises(ValueError, match="'whole', with dtype int32"):
        insert_nonlocal(model, "whole")


@pytest.mark.parametrize(
    "model",
    [keras.Model(), keras.Sequential([layers.Dense(3)]), layers.Dense(3), None],
)
def test_wrong_models(model):
    with pytest.raises(ValueError, match="`model` must be a functional model"):
        insert_nonlocal(model, "dense")
