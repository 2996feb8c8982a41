"""Reading all clips of a video at once.

Runs in worker processes as well: no TensorFlow here.
"""

import collections
import dataclasses
import math
import os
from collections.abc import Generator
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_nonlocal.data.clips import ClipSource
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import time_limit
from keras_nonlocal.data.decoders import DECODERS
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.transforms import rescaled_size
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.data.worker import WorkerDied
from keras_nonlocal.data.worker import WorkerPool
from keras_nonlocal.data.worker import WorkerTimeout
from keras_nonlocal.evaluation.protocols import Protocol
from keras_nonlocal.evaluation.protocols import View
from keras_nonlocal.evaluation.protocols import Window

# Of the frames of one video, and about, of all that are read at a time.
_MAX_BYTES = 2**31
_BYTES_AT_A_TIME = 2**32
# A worker ends itself when time is up; it is killed where it does not.
_GRACE = 5.0
# Frames whose decoding takes longer than to go on at a later keyframe.
_LONG_GAP = 64


@dataclasses.dataclass(frozen=True)
class Request:
    """A video to read by a protocol.

    Attributes:
        path: The video.
        clip: Frames of a clip, as the protocol gives it.
        protocol: Which clips and crops.
        segment: The part of the file, in seconds; `None` for all of it.
        decoder: A name of `keras_nonlocal.data.decoders.DECODERS`, or "auto".
        fps: Frames per second where the video does not say; 0.0 if unknown.
        seconds: Time limit.
    """

    path: str
    clip: ClipSpec
    protocol: Protocol
    segment: tuple[float, float] | None = None
    decoder: str = "auto"
    fps: float = 0.0
    seconds: float = math.inf


@dataclasses.dataclass(frozen=True, eq=False)
class VideoClips:
    """The clips of a video, with each frame once however many it is in.

    Attributes:
        frames: uint8 of shape `(n, height, width, 3)`: the part of the rescaled
            frames that the views are in.
        places: Where the frames of each clip are, `(clips, num_frames)`.
        top: First row of the part.
        left: First column of the part.
        settings: The views of each setting.
    """

    frames: np.ndarray
    places: np.ndarray
    top: int
    left: int
    settings: dict[str, list[View]]

    def cut(self, view: View) -> np.ndarray:
        """A clip as a network takes it, uint8 `(num_frames, H, W, 3)`."""
        top, left, height, width, flip = view.window
        top, left = top - self.top, left - self.left
        frames = self.frames[:, top : top + height, left : left + width]
        frames = frames[:, :, ::-1] if flip else frames
        return frames[self.places[view.clip]]


def read_clips(request: Request) -> VideoClips:
    """Reads and decodes what a protocol needs of a video, once.

    Raises:
        VideoError: If the video cannot be read, or would take more than 2 GiB;
            `TimeLimitError` if reading takes too long.
    """
    with time_limit(request.seconds):
        source = ClipSource.open(
            request.path,
            request.clip,
            segment=request.segment,
            decoder=request.decoder,
            fps=request.fps,
        )
        return _read(source, request.protocol)


def _read(source: ClipSource, protocol: Protocol) -> VideoClips:
    try:
        clips = protocol.places(source.clip, len(source.line), source.fps)
    except ValueError as error:  # Too short for `short="error"`.
        raise VideoError(f"{source.path}: {error}") from error
    numbers, places = np.unique(source.line[clips], return_inverse=True)
    size = rescaled_size(
        source.index.height, source.index.width, protocol.short_side
    )
    settings = protocol.views(*size)
    part = _enclosing([view.window for v in settings.values() for view in v])
    num_bytes = len(numbers) * part.height * part.width * 3
    if num_bytes > _MAX_BYTES:
        raise VideoError(
            f"{source.path}: the {len(numbers)} frames of {part.width}x"
            f"{part.height} pixels that a test needs must take {_MAX_BYTES} "
            f"bytes or less. Received: {num_bytes}"
        )
    return VideoClips(
        _read_part(source, numbers, protocol.short_side, part),
        places.reshape(clips.shape),
        part.top,
        part.left,
        settings,
    )


