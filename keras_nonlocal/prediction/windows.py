"""Windows that slide over a video while it is read."""

import collections
import contextlib
import dataclasses
import itertools
import math
import re
import tempfile
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.frame_stream import ROUNDING
from keras_nonlocal.data.frame_stream import FrameStream
from keras_nonlocal.data.frame_stream import TimedPicture
from keras_nonlocal.data.frame_stream import open_frames
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation.models import ClipInput
from keras_nonlocal.weights.download import DownloadError
from keras_nonlocal.weights.download import fetch

# Of the frames of one window.
_MAX_BYTES = 2**31
# Of a video behind a URL: bytes, and seconds until all of it has come.
MAX_DOWNLOAD = 2**32
DOWNLOAD_TIME = 3600.0
# Pages, and live pictures that never end.
_NO_VIDEOS = ("text/html", "multipart/")
# No timeline is longer than what a clip may ask for.
_ENDLESS = 2**40


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """A clip of a video and when it is.

    Attributes:
        start: Seconds from the video's first frame to the clip's.
        end: Seconds to when the frame after the clip's last one is shown.
        frames: uint8 of shape `(num_frames, crop_size, crop_size, 3)`.
    """

    start: float
    end: float
    frames: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedVideo:
    """A video that is being read.

    Attributes:
        name: Its path or URL, or what it is.
        stream: Its frames; what is wrong with them is in `stream.problems`.
        windows: Its windows, once through.
        stride: Seconds from one window to the next, `None` if they follow
            each other without overlap.
    """

    name: str
    stream: FrameStream
    windows: Iterator[Window]
    stride: float | None


@contextlib.contextmanager
def open_windows(
    video: Any,
    settings: ClipInput,
    stride: float | None = None,
    *,
    fps: float = 0.0,
    time_limit: float,
    progress: bool = False,
) -> Iterator[OpenedVideo]:
    """Opens a video to read its windows one after the other.

    Args:
        video: What `open_frames` takes, or a URL, http or https, which is
            downloaded to a temporary file first.
        settings: Clips and sizes.
        stride: Seconds from the start of one window to that of the next.
            Default: a window's span.
        fps: Frames per second where the video does not say.
        time_limit: Seconds that may pass until the next frame of a file.
        progress: Whether to show the progress of a download.

    Yields:
        The `OpenedVideo`.

    Raises:
        VideoError: If the video cannot be read.
        ValueError: If an argument is not as described, or a window would take
            more than 2 GiB.
    """
    if stride is not None and not 0 < stride < math.inf:
        raise ValueError(
            "`stride` must be a positive number of seconds or None. "
            f"Received: stride={stride}"
        )
    # A number of numpy cannot be written as JSON.
    stride = None if stride is None else float(stride)
    _check_window(settings)
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(local_video(video, progress))
        stream = stack.enter_context(
            open_frames(local, fps=fps, time_limit=time_limit)
        )
        clip = settings.clip
        pictures = stream.read(
            fps=clip.fps,
            short_side=settings.short_side,
            crop_size=settings.crop_size,
        )
        yield OpenedVideo(
            stream.name if local is video else video,
            stream,
            sliding_windows(
                pictures, clip, stride, clip.fps or stream.fps, stream.name
            ),
            stride,
        )


@contextlib.contextmanager
def local_video(video: Any, progress: bool = False) -> Iterator[Any]:
    """Downloads a video if it is the URL of one, for as long as it is needed.

    Args:
        video: A URL, http or https, or anything else.
        progress: Whether to show the progress of a download.

    Yields:
        The path of the temporary file, or `video` itself if it is no URL.

    Raises:
        VideoError: If it cannot be downloaded, is larger than 4 GiB, takes more
            than an hour or is a page; and those of the block, with the URL in
            place of the path.
    """
    if not isinstance(video, str) or not _is_url(video):
        yield video
        return
    with tempfile.TemporaryDirectory(prefix="keras_nonlocal_") as folder:
        path = f"{folder}/video"
        try:
            fetch(
                video,
                path,
                max_bytes=MAX_DOWNLOAD,
                time_limit=DOWNLOAD_TIME,
                refused=_NO_VIDEOS,
                progress=progress,
            )
        except ValueError as error:
            raise VideoError(f"{video}: {error}") from error
        except DownloadError as error:
            # What follows is what to do about files that are kept.
            reason, _, _ = str(error).partition(" The file can also")
            raise VideoError(reason) from error
        try:
            yield path
        except VideoError as error:
            raise type(error)(str(error).replace(path, video)) from error


def _is_url(text: str) -> bool:
    return bool(re.match("https?://", text, re.IGNORECASE))


