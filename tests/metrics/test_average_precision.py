import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_nonlocal.metrics.average_precision import average_precision
from keras_nonlocal.metrics.average_precision import mean_average_precision


def case(seed, levels=None):
    """Scores and labels; with `levels`, of so many different scores.

    Class 0 never occurs, every video has class 1.
    """
    rng = np.random.default_rng(seed)
    videos, classes = rng.integers(3, 60), 9
    scores = rng.normal(size=(videos, classes)).astype("float32")
    if levels:
        scores = rng.integers(-levels, 0, size=scores.shape).astype("float32")
    labels = rng.random(size=scores.shape) < rng.random(classes)
    labels[:, 0], labels[:, 1] = False, True
    return scores, labels.astype("float32")


@pytest.mark.parametrize("levels", [None, 1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_equals_that_of_scikit_learn(seed, levels):
    scores, labels = case(seed, levels)
    ours = average_precision(scores, labels)
    occur = labels.any(axis=0)
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(ours), ~occur)
    expected = average_precision_score(
        labels[:, occur], scores[:, occur], average=None
    )
    np.testing.assert_allclose(ours[occur], expected, rtol=1e-12)
    mean = average_precision_score(
        labels[:, occur], scores[:, occur], average="macro"
    )
    assert mean_average_precision(scores, labels) == pytest.approx(mean, 1e-12)


def test_order_of_the_videos_does_not_matter():
    scores, labels = case(0, levels=3)
    order = np.random.default_rng(1).permutation(len(scores))
    np.testing.assert_array_equal(
        average_precision(scores[order], labels[order]),
        average_precision(scores, labels),
    )


def test_only_the_order_of_scores_matters():
    scores, labels = case(3)
    np.testing.assert_array_equal(
        average_precision(np.exp(scores.astype("float64")), labels),
        average_precision(scores, labels),
    )


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float16"])
def test_types_of_labels_and_scores(dtype):
    labels = np.array([[0], [1], [1]], dtype)
    scores = np.array([[1], [1], [0]], dtype)
    assert average_precision(scores, labels)[0] == (1 / 2 + 2 / 3) / 2


def test_infinite_scores_are_ranked():
    scores = [[np.inf], [-np.inf], [0.0], [-np.inf]]
    assert average_precision(scores, [[0], [1], [1], [0]])[0] == 0.5


def test_nothing_that_occurs():
    assert np.isnan(mean_average_precision(np.ones((2, 3)), np.zeros((2, 3))))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros(3), np.zeros(3), r"shape \(3,\)"),
        (np.zeros((2, 3)), [0, 1], r"shape of `scores`, \(2, 3\)"),
        (np.zeros((2, 1)), [[0], [0.3]], "zeros and ones.*0.3"),
        (np.zeros((2, 1)), [[0], [2]], "zeros and ones.*2"),
        (np.zeros((2, 1)), [[0], [np.nan]], "zeros and ones.*nan"),
        ([[0, 0], [0, np.nan]], np.ones((2, 2)), "video 1, class 1"),
    ],
)
def test_refuses(scores, labels, message):
    for function in (average_precision, mean_average_precision):
        with pytest.raises(ValueError, match=message):
            function(scores, labels)
