"""Labels of mirrored clips: "left" becomes "right"."""

from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np


def class_pairs(
    flip_pairs: Iterable[tuple[str, str]], class_names: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """Numbers of the classes that a mirror turns into each other.

    Args:
        flip_pairs: Pairs of class names.
        class_names: The name of every class, in the order of the numbers.

    Returns:
        The pairs as class numbers.

    Raises:
        ValueError: If a name is not one of `class_names`, or in two pairs.

    >>> class_pairs([("to left", "to right")], ("jump", "to left", "to right"))
    ((1, 2),)
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    pairs = [
        pair if isinstance(pair, str) else tuple(pair) for pair in flip_pairs
    ]
    wrong = [
        pair
        for pair in pairs
        if isinstance(pair, str)
        or len(pair) != 2
        or not all(name in numbers for name in pair)
    ]
    if wrong:
        raise ValueError(
            "`flip_pairs` must be pairs of names in `class_names`. "
            f"Received: {wrong[0]!r}, with {len(numbers)} classes"
        )
    return checked_pairs([[numbers[name] for name in pair] for pair in pairs])


def checked_pairs(
    pairs: Iterable[Sequence[int]],
) -> tuple[tuple[int, int], ...]:
    """The `pairs` as a tuple, if every class is in one of them at most.

    Raises:
        ValueError: If they are not pairs of class numbers, or a class is in
            more than one place.
    """
    pairs = [tuple(pair) for pair in pairs]
    numbers = [number for pair in pairs for number in pair]
    if (
        any(len(pair) != 2 for pair in pairs)
        or len(set(numbers)) < len(numbers)
        or min(numbers, default=0) < 0
    ):
        raise ValueError(
            "`pairs` must be pairs of class numbers, every class in one place "
            f"at most. Received: {pairs}"
        )
    return tuple((int(left), int(right)) for left, right in pairs)


def partners(pairs: Sequence[tuple[int, int]], num_classes: int) -> np.ndarray:
    """The class that each class becomes in a mirror.

    Args:
        pairs: Classes that become each other; the others stay as they are.
        num_classes: Number of classes.

    Returns:
        Class numbers, int32 of shape `(num_classes,)`.

    Raises:
        ValueError: If a class of `pairs` is not in `[0, num_classes)`.

    >>> partners([(1, 3)], num_classes=5)
    array([0, 3, 2, 1, 4], dtype=int32)
    """
    mirrored = _both_ways(pairs)
    if max(mirrored, default=-1) >= num_classes:
        raise ValueError(
            f"`pairs` must be of classes in [0, {num_classes}), those of the "
            f"labels. Received: {tuple(pairs)}"
        )
    return np.array([mirrored.get(i, i) for i in range(num_classes)], "int32")


def swap_labels(
    labels: np.ndarray | int,
    flipped: bool,
    pairs: Sequence[tuple[int, int]],
) -> np.ndarray:
    """The labels of one clip, once it is perhaps mirrored.

    Args:
        labels: Number of its class, or for each class whether it has it (or
            how much of it), of shape `(num_classes,)`.
        flipped: Whether the clip is mirrored.
        pairs: Numbers of the classes that become each other.

    Returns:
        The labels, of the same shape and dtype.

    Raises:
        ValueError: If `labels` have another rank or too few classes.

    >>> int(swap_labels(2, True, [(1, 2)])), int(swap_labels(0, True, [(1, 2)]))
    (1, 0)
    >>> swap_labels([0.0, 1.0, 0.0], True, [(1, 2)])
    array([0., 0., 1.])
    """
    labels = np.asarray(labels)
    if labels.ndim > 1:
        raise ValueError(
            "`labels` must be those of one clip, a class number or shape "
            f"(num_classes,). Received: shape {labels.shape}"
        )
    if not flipped:
        return labels
    if labels.ndim == 1:
        return labels[partners(pairs, len(labels))]
    number = labels.item()
    return np.array(_both_ways(pairs).get(number, number), labels.dtype)


def _both_ways(pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    return {left: right for pair in pairs for left, right in (pair, pair[::-1])}
