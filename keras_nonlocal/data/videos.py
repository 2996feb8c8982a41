"""`VideoList`: the videos of a split and their classes, before decoding."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class VideoList:
    """Paths and labels of a set of videos.

    Args:
        paths: One file name per video.
        labels: One class number per video, integers in
            `[0, len(class_names))`; kept as a read-only int32 array of shape
            `(len(paths),)`.
        class_names: The name of every class, in the order of the numbers.

    Raises:
        ValueError: If the lengths disagree, a label is not a class number or
            there are no class names.

    >>> videos = VideoList(("a.mp4", "b.mp4"), [1, 0], ("jump", "run"))
    >>> len(videos), videos.labels.dtype
    (2, dtype('int32'))
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        names = tuple(self.class_names)
        if not names or not all(names):
            raise ValueError(
                "`class_names` must be one or more non-empty names. "
                f"Received: class_names={names}"
            )
        # The one way to set a field of a frozen dataclass.
        object.__setattr__(self, "paths", tuple(self.paths))
        object.__setattr__(self, "class_names", names)
        labels = _checked_labels(self.labels, len(self.paths), len(names))
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int] | np.ndarray) -> "VideoList":
        """The videos at `indices`, in that order, with the same classes.

        >>> videos = VideoList(("a.mp4", "b.mp4"), [1, 0], ("jump", "run"))
        >>> videos.subset([1]).paths
        ('b.mp4',)
        """
        indices = np.asarray(indices, "int64")
        paths = tuple(self.paths[i] for i in indices)
        return VideoList(paths, self.labels[indices], self.class_names)

    def split(
        self, fraction: float, seed: int = 0
    ) -> "tuple[VideoList, VideoList]":
        """Splits every class at random, `fraction` of it to the second list.

        A class of two or more videos has at least one on each side; the one
        video of a class of one goes to the first list. Both lists keep the
        order of this one, and the same seed gives the same lists.

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
        second = np.zeros(len(self), bool)
        for label in range(len(self.class_names)):
            members = np.flatnonzero(self.labels == label)
            count = min(
                max(round(fraction * len(members)), 1), len(members) - 1
            )
            if count > 0:
                second[rng.permutation(members)[:count]] = True
        return (
            self.subset(np.flatnonzero(~second)),
            self.subset(np.flatnonzero(second)),
        )


def _checked_labels(
    labels: np.ndarray, num_videos: int, num_classes: int
) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (num_videos,):
        raise ValueError(
            f"`labels` must have shape ({num_videos},), one for each path. "
            f"Received: shape {labels.shape}"
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
    labels = labels.astype("int32")
    labels.setflags(write=False)
    return labels
