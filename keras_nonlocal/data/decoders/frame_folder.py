"""Videos that lie on disk as a folder of numbered pictures of their frames."""

import dataclasses
import functools
import os
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import cast

import av
import numpy as np

from keras_nonlocal.data import decode
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import VideoIndex

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# The last number of a name counts the frames: S003_img_00012.jpg, 12 (2).png.
_NUMBERED = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)
_MAX_BYTES = 2**28
# Names are often wrong. A JPEG must also have its end: where that is cut off,
# the decoder does not always notice.
_CODECS = {
    "mjpeg": re.compile(rb"\xff\xd8\xff.*\xff\xd9", re.DOTALL),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}


def scan(path: str | os.PathLike[str]) -> VideoIndex:
    """Counts the pictures of a folder and decodes the first, for its size.

    The pictures are all files of the folder with the ending jpg, jpeg, png or
    webp, in the order of the last number of their names: `img_9.jpg` comes
    before `img_10.jpg`. Their names must be the same otherwise and their
    numbers without a gap; the first may be any. The last 1024 results of a
    process are kept while nothing is added to the folders or removed.

    Args:
        path: The folder.

    Returns:
        The `VideoIndex`. Its `fps` is 0.0 and its arrays are empty: pictures
        do not say when they were taken.

    Raises:
        VideoError: If there is no such folder, it holds no pictures, or those
            of more than one sequence or of one with gaps, or the first picture
            cannot be read.
    """
    return _scan(*_key(path))[1]


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | np.ndarray,
    short_side: int | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Decodes pictures by their place in the order, counted from 0.

    Args:
        path: The folder.
        indices: Numbers of the frames, in any order, repeats allowed.
        short_side: Rescales bilinearly to this shorter side, the other
            truncated, in pixels; `None` keeps the size.
        transform: Applied to every frame, uint8 `(height, width, 3)`.

    Returns:
        uint8 array of shape `(len(indices), height, width, 3)`, height and
        width being those that `transform` gives.

    Raises:
        VideoError: If a picture cannot be read or has another size than the
            first one.
        ValueError: If `indices` is empty or not in `[0, num_frames)`.
    """
    names, index = _scan(*_key(path))
    folder = os.fspath(path)
    clip = decode.ClipBuffer(folder, index, indices, short_side, transform)
    for number in sorted(clip.wanted):
        picture = os.path.join(folder, names[number])
        frame = _decode(picture)
        _check_size(picture, frame, (index.height, index.width, index.rotation))
        clip.put(number, frame)
    return clip.frames


def pictures(
    path: str | os.PathLike[str],
) -> tuple[int, Iterator[av.VideoFrame | VideoError]]:
    """Decodes the pictures of a folder one after the other.

    Args:
        path: The folder.

    Returns:
        How many there are, and an iterator that gives for each of them the
        frame or why it cannot be read, as that it has another size than the
        first one that can; a `TimeLimitError` if a `time_limit` ends.

    Raises:
        VideoError: As `scan`, but for pictures that cannot be read.
    """
    folder = os.fspath(path)
    decode.path_status(folder)
    names = _sequence(folder, _pictures(folder))

    def each() -> Iterator[av.VideoFrame | VideoError]:
        size = None
        for number in range(names.count):
            picture = os.path.join(folder, names[number])
            try:
                frame = _decode(picture)
                size = size or decode.upright_size(frame)
                _check_size(picture, frame, size)
            except VideoError as error:
                yield error
            else:
                yield frame

    return names.count, each()


@dataclasses.dataclass(frozen=True)
class _Names:
    """Names of a sequence of files: a start, a number with zeros, an end."""

    start: str
    first: int
    digits: int
    end: str
    count: int

    def __getitem__(self, place: int) -> str:
        number = str(self.first + place).zfill(self.digits)
        return f"{self.start}{number}{self.end}"


def _key(path: str | os.PathLike[str]) -> tuple[str, int]:
    path = os.fspath(path)
    return path, decode.path_status(path).st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _scan(path: str, mtime_ns: int) -> tuple[_Names, VideoIndex]:
    # `mtime_ns` is there for the cache: a changed folder is new.
    names = _sequence(path, _pictures(path))
    first = _decode(os.path.join(path, names[0]))
    nothing = np.zeros(0, "int64")
    index = VideoIndex(
        names.count,
        *decode.upright_size(first),
        timestamps=nothing,
        keyframes=nothing,
        fps=0.0,
        times=np.zeros(0),
    )
    return names, index


def _pictures(path: str) -> list[str]:
    """Names of the pictures in the folder, in any order."""
    names = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                decode.check_time(path)
                name = entry.name
                if name.lower().endswith(_SUFFIXES) and name[0] != ".":
                    names.append(name)
                if len(names) > decode.MAX_PACKETS:
                    raise VideoError(
                        f"{path}: more than {decode.MAX_PACKETS} pictures"
                    )
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from error
    if not names:
        raise VideoError(f"{path}: no pictures, {', '.join(_SUFFIXES)}")
    return names


def _sequence(path: str, names: list[str]) -> _Names:
    """What the names have in common; they must be one gapless sequence."""
    numbered = []
    for name in names:
        parts = _NUMBERED.fullmatch(name)
        if parts is None:
            raise VideoError(f"{path}: {name} must have a number in its name")
        numbered.append((int(parts[2]), name, parts))
    numbered.sort(key=lambda picture: picture[:2])
    first, _, parts = numbered[0]
    start, digits, end = parts.groups()
    sequence = _Names(start, first, len(digits), end, len(names))
    for place, (_, name, _) in enumerate(numbered):
        if name != sequence[place]:
            raise VideoError(
                f"{path}: frames must be one sequence of pictures without "
                f"gaps, here {sequence[place]}. Received: {name}"
            )
    return sequence


def _decode(picture: str) -> av.VideoFrame:
    decode.check_time(picture)
    size = decode.file_status(picture).st_size
    if size > _MAX_BYTES:
        raise VideoError(
            f"{picture}: {size} bytes, at most {_MAX_BYTES} are read"
        )
    try:
        with open(picture, "rb") as file:
            content = file.read(size)
    except OSError as error:
        raise VideoError(f"{picture}: {error.strerror}") from error
    for name, pattern in _CODECS.items():
        if pattern.match(content):
            return _decode_with(name, picture, content)
    raise VideoError(f"{picture}: not a whole JPEG, PNG or WebP file")


def _decode_with(name: str, picture: str, content: bytes) -> av.VideoFrame:
    codec = cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))
    codec.thread_count = 1
    codec.options = {
        "max_pixels": str(decode.MAX_PIXELS),
        # By default the rest of a damaged picture is filled in.
        "err_detect": "crccheck+bitstream+buffer+explode",
    }
    try:
        frames = codec.decode(av.Packet(content)) + codec.decode()
    except av.FFmpegError as error:
        reason = decode.ffmpeg_reason(error)
        raise VideoError(f"{picture}: {reason}") from error
    if not frames:
        raise VideoError(f"{picture}: no picture could be read")
    return frames[0]


def _check_size(
    picture: str, frame: av.VideoFrame, first: tuple[int, int, int]
) -> None:
    height, width, rotation = decode.upright_size(frame)
    if (height, width, rotation) != first:
        raise VideoError(
            f"{picture}: all frames must be as the first, {first[1]}x"
            f"{first[0]} pixels turned {first[2]} times. Received: "
            f"{width}x{height}, turned {rotation} times"
        )
