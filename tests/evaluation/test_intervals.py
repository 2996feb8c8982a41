import pytest

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
