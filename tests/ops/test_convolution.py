import keras
import numpy as np
import pytest

from keras_nonlocal.ops import convolution
from tests import checks

# Kernel, strides, padding; sizes that the strides do not divide.
CASES = [
    ((1, 1, 1), (1, 1, 1), "valid"),
    ((1, 1, 1), (2, 3, 2), "valid"),
    ((1, 1, 1), (2, 2, 2), "same"),
    ((1, 3, 3), (1, 1, 1), "same"),
    ((1, 3, 2), (2, 2, 3), "same"),
    ((1, 3, 3), (3, 2, 1), "valid"),
    ((3, 1, 1), (1, 1, 1), "same"),
    ((3, 1, 1), (2, 1, 1), "valid"),
    ((2, 1, 1), (2, 2, 3), "same"),
]


def random(rng, *shape):
    return keras.ops.convert_to_tensor(rng.normal(size=shape), "float32")


@pytest.mark.parametrize(("size", "strides", "padding"), CASES)
def test_is_the_3d_convolution(size, strides, padding, rng):
    x = random(rng, 2, 5, 7, 6, 3)
    kernel, bias = random(rng, *size, 3, 4), random(rng, 4)
    expected = keras.ops.conv(x, kernel, strides, padding)
    assert np.std(checks.numpy(expected)) > 0.5
    np.testing.assert_allclose(
        checks.numpy(convolution.convolve(x, kernel, strides, padding)),
        checks.numpy(expected),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        checks.numpy(
            convolution.convolve(
                x, kernel, strides, padding, bias, keras.ops.relu
            )
        ),
        checks.numpy(keras.ops.relu(expected + bias)),
        atol=1e-5,
    )


def test_refuses_a_kernel_of_space_and_time(rng):
    x, kernel = random(rng, 1, 4, 4, 4, 3), random(rng, 3, 3, 1, 3, 2)
    with pytest.raises(ValueError, match=r"`kernel` must .* \(3, 3, 1, 3, 2\)"):
        convolution.convolve(x, kernel)


def test_choice():
    """The table of the docstring, for the backend of this run."""
    is_tensorflow = keras.backend.backend() == "tensorflow"
    two_d = "bfloat16" if is_tensorflow else "float32"
    for dtype in ("float16", "bfloat16", "float32"):
        x = keras.ops.zeros((1, 2, 2, 2, 1), dtype)
        expected = "conv2d" if dtype == two_d else "conv3d"
        for size in ((1, 1, 1), (1, 3, 3), (3, 1, 1)):
            assert convolution.choose_lowering(size, x) == expected
        assert convolution.choose_lowering((3, 3, 3), x) == "conv3d"


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="a tensor knows its device"
)
def test_never_2d_beside_an_accelerator(monkeypatch):
    is_tensorflow = keras.backend.backend() == "tensorflow"
    dtype = "bfloat16" if is_tensorflow else "float32"
    x = keras.ops.zeros((1, 2, 2, 2, 1), dtype)
    assert convolution.choose_lowering((1, 3, 3), x) == "conv2d"
    monkeypatch.setattr(
        convolution.distribution, "list_devices", lambda: ["gpu:0"]
    )
    assert convolution.choose_lowering((1, 3, 3), x) == "conv3d"
