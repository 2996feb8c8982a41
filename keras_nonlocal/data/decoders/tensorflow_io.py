"""Videos decoded by the package tensorflow-io, where that works.

It has no way to seek, so that every clip costs the decoding of the whole file.
It takes all colours for BT.601. It works with few versions of TensorFlow.
"""

import functools
import math
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.data import decode
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import VideoIndex

# All frames of a file are in memory at once.
_MAX_BYTES = 2**31
# One grey frame.
_TINY_VIDEO = b"YUV4MPEG2 W16 H16 F1:1 C420\nFRAME\n" + 384 * b"\x80"
_WHERE_IT_WORKS = (
    "tensorflow-io cannot decode videos here. It works with TensorFlow 2.16 "
    "and 2.17, Python 3.11 and 3.12 and the shared libraries of FFmpeg 4 "
    "(libavformat.so.58 and those beside it). The decoder 'pyav' needs none of "
    "that."
)


def scan(path: str | os.PathLike[str]) -> VideoIndex:
    """As `keras_nonlocal.data.decode.scan`, and by its means.

    tensorflow-io itself tells only the size.
    """
    return decode.scan(path)


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | np.ndarray,
    short_side: int | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Decodes the whole file and takes frames out by number.

    Args:
        path: The video file.
        indices: Numbers of the frames, in any order, repeats allowed.
        short_side: Rescales bilinearly to this shorter side, the other
            truncated, in pixels; `None` keeps the size.
        transform: Applied to every frame, uint8 `(height, width, 3)`.

    Returns:
        uint8 array of shape `(len(indices), height, width, 3)`, height and
        width being those that `transform` gives.

    Raises:
        VideoError: If the file cannot be read, gives other frames than `scan`
            has found, or has more than 2 GiB of them.
        ValueError: If `indices` is empty or not in `[0, num_frames)`.
        ImportError: If tensorflow-io is not installed or does not work here.
    """
    path = os.fspath(path)
    decode_video = _decode_video()
    index = scan(path)
    clip = decode.ClipBuffer(path, index, indices, short_side, transform)
    frames = _all_frames(path, index, decode_video)
    for number in sorted(clip.wanted):
        clip.put(number, frames[number])
    # The operation itself cannot be interrupted.
    decode.check_time(path)
    return clip.frames


def _all_frames(
    path: str, index: VideoIndex, decode_video: Callable[[bytes], Any]
) -> np.ndarray:
    from tensorflow.errors import OpError

    shape = _stored_shape(path, index)
    decode.check_time(path)
    size = decode.file_status(path).st_size
    try:
        with open(path, "rb") as file:
            frames = decode_video(file.read(size))
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from error
    except OpError as error:
        raise VideoError(f"{path}: {error.message}") from error
    if frames.shape != shape:
        raise VideoError(
            f"{path}: tensorflow-io must give frames of shape {shape}. "
            f"Received: shape {frames.shape}"
        )
    return frames.numpy()


def _stored_shape(path: str, index: VideoIndex) -> tuple[int, int, int, int]:
    """Shape of all frames as the operation gives them, before rotation."""
    height, width = index.height, index.width
    if index.rotation % 2:
        height, width = width, height
    shape = (index.num_frames, height, width, 3)
    if width % 8:
        # Found by comparing: it leaves the last columns as they were in
        # memory, and writes beyond the array of small frames.
        raise VideoError(
            f"{path}: tensorflow-io needs a width that is a multiple of 8; "
            f"other decoders do not. Received: {width}"
        )
    if math.prod(shape) > _MAX_BYTES:
        raise VideoError(
            f"{path}: tensorflow-io decodes whole files, at most {_MAX_BYTES} "
            f"bytes. Received: {shape[0]} frames of {width}x{height} pixels"
        )
    return shape


@functools.cache
def _decode_video() -> Callable[[bytes], Any]:
    """The operation, once it has been seen to work."""
    try:
        import tensorflow_io
    except ModuleNotFoundError as error:
        raise ImportError(
            "The decoder 'tfio' needs tensorflow-io: "
            "pip install 'keras-nonlocal[tfio]' 'tensorflow<2.18'"
        ) from error
    # Where it does not fit, the package may be imported and every operation
    # fails, each in its own way.
    try:
        decode_video = tensorflow_io.experimental.ffmpeg.decode_video
        shape = tuple(decode_video(_TINY_VIDEO).shape)
    except Exception as error:
        raise ImportError(_WHERE_IT_WORKS) from error
    if shape != (1, 16, 16, 3):
        raise ImportError(_WHERE_IT_WORKS)
    return decode_video
