import numpy as np
import pytest

from keras_nonlocal.ops import windows
from tests.checks import numpy

CASES = [("spacetime", None), ("spacetime", 2), ("space", None), ("time", None)]


def clip():
    return np.arange(2 * 4 * 3 * 5 * 2, dtype="float32").reshape(2, 4, 3, 5, 2)


@pytest.mark.parametrize(("axes", "group"), CASES)
def test_unfold_undoes_fold(axes, group):
    x = clip()
    folded = windows.fold(x, axes, group)
    back = numpy(windows.unfold(folded, x.shape[:-1], axes))
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize(
    ("axes", "group", "shape"),
    [
        ("spacetime", None, (2, 60, 2)),
        ("spacetime", 2, (4, 30, 2)),
        ("space", None, (8, 15, 2)),
        ("time", None, (30, 4, 2)),
    ],
)
def test_windows_hold_what_they_say(axes, group, shape):
    x = clip()
    folded = numpy(windows.fold(x, axes, group))
    assert folded.shape == shape
    expected = {
        ("spacetime", None): x[0],
        ("spacetime", 2): x[0, :2],
        ("space", None): x[0, 0],
        ("time", None): x[0, :, 0, 0],
    }[axes, group]
    np.testing.assert_array_equal(folded[0], expected.reshape(-1, 2))


@pytest.mark.parametrize(("axes", "group"), CASES)
def test_same_window_agrees_with_fold(axes, group):
    """Positions numbered 0, 1, ...: who shares a row of the folded numbers?"""
    grid = (4, 3, 5)
    number = np.arange(60, dtype="float32").reshape(1, *grid, 1)
    rows = numpy(windows.fold(number, axes, group))[..., 0].astype(int)
    expected = np.zeros((60, 60), bool)
    for row in rows:
        expected[np.ix_(row, row)] = True
    query = np.stack([axis.ravel() for axis in np.indices(grid)], axis=1)
    seen = numpy(windows.same_window(query, grid, axes, group))
    np.testing.assert_array_equal(seen, expected)
