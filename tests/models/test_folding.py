import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal import Affine
from keras_nonlocal import BatchNormalization
from keras_nonlocal import InceptionI3D
from keras_nonlocal import NonLocal
from keras_nonlocal import ResNet3D
from keras_nonlocal import insert_nonlocal
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.models.folding import FoldedRecord
from keras_nonlocal.models.folding import fold_batch_norm
from tests import checks
from tests.models.test_insertion import Transposed
from tests.models.test_resnet3d import SMALL
from tests.models.test_resnet3d import random_clip
from tests.models.test_resnet3d import small

# What can take a norm in, with its input.
LAYERS = [
    (layers.Conv1D(5, 3, use_bias=False), (9, 4)),
    (layers.Conv2D(6, 3, groups=2, strides=2), (9, 9, 4)),
    (layers.Conv3D(5, 2), (4, 6, 6, 4)),
    (Conv3D(5, (1, 3, 3), use_bias=False, lowering="conv2d"), (4, 6, 6, 4)),
    (layers.Dense(5), (4,)),
    (layers.Dense(5, use_bias=False), (6, 6, 4)),
    (layers.DepthwiseConv1D(3, depth_multiplier=2), (9, 4)),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 4)),
    (layers.SeparableConv1D(5, 3), (9, 4)),
    (layers.SeparableConv2D(5, 3, use_bias=False), (9, 9, 4)),
    (layers.Conv1DTranspose(5, 3), (9, 4)),
    (layers.Conv2DTranspose(5, 3, use_bias=False), (6, 6, 4)),
    (layers.Conv3DTranspose(5, 2), (3, 4, 4, 4)),
]


def norms(model):
    kinds = (layers.BatchNormalization, Affine)
    return [x.name for x in model.layers if isinstance(x, kinds)]


def outputs(model, inputs):
    found = keras.tree.flatten(model(inputs, training=False))
    return [checks.numpy(keras.ops.cast(x, "float32")) for x in found]


def assert_folds(model, inputs, left=(), tolerance=1e-5):
    """Same outputs without norms but those that are `left`."""
    checks.randomize(model, scale=0.2)
    before = [checks.numpy(weight) for weight in model.weights]
    folded = fold_batch_norm(model)
    assert norms(folded) == list(left)
    assert set(left) < set(norms(model))
    pairs = zip(outputs(folded, inputs), outputs(model, inputs), strict=True)
    for ours, expected in pairs:
        assert np.ptp(expected) > 1e-3
        np.testing.assert_allclose(
            ours, expected, rtol=0, atol=tolerance * np.max(np.abs(expected))
        )
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(checks.numpy(weight), old)
    return folded


def inputs_of(rng, *shape):
    return rng.normal(size=(2, *shape)).astype("float32")


@pytest.mark.parametrize(
    ("layer", "shape"), LAYERS, ids=[type(x).__name__ for x, _ in LAYERS]
)
def test_layers(layer, shape, rng):
    layer = type(layer).from_config(layer.get_config())
    entry = keras.Input(shape)
    x = layers.BatchNormalization(name="norm")(layer(entry))
    model = keras.Model(entry, layers.ReLU()(x))
    folded = assert_folds(model, inputs_of(rng, *shape))
    assert type(folded.layers[1]) is type(layer)
    assert folded.layers[1].name == layer.name


@pytest.mark.parametrize(
    "norm",
    [
        layers.BatchNormalization(scale=False, epsilon=0.1),
        layers.BatchNormalization(center=False),
        layers.BatchNormalization(axis=2),
        BatchNormalization(),
        Affine(),
    ],
)
def test_norms(norm, rng):
    norm = type(norm).from_config(norm.get_config())
    entry = keras.Input((9, 4))
    model = keras.Model(entry, norm(layers.Conv1D(3, 2)(entry)))
    assert_folds(model, inputs_of(rng, 9, 4))


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="TensorFlow convolves channels_first on GPUs alone",
)
def test_channels_first(rng):
    entry = keras.Input((4, 9))
    x = layers.Conv1D(3, 2, data_format="channels_first")(entry)
    x = layers.BatchNormalization(axis=1)(x)
    assert_folds(keras.Model(entry, x), inputs_of(rng, 4, 9))


