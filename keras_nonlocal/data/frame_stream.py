"""Frames with their times, once through, from whatever has frames.

A file, a folder of pictures, an array or any iterator is read from its start to
its end, and no more than a frame or two of it is in memory. Of damaged files
what can be read is read, and what cannot is told in `FrameStream.problems`.
"""

import collections
import contextlib
import dataclasses
import itertools
import math
import os
import re
import sys
import time
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import av
import numpy as np

from keras_nonlocal.data import decode
from keras_nonlocal.data import sampling
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decoders import frame_folder
from keras_nonlocal.data.transforms import center_transform

# Seconds that may pass until the next frame of a file is there.
TIME_LIMIT = 60.0
# A clock that goes back this far has been set anew; less is a slip.
_SLIP_SECONDS = 1.0
# Times are rounded where they are stored, often to milliseconds.
ROUNDING = 1e-3
# How much earlier than it says a file may end.
_EARLY_SECONDS = 1.0
# What FFmpeg calls cameras, and the first one, by `sys.platform`.
_CAMERAS = {
    "linux": ("v4l2", "/dev/video0"),
    "darwin": ("avfoundation", "0"),
    "win32": ("dshow", "video=Integrated Camera"),
}


class TimedPicture(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        seconds: From the first frame on.
        picture: uint8 RGB `(height, width, 3)`.
    """

    seconds: float
    picture: np.ndarray


class _Frame(NamedTuple):
    seconds: float
    content: av.VideoFrame | np.ndarray


@dataclasses.dataclass
class _Problem:
    seconds: float
    reason: str
    count: int = 0


class Problems:
    """What could not be read of a video, a line for each kind.

    >>> problems = Problems()
    >>> for seconds in (1.5, 2.5):
    ...     problems.note("damaged frame", seconds)
    >>> problems.lines()
    ('damaged frame at 1.50 s and 1 more',)
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Problem] = {}

    def note(self, kind: str, seconds: float, reason: str = "") -> None:
        """Counts a problem; the first of a kind is kept with its reason."""
        self._kinds.setdefault(kind, _Problem(seconds, reason)).count += 1

    def lines(self) -> tuple[str, ...]:
        """A sentence for every kind."""
        return tuple(
            f"{kind} at {problem.seconds:.2f} s"
            + (f" and {problem.count - 1} more" if problem.count > 1 else "")
            + (f": {problem.reason}" if problem.reason else "")
            for kind, problem in self._kinds.items()
        )


