import pytest

from keras_nonlocal.evaluation.intervals import mean_interval
from keras_nonlocal.evaluation.intervals import wilson_interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # By hand from (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_values(correct, total, low, high):
    ends = wilson_interval(correct, total)
    assert ends == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts(correct, total):
    with pytest.raises(ValueError, match=f"total={total}"):
        wilson_interval(correct, total)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Half widths by hand: t s / sqrt(n) with t from a printed table.
        ([1.0, 3.0], (2.0, 2 - 12.7062, 2 + 12.7062)),
        (
            [2.0, 4.0, 4.0, 4.0, 6.0],
            (4.0, 4 - 2.7764 * (2 / 5) ** 0.5, 4 + 2.7764 * (2 / 5) ** 0.5),
        ),
        ([0.5, 0.5, 0.5], (0.5, 0.5, 0.5)),
        # 40 and 121 values of variance 1 about 0: t is 2.0227 and 1.9799.
        (
            [39**0.5 / 40**0.5, -(39**0.5) / 40**0.5] * 20,
            (0.0, -2.0227 / 40**0.5, 2.0227 / 40**0.5),
        ),
        ([1.0, -1.0] * 60 + [0.0], (0.0, -1.9799 / 11, 1.9799 / 11)),
    ],
    ids=["2", "5", "equal", "40", "121"],
)
def test_student_interval(values, expected):
    assert mean_interval(values) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")]])
def test_interval_of_too_little(values):
    with pytest.raises(ValueError, match="at least 2 finite values"):
        mean_interval(values)
