import inspect

import keras
import numpy as np
import pytest

from keras_nonlocal import Affine
from keras_nonlocal import BatchNormalization
from tests import checks

SHAPES = [(3, 4, 5, 6, 8), (4, 5, 6, 8), (6, 7, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_batch_norm_of_keras(shape, rng):
    """Same outputs, statistics and inference, from the same weights."""
    x = rng.normal(2.0, 3.0, shape).astype("float32")
    ours = BatchNormalization()
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    ours.build(shape)
    theirs.build(shape)
    checks.randomize(ours)
    theirs.set_weights(ours.get_weights())
    for training in (True, True, False):
        np.testing.assert_allclose(
            checks.numpy(ours(x, training=training)),
            checks.numpy(theirs(x, training=training)),
            rtol=1e-4,
            atol=1e-4,
        )
        for a, b in zip(ours.weights, theirs.weights, strict=True):
            assert a.path.split("/")[-1] == b.path.split("/")[-1]
            np.testing.assert_allclose(
                checks.numpy(a), checks.numpy(b), rtol=1e-4, atol=1e-5
            )


def test_frozen_layer_uses_and_keeps_its_statistics(rng):
    x = rng.normal(2.0, 3.0, SHAPES[0]).astype("float32")
    layer = BatchNormalization()
    layer.build(x.shape)
    checks.randomize(layer)
    layer.trainable = False
    before = layer.get_weights()
    frozen = checks.numpy(layer(x, training=True))
    np.testing.assert_array_equal(frozen, checks.numpy(layer(x)))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("mode", ["full", "larger_than"])
def test_statistics_move_once_where_layers_run_twice(mode, rng):
    x = rng.normal(2.0, 3.0, SHAPES[1]).astype("float32")
    entry = keras.Input(SHAPES[1][1:])
    plain = keras.Model(entry, BatchNormalization()(entry))
    with keras.RematScope(mode=mode):
        norm = BatchNormalization()
    twice = keras.Model(entry, norm(entry))
    for model in (plain, twice):
        checks.randomize(model)
        model.compile("sgd", "mse", jit_compile=False)
        model.train_on_batch(x, x)
    for one, other in zip(twice.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(checks.numpy(one), checks.numpy(other))


@pytest.mark.parametrize("cls", [BatchNormalization, Affine])
def test_basics(cls, rng, tmp_path):
    checks.run_layer_test(
        cls,
        init_kwargs={},
        inputs=rng.normal(size=SHAPES[0]).astype("float32"),
        expected_output_shape=SHAPES[0],
        expected_num_weights=4 if cls is BatchNormalization else 2,
        expected_num_trainable_weights=2 if cls is BatchNormalization else 0,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_training_keeps_float32_statistics(dtype, rng):
    x = rng.normal(300.0, 30.0, SHAPES[0]).astype("float32")
    layer = BatchNormalization(dtype=f"mixed_{dtype}")
    y = layer(keras.ops.cast(x, dtype), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    # A sum of squares of these would leave the range of float16.
    variance = (checks.numpy(layer.moving_variance) - 0.9) / 0.1
    np.testing.assert_allclose(variance, x.var((0, 1, 2, 3)), rtol=2e-2)


@pytest.mark.parametrize(
    "arguments", [{"axis": 1}, {"scale": False}, {"renorm": True}]
)
def test_refuses_what_it_does_not_do(arguments):
    if not arguments.keys() <= set(
        inspect.signature(keras.layers.BatchNormalization).parameters
    ):
        pytest.skip(f"this Keras has no {arguments}")
    with pytest.raises(ValueError, match=next(iter(arguments))):
        BatchNormalization(**arguments)


def test_affine_is_a_folded_batch_norm(rng):
    x = rng.normal(size=SHAPES[0]).astype("float32")
    norm = BatchNormalization()
    norm.build(x.shape)
    checks.randomize(norm)
    gamma, beta, mean, variance = map(checks.numpy, norm.weights)
    affine = Affine()
    affine.build(x.shape)
    scale = gamma / np.sqrt(variance + 1e-5)
    affine.set_weights([scale, beta - mean * scale])
    np.testing.assert_allclose(
        checks.numpy(affine(x)), checks.numpy(norm(x)), atol=1e-5
    )


def test_float64(rng):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where it is switched on")
    x = rng.normal(size=SHAPES[0])
    layer = BatchNormalization(dtype="float64")
    y = checks.numpy(
        layer(keras.ops.convert_to_tensor(x, "float64"), training=True)
    )
    axes = (0, 1, 2, 3)
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
    np.testing.assert_allclose(checks.numpy(y), expected, atol=1e-5)
