import numpy as np
import pytest

from keras_nonlocal.metrics.accuracy import confusion_matrix
from keras_nonlocal.metrics.accuracy import per_class_accuracy
from keras_nonlocal.metrics.accuracy import top_k_accuracy


@pytest.fixture
def scored():
    """Scores of few values, so that many are equal, and labels."""
    rng = np.random.default_rng(0)
    scores = rng.integers(4, size=(200, 6)).astype("float32")
    return scores, rng.integers(5, size=200)


@pytest.mark.parametrize("k", [1, 2, 5, 6, 7])
def test_top_k_agrees_with_sorting(scored, k):
    scores, labels = scored
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    right = (best == labels[:, None]).any(axis=1)
    assert top_k_accuracy(scores, labels, k) == right.mean()
    classes = per_class_accuracy(scores, labels, k)
    expected = [right[labels == number].mean() for number in range(5)]
    np.testing.assert_array_equal(classes, [*expected, np.nan])


def test_top_1_is_that_of_argmax(scored):
    scores, labels = scored
    expected = (scores.argmax(axis=1) == labels).mean()
    assert 0 < expected < 1
    assert top_k_accuracy(scores, labels) == expected


def test_infinite_scores_are_compared():
    scores = [[-np.inf, 0.0, np.inf], [-np.inf, -np.inf, -np.inf]]
    assert top_k_accuracy(scores, [2, 2], k=2) == 0.5


def test_confusion_matrix(scored):
    scores, labels = scored
    predictions = scores.argmax(axis=1)
    matrix = confusion_matrix(labels, predictions, 6)
    assert matrix.dtype == np.int64
    for row in range(6):
        for column in range(6):
            both = (labels == row) & (predictions == column)
            assert matrix[row, column] == both.sum()
    assert not np.array_equal(matrix, matrix.T)


def test_confusion_matrix_of_small_integers():
    numbers = np.full(3, 200, "uint8")
    assert confusion_matrix(numbers, numbers, 201)[200, 200] == 3
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        (np.zeros((0, 3)), [], 1, r"shape \(0, 3\)"),
        (np.zeros(3), [0], 1, r"shape \(3,\)"),
        (np.zeros((2, 3)), [0], 1, r"`labels` must have shape \(2,\)"),
        (np.zeros((2, 3)), [[0, 1, 0], [0, 0, 1]], 1, r"shape \(2, 3\)"),
        (np.zeros((2, 3)), [0.0, 1.0], 1, "dtype float64"),
        (np.zeros((2, 3)), [0, 3], 1, "0 to 3"),
        (np.zeros((2, 3)), [-1, 0], 1, "-1 to 0"),
        ([[0.0, 1.0], [np.nan, 1.0]], [0, 1], 1, "NaN for video 1"),
        (np.zeros((2, 3)), [0, 1], 0, "k=0"),
    ],
)
@pytest.mark.parametrize("accuracy", [top_k_accuracy, per_class_accuracy])
def test_refuses(accuracy, scores, labels, k, message):
    with pytest.raises(ValueError, match=message):
        accuracy(scores, labels, k)


@pytest.mark.parametrize(
    ("labels", "predictions", "num_classes", "message"),
    [
        ([0, 1], [0], 2, r"`labels` must have shape \(1,\)"),
        ([0, 1], [[0, 1]], 2, "shape"),
        ([0, 1], [0, 2], 2, "`predictions` must be in"),
        ([0, 2], [0, 1], 2, "`labels` must be in"),
        ([0, 1], [0.2, 0.8], 2, "`predictions` must be integers"),
        ([], [], 0, "num_classes=0"),
    ],
)
def test_confusion_matrix_refuses(labels, predictions, num_classes, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(labels, predictions, num_classes)