def sliding_windows(
    pictures: Iterable[TimedPicture],
    clip: ClipSpec,
    stride: float | None = None,
    fps: float = 0.0,
    name: str = "video",
) -> Iterator[Window]:
    """Windows of a clip's length, of frames that are read once.

    A window has the frames of a clip that begins with its first one, by the
    rule of `clip`, and ends when the frame after its last one is shown: it
    comes once that one is read. Windows that overlap share the frames in
    memory: as many are kept as a window spans.

    The windows that the end of the video cuts off are replaced by one that
    ends with its last frame. A video that is shorter than a window is one
    window, filled up as `clip.short` says.

    Args:
        pictures: The frames; at a rate of `clip.fps` if that is set.
        clip: Frames of a window.
        stride: Seconds from one window to the next: they begin with the first
            frame at or after each multiple of it. `None`: each begins with
            the frame after the last one of the window before.
        fps: Frames per second of `pictures`, 0.0 if unknown.
        name: Of the video, for messages.

    Yields:
        The windows in the order of their starts.

    Raises:
        VideoError: If the video is too short and `clip.short` is `"error"`, or
            a window would take more than 2 GiB.

    >>> frames = (np.full((1, 1, 3), number) for number in range(5))
    >>> pictures = [TimedPicture(i / 2, x) for i, x in enumerate(frames)]
    >>> windows = sliding_windows(pictures, ClipSpec(2), fps=2)
    >>> [(w.start, w.end, w.frames[:, 0, 0, 0].tolist()) for w in windows]
    [(0.0, 1.0, [0, 1]), (1.0, 2.0, [2, 3]), (1.5, 2.5, [3, 4])]
    """
    offsets = sampling.frame_indices(0, clip, _ENDLESS, fps)
    span = int(offsets[-1]) + 1
    ring: collections.deque[TimedPicture] = collections.deque(maxlen=span)
    begun: collections.deque[int] = collections.deque()
    begins = _EverySpan(span) if stride is None else _EverySeconds(stride)
    total, newest = 0, -1
    shown, step = 0.0, 0.0
    # The start and the frames of a window that has all of them.
    full: tuple[float, np.ndarray] | None = None
    for place, picture in enumerate(pictures):
        if not place:
            _check_bytes(name, span, picture.picture)
        if full is not None:
            yield Window(full[0], picture.seconds, full[1])
            full = None
        step, shown = picture.seconds - shown, picture.seconds
        ring.append(picture)
        total = place + 1
        if begins(place, picture.seconds):
            begun.append(place)
        if begun and begun[0] + span == total:
            newest = begun.popleft()
            full = ring[0].seconds, _frames(ring, offsets)
    # How long the last frame is shown nobody says.
    end = shown + (1 / fps if fps > 0 else step)
    if full is not None:
        yield Window(full[0], end, full[1])
    if 0 < total < span:
        offsets = _short(name, clip, total, fps)
        yield Window(ring[0].seconds, end, _frames(ring, offsets))
    elif begun and newest < total - span:
        yield Window(ring[0].seconds, end, _frames(ring, offsets))


def _check_window(settings: ClipInput) -> None:
    size = settings.clip.num_frames * settings.crop_size**2 * 3
    if size > _MAX_BYTES:
        raise ValueError(
            f"`window` must be of frames that take {_MAX_BYTES} bytes or less. "
            f"Received: {settings.clip} of {settings.crop_size} pixels, {size} "
            "bytes"
        )


def _check_bytes(name: str, span: int, picture: np.ndarray) -> None:
    if span * picture.nbytes > _MAX_BYTES:
        raise VideoError(
            f"{name}: the {span} frames of a window must take {_MAX_BYTES} "
            f"bytes or less. Received: {span * picture.nbytes}"
        )


def _short(name: str, clip: ClipSpec, total: int, fps: float) -> np.ndarray:
    try:
        return sampling.frame_indices(0, clip, total, fps)
    except ValueError as error:
        raise VideoError(f"{name}: {error}") from error


class _EverySpan:
    def __init__(self, span: int) -> None:
        self._span = span

    def __call__(self, place: int, seconds: float) -> bool:
        return place % self._span == 0


class _EverySeconds:
    def __init__(self, stride: float) -> None:
        self._stride = stride
        self._tolerance = min(ROUNDING, stride / 4)
        self._due = 0.0

    def __call__(self, place: int, seconds: float) -> bool:
        seconds += self._tolerance
        if seconds < self._due:
            return False
        self._due = (seconds // self._stride + 1) * self._stride
        return True


def _frames(
    ring: collections.deque[TimedPicture], places: np.ndarray
) -> np.ndarray:
    pictures = list(ring)
    return np.stack([pictures[place].picture for place in places])


def batches(
    windows: Iterable[Window], batch_size: int
) -> Iterator[list[Window]]:
    """So many windows at a time, and at the end the rest.

    Raises:
        ValueError: If `batch_size` is not a positive integer.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}"
        )
    windows = iter(windows)
    while batch := list(itertools.islice(windows, batch_size)):
        yield batch
