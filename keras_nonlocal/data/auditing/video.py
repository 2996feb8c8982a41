"""What can be said about one video; runs in worker processes.

No TensorFlow here.
"""

import base64
import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from keras_nonlocal.data.auditing.matroska import promised_size
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import VideoIndex
from keras_nonlocal.data.decode import ffmpeg_reason
from keras_nonlocal.data.decoders import get_decoder

DECODE = ("all", "ends", "headers")
# What the faults of a file are called.
MISSING = "missing file"
NO_FILE = "no regular file"
EMPTY = "empty file"
NO_VIDEO = "no video stream"
UNREADABLE = "cannot be opened"
BROKEN = "decoding fails"
TRUNCATED = "truncated"

# A video's pictures are compared at so many moments, in squares of so many
# cells: coarse enough to be the same in a copy of another size and quality.
NUM_MOMENTS = 8
NUM_CELLS = 8
_LUMA = np.array([0.299, 0.587, 0.114], "float32")
# Frames are shrunk to this before their cells are averaged, in pixels.
_SHORT_SIDE = 64
# Darkest and brightest cell of a video without pictures, in grey levels.
_BLANK = 4

# Containers whose header says how long the file is; of others FFmpeg guesses.
_WITH_DURATION = ("matroska", "mov", "flv", "asf")
# What a sane file may lack of its header's promise.
_LEAST_SHARE = 0.98
_SLACK_FRAMES = 1
_SLACK_LAST_FRAMES = 4
# Where it is not known how long a frame lasts.
_SLACK_SECONDS = 1.0
# Time bases are coarse, milliseconds in WebM.
_JITTER_SECONDS = 0.002

_THUMBNAIL_SIDE = 72
_THUMBNAIL_QUALITY = 6


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """What an audit learns about a file.

    Attributes:
        size: Bytes.
        sha256: Of the content, in hexadecimal; of a folder, that of the names
            and contents of its files.
        container: FFmpeg's name of the file format; "" for a folder of
            pictures, or if unknown.
        codec: FFmpeg's name of the decoder, "" for a folder or if unknown.
        num_frames: Frames that there should be; 0 for what is no video.
        height: In pixels, as displayed.
        width: In pixels, as displayed.
        rotation: Quarter turns, counter-clockwise, to be upright: 0 to 3.
        fps: Frames per second on average, 0.0 if unknown.
        seconds: Length, 0.0 if unknown.
        has_times: Whether the frames have times that can be trusted.
        shortest_gap: Least time between two frames in seconds, 0.0 if unknown.
        longest_gap: Longest time between two frames in seconds.
        is_even: Whether all those times are the same, up to rounding.
        pictures: Grey levels of `NUM_CELLS` x `NUM_CELLS` cells at
            `NUM_MOMENTS` moments in base 64, row by row; "" if not all of the
            video has been decoded.
        is_blank: Whether these are all the same.
        fault: What is wrong with the file, "" if nothing.
        detail: More about the fault.
    """

    size: int = 0
    sha256: str = ""
    container: str = ""
    codec: str = ""
    num_frames: int = 0
    height: int = 0
    width: int = 0
    rotation: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    has_times: bool = False
    shortest_gap: float = 0.0
    longest_gap: float = 0.0
    is_even: bool = True
    pictures: str = ""
    is_blank: bool = False
    fault: str = ""
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file's header says.

    Attributes:
        container: FFmpeg's name of the file format.
        codec: FFmpeg's name of the decoder.
        lacking: What it promises and the file does not have, "" if nothing.
    """

    container: str = ""
    codec: str = ""
    lacking: str = ""


def inspect(argument: tuple[str, str]) -> VideoFacts:
    """Learns what it can about a file.

    Args:
        argument: The path, and how much to decode, one of `DECODE`.

    Returns:
        The `VideoFacts`; a file that is no good is one of them, no error.

    Raises:
        OSError: If the disk does not give what is in the file.
    """
    path, decode = argument
    fault, detail = _fault_of_entry(path)
    if fault:
        return VideoFacts(fault=fault, detail=detail)
    facts = VideoFacts()
    try:
        size, sha256 = _content(path)
        facts = VideoFacts(size=size, sha256=sha256)
        if not size:
            return dataclasses.replace(facts, fault=EMPTY)
        index = get_decoder("auto", path).scan(path)
        facts = _with_index(facts, index)
    except VideoError as error:
        detail = _without_path(error, path)
        if detail == NO_VIDEO:
            return dataclasses.replace(facts, fault=NO_VIDEO)
        return dataclasses.replace(facts, fault=UNREADABLE, detail=detail)
    try:
        pictures = _decode(path, index.num_frames, decode)
        header = read_header(path, index)
    except VideoError as error:
        detail = _without_path(error, path)
        return dataclasses.replace(facts, fault=BROKEN, detail=detail)
    return dataclasses.replace(
        _with_pictures(facts, pictures),
        container=header.container,
        codec=header.codec,
        fault=TRUNCATED if header.lacking else "",
        detail=header.lacking,
    )


def thumbnail(path: str) -> bytes:
    """A small JPEG of a video's middle, or of its start if that is broken.

    Args:
        path: The video.

    Returns:
        A JPEG, at most 2:1.

    Raises:
        VideoError: If the video cannot be read.
    """
    decoder = get_decoder("auto", path)
    index = decoder.scan(path)
    short_side = min(_THUMBNAIL_SIDE, index.height, index.width)
    try:
        middle = index.num_frames // 2
        frames = decoder.read_frames(path, [middle], short_side)
    except VideoError:
        frames = decoder.read_frames(path, [0], short_side)
    return _jpeg(_without_long_ends(frames[0]))


def _fault_of_entry(path: str) -> tuple[str, str]:
    """What is wrong before the file is opened, which may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return MISSING, ""
    except (OSError, ValueError) as error:  # A NUL in the name.
        return UNREADABLE, _without_path(error, path)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return NO_FILE, ""
    return "", ""