def _enclosing(windows: Sequence[Window]) -> Window:
    top = min(window.top for window in windows)
    left = min(window.left for window in windows)
    bottom = max(window.top + window.height for window in windows)
    right = max(window.left + window.width for window in windows)
    return Window(top, left, bottom - top, right - left)


def _read_part(
    source: ClipSource, numbers: np.ndarray, short_side: int, part: Window
) -> np.ndarray:
    """A part of some rescaled frames, their numbers in order."""

    def crop(frame: np.ndarray) -> np.ndarray:
        rows = slice(part.top, part.top + part.height)
        return frame[rows, part.left : part.left + part.width]

    runs = _runs(source, numbers)
    if len(runs) == 1:
        return source.decoder.read_frames(
            source.path, numbers, short_side, crop
        )
    frames = np.empty((len(numbers), part.height, part.width, 3), "uint8")
    first = 0
    for run in runs:
        frames[first : first + len(run)] = source.decoder.read_frames(
            source.path, run, short_side, crop
        )
        first += len(run)
    return frames


def _runs(source: ClipSource, numbers: np.ndarray) -> list[np.ndarray]:
    """Numbers to read without decoding long stretches between them."""
    if source.decoder is not DECODERS["pyav"] or not len(
        source.index.keyframes
    ):
        return [numbers]
    keyframes = source.index.keyframes
    before = np.searchsorted(keyframes, numbers, "right") - 1
    keyframe = np.where(before < 0, 0, keyframes[before])
    gaps = keyframe[1:] - numbers[:-1]
    return np.split(numbers, np.flatnonzero(gaps > _LONG_GAP) + 1)


def read_videos(
    videos: VideoList,
    numbers: Sequence[int],
    clip: ClipSpec,
    protocol: Protocol,
    *,
    decoder: str = "auto",
    seconds: float = math.inf,
    num_workers: int = 0,
) -> Generator[tuple[int, VideoClips | VideoError], None, None]:
    """Reads videos of a list, several at a time.

    Args:
        videos: The list.
        numbers: Which of them.
        clip: Frames of a clip, as the protocol gives it.
        protocol: Which clips and crops.
        decoder: As of `Request`.
        seconds: Time limit for a video.
        num_workers: Processes that read; 0 reads in threads.

    Yields:
        The number of each video, in the order of `numbers`, with its clips or
        why it cannot be read. Those read ahead take about 4 GiB at most.
    """
    readers = num_workers or os.cpu_count() or 1
    ahead = max(min(2 * readers, _number_in_memory(clip, protocol)), 1)
    pool = None
    if num_workers:
        pool = WorkerPool(
            f"{__name__}:read_clips",
            num_workers,
            seconds + _GRACE,
            # And a little for what comes with the frames.
            max_bytes=_MAX_BYTES + 2**24,
        )

    def attempt(number: int) -> VideoClips | VideoError:
        request = Request(
            videos.paths[number],
            clip,
            protocol,
            videos.segment(number),
            decoder,
            videos.fps,
            seconds,
        )
        try:
            return read_clips(request) if pool is None else pool.call(request)
        except VideoError as error:
            return error
        except WorkerTimeout as error:
            return TimeLimitError(f"{request.path}: {error}")
        except (WorkerDied, MemoryError) as error:
            return VideoError(f"{request.path}: {error}")

    executor = ThreadPoolExecutor(readers)
    running: collections.deque[tuple[int, Future]] = collections.deque()
    try:
        for number in numbers:
            running.append((number, executor.submit(attempt, number)))
            if len(running) == ahead:
                yield _first(running)
        while running:
            yield _first(running)
    finally:
        if pool is not None:
            pool.close()
        executor.shutdown(cancel_futures=True)


def _first(
    running: collections.deque[tuple[int, Future]],
) -> tuple[int, VideoClips | VideoError]:
    number, future = running.popleft()
    return number, future.result()


def _number_in_memory(clip: ClipSpec, protocol: Protocol) -> int:
    """How many videos may be read ahead, if they are not wider than usual."""
    short_side = protocol.short_side
    frames = (1 + protocol.num_clips) * clip.num_frames
    return _BYTES_AT_A_TIME // (frames * short_side**2 * 16 // 9 * 3)
