"""Pictures: reading files of any kind safely, and resizing as detectors do."""

import os
import struct

import numpy as np
import tensorflow as tf

from keras_nonlocal.data.decode import MAX_PIXELS
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import file_status

_MAX_BYTES = 2**26
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# What begins a scan. Progressive files have about ten; each costs a pass over
# all pixels, and a small file may have millions.
_SCAN = b"\xff\xda"
_MAX_SCANS = 100


class ImageError(ValueError):
    """A file that cannot be read as a picture; the message names it."""


def resized(
    height: int, width: int, short_side: int, max_side: int
) -> tuple[int, int]:
    """Size that makes the shorter side `short_side`, as detectron2 rounds it.

    Where the longer side would be more than `max_side`, it becomes that.

    Args:
        height: Height, in pixels.
        width: Width, in pixels.
        short_side: Wanted shorter side, in pixels.
        max_side: Largest longer side, in pixels.

    Returns:
        Height and width, at least 1.

    >>> resized(480, 640, 800, 1333), resized(375, 1242, 800, 1333)
    ((800, 1067), (402, 1333))
    """
    # In this order: halves are rounded up or down by the last bit.
    scale = short_side / min(height, width)
    short, long = float(short_side), scale * max(height, width)
    if long > max_side:
        scale = max_side / long
        short, long = short * scale, long * scale
    sides = max(int(short + 0.5), 1), max(int(long + 0.5), 1)
    return sides if height < width else sides[::-1]


def read_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None
) -> np.ndarray:
    """Reads a JPEG or PNG file.

    Grey, CMYK and palette pictures become RGB, transparency is left out, 16
    bits become the higher 8, and an animated PNG its first picture. Pixels are
    given as they are stored: an orientation that a camera noted is not applied.

    Args:
        path: A regular file of at most 64 MiB and `MAX_PIXELS` pixels. What
            the header says is looked at before anything is decoded.
        size: Height and width that it must have; `None` for any.

    Returns:
        RGB, uint8 of shape `(height, width, 3)`.

    Raises:
        ImageError: If the file is not a whole picture of the kind, or too
            large, or of another size.
    """
    path = os.fspath(path)
    content = _content(path)
    is_jpeg = content.startswith(_JPEG)
    # Not on a GPU: what is read is still to be resized and collected.
    with tf.device("CPU:0"):
        found = _jpeg_size(path, content) if is_jpeg else _png_size(content)
        _check_size(path, found, size)
        try:
            if is_jpeg:
                return tf.io.decode_jpeg(
                    content, channels=3, dct_method="INTEGER_ACCURATE"
                ).numpy()
            return tf.io.decode_png(content, channels=3).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise ImageError(
                f"{path}: damaged or not whole ({len(content)} bytes)"
            ) from error


def resize_tensor(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes by bilinear interpolation; smooths where it gets smaller.

    Differs from Pillow's `BILINEAR`, which detectron2 uses, by 1 at most, as
    that rounds twice.

    Args:
        image: uint8 of shape `(height, width, 3)`.
        size: New height and width.

    Returns:
        uint8 of shape `(*size, 3)`.
    """
    values = tf.image.resize(image, size, antialias=True)
    return tf.cast(values + 0.5, tf.uint8)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`resize_tensor` of an array, as an array.

    >>> resize_image(np.full((2, 3, 3), 7, "uint8"), 4, 6).shape
    (4, 6, 3)
    """
    with tf.device("CPU:0"):
        return resize_tensor(image, [height, width]).numpy()


def _content(path: str) -> bytes:
    try:
        size = file_status(path).st_size
    except VideoError as error:
        raise ImageError(str(error)) from error
    if size > _MAX_BYTES:
        raise ImageError(f"{path}: {size} bytes, at most {_MAX_BYTES} are read")
    try:
        with open(path, "rb") as file:
            content = file.read(size)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    if not content.startswith((_JPEG, _PNG)):
        raise ImageError(
            f"{path}: not a JPEG or PNG file, begins with {content[:8]!r}"
        )
    return content


def _jpeg_size(path: str, content: bytes) -> tuple[int, int]:
    scans = content.count(_SCAN)
    if scans > _MAX_SCANS:
        raise ImageError(
            f"{path}: {scans} scans, at most {_MAX_SCANS} are read"
        )
    try:
        height, width, _ = tf.io.extract_jpeg_shape(content).numpy().tolist()
    except tf.errors.InvalidArgumentError as error:
        raise ImageError(f"{path}: no usable JPEG header") from error
    return height, width


def _png_size(content: bytes) -> tuple[int, int]:
    # Signature, length and name of the first chunk, then its values.
    if content[12:16] != b"IHDR" or len(content) < 24:
        return 0, 0
    width, height = struct.unpack_from(">II", content, 16)
    return height, width


def _check_size(
    path: str, found: tuple[int, int], size: tuple[int, int] | None
) -> None:
    height, width = found
    if not 0 < height * width <= MAX_PIXELS:
        raise ImageError(
            f"{path}: between 1 and {MAX_PIXELS} pixels are read. "
            f"Received: {width}x{height}"
        )
    if size is not None and found != size:
        turned = ", as if turned" if found == size[::-1] else ""
        raise ImageError(
            f"{path}: must be of the annotated size, {size[1]}x{size[0]}. "
            f"Received: {width}x{height}{turned}"
        )
