"""Frames as files that play: GIF and MP4.

Made-up pictures are written here, not training data: what videos are encoded
as for training is in `keras_nonlocal.data.transcode`.
"""

import io
import math
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import cast

import av
import numpy as np

from keras_nonlocal.data.atomic_files import replacing

# Delays of a GIF are whole hundredths of a second, at most 2**16 - 1 of them,
# and browsers show a frame of less than two of them for ten.
MAX_GIF_FPS = 50.0
_MIN_GIF_FPS = 1 / 655
_MAX_MP4_FPS = 1000.0
_MIN_MP4_FPS = 1 / 3600
_MAX_CLOCK = 2**16 - 1
# The encoders of H.264 that are asked for, then one that FFmpeg always has.
_ENCODERS = {
    "libx264": {"crf": "20", "preset": "medium"},
    "libopenh264": {"b": "4000000"},
    "mpeg4": {"qscale": "3"},
}
# Colours of a GIF are chosen from about so many pixels of all its frames.
_PALETTE_PIXELS = 2**18
# Bayer's matrix: which of 4x4 pixels take the brighter of two colours first.
_ORDER = np.array(
    [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
)
# Levels of a channel from one colour of the palette to the next, about.
_DITHER = 16


def write_gif(
    path: str | os.PathLike[str], frames: np.ndarray, fps: float
) -> None:
    """Writes an animation that repeats for ever.

    All frames share one palette of 256 colours and one pattern of dithering,
    so that what does not move does not flicker. Frame `t` is shown from the
    hundredth of a second nearest to `t / fps`: the whole takes as long as it
    should at any rate.

    Args:
        path: The file; replaced if it is there, complete or not at all.
        frames: uint8 RGB `(T, H, W, 3)`.
        fps: Frames per second, at most 50, as browsers play nothing faster,
            and at least 1 in 655 seconds. No picture can be shown for longer
            than that, also not by frames that are alike.

    Raises:
        ImportError: If Pillow is missing.
        ValueError: If an argument is not as described.
        OSError: If the file cannot be written.
    """
    frames = _check_frames(frames)
    _check_fps(fps, _MIN_GIF_FPS, MAX_GIF_FPS)
    image = _require_pillow()
    palette = image.fromarray(_sample(frames)).quantize(
        256, method=image.Quantize.MEDIANCUT
    )
    pictures = [
        image.fromarray(_dithered(frame)).quantize(
            palette=palette, dither=image.Dither.NONE
        )
        for frame in frames
    ]
    ends = np.rint(100 * np.arange(len(frames) + 1) / fps).astype(int)
    buffer = io.BytesIO()
    try:
        pictures[0].save(
            buffer,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=(10 * np.diff(ends)).tolist(),
            loop=0,
            optimize=False,
        )
    except (OverflowError, struct.error) as error:
        # Pillow makes one of frames that are alike and adds up their delays.
        # Which error it raises if the sum does not fit depends on its version.
        raise ValueError(
            "`frames` must not stay the same for more than 655 seconds. "
            f"Received: {len(frames)} frames and fps={fps}"
        ) from error
    with replacing(path) as file:
        file.write(buffer.getvalue())


def write_mp4(
    path: str | os.PathLike[str], frames: np.ndarray, fps: float
) -> None:
    """Writes a video that browsers and players show.

    H.264 in yuv420p where this build of FFmpeg can encode it, else MPEG-4. An
    odd height or width grows by a pixel that repeats its neighbour.

    Args:
        path: The file; replaced if it is there, complete or not at all.
        frames: uint8 RGB `(T, H, W, 3)`.
        fps: Frames per second, at most 1000 and at least 1 in an hour; 29.97
            is as good as 30000/1001.

    Raises:
        ValueError: If an argument is not as described.
        OSError: If the file cannot be written.
    """
    frames = _check_frames(frames)
    _check_fps(fps, _MIN_MP4_FPS, _MAX_MP4_FPS)
    height, width = frames.shape[1:3]
    margins = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    frames = np.pad(frames, margins, "edge")
    with replacing(path) as file:
        # In memory: FFmpeg's own complaints about a disk name no file.
        file.write(_encoded(frames, fps))


def _encoded(frames: np.ndarray, fps: float) -> bytes:
    buffer = io.BytesIO()
    # Neither half may be larger in MPEG-4.
    limit = _MAX_CLOCK // math.ceil(max(fps, 1))
    rate = max(Fraction(fps).limit_denominator(limit), Fraction(1, limit))
    encoder = next(name for name in _ENCODERS if _can_encode(name))
    with av.open(buffer, "w", format="mp4") as container:
        stream = cast(
            av.video.stream.VideoStream,
            container.add_stream(encoder, rate, options=_ENCODERS[encoder]),
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # With more threads the result depends on how many there are.
        stream.codec_context.thread_count = 1
        for picture in _pictures(frames, rate):
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def _pictures(frames: np.ndarray, rate: Fraction) -> Iterator[av.VideoFrame]:
    for number, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(frame), format="rgb24"
        )
        picture.pts, picture.time_base = number, 1 / rate
        yield picture


def _can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except ValueError:  # PyAV's error of an unknown codec is one.
        return False
    return True


def _sample(frames: np.ndarray) -> np.ndarray:
    """Pixels of all frames, evenly, as one picture."""
    pixels = math.prod(frames.shape[:3])
    step = math.ceil(math.sqrt(pixels / _PALETTE_PIXELS))
    return frames[:, ::step, ::step].reshape(1, -1, 3)


def _dithered(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    pattern = np.tile(_ORDER, (height // 4 + 1, width // 4 + 1))
    offset = _DITHER * ((pattern[:height, :width, np.newaxis] + 0.5) / 16 - 0.5)
    return np.clip(np.rint(frame + offset), 0, 255).astype("uint8")


def _check_frames(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    is_video = frames.ndim == 4 and frames.shape[-1] == 3 and frames.size
    if not is_video or frames.dtype != np.uint8:
        raise ValueError(
            "`frames` must be uint8 of shape (T, H, W, 3), none of them 0. "
            f"Received: {frames.dtype} of shape {frames.shape}"
        )
    return frames


def _check_fps(fps: float, least: float, most: float) -> None:
    if not least <= fps <= most:
        raise ValueError(
            f"`fps` must be from {least:.5f} to {most:g} frames per "
            f"second. Received: fps={fps}"
        )


def _require_pillow() -> ModuleType:
    try:
        import PIL.Image
    except ImportError as error:
        raise ImportError(
            "GIFs need Pillow: pip install 'keras-nonlocal[plot]'"
        ) from error
    return PIL.Image
