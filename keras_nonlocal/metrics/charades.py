"""The two figures of Charades, which are not to be compared.

Classification asks what happens in a video, localization what happens at each
of 25 times of it. The same network has about twice the mean average precision
in the first that it has in the second.

Both are those of the data set's own scripts, `Charades_v1_classify.m` and
`Charades_v1_localize.m`. (The scripts of the challenge of 2017 weighed the
classes otherwise.) Where scores are equal, the scripts go by the order of the
videos; here they count alike.
"""

from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from keras_nonlocal.metrics.average_precision import check_scores
from keras_nonlocal.metrics.average_precision import mean_average_precision

NUM_CLASSES = 157
# Of localization, in every video.
NUM_TIMES = 25


def classification_map(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision of what happens in each video.

    Videos without any class are left out, as are those of the official script,
    which takes their scores for minus infinity. Classes that no video has are
    left out, too; the official script, on a part of the test set, gives NaN.

    Args:
        scores: Of shape `(videos, classes)`, one row for a video: the largest
            over its clips, as is usual.
        labels: Zeros and ones of the same shape: what happens anywhere in the
            video, as in `VideoList.labels`.

    Returns:
        The mean in 0..1; NaN if nothing happens in any video.

    Raises:
        ValueError: If the shapes are others, labels are neither 0 nor 1 or a
            score is NaN.

    >>> classification_map([[0.1, 0.2], [0.9, 0.7]], [[1, 0], [0, 0]])
    1.0
    """
    scores = np.asarray(scores)
    if scores.ndim == 3:
        raise ValueError(
            "`scores` of classification must have shape (videos, classes); "
            "`localization_map` is for those of several times. "
            f"Received: shape {scores.shape}"
        )
    scores, positive = check_scores(scores, labels)
    some = positive.any(axis=1)
    if not some.any():
        return float("nan")
    return mean_average_precision(scores[some], positive[some])


def localization_map(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision of what happens at each of 25 times.

    All times of all videos are ranked together, with those at which nothing
    happens.

    Args:
        scores: Of shape `(videos, 25, classes)`, at `localization_times`.
        labels: Zeros and ones of the same shape: `localization_labels`.

    Returns:
        The mean in 0..1 over the classes that occur; NaN if nothing happens.

    Raises:
        ValueError: If the shapes are others, labels are neither 0 nor 1 or a
            score is NaN.

    >>> labels = localization_labels([[[0, 0.0, 5.0]]], [10.0], num_classes=1)
    >>> scores = np.linspace(1, 0, NUM_TIMES).reshape(1, NUM_TIMES, 1)
    >>> localization_map(scores, labels)
    1.0
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check_times(scores, "classes")
    if labels.shape != scores.shape:
        raise ValueError(
            f"`labels` must have the shape of `scores`, {scores.shape}. "
            f"Received: shape {labels.shape}"
        )
    classes = scores.shape[2]
    return mean_average_precision(
        scores.reshape(-1, classes), labels.reshape(-1, classes)
    )


def localization_times(length: float) -> np.ndarray:
    """The 25 times in a video that localization asks about.

    Args:
        length: Of the video in seconds, as the column `length` of the
            annotations has it.

    Returns:
        Seconds, float64 of shape `(25,)`: the first is 0, the last a 25th
        before the end.

    >>> localization_times(50.0)[[0, 1, -1]]
    array([ 0.,  2., 48.])
    """
    if not 0 < length < float("inf"):
        raise ValueError(
            f"`length` must be positive seconds. Received: length={length}"
        )
    return np.arange(NUM_TIMES) / NUM_TIMES * length


def localization_labels(
    actions: Sequence[np.ndarray],
    lengths: Sequence[float],
    num_classes: int = NUM_CLASSES,
) -> np.ndarray:
    """What happens at each of 25 times, beginning and end of it included.

    Args:
        actions: For each video rows of class number, start and end in seconds,
            as `VideoList.actions`.
        lengths: Of the videos in seconds.
        num_classes: Number of classes.

    Returns:
        Zeros and ones, float32 of shape `(videos, 25, num_classes)`.

    Raises:
        ValueError: If there are not as many lengths as videos, one is not
            positive, or a class is not in `[0, num_classes)`.

    >>> actions = [[[1, 0.0, 2.0], [0, 1.5, 9.0]], []]
    >>> labels = localization_labels(actions, [25.0, 8.0], num_classes=2)
    >>> labels.shape, labels[0, :4].tolist()
    ((2, 25, 2), [[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    """
    if len(lengths) != len(actions):
        raise ValueError(
            "`lengths` must be as many as `actions`, one for each video. "
            f"Received: {len(lengths)} and {len(actions)}"
        )
    labels = np.zeros((len(actions), NUM_TIMES, num_classes), "float32")
    for video, (rows, length) in enumerate(zip(actions, lengths, strict=True)):
        times = localization_times(length)
        for number, start, end in np.reshape(rows, (-1, 3)):
            if number not in range(num_classes):
                raise ValueError(
                    "`actions` must be of classes in "
                    f"[0, {num_classes}). Received: {number} in video {video}"
                )
            labels[video, (start <= times) & (times <= end), int(number)] = 1
    return labels


def classification_submission(names: Sequence[str], scores: np.ndarray) -> str:
    """The text that `Charades_v1_classify.m` reads.

    Args:
        names: Identifiers of the videos: their file names without extension.
        scores: Of shape `(videos, 157)`, finite.

    Returns:
        A line for each video: its name and its scores.

    Raises:
        ValueError: If the shapes disagree, names are not different words or
            scores are not finite.

    >>> text = classification_submission(["YSKX3"], np.zeros((1, 157)))
    >>> text.split(" ")[:3]
    ['YSKX3', '0.0', '0.0']
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(
            "`scores` of classification must have shape (videos, "
            f"{NUM_CLASSES}). Received: shape {scores.shape}"
        )
    _check_submission(names, scores)
    return "".join(_lines(names, scores))


def localization_submission(names: Sequence[str], scores: np.ndarray) -> str:
    """The text that `Charades_v1_localize.m` reads.

    Args:
        names: Identifiers of the videos: their file names without extension.
        scores: Of shape `(videos, 25, 157)`, finite, at `localization_times`.

    Returns:
        A line for each of the times, from 1 to 25, of each video: its name,
        the number and the scores.

    Raises:
        ValueError: If the shapes disagree, names are not different words or
            scores are not finite.

    >>> text = localization_submission(["YSKX3"], np.zeros((1, 25, 157)))
    >>> text.splitlines()[24].split(" ")[:3]
    ['YSKX3', '25', '0.0']
    """
    scores = np.asarray(scores)
    _check_times(scores, str(NUM_CLASSES))
    _check_submission(names, scores)
    numbered = [
        f"{name} {number}"
        for name in names
        for number in range(1, NUM_TIMES + 1)
    ]
    return "".join(_lines(numbered, scores.reshape(-1, NUM_CLASSES)))


def _check_times(scores: np.ndarray, classes: str) -> None:
    if scores.ndim != 3 or scores.shape[1] != NUM_TIMES:
        raise ValueError(
            "`scores` of localization must have shape (videos, "
            f"{NUM_TIMES}, {classes}). Received: shape {scores.shape}"
        )


def _check_submission(names: Sequence[str], scores: np.ndarray) -> None:
    if scores.shape[-1] != NUM_CLASSES or len(scores) != len(names):
        raise ValueError(
            f"`scores` must be of {len(names)} videos, one for each name, and "
            f"{NUM_CLASSES} classes. Received: shape {scores.shape}"
        )
    wrong = [name for name in names if name.split() != [name]]
    if wrong or len(set(names)) < len(names):
        raise ValueError(
            "`names` must be different words without spaces. "
            f"Received: {wrong[:3] or 'the same name twice'}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("`scores` must be finite. Received: some that are not")


def _lines(names: Sequence[str], scores: np.ndarray) -> Iterator[str]:
    for name, row in zip(names, scores, strict=True):
        # As many digits as tell the numbers apart.
        yield " ".join((name, *row.astype(str))) + "\n"
