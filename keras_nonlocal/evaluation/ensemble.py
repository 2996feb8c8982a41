"""Several networks as one: late fusion of their scores."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.training.environment import environment

# By name: what the same video has in common in all lists.
MATCHES: dict[str, Callable[[str], str]] = {
    "path": os.path.normpath,
    # Of an RGB file and of a folder of its flow.
    "stem": lambda path: pathlib.PurePath(path).stem,
}
_Key = tuple[str, str]


def combine(
    evaluations: Sequence[Evaluation],
    weights: Sequence[float] | None = None,
    match: str = "path",
) -> Evaluation:
    """Weighted means of the scores of the same videos.

    As of two networks, one of RGB and one of optical flow. The settings are
    those that all have; a video is tested if it was in all.

    Args:
        evaluations: Two or more, of the same videos in any order and of the
            same classes.
        weights: One for each, positive; by default all are equal.
        match: What tells which videos are the same, together with their
            segments: `"path"`, or `"stem"`, the name of the file without
            folder and ending.

    Returns:
        An `Evaluation` with videos, clips and protocol of the first. Its
        `about` has `"members"`: name, weight, clip and protocol of each.

    Raises:
        ValueError: If the lists, labels, classes or kinds of scores differ, or
            no setting is common to all.
    """
    _check_arguments(evaluations, weights, match)
    first = evaluations[0]
    numbers = [_numbers(evaluation, match) for evaluation in evaluations]
    for evaluation, other in zip(evaluations[1:], numbers[1:], strict=True):
        _check_alike(first, evaluation)
        _check_same_videos(first, evaluation, numbers[0], other)
    settings = [
        name
        for name in first.scores
        if all(name in evaluation.scores for evaluation in evaluations)
    ]
    if not settings:
        raise ValueError(
            "`evaluations` must have a setting in common. Received: "
            f"{[list(evaluation.scores) for evaluation in evaluations]}"
        )
    skipped = _skipped(evaluations, numbers)
    tested = [
        key for key, number in numbers[0].items() if number not in skipped
    ]
    if not tested:
        raise ValueError(
            "`evaluations` must have tested a video in common. Received: none"
        )
    shares = np.array(weights or [1.0] * len(evaluations), "float64")
    shares /= shares.sum()
    rows = [
        np.searchsorted(evaluation.numbers, [own[key] for key in tested])
        for evaluation, own in zip(evaluations, numbers, strict=True)
    ]
    return dataclasses.replace(
        first,
        name=" + ".join(evaluation.name for evaluation in evaluations),
        numbers=np.array([numbers[0][key] for key in tested], "int64"),
        scores={
            name: _mean([e.scores[name] for e in evaluations], rows, shares)
            for name in settings
        },
        skipped=skipped,
        about=_about(evaluations, shares),
    )


def _mean(
    scores: Sequence[np.ndarray], rows: Sequence[np.ndarray], shares: np.ndarray
) -> np.ndarray:
    """The weighted mean of some rows of each array of scores."""
    chosen = [
        values[own].astype("float64")
        for values, own in zip(scores, rows, strict=True)
    ]
    return np.tensordot(shares, np.stack(chosen), 1).astype("float32")


def _about(
    evaluations: Sequence[Evaluation], shares: np.ndarray
) -> dict[str, Any]:
    members = [
        {
            "name": evaluation.name,
            "weight": float(share),
            "clip": dataclasses.asdict(evaluation.clip),
            "protocol": dataclasses.asdict(evaluation.protocol),
        }
        for evaluation, share in zip(evaluations, shares, strict=True)
    ]
    seconds = sum(e.about.get("seconds", 0.0) for e in evaluations)
    return {**environment(), "seconds": seconds, "members": members}


def _numbers(evaluation: Evaluation, match: str) -> dict[_Key, int]:
    """The number of each video by what it is matched by, in order."""
    videos = evaluation.videos
    numbers: dict[_Key, int] = {}
    for number, path in enumerate(videos.paths):
        # An open end is equal to itself, as NaN is not.
        key = MATCHES[match](path), str(videos.segment(number))
        if key in numbers:
            raise ValueError(
                f"The videos of {evaluation.name!r} must differ in their "
                f"{match} or segment. Received: "
                f"{videos.paths[numbers[key]]} and {path}"
            )
        numbers[key] = number
    return numbers


def _skipped(
    evaluations: Sequence[Evaluation], numbers: Sequence[dict[_Key, int]]
) -> dict[int, str]:
    """Videos that one or more could not read, by their number in the first."""
    reasons: dict[int, str] = {}
    for evaluation, own in zip(evaluations, numbers, strict=True):
        for key, number in own.items():
            if number in evaluation.skipped:
                reason = evaluation.skipped[number]
                reasons.setdefault(numbers[0][key], reason)
    return dict(sorted(reasons.items()))


def _check_arguments(
    evaluations: Sequence[Evaluation],
    weights: Sequence[float] | None,
    match: str,
) -> None:
    if len(evaluations) < 2:
        raise ValueError(
            f"`evaluations` must be two or more. Received: {len(evaluations)}"
        )
    if match not in MATCHES:
        raise ValueError(
            f"`match` must be one of {tuple(MATCHES)}. Received: {match!r}"
        )
    if weights is not None and (
        len(weights) != len(evaluations)
        or not all(0 < weight < math.inf for weight in weights)
    ):
        raise ValueError(
            f"`weights` must be {len(evaluations)} positive numbers. "
            f"Received: {list(weights)}"
        )


def _check_alike(first: Evaluation, other: Evaluation) -> None:
    pairs = {
        "classes": (first.class_names, other.class_names),
        "kind of labels": (first.videos.multi_label, other.videos.multi_label),
        "kind of scores": (first.protocol.average, other.protocol.average),
    }
    for name, (one, another) in pairs.items():
        if one != another:
            raise ValueError(
                f"`evaluations` must have the same {name}. Received: {one} in "
                f"{first.name!r} and {another} in {other.name!r}"
            )


def _check_same_videos(
    first: Evaluation,
    other: Evaluation,
    ours: dict[_Key, int],
    theirs: dict[_Key, int],
) -> None:
    differing = ours.keys() ^ theirs.keys()
    if differing:
        path, segment = min(differing)
        raise ValueError(
            "`evaluations` must be of the same videos. Received: "
            f"{len(differing)} that only one of {first.name!r} and "
            f"{other.name!r} has, such as {path} (segment {segment})"
        )
    for key, number in ours.items():
        labels = first.videos.labels[number], other.videos.labels[theirs[key]]
        if not np.array_equal(*labels):
            raise ValueError(
                "`evaluations` must have the same labels. Received: "
                f"{labels[0]} in {first.name!r} and {labels[1]} in "
                f"{other.name!r} for {key[0]}"
            )
