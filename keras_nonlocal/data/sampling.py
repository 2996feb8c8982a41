"""Which frames of a video make a clip (plain Python and numpy)."""

import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """How many frames a clip has and how far apart they are in the video.

    Args:
        num_frames: Frames of the clip, at least 1.
        sampling_rate: Step between them, in frames of the video, at least 1.

    Raises:
        ValueError: If either is not a positive integer.

    >>> str(ClipSpec(num_frames=32, sampling_rate=2))
    '32x2'
    """

    num_frames: int
    sampling_rate: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"`{field.name}` must be a positive integer. "
                    f"Received: {field.name}={value!r}"
                )

    @classmethod
    def parse(cls, text: str) -> "ClipSpec":
        """Reads "32x2": 32 frames, every second one.

        Raises:
            ValueError: If `text` is not two positive integers and an "x".

        >>> ClipSpec.parse("8x8")
        ClipSpec(num_frames=8, sampling_rate=8)
        """
        match = re.fullmatch(r"([0-9]+)x([0-9]+)", text)
        if match is None:
            raise ValueError(
                "`text` must be frames and sampling rate like '32x2'. "
                f"Received: {text!r}"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.sampling_rate}"

    @property
    def span(self) -> int:
        """Frames of the video from the clip's first to its last.

        >>> ClipSpec(32, 2).span
        63
        """
        return (self.num_frames - 1) * self.sampling_rate + 1


def last_start(clip: ClipSpec, total: int) -> int:
    """The last start of the paper, `total - num_frames * sampling_rate`.

    The clip would fit up to `sampling_rate - 1` frames later; the paper's range
    is kept. Shorter videos start at 0 and are looped.

    >>> last_start(ClipSpec(32, 2), total=300), last_start(ClipSpec(32, 2), 10)
    (236, 0)
    """
    return max(total - clip.num_frames * clip.sampling_rate, 0)


def random_start(unit: float, clip: ClipSpec, total: int) -> int:
    """Training: a start drawn evenly from 0 to `last_start`, both included.

    Args:
        unit: Random number in [0, 1).
        clip: Length and step of the clip.
        total: Frames of the video.

    Returns:
        The number of the clip's first frame.

    >>> random_start(0.999, ClipSpec(32, 2), total=300)
    236
    """
    return int(unit * (last_start(clip, total) + 1))


def middle_start(clip: ClipSpec, total: int) -> int:
    """Evaluation of one clip per video: the middle of the possible starts.

    >>> middle_start(ClipSpec(32, 2), total=300)
    118
    """
    return last_start(clip, total) // 2


def uniform_starts(num_clips: int, total: int) -> np.ndarray:
    """Test: `num_clips` even starts, `floor(j * total / num_clips)`.

    The rule of the paper's code for its 10 clips; the last clips run past the
    end of the video and are looped by `frame_indices`.

    Args:
        num_clips: Clips per video.
        total: Frames of the video.

    Returns:
        int64 array of shape `(num_clips,)`.

    Raises:
        ValueError: If `num_clips` is not positive.

    >>> uniform_starts(10, total=25)
    array([ 0,  2,  5,  7, 10, 12, 15, 17, 20, 22])
    """
    if num_clips < 1:
        raise ValueError(
            f"`num_clips` must be positive. Received: num_clips={num_clips}"
        )
    return np.arange(num_clips, dtype="int64") * total // num_clips


def frame_indices(start: int, clip: ClipSpec, total: int) -> np.ndarray:
    """Numbers of the clip's frames; past the end the video starts again.

    Args:
        start: Number of the first frame.
        clip: Length and step of the clip.
        total: Frames of the video, at least 1.

    Returns:
        int64 array of shape `(clip.num_frames,)`, in `[0, total)`.

    Raises:
        ValueError: If `total` is not positive.

    >>> frame_indices(3, ClipSpec(4, 2), total=8)
    array([3, 5, 7, 1])
    """
    if total < 1:
        raise ValueError(f"`total` must be positive. Received: total={total}")
    steps = np.arange(clip.num_frames, dtype="int64") * clip.sampling_rate
    return (start + steps) % total