def _without_path(error: Exception, path: str) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    return str(error).removeprefix(f"{path}: ")


def _content(path: str) -> tuple[int, str]:
    """Size and SHA-256 of a file, or of a folder of pictures."""
    digest, size = hashlib.sha256(), 0
    for name in _files(path):
        if name != path:
            digest.update(os.fsencode(os.path.basename(name)) + b"\0")
        with open(name, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                size += len(block)
    return size, digest.hexdigest()


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for name in sorted(os.listdir(path)):
        file = os.path.join(path, name)
        if os.path.isfile(file):
            yield file


def _with_index(facts: VideoFacts, index: VideoIndex) -> VideoFacts:
    times, fps = index.times, index.fps
    gaps = np.diff(times) if len(times) > 1 else np.zeros(1)
    tolerance = max(0.1 * float(np.median(gaps)), _JITTER_SECONDS)
    frame = 1 / fps if fps > 0 else 0.0
    last = float(times[-1]) if len(times) else frame * (index.num_frames - 1)
    return dataclasses.replace(
        facts,
        num_frames=index.num_frames,
        height=index.height,
        width=index.width,
        rotation=index.rotation,
        fps=fps,
        seconds=last + frame,
        has_times=bool(len(times)),
        shortest_gap=float(gaps.min()),
        longest_gap=float(gaps.max()),
        is_even=bool(np.ptp(gaps) <= tolerance),
    )


def _decode(path: str, num_frames: int, decode: str) -> np.ndarray | None:
    """Decodes as much as is asked for; the cells of all, if it is all."""
    decoder = get_decoder("auto", path)
    if decode == "ends":
        for number in (0, num_frames - 1):
            decoder.read_frames(path, [number], 1)
    if decode != "all":
        return None
    index = decoder.scan(path)
    short_side = min(_SHORT_SIDE, index.height, index.width)
    numbers = np.arange(num_frames)
    cells = decoder.read_frames(path, numbers, short_side, _cells)
    moments = (2 * np.arange(NUM_MOMENTS) + 1) * num_frames // (2 * NUM_MOMENTS)
    return cells[moments]


def _cells(frame: np.ndarray) -> np.ndarray:
    """Mean grey levels of cells, uint8 `(NUM_CELLS, NUM_CELLS)`."""
    grey = frame @ _LUMA
    for axis in (0, 1):
        size = grey.shape[axis]
        # Cells of a picture smaller than that repeat its pixels.
        edges = np.arange(NUM_CELLS + 1) * size // NUM_CELLS
        sums = np.add.reduceat(grey, edges[:-1], axis)
        counts = np.maximum(np.diff(edges), 1)
        grey = sums / np.expand_dims(counts, 1 - axis)
    return np.rint(grey).astype("uint8")


def _with_pictures(
    facts: VideoFacts, pictures: np.ndarray | None
) -> VideoFacts:
    if pictures is None:
        return facts
    return dataclasses.replace(
        facts,
        pictures=base64.b64encode(pictures.tobytes()).decode("ascii"),
        is_blank=bool(np.ptp(pictures) <= _BLANK),
    )


def read_header(path: str, index: VideoIndex) -> Header:
    """Compares what a file's header promises with what the file has.

    Decoders do not mind that a file ends too early where no frame is cut.

    Args:
        path: The video.
        index: What `scan` has found in it.

    Returns:
        The `Header`, empty for a folder of pictures.

    Raises:
        OSError: If the file cannot be read.
        VideoError: If it cannot be opened.
    """
    if os.path.isdir(path):
        return Header()
    lacking = []
    size, promised_bytes = os.path.getsize(path), promised_size(path)
    if size < _LEAST_SHARE * promised_bytes:
        lacking.append(f"{size} of {promised_bytes} bytes")
    try:
        # Absolute: a colon in a relative path would name a protocol.
        url = os.path.abspath(path)
        with av.open(url, metadata_errors="replace") as container:
            name, stream = (
                container.format.name,
                container.streams.best("video"),
            )
            if stream is None:  # Somebody has just written to the file.
                return Header(container=name)
            codec = stream.codec_context.name
            promised = (container.duration or 0) / av.time_base
            frames, end = _extent(container, stream)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: {ffmpeg_reason(error)}") from error
    if frames < _LEAST_SHARE * stream.frames - _SLACK_FRAMES:
        lacking.append(f"{frames} of {stream.frames} frames")
    if name.startswith(_WITH_DURATION):
        if end < _LEAST_SHARE * promised - _slack_seconds(index):
            lacking.append(f"{end:.1f} of {promised:.1f} s")
    if lacking:
        detail = f"{' and '.join(lacking)} that its header promises"
        return Header(name, codec, detail)
    return Header(name, codec)


def _extent(
    container: av.container.InputContainer, stream: av.stream.Stream
) -> tuple[int, float]:
    """Frames of a stream, and the end of all streams in seconds."""
    frames, end = 0, 0.0
    # An error here is none of the pictures, which are decoded elsewhere.
    with contextlib.suppress(av.FFmpegError):
        for packet in container.demux():
            is_frame = packet.stream.index == stream.index
            frames += is_frame and packet.size > 0
            end = max(end, _end(packet))
    return frames, end


def _slack_seconds(index: VideoIndex) -> float:
    """A few frames, as many files do not say how long the last one lasts."""
    frame = 1 / index.fps if index.fps > 0 else 0.0
    longest = float(np.diff(index.times).max(initial=0.0))
    return max(_SLACK_LAST_FRAMES * frame, longest) or _SLACK_SECONDS


def _end(packet: av.Packet) -> float:
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def _without_long_ends(frame: np.ndarray) -> np.ndarray:
    """The middle of a frame, at most 2:1."""
    for axis in (0, 1):
        size, limit = frame.shape[axis], 2 * min(frame.shape[:2])
        start = max(size - limit, 0) // 2
        frame = np.take(frame, range(start, min(start + limit, size)), axis)
    return frame


def _jpeg(frame: np.ndarray) -> bytes:
    codec = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt = "yuvj420p"
    codec.time_base = Fraction(1)
    codec.qmin = codec.qmax = _THUMBNAIL_QUALITY
    picture = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(frame), format="rgb24"
    ).reformat(format="yuvj420p")
    packets = [*codec.encode(picture), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
