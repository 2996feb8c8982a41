import keras
import numpy as np
import pytest

from keras_nonlocal.ops import pooling
from tests.checks import numpy


@pytest.mark.parametrize(
    ("size", "strides"),
    [
        ((1, 2, 2), None),
        ((2, 1, 1), None),
        ((2, 3, 3), (2, 2, 2)),
        ((1, 3, 3), (2, 2, 2)),
        ((1, 3, 3), (1, 2, 2)),
        ((3, 2, 1), (1, 1, 1)),
        ((1, 1, 1), None),
    ],
)
@pytest.mark.parametrize("shape", [(2, 5, 7, 8, 3), (1, 4, 3, 6, 2)])
def test_max_pool_is_the_3d_one(size, strides, shape, rng):
    x = rng.normal(size=shape).astype("float32")
    expected = keras.ops.max_pool(x, size, strides or size, padding="valid")
    actual = pooling.max_pool(x, size, strides)
    np.testing.assert_array_equal(numpy(actual), numpy(expected))


def test_max_pool_in_half_precision(rng):
    x = rng.normal(size=(1, 4, 6, 6, 2)).astype("float16")
    half = numpy(pooling.max_pool(x, (2, 2, 2)))
    full = numpy(pooling.max_pool(x.astype("float32"), (2, 2, 2)))
    assert half.dtype == "float16"
    np.testing.assert_array_equal(half, full)


def test_too_small_for_the_window():
    with pytest.raises(ValueError, match=r"\(2, 1, 1\).*\(1, 4, 4\)"):
        pooling.max_pool(np.ones((1, 1, 4, 4, 2), "float32"), (2, 1, 1))


@pytest.mark.parametrize(("height", "width"), [(7, 7), (9, 8), (3, 10), (2, 2)])
def test_position_means(height, width, rng):
    x = rng.normal(size=(2, 3, height, width, 4)).astype("float32")
    tall, wide = min(7, height), min(7, width)
    expected = np.stack(
        [
            np.stack(
                [
                    x[:, :, p : p + tall, q : q + wide].mean((1, 2, 3))
                    for q in range(width - wide + 1)
                ],
                axis=1,
            )
            for p in range(height - tall + 1)
        ],
        axis=1,
    )
    actual = numpy(pooling.position_means(x, 7))
    np.testing.assert_allclose(actual, expected, atol=1e-6)
