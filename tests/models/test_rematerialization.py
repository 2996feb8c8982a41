import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import BatchNormalization
from keras_nonlocal import NonLocal
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal.models.rematerialization import UNITS
from keras_nonlocal.models.rematerialization import find_units
from keras_nonlocal.models.rematerialization import rematerialize
from tests import checks

TINY = Variant(depth=26, width=4, num_nonlocal=2, stem="stride1")


def network(dtype="float32"):
    """A stem, a residual block with a non-local one, and a head."""
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = entry = keras.Input((8, 8, 3))
    x = layers.ReLU()(BatchNormalization()(layers.Conv2D(4, 3)(x)))
    x = shortcut = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.ReLU()(BatchNormalization()(x))
    x = layers.Conv2D(4, 1)(x)
    x = layers.ReLU()(layers.Add()([shortcut, BatchNormalization()(x)]))
    x = layers.Dropout(0.5)(NonLocal()(x))
    x = layers.Add()([x, layers.Conv2D(4, 1)(x)])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(3, "softmax", dtype="float32")(x)
    model = keras.Model(entry, x)
    checks.randomize(model, scale=0.3)
    return model


def train(model, trained, images):
    """Weights and losses after two steps; each draws dropout masks."""
    trained.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    labels = np.arange(len(images)) % 3
    losses = [float(trained.train_on_batch(images, labels)) for _ in range(2)]
    return [checks.numpy(weight) for weight in model.weights], losses


@pytest.fixture
def images(rng):
    return rng.normal(size=(4, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize(
    "dtype, tolerance", [("float32", 1e-3), ("mixed_bfloat16", 0.1)]
)
def test_trains_as_without(dtype, tolerance, images):
    model = network(dtype)
    start = [checks.numpy(weight) for weight in model.weights]
    expected, losses = train(model, model, images)
    # Weights and statistics move, or nothing is compared.
    moved = [
        np.max(np.abs(one - other))
        for one, other in zip(start, expected, strict=True)
    ]
    assert np.mean(np.array(moved) > 1e-3) > 0.7
    for units in UNITS:
        model = network(dtype)
        found, found_losses = train(model, rematerialize(model, units), images)
        np.testing.assert_allclose(found_losses, losses, rtol=tolerance)
        for one, other, change in zip(found, expected, moved, strict=True):
            bound = tolerance * (change + 1e-2)
            np.testing.assert_allclose(one, other, rtol=0, atol=bound)


def test_losses_inside_are_kept(images):
    layers = keras.layers
    entry = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, kernel_regularizer="l2")(entry)
    x = layers.ReLU(activity_regularizer="l2")(BatchNormalization()(x))
    x = layers.Conv2D(4, 3, kernel_regularizer="l2")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(entry, layers.Dense(3, "softmax")(x))
    checks.randomize(model, scale=0.3)
    before = model.get_weights()
    _, losses = train(model, model, images)
    model.set_weights(before)
    _, actual = train(model, rematerialize(model, "norms"), images)
    np.testing.assert_allclose(actual, losses, rtol=1e-4)


def test_same_layers_and_results(images, tmp_path):
    model = network()
    names = [layer.name for layer in model.layers]
    trained = rematerialize(model, "blocks")
    assert {weight.path for weight in trained.weights} == {
        weight.path for weight in model.weights
    }
    assert [layer.name for layer in model.layers] == names
    np.testing.assert_allclose(
        checks.numpy(trained(images)), checks.numpy(model(images)), atol=1e-6
    )
    path = tmp_path / "model.keras"
    trained.save(path)
    reloaded = keras.models.load_model(path)
    np.testing.assert_allclose(
        checks.numpy(reloaded(images)), checks.numpy(model(images)), atol=1e-6
    )


def test_units_of_a_residual_network():
    model = ResNet3D(TINY, include_top=False)
    blocks = [unit[-1].name for unit in find_units(model, "blocks")]
    assert blocks == [
        "pool1",
        "res2_0",
        "pool2",
        "res3_0",
        "nonlocal_res3_1",
        "res4_0",
        "nonlocal_res4_1",
        "res5_0",
    ]
    names = [[op.name for op in unit] for unit in find_units(model, "norms")]
    assert names[:2] == [
        ["conv1_pad", "conv1"],
        ["conv1_bn", "conv1_relu", "pool1"],
    ]
    prefix = "res3_0_branch2"
    assert [
        f"{prefix}a_bn",
        f"{prefix}a_relu",
        f"{prefix}b_pad",
        f"{prefix}b",
    ] in names
    # A frozen norm keeps nothing: computing it again would save nothing.
    frozen = ResNet3D(
        dataclasses.replace(TINY, norm="affine"), include_top=False
    )
    chains = find_units(frozen, "norms")
    assert {op.name[-4:] for unit in chains for op in unit[:-1]} == {"_pad"}


def test_refuses_what_it_cannot_take_apart():
    entry = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(3, 1)
    plain = keras.Model(entry, conv(entry))
    with pytest.raises(ValueError, match="no blocks"):
        rematerialize(plain)
    with pytest.raises(ValueError, match="`units` must be one of"):
        rematerialize(plain, "all")
    with pytest.raises(ValueError, match="must be a functional model"):
        rematerialize(keras.layers.ReLU())
    norm = keras.layers.BatchNormalization()
    shared = keras.layers.Conv2D(3, 1)
    x = shared(norm(shared(entry)))
    with pytest.raises(ValueError, match="each layer once"):
        rematerialize(keras.Model(entry, x), "norms")
    parts = keras.ops.split(entry, 3, axis=-1)
    with pytest.raises(ValueError, match="one output each. Received: 'split"):
        rematerialize(keras.Model(entry, parts[0]), "norms")


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="as `fit` on TensorFlow"
)
@pytest.mark.parametrize(
    "scope, again",
    [
        ({"mode": "full"}, 2),
        ({"mode": "list_of_layers", "layer_names": ["nonlocal_res4_1"]}, 1),
    ],
)
def test_networks_in_a_remat_scope(scope, again, rng, monkeypatch):
    """Trains as without; each block that the scope means is traced again."""
    respond, calls = NonLocal._response, []
    monkeypatch.setattr(
        NonLocal,
        "_response",
        lambda self, inputs: calls.append(self) or respond(self, inputs),
    )
    keras.utils.set_random_seed(0)
    plain = ResNet3D(TINY, classes=3)
    checks.randomize(plain, scale=0.1)
    keras.utils.set_random_seed(0)
    with keras.RematScope(**scope):
        model = ResNet3D(TINY, classes=3)
    model.set_weights(plain.get_weights())
    clips = rng.uniform(0, 255, (2, 4, 32, 32, 3)).astype("float32")
    calls.clear()
    expected, losses = train(plain, plain, clips)
    traced = len(calls)
    calls.clear()
    actual, losses_in_scope = train(model, model, clips)
    # Keras traces the step twice, each block once or twice in it.
    assert traced == 4
    assert len(calls) == traced + 2 * again
    np.testing.assert_allclose(losses_in_scope, losses, rtol=1e-4)
    for one, other, weight in zip(actual, expected, plain.weights, strict=True):
        error = np.max(np.abs(one - other)) / (1e-3 + np.max(np.abs(other)))
        assert error < 1e-3, weight.path
