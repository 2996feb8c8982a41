"""Which frames of a video make a clip.

A video is first laid out as a `timeline`: the numbers of the decoder's frames
in its segment, as they are or one for every tick of a constant rate. A
sampling rule then picks places on that timeline. Rules use the arithmetic of
numpy alone, so that `xp=tf.experimental.numpy` runs them in a graph.
"""

import dataclasses
import math
import re
from types import ModuleType
from typing import Any

import numpy as np

SHORT_CLIPS = ("loop", "clamp", "error")
# Of a timeline at another frame rate: a day at 100 frames a second. Headers of
# damaged files claim years.
MAX_TICKS = 24 * 3600 * 100


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """How many frames a clip has, how far apart they are, and which.

    Args:
        num_frames: Frames of the clip, at least 1.
        sampling_rate: Step between them, in frames of the video, at least 1.
        rule: Whose code decides where clips begin and where their frames are:
            `"paper"`, `"slowfast"` or `"mmaction2"`, as `RULES` says.
        short: What follows the end of a video that is shorter than a clip:
            `"loop"` (its beginning), `"clamp"` (its last frame), `"error"`
            (such videos are refused). Default: that of the rule.
        fps: Frames per second that the video is brought to first, by the
            frames' times; `None` takes its own frames.

    Raises:
        ValueError: If an argument is none of these.

    >>> str(ClipSpec(num_frames=32, sampling_rate=2))
    '32x2'
    """

    num_frames: int
    sampling_rate: int = 1
    rule: str = "paper"
    short: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "sampling_rate"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
        if not isinstance(self.rule, str) or self.rule not in RULES:
            raise ValueError(
                f"`rule` must be one of {tuple(RULES)}. "
                f"Received: rule={self.rule!r}"
            )
        if self.short not in (None, *SHORT_CLIPS):
            raise ValueError(
                f"`short` must be one of {SHORT_CLIPS} or None. "
                f"Received: short={self.short!r}"
            )
        if self.fps is not None and not _is_positive(self.fps):
            raise ValueError(
                f"`fps` must be positive or None. Received: fps={self.fps!r}"
            )

    @classmethod
    def parse(cls, text: str) -> "ClipSpec":
        """Reads "32x2": 32 frames, every second one.

        Raises:
            ValueError: If `text` is not two positive integers and an "x".

        >>> ClipSpec.parse("8x8").span
        57
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


@dataclasses.dataclass(frozen=True)
class PaperRule:
    """The published code of the paper: even starts, videos are looped."""

    short: str = "loop"

    def needed(self, clip: ClipSpec, fps: float) -> float:
        """Frames of the shortest video that a clip fits into."""
        return clip.span

    def last_start(self, clip: ClipSpec, total: Any, fps: Any, xp: Any) -> Any:
        """`total - num_frames * sampling_rate`, or 0.

        The clip would fit up to `sampling_rate - 1` frames later; the range of
        the published code is kept.
        """
        return xp.maximum(total - clip.num_frames * clip.sampling_rate, 0)

    def random_start(self, unit: Any, last: Any, xp: Any) -> Any:
        """Evenly from 0 to `last`, both included."""
        return _whole(unit * _float(last + 1, xp), xp)

    def middle_start(self, last: Any) -> Any:
        """The middle of the possible starts."""
        return last // 2

    def even_starts(self, num_clips: int, last: Any, total: int) -> np.ndarray:
        """`floor(j * total / num_clips)`: the last clips are looped."""
        return np.arange(num_clips, dtype="int64") * total // num_clips

    def places(self, start: Any, clip: ClipSpec, fps: Any, xp: Any) -> Any:
        """Every `sampling_rate`-th place from `start` on."""
        return start + xp.arange(clip.num_frames) * clip.sampling_rate


class Mmaction2Rule(PaperRule):
    """mmaction2: as the paper, but for the starts of test clips."""

    def even_starts(self, num_clips: int, last: Any, total: int) -> np.ndarray:
        """`round(j * last / (num_clips - 1))`, from 0 to `last`."""
        if num_clips == 1:
            return np.array([last // 2], "int64")
        starts = np.arange(num_clips) * (last / (num_clips - 1))
        return np.round(starts).astype("int64")


@dataclasses.dataclass(frozen=True)
class SlowFastRule:
    """SlowFast: the length of a clip is a time, measured at 30 fps."""

    short: str = "clamp"

    def _span(self, clip: ClipSpec, fps: Any, xp: Any) -> Any:
        fps = _float(fps, xp)
        # A file that does not say is taken as it is.
        fps = xp.where(fps > 0, fps, _float(30.0, xp))
        return clip.num_frames * clip.sampling_rate * fps / 30.0

    def needed(self, clip: ClipSpec, fps: float) -> float:
        """Frames of the shortest video that a clip fits into."""
        return float(self._span(clip, fps, np))

    def last_start(self, clip: ClipSpec, total: Any, fps: Any, xp: Any) -> Any:
        """`total` less the clip's length in frames, no whole number."""
        length = self._span(clip, fps, xp)
        return xp.maximum(_float(total, xp) - length, 0.0)

    def random_start(self, unit: Any, last: Any, xp: Any) -> Any:
        """Evenly from 0 to `last`."""
        return unit * last

    def middle_start(self, last: Any) -> Any:
        """The middle of the possible starts."""
        return last / 2

    def even_starts(self, num_clips: int, last: Any, total: int) -> np.ndarray:
        """`j * last / num_clips`."""
        return np.arange(num_clips) * last / num_clips

    def places(self, start: Any, clip: ClipSpec, fps: Any, xp: Any) -> Any:
        """Whole parts of even steps over the clip's length.

        In float32 and from both ends, as `torch.linspace` counts.
        """
        number = clip.num_frames
        end = start + self._span(clip, fps, xp) - 1
        first = xp.asarray(start, dtype=np.float32)
        last = xp.asarray(end, dtype=np.float32)
        step = (last - first) / np.float32(max(number - 1, 1))
        steps = np.arange(number, dtype="float32")
        rising = first + step * steps
        falling = last - step * (np.float32(number - 1) - steps)
        values = xp.where(steps < number // 2, rising, falling)
        if number == 1:
            values = rising
        # Below 0 for clips of less than a frame: clamped to the video's first.
        return _whole(xp.maximum(values, np.float32(0)), xp)


RULES: dict[str, PaperRule | SlowFastRule] = {
    "paper": PaperRule(),
    "slowfast": SlowFastRule(),
    "mmaction2": Mmaction2Rule(),
}


def timeline(
    num_frames: int,
    fps: float = 0.0,
    times: np.ndarray | None = None,
    *,
    segment: tuple[float, float] | None = None,
    target_fps: float | None = None,
) -> np.ndarray:
    """Numbers of the frames that a clip may be taken from, in order.

    Args:
        num_frames: Frames of the file.
        fps: Its frames per second, 0.0 if unknown.
        times: Time of each frame in seconds from the first, of shape
            `(num_frames,)`. Empty or `None` if they are unknown or not sane:
            then the frames are taken to be evenly spaced.
        segment: Start and end in seconds; an end of NaN is that of the file.
        target_fps: Frames per second of the timeline: for each tick, the
            frame that is shown then. `None`: every frame once.

    Returns:
        int64 array of at least one frame number.

    Raises:
        ValueError: If times are needed and unknown, or the segment has no
            frame.

    >>> timeline(6, fps=2.0, segment=(1.0, 2.0))
    array([2, 3])
    >>> timeline(4, fps=2.0, target_fps=4.0)
    array([0, 0, 1, 1, 2, 2, 3, 3])
    """
    numbers = np.arange(num_frames, dtype="int64")
    if (segment is None and target_fps is None) or num_frames == 1:
        return numbers
    known = times is not None and len(times) == num_frames
    if not known and not fps > 0:
        raise ValueError(
            "its frame rate must be known to find times in it. Received: "
            f"{num_frames} frames without times"
        )
    begin = np.asarray(times) if known else numbers / fps
    last = 1 / fps if fps > 0 else float(np.mean(np.diff(begin)))
    end = np.append(begin[1:], begin[-1] + last)
    # Times are rounded where they are stored, often to milliseconds.
    tolerance = min(1e-3, float(np.min(end - begin)) / 2)
    if segment is not None:
        inside = _shown(begin, end, segment, tolerance)
        numbers, begin, end = numbers[inside], begin[inside], end[inside]
    if target_fps is None:
        return numbers
    count = (end[-1] - begin[0]) * target_fps
    if count > MAX_TICKS:
        raise ValueError(
            f"at {target_fps:g} frames a second it must have at most "
            f"{MAX_TICKS} frames. Received: {end[-1] - begin[0]:g} seconds"
        )
    ticks = np.arange(max(round(count), 1)) / target_fps + begin[0]
    shown = np.searchsorted(begin, ticks + tolerance, "right") - 1
    return numbers[shown]


def _shown(
    begin: np.ndarray,
    end: np.ndarray,
    segment: tuple[float, float],
    tolerance: float,
) -> np.ndarray:
    """Which frames are on the screen at some time of a segment."""
    first, last = segment
    last = math.inf if math.isnan(last) else last
    inside = (end > first + tolerance) & (begin < last - tolerance)
    if not inside.any():
        raise ValueError(
            f"the segment from {first:g} to {last:g} s must have a frame. "
            f"Received: frames from 0 to {end[-1]:g} s"
        )
    return inside


def random_start(
    unit: Any, clip: ClipSpec, total: Any, fps: Any = 0.0, xp: Any = np
) -> Any:
    """Training: where a clip begins, drawn evenly from all that are possible.

    Args:
        unit: Random number in [0, 1).
        clip: Length, step and rule of the clip.
        total: Places of the timeline.
        fps: Frames per second of the timeline, 0.0 if unknown.
        xp: `numpy`, or `tf.experimental.numpy` for tensors.

    Returns:
        A place, for `frame_indices`.

    >>> int(random_start(0.999, ClipSpec(32, 2), total=300))
    236
    """
    rule = RULES[clip.rule]
    return rule.random_start(unit, rule.last_start(clip, total, fps, xp), xp)


def middle_start(
    clip: ClipSpec, total: Any, fps: Any = 0.0, xp: Any = np
) -> Any:
    """Evaluation of one clip per video: the middle of the possible starts.

    >>> int(middle_start(ClipSpec(32, 2), total=300))
    118
    """
    rule = RULES[clip.rule]
    return rule.middle_start(rule.last_start(clip, total, fps, xp))


def uniform_starts(
    num_clips: int, clip: ClipSpec, total: int, fps: float = 0.0
) -> np.ndarray:
    """Test: where `num_clips` clips begin, by the rule's own formula.

    Args:
        num_clips: Clips per video.
        clip: Length, step and rule of the clips.
        total: Places of the timeline.
        fps: Frames per second of the timeline, 0.0 if unknown.

    Returns:
        Array of shape `(num_clips,)`.

    Raises:
        ValueError: If `num_clips` is not positive.

    >>> uniform_starts(10, ClipSpec(4), total=25)
    array([ 0,  2,  5,  7, 10, 12, 15, 17, 20, 22])
    >>> uniform_starts(4, ClipSpec(4, rule="mmaction2"), total=25)
    array([ 0,  7, 14, 21])
    """
    if num_clips < 1:
        raise ValueError(
            f"`num_clips` must be positive. Received: num_clips={num_clips}"
        )
    rule = RULES[clip.rule]
    last = rule.last_start(clip, total, fps, np)
    return rule.even_starts(num_clips, last, total)


def frame_indices(
    start: Any, clip: ClipSpec, total: Any, fps: Any = 0.0, xp: Any = np
) -> Any:
    """Places of the clip's frames on the timeline.

    Args:
        start: Where the clip begins.
        clip: Length, step and rule of the clip.
        total: Places of the timeline, at least 1.
        fps: Frames per second of the timeline, 0.0 if unknown.
        xp: `numpy`, or `tf.experimental.numpy` for tensors.

    Returns:
        int64 array of shape `(clip.num_frames,)`, in `[0, total)`.

    Raises:
        ValueError: If `total` is not positive, or less than `needed_frames`
            with `clip.short` of `"error"`. Not checked in a graph.

    >>> frame_indices(3, ClipSpec(4, 2), total=8)
    array([3, 5, 7, 1])
    >>> frame_indices(3, ClipSpec(4, 2, short="clamp"), total=8)
    array([3, 5, 7, 7])
    """
    short = clip.short or RULES[clip.rule].short
    if xp is np:
        _check_total(clip, total, needed_frames(clip, fps))
    places = RULES[clip.rule].places(start, clip, fps, xp)
    return xp.minimum(places, total - 1) if short == "clamp" else places % total


def needed_frames(clip: ClipSpec, fps: float = 0.0) -> int:
    """The shortest timeline that a clip may be taken from.

    >>> needed_frames(ClipSpec(32, 2))
    1
    >>> needed_frames(ClipSpec(32, 2, short="error"))
    63
    """
    rule = RULES[clip.rule]
    if (clip.short or rule.short) != "error":
        return 1
    return max(math.ceil(rule.needed(clip, fps)), 1)


def _check_total(clip: ClipSpec, total: int, least: int) -> None:
    if total < least:
        raise ValueError(
            f"a {clip} clip needs {least} frames or more. Received: "
            f"`total` of {total} frames"
        )


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float | np.number)
    return is_number and 0 < value < math.inf


def _whole(values: Any, xp: ModuleType | Any) -> Any:
    return xp.asarray(xp.floor(values), dtype=np.int64)


def _float(values: Any, xp: ModuleType | Any) -> Any:
    return xp.asarray(values, dtype=np.float64)
