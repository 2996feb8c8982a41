"""Average precision where a video may have any number of classes."""

import numpy as np


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of every class.

    The mean, over the videos that have the class, of the share of such videos
    among all that score as high or higher: the area under the curve of
    precision and recall without interpolation, as scikit-learn's
    `average_precision_score`. Videos with equal scores are found together, so
    that their order does not matter.

    Args:
        scores: Probabilities or logits of shape `(videos, classes)`; only their
            order within a class counts.
        labels: Zeros and ones of the same shape.

    Returns:
        Average precisions in 0..1, float64 of shape `(classes,)`; NaN for a
        class that no video has.

    Raises:
        ValueError: If there are no videos, the shapes disagree, labels are
            neither 0 nor 1 or a score is NaN.

    >>> scores = [[0.9, 0.2, 0.1], [0.8, 0.2, 0.3], [0.7, 0.1, 0.2]]
    >>> average_precision(scores, [[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    array([0.83333333, 0.5       ,        nan])
    """
    scores, positive = check_scores(scores, labels)
    columns = zip(scores.T, positive.T, strict=True)
    return np.array([_of_class(*column) for column in columns])


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the average precisions of the classes that occur.

    Args:
        scores: As in `average_precision`.
        labels: As in `average_precision`.

    Returns:
        The mean in 0..1; NaN if no video has a class.

    Raises:
        ValueError: As `average_precision`.

    >>> mean_average_precision([[0.9, 0.1], [0.8, 0.2]], [[0, 0], [1, 0]])
    0.5
    """
    values = average_precision(scores, labels)
    occur = ~np.isnan(values)
    return float(np.mean(values[occur])) if occur.any() else float("nan")


def check_scores(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of `average_precision` as arrays, the labels as booleans.

    Raises:
        ValueError: As `average_precision`.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            "`scores` must have shape (videos, classes), with one video or "
            f"more. Received: shape {scores.shape}"
        )
    if labels.shape != scores.shape:
        raise ValueError(
            f"`labels` must have the shape of `scores`, {scores.shape}. "
            f"Received: shape {labels.shape}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "`labels` must be zeros and ones. "
            f"Received: {np.unique(labels)[:5]}"
        )
    if np.isnan(scores).any():
        video, number = np.argwhere(np.isnan(scores))[0]
        raise ValueError(
            "`scores` must not be NaN. "
            f"Received: NaN for video {video}, class {number}"
        )
    return scores, labels == 1


def _of_class(scores: np.ndarray, positive: np.ndarray) -> float:
    if not positive.any():
        return float("nan")
    order = np.argsort(scores)[::-1]
    scores, positive = scores[order], positive[order]
    # The last of each run of equal scores.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    found = np.cumsum(positive)[last]
    precision = found / (last + 1)
    return float(np.diff(found, prepend=0) @ precision / found[-1])
