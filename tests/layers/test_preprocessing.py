import keras
import numpy as np
import pytest

from keras_nonlocal import ClipNormalization
from tests import checks


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_values(dtype, rng):
    clip = rng.integers(0, 256, (2, 3, 4, 5, 3)).astype(dtype)
    y = checks.numpy(ClipNormalization()(clip))
    np.testing.assert_allclose(y, (clip - 114.75) / 57.375, atol=1e-6)
    layer = ClipNormalization([123.675, 116.28, 103.53], (58.0, 57.0, 57.0))
    expected = (clip - np.array([123.675, 116.28, 103.53])) / [58, 57, 57]
    np.testing.assert_allclose(checks.numpy(layer(clip)), expected, atol=1e-5)


def test_basics(rng, tmp_path):
    checks.run_layer_test(
        ClipNormalization,
        init_kwargs={"mean": [1.0, 2.0, 3.0], "std": 4.0},
        inputs=rng.uniform(0, 255, (2, 3, 4, 5, 3)).astype("float32"),
        expected_output_shape=(2, 3, 4, 5, 3),
        expected_num_weights=0,
        expected_num_trainable_weights=0,
        tmp_path=tmp_path,
    )


def test_half_precision_subtracts_in_float32():
    """In float16, 200.3 is 200.25 before the mean is taken off."""
    clip = np.full((1, 1, 1, 1, 3), 200.3, "float32")
    layer = ClipNormalization(mean=200.0, std=1.0, dtype="mixed_float16")
    y = layer(clip)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(checks.numpy(y), 0.3, rtol=1e-3)


@pytest.mark.parametrize(
    "arguments", [{"std": 0.0}, {"mean": [[1.0]]}, {"std": float("nan")}]
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ClipNormalization(**arguments)
