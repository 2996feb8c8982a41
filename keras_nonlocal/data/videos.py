"""`VideoList`: the videos of a split and their classes, before decoding."""

import collections
import dataclasses
import os
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a data set's files that is not as it should be.

    Attributes:
        kind: What is wrong, a few words that are the same for every case:
            "missing file", "unknown label".
        where: The file, or the place in an annotation.
        detail: What was expected and what was found, if more is known.
    """

    kind: str
    where: str
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.kind}"
        return f"{text} ({self.detail})" if self.detail else text


@dataclasses.dataclass(frozen=True, eq=False)
class VideoList:
    """Paths and labels of a set of videos.

    Args:
        paths: One file name per video; that of a folder for a video that lies
            on disk as pictures of its frames.
        labels: One class number per video, integers in
            `[0, len(class_names))`, kept as a read-only int32 array of shape
            `(len(paths),)`. Or, where a video may have any number of classes,
            zeros and ones of shape `(len(paths), len(class_names))`, kept as
            float32. `None` stands for what `actions` say.
        class_names: The name of every class, in the order of the numbers.
        segments: The part of each file that is the video, start and end in
            seconds, kept as a read-only float64 array of shape
            `(len(paths), 2)`. NaN as an end is the end of the file. `None`:
            all of every file.
        actions: What happens when, for videos of several classes: for each an
            array of shape `(number of actions, 3)` of class number, start and
            end in seconds of the file.
        problems: What the annotations have that this list leaves out or has
            mended.
        fps: Frames per second of videos that do not say, such as folders of
            pictures; 0.0 if unknown.

    Raises:
        ValueError: If the lengths disagree, a label is not a class number, an
            action's class is not among the labels, a segment ends before it
            starts or the class names are not different ones.

    >>> videos = VideoList(("a.mp4", "b.mp4"), [1, 0], ("jump", "run"))
    >>> len(videos), videos.labels.dtype
    (2, dtype('int32'))
    >>> several = VideoList(
    ...     ("a.mp4",), None, ("jump", "run"), actions=[[[1, 0.0, 2.5]]]
    ... )
    >>> several.labels
    array([[0., 1.]], dtype=float32)
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    segments: np.ndarray | None = None
    actions: tuple[np.ndarray, ...] | None = None
    problems: tuple[Problem, ...] = ()
    fps: float = 0.0

    def __post_init__(self) -> None:
        names = tuple(self.class_names)
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(
                "`class_names` must be one or more different names, none of "
                f"them empty. Received: class_names={names}"
            )
        if not 0 <= self.fps < float("inf"):
            raise ValueError(
                f"`fps` must be 0 or positive. Received: fps={self.fps!r}"
            )
        paths, actions = tuple(self.paths), self.actions
        if actions is not None:
            actions = _checked_actions(actions, len(paths), len(names))
        happening = (
            None if actions is None else _classes_of(actions, len(names))
        )
        labels = happening if self.labels is None else self.labels
        labels = _checked_labels(labels, len(paths), len(names))
        if happening is not None:
            _check_contained(happening, labels)
        fields = {
            "paths": paths,
            "class_names": names,
            "labels": labels,
            "segments": _checked_segments(self.segments, len(paths)),
            "actions": actions,
            "problems": tuple(self.problems),
        }
        for name, value in fields.items():
            # The one way to set a field of a frozen dataclass.
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def multi_label(self) -> bool:
        """Whether a video may have any number of classes."""
        return self.labels.ndim == 2

    def segment(self, number: int | np.integer) -> tuple[float, float] | None:
        """The segment of a video; `None` if the list has none."""
        if self.segments is None:
            return None
        start, end = self.segments[number].tolist()
        return start, end

    def problem_counts(self) -> dict[str, int]:
        """Number of problems of each kind.

        >>> missing = Problem("missing file", "b.mp4")
        >>> VideoList(("a.mp4",), [0], ("x",), problems=[missing]
        ... ).problem_counts()
        {'missing file': 1}
        """
        return dict(collections.Counter(x.kind for x in self.problems))

    def existing(self) -> "VideoList":
        """The videos whose files exist; the others are among the problems."""
        there = np.array([os.path.exists(path) for path in self.paths], bool)
        missing = tuple(
            Problem("missing file", path)
            for path, exists in zip(self.paths, there, strict=True)
            if not exists
        )
        kept = self.subset(np.flatnonzero(there))
        return dataclasses.replace(kept, problems=self.problems + missing)

    def subset(self, indices: Sequence[int] | np.ndarray) -> "VideoList":
        """The videos at `indices`, in that order, with the same classes.

        Args:
            indices: Their numbers, or for each video whether to take it.

        Returns:
            Their list.

        Raises:
            ValueError: If `indices` are neither integers nor as many booleans
                as there are videos.

        >>> videos = VideoList(("a.mp4", "b.mp4"), [1, 0], ("jump", "run"))
        >>> videos.subset([1]).paths
        ('b.mp4',)
        """
        indices = _checked_indices(indices, len(self))
        segments, actions = self.segments, self.actions
        return VideoList(
            tuple(self.paths[i] for i in indices),
            self.labels[indices],
            self.class_names,
            None if segments is None else segments[indices],
            None if actions is None else tuple(actions[i] for i in indices),
            self.problems,
            self.fps,
        )

    def split(
        self, fraction: float, seed: int = 0
    ) -> "tuple[VideoList, VideoList]":
        """Splits every class at random, `fraction` of it to the second list.

        A class of two or more videos has at least one on each side; the one
        video of a class of one goes to the first list. Parts of one file stay
        together, in the class of the first; videos of several classes are
        split by the first of theirs. Both lists keep the order of this one,
        and the same seed gives the same lists.

        Args:
            fraction: Share of the second list, in (0, 1).
            seed: Seed of the random choice.

        Returns:
            The two lists; together they hold every video once.

        Raises:
            ValueError: If `fraction` is not in (0, 1).

        >>> videos = VideoList("abcdefgh", [0] * 4 + [1] * 4, ("x", "y"))
        >>> train, validation = videos.split(0.25)
        >>> train.labels.tolist(), validation.labels.tolist()
        ([0, 0, 0, 1, 1, 1], [0, 1])
        """
        if not 0 < fraction < 1:
            raise ValueError(
                "`fraction` must be between 0 and 1, both excluded. "
                f"Received: fraction={fraction}"
            )
        rng = np.random.default_rng(seed)
        labels = self.labels
        if self.multi_label:
            labels = np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
        _, first, file_of = np.unique(
            self.paths, return_index=True, return_inverse=True
        )
        # Files in the order of the list, not of their names.
        first, rank = np.sort(first), np.argsort(np.argsort(first))
        second = np.zeros(len(first), bool)
        for label in np.unique(labels):
            members = np.flatnonzero(labels[first] == label)
            count = min(
                max(round(fraction * len(members)), 1), len(members) - 1
            )
            if count > 0:
                second[rng.permutation(members)[:count]] = True
        chosen = second[rank[file_of.reshape(-1)]]
        return self.subset(~chosen), self.subset(chosen)