def test_what_has_to_stay(rng):
    """Each of these norms would be lost or misplaced; the last is folded."""
    entry = x = keras.Input((8, 3))
    x = layers.BatchNormalization(name="first")(x)
    x = layers.Conv1D(3, 1, activation="relu")(x)
    x = layers.BatchNormalization(name="after_activation")(x)
    x = layers.Conv1D(8, 1)(x)
    x = layers.BatchNormalization(axis=1, name="other_axis")(x)
    branch = layers.Conv1D(3, 1)(x)
    x = layers.BatchNormalization(name="two_readers")(branch)
    x = layers.Add()([x, branch])
    shared = layers.Conv1D(3, 1)
    x = layers.BatchNormalization(name="shared_layer")(shared(x))
    x = shared(x)
    norm = layers.BatchNormalization(name="shared_norm")
    x = norm(layers.Conv1D(3, 1)(norm(x)))
    x = layers.Conv1D(3, 1)(x)
    x = layers.BatchNormalization(name="by_the_batch")(x, training=True)
    x = layers.Conv1D(3, 1, dtype="mixed_bfloat16")(x)
    x = layers.BatchNormalization(name="other_dtype", dtype="float32")(x)
    seen = layers.Conv1D(3, 1)(x)
    x = layers.BatchNormalization(name="of_an_output")(seen)
    x = layers.BatchNormalization(name="gone")(layers.Conv1D(3, 1)(x))
    model = keras.Model(entry, {"seen": seen, "x": x})
    left = [name for name in norms(model) if name != "gone"]
    assert len(left) == 9
    # What is called for training keeps statistics.
    model.get_layer("by_the_batch").momentum = 1.0
    assert_folds(model, inputs_of(rng, 8, 3), left)


def inner(name):
    """A model with a norm to be folded."""
    entry = keras.Input((8, 3))
    x = layers.Conv1D(3, 1, use_bias=False, name="conv")(entry)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(entry, layers.ReLU()(x), name=name)