class FrameStream:
    """The frames of a video, to be read once; `open_frames` makes them.

    Attributes:
        name: Of the video, for messages.
        fps: Frames per second on average, 0.0 if unknown.
        duration: Seconds that it should last, `None` if unknown.
        begins: Seconds from the start of a file, where its sound may be first,
            to its first frame.
    """

    def __init__(
        self,
        name: str,
        frames: Iterator[_Frame],
        fps: float,
        duration: float | None,
        problems: Problems,
        begins: float = 0.0,
        is_endless: bool = False,
    ) -> None:
        self.name = name
        self.fps = fps
        self.duration = duration
        self.begins = begins
        self._most_ticks = None if is_endless else sampling.MAX_TICKS
        self._frames = frames
        self._problems = problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read so far, in words."""
        return self._problems.lines()

    def read(
        self,
        *,
        fps: float | None = None,
        short_side: int | None = None,
        crop_size: int | None = None,
    ) -> Iterator[TimedPicture]:
        """Reads the frames, upright, rescaled and cropped in the centre.

        Args:
            fps: Frames per second to bring the video to: for each tick the
                frame that is shown then. `None` gives every frame once.
            short_side: Rescales bilinearly to this shorter side, the other
                truncated, in pixels; `None` keeps the size.
            crop_size: Height and width of the centre crop, in pixels, at most
                `short_side`; `None` gives whole frames.

        Yields:
            Every frame and its time.

        Raises:
            VideoError: If no frame can be read.
            ValueError: If a frame of an iterator is not as `open_frames` says.
        """
        frames = self._frames
        if fps is not None:
            frames = self._at_rate(fps)
        convert, last, size = None, None, None
        for seconds, content in frames:
            if convert is None:
                convert = _Converter(self.name, content, short_side, crop_size)
                size = _size(content)
            # At a higher rate the same frame comes several times.
            if last is None or content is not last:
                picture, last = convert(content), content
                if _size(content) != size:
                    kind = "stretched frame of another size"
                    self._problems.note(kind, seconds)
            yield TimedPicture(seconds, picture)
        if convert is None:
            reasons = "; ".join(self.problems) or "it has none"
            raise VideoError(f"{self.name}: no frame could be read: {reasons}")

    def _at_rate(self, fps: float) -> Iterator[_Frame]:
        ticks = at_rate(self._frames, fps, self.fps)
        yield from itertools.islice(ticks, self._most_ticks)
        # A small file may be full of long gaps.
        if self._most_ticks is not None and next(ticks, None) is not None:
            reason = (
                f"at {fps:g} fps at most {self._most_ticks} frames are read"
            )
            self._problems.note("early end", self._most_ticks / fps, reason)


def _size(content: av.VideoFrame | np.ndarray) -> tuple[int, ...]:
    if isinstance(content, np.ndarray):
        return content.shape[:2]
    return content.height, content.width


class _Converter:
    """From frames of a decoder to pictures of one size."""

    def __init__(
        self,
        name: str,
        first: av.VideoFrame | np.ndarray,
        short_side: int | None,
        crop_size: int | None,
    ) -> None:
        if isinstance(first, np.ndarray):
            height, width, rotation = *first.shape[:2], 0
        else:
            height, width, rotation = decode.upright_size(first)
        self._upright = decode.FrameRescaler(
            name, (height, width), rotation, short_side
        )
        self._crop = None
        if crop_size is not None:
            side = min(height, width) if short_side is None else short_side
            self._crop = center_transform(height, width, crop_size, side)

    def __call__(self, content: av.VideoFrame | np.ndarray) -> np.ndarray:
        picture = self._upright(content)
        if self._crop is not None:
            picture = self._crop(picture)
        # A view would keep all of the frame in memory.
        return np.array(picture, order="C")


@contextlib.contextmanager
def open_frames(
    video: Any,
    *,
    fps: float = 0.0,
    time_limit: float = TIME_LIMIT,
) -> Iterator[FrameStream]:
    """Opens whatever has frames.

    Files are opened as `keras_nonlocal.data.decode` opens them: FFmpeg sees no
    URL and no file that another file names. Times are those of the frames; a
    clock that stands still, goes back or jumps by more than a minute is set
    right by the frame rate, which counts as a problem.

    Args:
        video: The path of a video file or of a folder of numbered pictures; a
            uint8 array `(T, H, W, 3)` of RGB; or an iterable of frames, uint8
            `(H, W, 3)`, or of pairs of a time in seconds and a frame, as
            `camera` gives.
        fps: Frames per second where the video does not say: of folders, arrays
            and frames without times it must be given.
        time_limit: Seconds that may pass until the next frame of a file is
            there; then the video ends.

    Yields:
        The `FrameStream`, which ends with the block.

    Raises:
        VideoError: If the file cannot be opened.
        ValueError: If `video` is none of these, or `fps` is needed.

    >>> frames = np.zeros((3, 48, 64, 3), "uint8")
    >>> with open_frames(frames, fps=2) as stream:
    ...     [(t, p.shape) for t, p in stream.read(short_side=24)]
    [(0.0, (24, 32, 3)), (0.5, (24, 32, 3)), (1.0, (24, 32, 3))]
    """
    if not 0 <= fps < math.inf:
        raise ValueError(f"`fps` must be 0 or more. Received: fps={fps}")
    if not time_limit > 0:
        raise ValueError(
            "`time_limit` must be a positive number of seconds. "
            f"Received: time_limit={time_limit}"
        )
    # Numbers of numpy cannot be written as JSON.
    fps = float(fps)
    problems = Problems()
    with contextlib.ExitStack() as stack:
        if isinstance(video, (str, os.PathLike)):
            path = _path(video)
            if os.path.isdir(path):
                yield _folder(path, fps, time_limit, problems)
                return
            with decode.time_limit(time_limit):
                opened = stack.enter_context(decode.open_stream(path))
            file = _File(path, *opened, fps, problems)
            frames = _in_time(file.frames(), time_limit)
            yield FrameStream(
                path,
                frames,
                file.fps,
                file.duration(),
                problems,
                file.begins(),
            )
            return
        yield _given(video, fps, problems)


def _path(video: str | os.PathLike[str]) -> str:
    path = os.fspath(video)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ValueError(
            "`video` must be a path here: files are read from the disk only. "
            f"Received: {path}"
        )
    return path


def _in_time(frames: Iterator[_Frame], seconds: float) -> Iterator[_Frame]:
    """Limits the time to each next frame, not that between them."""
    while True:
        with decode.time_limit(seconds):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


class _File:
    """A file that is open."""

    def __init__(
        self,
        path: str,
        container: av.container.InputContainer,
        stream: av.video.stream.VideoStream,
        fps: float,
        problems: Problems,
    ) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._problems = problems
        self.fps = float(stream.average_rate or 0) or fps

    def duration(self) -> float | None:
        """Seconds of the video stream, or of the file, if they are known."""
        stream = self._stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        seconds = (self._container.duration or 0) / av.time_base
        return seconds if seconds > 0 else None

    def begins(self) -> float:
        """Seconds from the start of the file to its first frame."""
        own, unit = self._stream.start_time, self._stream.time_base
        whole = self._container.start_time
        if own is None or unit is None or whole is None:
            return 0.0
        seconds = float(own * unit) - whole / av.time_base
        return seconds if 0 < seconds <= decode.MAX_GAP_SECONDS else 0.0

    def frames(self) -> Iterator[_Frame]:
        """All frames that can be decoded, with their times."""
        # AVI has no times, and FFmpeg guesses wrong where frames are stored in
        # another order than they are shown.
        unit = self._stream.time_base
        reordered = self._stream.codec_context.has_b_frames
        if self._container.format.name == "avi" and reordered:
            unit = None
        clock = _Clock(self._path, unit, self.fps, self._problems)
        for frame in self._decoded(clock):
            seconds = clock.seconds(frame.pts)
            if frame.is_corrupt:
                self._problems.note("damaged frame", seconds)
            yield _Frame(seconds, frame)
        self._check_end(clock)

    def _decoded(self, clock: "_Clock") -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                decode.check_time(self._path)
                packet = next(packets, None)
            except (av.FFmpegError, TimeLimitError) as error:
                reason = self._reason(error)
                self._problems.note("early end", clock.last, reason)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                reason = self._reason(error)
                self._problems.note(
                    "packet that cannot be decoded", clock.last, reason
                )
                continue
            yield from frames

    def _reason(self, error: Exception) -> str:
        if isinstance(error, av.FFmpegError):
            return decode.ffmpeg_reason(error)
        return str(error).removeprefix(f"{self._path}: ")

    def _check_end(self, clock: "_Clock") -> None:
        """Notes it if there should have been more."""
        # That of a whole file may be that of its sound, or have jumps in it.
        is_own = self._stream.duration or not self._container.streams.audio
        duration = self.duration() if is_own and not clock.has_jumped else None
        end = clock.last + clock.step
        if clock.count and duration and end < duration - _EARLY_SECONDS:
            self._problems.note(
                "early end", end, f"the file says {duration:.2f} s"
            )


class _Clock:
    """Seconds from the first frame on, whatever a file says."""

    def __init__(
        self, path: str, unit: Any, fps: float, problems: Problems
    ) -> None:
        self._path = path
        self._unit = float(unit or 0)
        self._fps = fps
        self._problems = problems
        # A time stamp and the time that it stands for.
        self._anchor: tuple[int, float] | None = None
        self.count = 0
        self.last = 0.0
        self.has_jumped = False
        self._step = 0.0

    @property
    def step(self) -> float:
        """Seconds from one frame to the next, as far as is known."""
        return 1 / self._fps if self._fps > 0 else self._step

    def seconds(self, stamp: int | None) -> float:
        """Time of the next frame, not before that of the last one."""
        before, first = self.last, not self.count
        self.count += 1
        if not self._unit:
            # Not step by step, which would add up errors of rounding.
            self.last = 0.0 if first else (self.count - 1) * self._known_step()
            return self.last
        if stamp is None:
            self.last = before if first else before + self._known_step()
            return self.last
        if self._anchor is None:
            self._anchor = stamp, before if first else before + self.step
        begin, offset = self._anchor
        # In Python's integers, which do not overflow.
        found = offset + (stamp - begin) * self._unit
        if found < before - _SLIP_SECONDS or (
            found > before + decode.MAX_GAP_SECONDS
        ):
            self._problems.note("jump of the clock", before)
            self.has_jumped = True
            found = before + self.step
            self._anchor = stamp, found
        elif found <= before and not first:
            self._problems.note("frame at the time of another", before)
            found = before
        self._step = found - before or self._step
        self.last = found
        return found

    def _known_step(self) -> float:
        if self.step:
            return self.step
        raise VideoError(
            f"{self._path}: it has no times; `fps` must say how many frames "
            "a second it has"
        )


def _folder(
    path: str, fps: float, time_limit: float, problems: Problems
) -> FrameStream:
    try:
        _check_fps(fps, "a folder of pictures")
    except ValueError as error:  # Of this one, and not of files beside it.
        raise VideoError(f"{path}: {error}") from error
    with decode.time_limit(time_limit):
        count, pictures = frame_folder.pictures(path)

    def frames() -> Iterator[_Frame]:
        for number, frame in enumerate(pictures):
            if isinstance(frame, TimeLimitError):
                problems.note("early end", number / fps, str(frame))
                return
            if isinstance(frame, VideoError):
                problems.note(
                    "picture that cannot be read", number / fps, str(frame)
                )
            else:
                yield _Frame(number / fps, frame)

    limited = _in_time(frames(), time_limit)
    return FrameStream(path, limited, fps, count / fps, problems)


def _check_fps(fps: float, what: str) -> None:
    if not fps > 0:
        raise ValueError(
            f"`fps` must say how many frames a second {what} has. "
            f"Received: fps={fps}"
        )


def _given(video: Any, fps: float, problems: Problems) -> FrameStream:
    """Frames that are in memory, or made while they are asked for."""
    if isinstance(video, (bytes, bytearray)) or hasattr(video, "read"):
        raise ValueError(
            "`video` must be a path as text, not in bytes, and not an open "
            f"file. Received: {video!r:.80}"
        )
    if isinstance(video, np.ndarray):
        if video.ndim != 4:
            raise ValueError(
                "`video` as an array must be uint8 (T, H, W, 3). Received: "
                f"shape {video.shape}"
            )
        _check_fps(fps, "an array")
        frames = _timed(video, fps, problems)
        return FrameStream("array", frames, fps, len(video) / fps, problems)
    if not isinstance(video, Iterable):
        raise ValueError(
            "`video` must be a path, an array or an iterable of frames. "
            f"Received: {video!r}"
        )
    frames = _timed(video, fps, problems)
    return FrameStream("frames", frames, fps, None, problems, is_endless=True)


def _timed(
    frames: Iterable[Any], fps: float, problems: Problems
) -> Iterator[_Frame]:
    start, last, step = None, 0.0, 1 / fps if fps else 0.0
    for number, item in enumerate(frames):
        is_timed = _is_pair(item)
        if is_timed:
            moment, picture = float(item[0]), np.asarray(item[1])
        else:
            _check_fps(fps, "frames without times")
            moment, picture = number / fps, np.asarray(item)
        start = moment if start is None else start
        if not last <= moment - start < math.inf:
            raise ValueError(
                "Times of frames must be finite and rise. Received: "
                f"{moment} s for frame {number}, after {last + start} s"
            )
        if is_timed and moment - start > last + decode.MAX_GAP_SECONDS:
            problems.note("jump of the clock", last)
            start = moment - last - step
        step = moment - start - last
        last = moment - start
        if (
            picture.dtype != np.uint8
            or picture.ndim != 3
            or picture.shape[2] != 3
            or not picture.size
        ):
            raise ValueError(
                "Frames must be uint8 RGB (H, W, 3). Received: "
                f"{picture.dtype} of shape {picture.shape} as frame {number}"
            )
        # A copy: cameras often fill the same array again.
        yield _Frame(last, np.array(picture, order="C"))


def _is_pair(item: Any) -> bool:
    """Whether it is a time and a frame, and not a frame of two rows."""
    is_pair = isinstance(item, (tuple, list)) and len(item) == 2
    return is_pair and np.ndim(item[0]) == 0


def at_rate(
    frames: Iterable[tuple[float, Any]], fps: float, source_fps: float = 0.0
) -> Iterator[Any]:
    """Brings frames to a constant rate, as `sampling.timeline` does.

    Args:
        frames: Times, the first 0 and none before the last one, and anything.
        fps: Frames per second to bring them to: for each tick the frame that
            is shown then.
        source_fps: Frames per second of `frames`, for how long the last one is
            shown; 0.0 if unknown.

    Yields:
        The times of the ticks and what is shown then.

    >>> [tuple(frame) for frame in at_rate([(0.0, "a"), (0.5, "b")], 4, 2)]
    [(0.0, 'a'), (0.25, 'a'), (0.5, 'b'), (0.75, 'b')]
    """
    tick = 0
    # Those found that may be beyond the end, which is rounded.
    waiting: collections.deque[tuple[int, Any]] = collections.deque()
    held, shown, count, shortest = None, 0.0, 0, math.inf
    for count, (seconds, content) in enumerate(frames, 1):
        end = round((seconds + _last(seconds, count, source_fps)) * fps)
        if count > 1:
            shortest = min(shortest, seconds - shown)
            tolerance = min(ROUNDING, shortest / 2)
            while tick / fps + tolerance < seconds:
                waiting.append((tick, held))
                tick += 1
                yield from _before(end, waiting, fps)
        held, shown = content, seconds
    if not count:
        return
    end = round((shown + _last(shown, count, source_fps)) * fps)
    # A single frame is one tick, however long it is shown.
    end = 1 if count == 1 else max(end, 1)
    while tick < end:
        waiting.append((tick, held))
        tick += 1
        yield from _before(end, waiting, fps)
    yield from _before(end, waiting, fps)


def _before(
    end: int, waiting: collections.deque[tuple[int, Any]], fps: float
) -> Iterator[_Frame]:
    """Takes out the ticks before the end."""
    while waiting and waiting[0][0] < end:
        tick, content = waiting.popleft()
        yield _Frame(tick / fps, content)


def _last(seconds: float, count: int, source_fps: float) -> float:
    """How long the last frame of so many is shown."""
    if source_fps > 0:
        return 1 / source_fps
    return seconds / max(count - 1, 1)


def camera(
    device: str | None = None,
    *,
    size: tuple[int, int] = (640, 480),
    fps: float = 30.0,
) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of a camera while they come, for `open_frames`.

    PyAV reads cameras only if the FFmpeg that it was built with does; its
    wheels for Linux do not. Any other iterator of times and frames will do,
    as of OpenCV's `VideoCapture`, whose frames are BGR:

        def frames():
            capture = cv2.VideoCapture(0)
            while True:
                _, frame = capture.read()
                yield time.monotonic(), frame[..., ::-1]

    It has not been tried with a camera, for want of one.

    Args:
        device: As FFmpeg names it. Default: the first one, `/dev/video0` on
            Linux.
        size: Width and height to ask for, in pixels.
        fps: Frames per second to ask for.

    Yields:
        Seconds of a clock, and uint8 RGB `(H, W, 3)`.

    Raises:
        VideoError: If there is no such camera or PyAV cannot read any.
    """
    name, first = _CAMERAS.get(sys.platform, ("", ""))
    if name not in av.formats_available:
        raise VideoError(
            "camera: the FFmpeg of this PyAV does not read cameras "
            f"({name or sys.platform}); any iterator of times and frames will "
            "do in place of `camera`"
        )
    device = device or first
    options = {"video_size": "{}x{}".format(*size), "framerate": f"{fps:g}"}
    try:
        with av.open(device, format=name, options=options) as container:
            for frame in container.decode(video=0):
                yield time.monotonic(), frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{device}: {error}") from error