def _checked_indices(
    indices: Sequence[int] | np.ndarray, num_videos: int
) -> np.ndarray:
    values = np.asarray(indices)
    if values.dtype == bool and values.shape == (num_videos,):
        return np.flatnonzero(values)
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"`indices` must be integers or {num_videos} booleans. "
            f"Received: {values.dtype} of shape {values.shape}"
        )
    return values.astype("int64")


def _check_contained(happening: np.ndarray, labels: np.ndarray) -> None:
    if labels.shape != happening.shape or (happening > labels).any():
        raise ValueError(
            "`labels` must have the classes of all `actions`. Received: "
            f"labels of shape {labels.shape} without some of them"
        )


def _checked_labels(
    labels: np.ndarray, num_videos: int, num_classes: int
) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return _checked_many_hot(labels, num_videos, num_classes)
    if labels.shape != (num_videos,):
        raise ValueError(
            f"`labels` must have shape ({num_videos},), one for each path, or "
            f"({num_videos}, {num_classes}). Received: shape {labels.shape}"
        )
    # An empty Python list is an array of floats.
    if num_videos and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be integers. Received: dtype {labels.dtype}"
        )
    if num_videos and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"`labels` must be in [0, {num_classes}), the numbers of "
            f"`class_names`. Received: {labels.min()} to {labels.max()}"
        )
    return _read_only(labels, "int32")


def _checked_many_hot(
    labels: np.ndarray, num_videos: int, num_classes: int
) -> np.ndarray:
    if labels.shape != (num_videos, num_classes):
        raise ValueError(
            "`labels` of several classes must have shape "
            f"({num_videos}, {num_classes}). Received: shape {labels.shape}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "`labels` of several classes must be zeros and ones. "
            f"Received: {np.unique(labels)}"
        )
    return _read_only(labels, "float32")


def _checked_segments(
    segments: np.ndarray | None, num_videos: int
) -> np.ndarray | None:
    if segments is None:
        return None
    segments = np.asarray(segments, "float64").reshape(-1, 2)
    start, end = segments.T
    # An end that is NaN is open; a start must be a time.
    fine = np.isfinite(start) & (start >= 0) & ~(end <= start)
    if len(segments) != num_videos or not fine.all():
        wrong = segments[~fine][:3].tolist()
        raise ValueError(
            f"`segments` must be {num_videos} pairs of seconds with 0 <= start "
            f"< end. Received: {len(segments)} pairs, wrong ones: {wrong}"
        )
    return _read_only(segments, "float64")


def _checked_actions(
    actions: Sequence[np.ndarray], num_videos: int, num_classes: int
) -> tuple[np.ndarray, ...]:
    if len(actions) != num_videos:
        raise ValueError(
            f"`actions` must have {num_videos} arrays, one for each path. "
            f"Received: {len(actions)}"
        )
    checked = []
    for number, rows in enumerate(actions):
        rows = _read_only(np.reshape(rows, (-1, 3)), "float64")
        classes, start, end = rows.T
        known = np.isin(classes, np.arange(num_classes)).all()
        if not known or not (start < end).all():
            raise ValueError(
                "`actions` must have rows of a class number in "
                f"[0, {num_classes}) and seconds with start < end. Received "
                f"for video {number}: {rows.tolist()}"
            )
        checked.append(rows)
    return tuple(checked)


def _classes_of(
    actions: tuple[np.ndarray, ...], num_classes: int
) -> np.ndarray:
    labels = np.zeros((len(actions), num_classes))
    for row, video in zip(labels, actions, strict=True):
        row[video[:, 0].astype(int)] = 1
    return _read_only(labels, "float32")


def _read_only(values: np.ndarray, dtype: str) -> np.ndarray:
    values = np.array(values, dtype)
    values.setflags(write=False)
    return values
