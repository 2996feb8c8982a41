"""The frames of one video that go into a shard, a part at a time.

Runs in worker processes as well: no TensorFlow here.
"""

import dataclasses
import math

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import VideoIndex
from keras_nonlocal.data.decode import time_limit
from keras_nonlocal.data.decoders import get_decoder
from keras_nonlocal.data.shard_index import ShardSettings

# Pixels of a part: frames of 10 seconds of video, mostly.
_PART_BYTES = 2**26
# Pixels of the longest side that can be JPEG.
_MAX_SIDE = 65500


@dataclasses.dataclass(frozen=True)
class PartRequest:
    """Which frames of which video.

    Attributes:
        path: The video.
        settings: What the frames are to be like.
        segment: The part of the file, in seconds; `None` for all of it.
        first: First of the video's stored frames to read.
        decoder: A name of `DECODERS`, or "auto".
        fps: Frames per second where the video does not say; 0.0 if unknown.
        seconds: Time limit.
        timed: Whether the times of the frames must be known.
    """

    path: str
    settings: ShardSettings
    segment: tuple[float, float] | None = None
    first: int = 0
    decoder: str = "auto"
    fps: float = 0.0
    seconds: float = math.inf
    timed: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some of a video's stored frames, and what they are some of.

    Attributes:
        frames: uint8 RGB of shape `(n, height, width, 3)`, `n` at least 1.
        timeline: The stored frame at each place of the video's timeline, int64.
        times: Seconds in the file of each stored frame, float64, NaN if
            unknown.
        fps: Frames per second of the timeline, 0.0 if unknown.
        height: Height of the video's own frames, in pixels.
        width: Width of the video's own frames, in pixels.
    """

    frames: np.ndarray
    timeline: np.ndarray
    times: np.ndarray
    fps: float
    height: int
    width: int


def read_part(request: PartRequest) -> Part:
    """Reads as many frames, from `request.first` on, as are one part.

    Raises:
        VideoError: If the video cannot be read or stored, has no frame in the
            segment, or no times where they must be known; `TimeLimitError` if
            reading takes too long.
    """
    settings = request.settings
    with time_limit(request.seconds):
        decoder = get_decoder(request.decoder, request.path)
        index = decoder.scan(request.path).or_fps(request.fps)
        try:
            line = sampling.timeline(
                index.num_frames,
                index.fps,
                index.times,
                segment=request.segment,
                target_fps=settings.fps,
            )
        except ValueError as error:
            raise VideoError(f"{request.path}: {error}") from error
        numbers, places = np.unique(line, return_inverse=True)
        times = _seconds(index, numbers)
        if request.timed and np.isnan(times).any():
            raise VideoError(
                f"{request.path}: its frame rate must be known, as "
                "`VideoList(fps=...)`, to say what happens in a clip. Received:"
                " a video without"
            )
        size = settings.stored_size(index.height, index.width)
        if max(size) > _MAX_SIDE:
            raise VideoError(
                f"{request.path}: frames must have at most {_MAX_SIDE} pixels "
                f"a side. Received: {size[0]}x{size[1]}"
            )
        count = max(_PART_BYTES // (3 * math.prod(size)), 1)
        wanted = numbers[request.first : request.first + count]
        frames = decoder.read_frames(request.path, wanted, min(size))
    return Part(
        frames,
        places,
        times,
        settings.fps or index.fps,
        index.height,
        index.width,
    )


def _seconds(index: VideoIndex, numbers: np.ndarray) -> np.ndarray:
    if len(index.times):
        return index.times[numbers]
    if index.fps > 0:
        return numbers / index.fps
    return np.full(len(numbers), np.nan)