def test_nested_models(rng):
    """Called twice, in a Sequential, and deeper; not the one in training."""
    one, other = keras.Input((8, 3), name="a"), keras.Input((8, 3), name="b")
    twice = inner("twice")
    deep = keras.Sequential(
        [inner("innermost"), layers.Conv1D(3, 1), layers.BatchNormalization()],
        name="deep",
    )
    trained = inner("trained")
    trained.get_layer("norm").momentum = 1.0
    x = layers.Add()([twice(one), twice(other)])
    model = keras.Model(
        {"a": one, "b": other}, [deep(x), trained(x, training=True)]
    )
    checks.randomize(model)
    inputs = {key: inputs_of(rng, 8, 3) for key in "ab"}
    folded = fold_batch_norm(model)
    for ours, theirs in zip(
        outputs(folded, inputs), outputs(model, inputs), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.ptp(theirs) > 1e-3
    assert norms(folded.get_layer("twice")) == []
    assert norms(folded.get_layer("deep")) == []
    assert norms(folded.get_layer("deep").get_layer("innermost")) == []
    assert norms(folded.get_layer("trained")) == ["norm"]
    assert len(model.weights) - len(folded.weights) == 3 * 4 - 2


def test_residual_network(rng, tmp_path):
    model = small()
    clip = random_clip(rng)
    folded = assert_folds(model, clip)
    block = folded.get_layer("nonlocal_res3_1")
    assert (block.norm, block.out_bias) == (None, True)
    path = str(tmp_path / "folded.keras")
    folded.save(path)
    reloaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(
        checks.numpy(reloaded(clip)), checks.numpy(folded(clip))
    )
    # There is nothing left to fold, and the record stays what it is.
    again = fold_batch_norm(reloaded)
    assert again.get_layer("network").network == (
        folded.get_layer("network").network
    )
    assert len(again.weights) == len(folded.weights)


def test_refuses_shared_variables():
    entry = keras.Input((8, 3))
    dense = layers.Dense(3)
    x = layers.BatchNormalization()(dense(entry))
    model = keras.Model(entry, Transposed(dense)(x))
    with pytest.raises(ValueError, match="variables in common"):
        fold_batch_norm(model)


@pytest.mark.parametrize(
    ("mode", "norm"), [("gaussian", "batch"), ("concatenation", "affine")]
)
def test_all_weights_of_a_block_are_taken_over(mode, norm, rng):
    entry = keras.Input((4, 4, 6))
    block = NonLocal(mode, out_bias=False, norm=norm, name="block")
    model = keras.Model(entry, block(layers.ReLU(name="relu")(entry)))
    checks.randomize(model)
    folded = fold_batch_norm(model)
    x = inputs_of(rng, 4, 4, 6)
    gone = len(block.out_norm.weights)
    assert len(folded.weights) == len(model.weights) - gone + 1
    np.testing.assert_allclose(
        outputs(folded, x)[0], outputs(model, x)[0], atol=1e-5
    )


def test_other_networks(rng):
    image = rng.integers(0, 256, (2, 32, 32, 3)).astype("float32")
    mobile = keras.applications.MobileNet((32, 32, 3), 0.25, weights=None)
    assert_folds(mobile, image)
    model = insert_nonlocal(mobile, "conv_pw_11_relu")
    folded = assert_folds(model, image)
    assert folded.get_layer("nonlocal_conv_pw_11_relu").norm is None


def test_inception(rng):
    # By hand: its features would be drowned by random weights.
    entry = keras.Input((None, None, None, 3))
    model = InceptionI3D(input_tensor=entry, include_top=False)
    part = keras.Model(entry, model.get_layer("Mixed_3b").output)
    assert_folds(part, random_clip(rng, (1, 4, 16, 16, 3)))


def test_half_precision(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert_folds(small(), random_clip(rng), tolerance=0.1)


def test_refuses_what_it_cannot_take_apart():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="functional model or a built Seq"):
        fold_batch_norm(Own())


# Keras first warns of what it fails to load a second time.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_do_not_pass_between_folded_and_not(tmp_path):
    model = small()
    folded = fold_batch_norm(model)
    path, other = (str(tmp_path / f"{x}.weights.h5") for x in "ab")
    model.save_weights(path)
    with pytest.raises(ValueError, match="not folded"):
        folded.load_weights(path)
    folded.save_weights(other)
    with pytest.raises(ValueError):
        model.load_weights(other)
    with pytest.raises(ValueError, match="Variant with folded batch norms"):
        ResNet3D(SMALL, classes=5, weights=other)
    fold_batch_norm(small()).load_weights(other)


# Keras first warns of what it fails to load a second time.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_other_models_do_not_pass_either(tmp_path):
    """Their convolutions have biases: only the record tells them apart."""
    entry = keras.Input((8, 3))
    x = layers.BatchNormalization()(layers.Conv1D(3, 1)(entry))
    model = keras.Model(entry, x)
    folded = fold_batch_norm(model)
    path, other = (str(tmp_path / f"{x}.weights.h5") for x in "ab")
    model.save_weights(path)
    folded.save_weights(other)
    with pytest.raises(ValueError, match="not folded"):
        folded.load_weights(path)
    with pytest.raises(ValueError):
        model.load_weights(other)
    assert sum(isinstance(x, FoldedRecord) for x in folded.layers) == 1


def test_taken_names_and_frozen_parts(rng):
    entry = keras.Input((6, 6, 4))
    block = NonLocal(name="folded")
    x = block(layers.BatchNormalization()(layers.Conv2D(4, 1)(entry)))
    model = keras.Model(entry, x)
    block.theta.trainable = False
    block.out.trainable = False
    images = rng.normal(size=(2, 6, 6, 4)).astype("float32")
    assert_folds(model, images)
    folded = fold_batch_norm(model).get_layer("folded")
    names = [weight.path.split("/")[-2] for weight in folded.trainable_weights]
    assert names == ["phi", "phi", "g", "g"]
