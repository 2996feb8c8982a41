"""One clip of one video: what to read, and reading it.

Runs in worker processes as well: no TensorFlow here.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data import transforms
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import VideoIndex
from keras_nonlocal.data.decode import time_limit
from keras_nonlocal.data.decoders import Decoder
from keras_nonlocal.data.decoders import get_decoder
from keras_nonlocal.data.sampling import ClipSpec

# Random numbers of one clip: start, short side, row and column of the crop,
# flip.
NUM_UNITS = 5
# Damage is mostly at the end of a file: a clip that cannot be read is looked
# for again half as far in, then at the start.
_EARLIER = (1.0, 0.5, 0.0)


@dataclasses.dataclass(frozen=True)
class ClipRequest:
    """Which clip of which video.

    Attributes:
        path: The video.
        clip: Frames of the clip.
        crop_size: Height and width of the clip, in pixels.
        short_side: Smallest and largest short side of the rescaled video, in
            pixels.
        flip: Whether half of the random clips are mirrored.
        units: `NUM_UNITS` random numbers in [0, 1) that choose the clip;
            `None` for the middle one, smallest short side and centre crop.
        segment: The part of the file, in seconds; `None` for all of it.
        decoder: A name of `DECODERS`, or "auto".
        fps: Frames per second where the video does not say; 0.0 if unknown.
        seconds: Time limit.
        jitter: How the short side is drawn, as in `random_transform`.
    """

    path: str
    clip: ClipSpec
    crop_size: int
    short_side: tuple[int, int]
    flip: bool = False
    units: tuple[float, ...] | None = None
    segment: tuple[float, float] | None = None
    decoder: str = "auto"
    fps: float = 0.0
    seconds: float = math.inf
    jitter: str = "uniform"


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A clip that was read.

    Attributes:
        frames: uint8 of shape `(num_frames, crop_size, crop_size, 3)`.
        flipped: Whether it is mirrored.
        first: Time in the file of its earliest frame in seconds, NaN if
            unknown.
        last: Time of its latest frame.
        damage: Why the clip that was asked for could not be read and an
            earlier one of the video stands in for it; `None` if it could.
    """

    frames: np.ndarray
    flipped: bool
    first: float
    last: float
    damage: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ClipSource:
    """A video and the frames in it that clips may be taken from.

    Attributes:
        path: The video.
        clip: Frames of a clip.
        decoder: What reads it.
        index: What is known of it.
        line: Frame numbers, as of `sampling.timeline`.
    """

    path: str
    clip: ClipSpec
    decoder: Decoder
    index: VideoIndex
    line: np.ndarray

    @classmethod
    def open(
        cls,
        path: str,
        clip: ClipSpec,
        *,
        segment: tuple[float, float] | None = None,
        decoder: str = "auto",
        fps: float = 0.0,
    ) -> "ClipSource":
        """Scans a video; the arguments are those of a `ClipRequest`.

        Raises:
            VideoError: If the video cannot be read, has no frame in the
                segment or is too short.
        """
        found = get_decoder(decoder, path)
        index = found.scan(path).or_fps(fps)
        with _named(path):
            line = sampling.timeline(
                index.num_frames,
                index.fps,
                index.times,
                segment=segment,
                target_fps=clip.fps,
            )
        return cls(path, clip, found, index, line)

    @property
    def fps(self) -> float:
        """Frames per second of the line, 0.0 if unknown."""
        return self.clip.fps or self.index.fps

    def numbers(self, start: float) -> np.ndarray:
        """Frame numbers of the clip that begins at a place of the line."""
        with _named(self.path):
            places = sampling.frame_indices(
                start, self.clip, len(self.line), self.fps
            )
        return self.line[places]

    def read(
        self, numbers: np.ndarray, transform: transforms.ClipTransform
    ) -> np.ndarray:
        """Frames by number, cropped and scaled."""
        return self.decoder.read_frames(
            self.path, numbers, transform.short_side, transform
        )

    def seconds(self, numbers: np.ndarray) -> tuple[float, float]:
        """Times of the first and the last of some frames, NaN if unknown."""
        ends = np.array([numbers.min(), numbers.max()])
        if len(self.index.times):
            ends = self.index.times[ends]
        elif self.index.fps > 0:
            ends = ends / self.index.fps
        else:
            ends = np.full(2, np.nan)
        return float(ends[0]), float(ends[1])


def read_clip(request: ClipRequest) -> Clip:
    """Reads a clip; of a damaged video, a random clip that can be read.

    Args:
        request: Which clip.

    Returns:
        The `Clip`.

    Raises:
        VideoError: If the video cannot be read, has no frame in the segment or
            is too short; `TimeLimitError` if reading takes too long.
    """
    with time_limit(request.seconds):
        source = ClipSource.open(
            request.path,
            request.clip,
            segment=request.segment,
            decoder=request.decoder,
            fps=request.fps,
        )
        if request.units is None:
            return _read(request, source, None)
        damage = None
        for factor in _EARLIER:
            units = (factor * request.units[0], *request.units[1:])
            try:
                clip = _read(request, source, units)
                return dataclasses.replace(clip, damage=damage)
            except TimeLimitError:
                raise
            except VideoError as error:
                failure, damage = error, str(error)
        raise failure


def _read(
    request: ClipRequest,
    source: ClipSource,
    units: tuple[float, ...] | None,
) -> Clip:
    index, total = source.index, len(source.line)
    size = index.height, index.width, request.crop_size
    if units is None:
        start = sampling.middle_start(request.clip, total, source.fps)
        transform = transforms.center_transform(*size, request.short_side[0])
    else:
        start = sampling.random_start(units[0], request.clip, total, source.fps)
        transform = transforms.random_transform(
            units[1:], *size, request.short_side, request.flip, request.jitter
        )
    numbers = source.numbers(start)
    with _named(request.path):
        frames = source.read(numbers, transform)
    return Clip(frames, transform.flip, *source.seconds(numbers))


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Makes what is wrong with the arguments for a video one of its errors."""
    try:
        yield
    except VideoError:
        raise
    except (ValueError, MemoryError) as error:
        raise VideoError(f"{path}: {error}") from error
