"""Names of classes, and what scores say in their words."""

from collections.abc import Sequence
from importlib import resources

import keras
import numpy as np

_FOLDER = resources.files("keras_nonlocal.models") / "labels"


def class_names(dataset: str) -> tuple[str, ...]:
    """Names of a data set's classes, in the order of the networks' scores.

    Args:
        dataset: `"kinetics400"`, or `"coco"` for its 80 kinds of objects.

    Returns:
        The names, by class index.

    Raises:
        ValueError: If the names of that data set are not packaged.

    Example:

    >>> names = class_names("kinetics400")
    >>> len(names), names[0], names[399]
    (400, 'abseiling', 'zumba')
    """
    known = sorted(path.name.removesuffix(".txt") for path in _FOLDER.iterdir())
    if dataset not in known:
        raise ValueError(
            f"`dataset` must be one of {known}. Received: {dataset!r}"
        )
    text = (_FOLDER / f"{dataset}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def decode_predictions(
    scores,
    top: int = 5,
    class_names: str | Sequence[str] = "kinetics400",
) -> list[list[tuple[int, str, float]]]:
    """The best classes of each clip, by name.

    Args:
        scores: `(batch, classes)`, probabilities or logits, a numpy array or
            a tensor of the backend.
        top: How many classes to give for a clip; all, if there are fewer.
        class_names: The data set whose names they are, or the names
            themselves, by class index.

    Returns:
        For each clip a list of `(index, name, score)`, the best first; equal
        scores in the order of their index.

    Raises:
        ValueError: If an argument is not as described, if there is not one
            name for each score, or if a score is not a number.

    Example:

    >>> decode_predictions(
    ...     np.array([[0.25, 0.75]]), class_names=["archery", "bowling"]
    ... )
    [[(1, 'bowling', 0.75), (0, 'archery', 0.25)]]
    """
    names = _names(class_names)
    scores = np.asarray(keras.ops.convert_to_numpy(scores), "float64")
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise ValueError(
            f"`scores` must be (batch, {len(names)}), one score for each of "
            f"`class_names`. Received: shape {scores.shape}"
        )
    if np.isnan(scores).any():
        clips = np.flatnonzero(np.isnan(scores).any(axis=1)).tolist()
        raise ValueError(
            f"`scores` must be numbers. Received: NaN for the clips {clips}"
        )
    if not isinstance(top, int) or top < 1:
        raise ValueError(f"`top` must be a positive integer. Received: {top!r}")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [(int(index), names[index], float(row[index])) for index in best]
        for row, best in zip(scores, order, strict=True)
    ]


def _names(names: str | Sequence[str]) -> Sequence[str]:
    return class_names(names) if isinstance(names, str) else names
