import keras
import numpy as np
import pytest

from keras_nonlocal.ops import pairwise
from tests.checks import numpy


def tensors(rng):
    theta = rng.normal(size=(2, 5, 4)).astype("float32")
    phi = rng.normal(size=(2, 3, 4)).astype("float32")
    return theta, phi, rng.normal(size=(8, 1)).astype("float32")


@pytest.mark.parametrize("mode", pairwise.MODES)
def test_masked_keys_might_as_well_not_be_there(mode, rng):
    theta, phi, w_f = tensors(rng)
    mask = np.array([True, False, True])[None, None]
    masked = numpy(
        pairwise.pairwise_weights(mode, theta, phi, w_f=w_f, mask=mask)
    )
    shorter = numpy(
        pairwise.pairwise_weights(mode, theta, phi[:, [0, 2]], w_f=w_f)
    )
    np.testing.assert_allclose(masked[..., [0, 2]], shorter, rtol=1e-5)
    assert not masked[..., 1].any()


@pytest.mark.parametrize("mode", pairwise.MODES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_accumulates_in_float32_or_better(mode, dtype, rng):
    if dtype == "float64" and keras.backend.backend() != "tensorflow":
        pytest.skip("keras.ops multiplies in float64 on TensorFlow only")
    theta, phi, w_f = (
        keras.ops.convert_to_tensor(x, dtype) for x in tensors(rng)
    )
    weights = pairwise.pairwise_weights(mode, theta, phi, w_f=w_f)
    expected = "float64" if dtype == "float64" else "float32"
    assert keras.backend.standardize_dtype(weights.dtype) == expected


def test_softmax_of_large_affinities():
    theta = np.full((1, 1, 2), 1e3, "float32")
    phi = np.array([[[1e3, 0], [1e3, 1.0]]], "float32")
    weights = numpy(pairwise.pairwise_weights("gaussian", theta, phi))
    np.testing.assert_allclose(weights, [[[0.0, 1.0]]], atol=1e-6)


def test_one_key_gets_all_of_a_softmax():
    x = np.ones((1, 4, 2), "float32")
    weights = pairwise.pairwise_weights("gaussian", x, x[:, :1])
    np.testing.assert_array_equal(numpy(weights), np.ones((1, 4, 1)))
