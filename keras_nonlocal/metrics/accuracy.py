"""Accuracy where every video has one class."""

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of the videos whose class is among the `k` of highest score.

    Of classes with equal scores those of lower number come first, as with
    `np.argmax`.

    Args:
        scores: Probabilities or logits of shape `(videos, classes)`.
        labels: Class numbers of shape `(videos,)`.
        k: How many classes; with as many as there are, or more, all is right.

    Returns:
        The share, in 0..1.

    Raises:
        ValueError: If there are no videos, the shapes disagree, a label is not
            a class number, a score is NaN or `k` is not positive.

    >>> scores = [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]
    >>> top_k_accuracy(scores, [2, 0]), top_k_accuracy(scores, [2, 0], k=2)
    (0.5, 1.0)
    """
    scores, labels = _checked(scores, labels)
    return float(np.mean(_in_top(scores, labels, k)))


def per_class_accuracy(
    scores: np.ndarray, labels: np.ndarray, k: int = 1
) -> np.ndarray:
    """`top_k_accuracy` of the videos of each class.

    Args:
        scores: As in `top_k_accuracy`.
        labels: As in `top_k_accuracy`.
        k: As in `top_k_accuracy`.

    Returns:
        Shares in 0..1, float64 of shape `(classes,)`; NaN for a class without
        videos.

    Raises:
        ValueError: As `top_k_accuracy`.

    >>> per_class_accuracy([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [2, 0])
    array([ 1., nan,  0.])
    """
    scores, labels = _checked(scores, labels)
    num_classes = scores.shape[1]
    right = np.bincount(labels, _in_top(scores, labels, k), num_classes)
    count = np.bincount(labels, minlength=num_classes)
    return np.divide(
        right, count, out=np.full(num_classes, np.nan), where=count > 0
    )


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
    """How often videos of each class were taken for each class.

    Args:
        labels: True class numbers, shape `(videos,)`.
        predictions: Predicted class numbers, shape `(videos,)`.
        num_classes: Number of classes.

    Returns:
        Counts, int64 of shape `(num_classes, num_classes)`: a row for each
        true class, a column for each predicted one.

    Raises:
        ValueError: If the shapes disagree or a number is not in
            `[0, num_classes)`.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    if num_classes < 1:
        raise ValueError(
            "`num_classes` must be positive. "
            f"Received: num_classes={num_classes}"
        )
    predictions = np.asarray(predictions)
    labels = _checked_classes("labels", labels, len(predictions), num_classes)
    predictions = _checked_classes(
        "predictions", predictions, len(labels), num_classes
    )
    cells = np.bincount(
        labels * num_classes + predictions, None, num_classes**2
    )
    return cells.reshape(num_classes, num_classes)


def _in_top(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether the class of each video is among its `k` best."""
    if k < 1:
        raise ValueError(f"`k` must be positive. Received: k={k}")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    better = (scores > own) | ((scores == own) & before)
    return better.sum(axis=1) < k


def _checked(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            "`scores` must have shape (videos, classes), with one video or "
            f"more. Received: shape {scores.shape}"
        )
    if np.isnan(scores).any():
        number = int(np.isnan(scores).any(axis=1).argmax())
        raise ValueError(
            f"`scores` must not be NaN. Received: NaN for video {number}"
        )
    return scores, _checked_classes("labels", labels, *scores.shape)


def _checked_classes(
    name: str, values: np.ndarray, num_videos: int, num_classes: int
) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (num_videos,):
        raise ValueError(
            f"`{name}` must have shape ({num_videos},), a class number for "
            f"each video. Received: shape {values.shape}"
        )
    # An empty Python list is an array of floats.
    if num_videos and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"`{name}` must be integers. Received: dtype {values.dtype}"
        )
    if num_videos and not 0 <= values.min() <= values.max() < num_classes:
        raise ValueError(
            f"`{name}` must be in [0, {num_classes}), the numbers of the "
            f"classes. Received: {values.min()} to {values.max()}"
        )
    return values.astype("int64")
