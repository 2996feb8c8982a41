"""Folds of a cross-validation that keep what belongs together together."""

from collections.abc import Hashable
from collections.abc import Sequence

import numpy as np


def grouped_folds(
    groups: Sequence[Hashable] | np.ndarray,
    k: int,
    labels: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Deals groups of videos into folds with about the same classes in each.

    A group is what must not be on both sides of a test: a person, a recording,
    a place. The largest groups are dealt first, each to the fold that then has
    the least of its classes. (scikit-learn's `StratifiedGroupKFold` has the
    same contract.)

    Args:
        groups: The group of each video.
        k: Number of folds, at least 2.
        labels: The class of each video; `None` balances the number of videos
            alone.
        seed: Of the order among groups of the same size.

    Returns:
        The fold in which each video is tested, int64 of shape
        `(len(groups),)` in `[0, k)`. All videos of a group are in one fold,
        every fold has a group, and the others of a fold, its training side,
        have every class. Same arguments, same folds.

    Raises:
        ValueError: If there are fewer groups than folds, if a video has no
            group, or if all videos of a class are in one fold: in particular
            if they are of one group.

    >>> groups = ["ann", "ann", "bob", "bob", "eve", "eve"]
    >>> folds = grouped_folds(groups, 3, labels=[0, 1, 0, 1, 0, 1])
    >>> [(folds == fold).sum().item() for fold in range(3)]
    [2, 2, 2]
    >>> videos = np.array(["a1", "a2", "b1", "b2", "e1", "e2"])
    >>> train, test = videos[folds != folds[0]], videos[folds == folds[0]]
    >>> test.tolist()
    ['a1', 'a2']
    """
    group_of = _numbered("groups", groups)
    num_groups = int(group_of.max(initial=-1)) + 1
    if not 2 <= k <= num_groups:
        raise ValueError(
            "`k` must be from 2 to the number of groups. "
            f"Received: k={k}, {num_groups} groups of {len(group_of)} videos"
        )
    names = ["any"] * len(group_of) if labels is None else list(labels)
    if len(names) != len(group_of):
        raise ValueError(
            "`labels` must be one for each of `groups`. "
            f"Received: {len(names)} labels, {len(group_of)} groups"
        )
    class_of = _numbered("labels", names)
    counts = np.zeros((num_groups, int(class_of.max()) + 1))
    np.add.at(counts, (group_of, class_of), 1)
    folds = _dealt(counts, k, np.random.default_rng(seed))[group_of]
    if labels is not None:
        _check_training_sides(folds, class_of, group_of, names)
    return folds


def _numbered(name: str, values: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Numbers from 0 in the order in which values first occur."""
    numbers: dict[Hashable, int] = {}
    found = []
    for place, value in enumerate(values):
        # NaN, which pandas has for an empty cell, is not equal to itself.
        if value is None or value != value:
            raise ValueError(
                f"`{name}` must be known for every video. Received: "
                f"{value!r} for video {place}"
            )
        found.append(numbers.setdefault(value, len(numbers)))
    return np.array(found, "int64")


def _dealt(counts: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of each group, from its number of videos of each class."""
    # A class of few videos weighs as much as one of many.
    shares = counts / counts.sum(axis=0)
    order = rng.permutation(len(shares))
    sizes = (shares[order] ** 2).sum(axis=1)
    order = order[np.argsort(-sizes, kind="stable")]
    fold_of = np.zeros(len(shares), "int64")
    held, videos = np.zeros((k, shares.shape[1])), np.zeros(k)
    for group in order:
        # By this much the squares of all shares would grow: the sum is least
        # where classes are spread evenly. Folds without a group come first.
        growth = held @ shares[group]
        fold = np.lexsort((videos, growth.round(12)))[0]
        fold_of[group] = fold
        held[fold] += shares[group]
        videos[fold] += counts[group].sum()
    return fold_of


def _check_training_sides(
    folds: np.ndarray,
    class_of: np.ndarray,
    group_of: np.ndarray,
    names: Sequence[Hashable],
) -> None:
    for number in range(int(class_of.max()) + 1):
        members = class_of == number
        if len(set(folds[members].tolist())) > 1:
            continue
        name = names[int(np.argmax(members))]
        found = len(set(group_of[members].tolist()))
        raise ValueError(
            "`labels` must leave every class videos to train on when a fold is "
            f"held out. Received: class {name!r}, whose {members.sum()} videos "
            f"(of {found} groups) are all in one fold"
        )
