"""A clip as a network sees it, and where in its video it is from."""

import dataclasses
import math
import os

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.clips import ClipSource
from keras_nonlocal.data.decode import VideoIndex
from keras_nonlocal.data.decode import time_limit
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.transforms import ClipTransform
from keras_nonlocal.data.transforms import center_transform
from keras_nonlocal.data.transforms import rescaled_size
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import clip_input

# Times are rounded where they are stored, often to milliseconds.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class VideoClip:
    """A clip and its place in a video.

    Attributes:
        frames: What the network gets, uint8 `(T, H, W, 3)`.
        numbers: Frame numbers in the video, int64 `(T,)`. A clip that is longer
            than its video comes back to earlier frames.
        seconds: Their times from the video's first frame, float64 `(T,)`: by
            the file's times; without, by its frame rate; NaN without both.
        box: (top, left, height, width) of the part of the video that the frames
            show, in pixels of the video's upright picture, from the upper left
            corner of its first pixel.
        name: Of the video.
    """

    frames: np.ndarray
    numbers: np.ndarray
    seconds: np.ndarray
    box: tuple[float, float, float, float]
    name: str

    def to_video(self, places: np.ndarray) -> np.ndarray:
        """Places of the clip as places of the video.

        Args:
            places: `(..., 3)`, (t, y, x) in frames and pixels of the clip.
                Whole numbers are the centres of frames and pixels.

        Returns:
            float64 `(..., 3)`: seconds, row and column in the video's upright
            picture, whole numbers being the centres of its pixels. Between
            frames the seconds are interpolated, before the first and after the
            last frame they stay the same.

        Raises:
            ValueError: If `places` are not `(..., 3)`.
        """
        places = np.asarray(places, "float64")
        if places.shape[-1:] != (3,):
            raise ValueError(
                "`places` must be (..., 3), of (t, y, x). Received: shape "
                f"{places.shape}"
            )
        t, y, x = np.moveaxis(places, -1, 0)
        top, left, height, width = self.box
        seconds = np.interp(t, np.arange(len(self.seconds)), self.seconds)
        rows = top + (y + 0.5) * height / self.frames.shape[1] - 0.5
        columns = left + (x + 0.5) * width / self.frames.shape[2] - 0.5
        return np.stack([seconds, rows, columns], axis=-1)


def read_video_clip(
    path: str | os.PathLike[str],
    clip: ClipSpec,
    *,
    start: float | None = None,
    crop_size: int,
    short_side: int | None = None,
    decoder: str = "auto",
    fps: float = 0.0,
    limit: float = math.inf,
) -> VideoClip:
    """Reads a clip of a video as networks are tested on it: the centre crop.

    Args:
        path: The video, or a folder of its frames.
        clip: Frames of the clip.
        start: Time of its first frame in seconds from the first of the video.
            Default: the clip in the middle of the video.
        crop_size: Height and width of the clip, in pixels.
        short_side: Short side of the rescaled video, in pixels. Default: 256
            for a crop of 224, and others alike.
        decoder: A name of `DECODERS`, or "auto".
        fps: Frames per second where the video does not say.
        limit: Time limit for reading, in seconds.

    Returns:
        A `VideoClip`.

    Raises:
        VideoError: If the video cannot be read, or not within the limit.
        ValueError: If an argument is not as described, or `start` is not in
            the video.
    """
    if short_side is None:
        short_side = crop_size * 256 // 224
    if not 0 < crop_size <= short_side:
        raise ValueError(
            "`crop_size` must be positive and at most `short_side`. Received: "
            f"crop_size={crop_size}, short_side={short_side}"
        )
    path = os.fspath(path)
    with time_limit(limit):
        source = ClipSource.open(path, clip, decoder=decoder, fps=fps)
        index = source.index
        times = _times(index)
        transform = center_transform(
            index.height, index.width, crop_size, short_side
        )
        numbers = source.numbers(_start(source, times, start))
        frames = source.read(numbers, transform)
    return VideoClip(
        frames,
        numbers,
        times[numbers],
        _box(index, transform),
        os.path.basename(os.path.normpath(path)),
    )


def as_video_clip(
    video: str | os.PathLike[str] | np.ndarray | VideoClip,
    opened: OpenedModel,
    start: float | None = None,
    *,
    clip: ClipSpec | None = None,
    crop_size: int | None = None,
    short_side: int | None = None,
) -> VideoClip:
    """The clip to look at, from whatever says which.

    Args:
        video: A path, as of `read_video_clip`; the frames themselves, uint8
            `(T, H, W, 3)`; or a clip that was read, which is returned.
        opened: The model that is to see it.
        start: As of `read_video_clip`, for a path only.
        clip: As of `clip_input`, for a path only.
        crop_size: As of `clip_input`, for a path only.
        short_side: As of `clip_input`, for a path only.

    Returns:
        A `VideoClip`.

    Raises:
        VideoError: As of `read_video_clip`.
        ValueError: As of `read_video_clip` and `clip_input`; or if `video` is
            none of these.
    """
    if not isinstance(video, str | os.PathLike):
        if start is not None:
            raise ValueError(
                "`start` is for a path. Received: "
                f"start={start} and a {type(video).__name__}"
            )
        return video if isinstance(video, VideoClip) else _of_array(video)
    wanted = clip_input(opened, clip, crop_size, short_side)
    return read_video_clip(
        video,
        wanted.clip,
        start=start,
        crop_size=wanted.crop_size,
        short_side=wanted.short_side,
    )


def _times(index: VideoIndex) -> np.ndarray:
    """Seconds of all frames."""
    if len(index.times):
        return index.times
    rate = index.fps if index.fps > 0 else math.nan
    return np.arange(index.num_frames) / rate


def _start(source: ClipSource, times: np.ndarray, start: float | None) -> float:
    """The place on the timeline where the clip begins."""
    if start is None:
        return sampling.middle_start(source.clip, len(source.line), source.fps)
    shown = times[source.line]
    end = shown[-1] + _last(times)
    if np.isnan(end):
        raise ValueError(
            f"`fps` must be given to find a time in {source.path}, which does "
            f"not say its frame rate. Received: start={start}, fps=0.0"
        )
    if not 0 <= start <= end:
        raise ValueError(
            f"`start` must be a time in {source.path}, from 0 to {end:.3f} "
            f"seconds. Received: start={start}"
        )
    return max(int(np.searchsorted(shown, start + _TOLERANCE, "right")) - 1, 0)


def _last(times: np.ndarray) -> float:
    """How long the last frame is shown: as long as others."""
    return float(np.mean(np.diff(times))) if len(times) > 1 else 0.0


def _box(
    index: VideoIndex, transform: ClipTransform
) -> tuple[float, float, float, float]:
    """The crop, in pixels of the video as it was before rescaling."""
    height, width = rescaled_size(
        index.height, index.width, transform.short_side
    )
    down, across = index.height / height, index.width / width
    return (
        transform.top * down,
        transform.left * across,
        transform.crop_size * down,
        transform.crop_size * across,
    )


def _of_array(frames: np.ndarray) -> VideoClip:
    found = np.asarray(frames)
    if found.dtype != "uint8" or found.ndim != 4 or found.shape[-1] != 3:
        raise ValueError(
            "`video` must be a path, a VideoClip or uint8 frames (T, H, W, 3). "
            f"Received: {found.dtype} of shape {found.shape}"
        )
    number, height, width = found.shape[:3]
    return VideoClip(
        found,
        np.arange(number),
        np.full(number, np.nan),
        (0.0, 0.0, float(height), float(width)),
        "frames",
    )
