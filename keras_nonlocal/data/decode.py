"""Frame-exact reading of video files with PyAV.

A frame's number is its place in the decoder's output when the file is decoded
from the start. `scan` learns from the packets, without decoding them, how many
frames there are and where decoding can start; `read_frames` uses that to decode
only what a clip needs, and checks on the way that it is where it thinks it is.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import stat
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from keras_nonlocal.data.transforms import rescaled_size

# Bounds for damaged and hostile files, far beyond any data set's videos.
MAX_PIXELS = 2**26
MAX_PACKETS = 1_000_000

# Damaged files make FFmpeg write to stderr for every frame; what matters is
# in the exceptions.
av.logging.set_level(av.logging.PANIC)


class VideoError(ValueError):
    """A file that cannot be read as a video; the message names it."""


@dataclasses.dataclass(frozen=True, eq=False)
class VideoIndex:
    """What `scan` learns about a video.

    Attributes:
        num_frames: Frames that decoding the whole file should give.
        height: Height as displayed, after rotation, in pixels.
        width: Width as displayed, after rotation, in pixels.
        rotation: Quarter turns, counter-clockwise, that make the decoded
            frames upright: 0 to 3.
        timestamps: Presentation times of the frames in order, int64 of shape
            `(num_frames,)` in the stream's time base; empty if they cannot be
            trusted for seeking.
        keyframes: Numbers of the frames at which decoding can start, int64,
            in order; empty if `timestamps` is.
    """

    num_frames: int
    height: int
    width: int
    rotation: int
    timestamps: np.ndarray
    keyframes: np.ndarray


def scan(path: str | os.PathLike[str]) -> VideoIndex:
    """Counts a video's frames and finds its keyframes.

    Reads the packets of the container's best video stream and decodes one
    frame, for size and rotation. The last 1024 results of a process are kept
    while the files do not change.

    Args:
        path: The video file.

    Returns:
        The `VideoIndex`.

    Raises:
        VideoError: If the file cannot be opened, has no video stream other
            than a cover picture, has no frame that can be decoded, or is
            beyond `MAX_PIXELS` or `MAX_PACKETS`.
    """
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # A NUL in the name.
        raise VideoError(f"{path!r}: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for its writer.
        raise VideoError(f"{path}: not a regular file")
    return _scan(path, status.st_size, status.st_mtime_ns)


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | np.ndarray,
    short_side: int | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Decodes frames by number, upright and in RGB.

    Args:
        path: The video file.
        indices: Numbers of the frames, in any order, repeats allowed.
        short_side: Rescales bilinearly to this shorter side, the other
            truncated, in pixels; `None` keeps the size.
        transform: Applied to every frame, uint8 `(height, width, 3)`, as soon
            as it is decoded, so that a crop bounds the memory of a clip.

    Returns:
        uint8 array of shape `(len(indices), height, width, 3)`, height and
        width being those that `transform` gives.

    Raises:
        VideoError: If the file cannot be read, its decoder fails or gives
            fewer frames than the file has, or a frame exceeds `MAX_PIXELS`.
        ValueError: If `indices` is empty or not in `[0, num_frames)`.
    """
    path = os.fspath(path)
    index = scan(path)
    wanted = np.asarray(indices, "int64")
    total = index.num_frames
    if not len(wanted) or not 0 <= wanted.min() <= wanted.max() < total:
        raise ValueError(
            f"`indices` must be one or more frame numbers in [0, {total}) "
            f"for {path}. Received: {indices}"
        )
    convert = _converter(path, index, short_side, transform)
    frames = _decode_wanted(path, index, set(wanted.tolist()), convert)
    return np.stack([frames[number] for number in wanted.tolist()])


@functools.lru_cache(maxsize=1024)
def _scan(path: str, size: int, mtime_ns: int) -> VideoIndex:
    # `size` and `mtime_ns` are there for the cache: a changed file is new.
    with _open(path) as (container, stream):
        first = None
        packets: list[_Packet] = []
        for packet in container.demux(stream):
            if len(packets) > MAX_PACKETS:
                raise VideoError(f"{path}: more than {MAX_PACKETS} packets")
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.size:  # The last packet is empty, a mark of the end.
                packets.append(_Packet.read(packet, stream))
        num_frames = sum(packet.is_shown for packet in packets)
        if first is None or not num_frames:
            raise VideoError(f"{path}: no frame could be read")
        timestamps, keyframes = _seek_table(container, stream, packets)
    # Screens show quarter turns; no phone writes other angles.
    rotation = round(first.rotation / 90) % 4
    height, width = first.height, first.width
    if rotation % 2:
        height, width = width, height
    return VideoIndex(
        num_frames, height, width, rotation, timestamps, keyframes
    )


@dataclasses.dataclass(frozen=True)
class _Packet:
    pts: int | None
    is_keyframe: bool
    is_shown: bool

    @classmethod
    def read(
        cls, packet: av.Packet, stream: av.video.stream.VideoStream
    ) -> "_Packet":
        # Edit lists (the start and end of a trimmed mp4) mark packets that are
        # decoded and not shown; VP8 has hidden frames, bit 4 of the header.
        hidden = packet.is_discard
        if stream.codec_context.name == "vp8":
            hidden = hidden or not bytes(packet)[0] & 0x10
        return cls(packet.pts, packet.is_keyframe, not hidden)


def _seek_table(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    packets: list[_Packet],
) -> tuple[np.ndarray, np.ndarray]:
    """Timestamps and keyframe numbers; both empty if not to be trusted."""
    nothing = np.zeros(0, "int64"), np.zeros(0, "int64")
    if any(packet.pts is None for packet in packets):
        return nothing
    shown = [packet for packet in packets if packet.is_shown]
    timestamps = np.sort(np.array([packet.pts for packet in shown], "int64"))
    reordered = stream.codec_context.has_b_frames
    untrusted = (
        (np.diff(timestamps) == 0).any()
        # AVI stores no presentation times, and FFmpeg's guess is wrong where
        # frames are stored in another order than they are shown.
        or (container.format.name == "avi" and reordered)
        # A cut stream: its first pictures need others that are gone, so the
        # decoder's output does not begin with the first timestamp.
        or not packets[0].is_keyframe
        or timestamps[0] < packets[0].pts
    )
    if untrusted:
        return nothing
    keyframes = [packet.pts for packet in shown if packet.is_keyframe]
    numbers = np.searchsorted(timestamps, np.array(keyframes, "int64"))
    return timestamps, np.sort(numbers)


@contextlib.contextmanager
def _open(
    path: str,
) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Opens the best video stream; FFmpeg's errors become `VideoError`."""
    try:
        # Tags in any encoding are common, and of no interest here.
        # Absolute: a colon in a relative path would name a protocol.
        with av.open(
            os.path.abspath(path), metadata_errors="replace"
        ) as container:
            yield container, _best_stream(path, container)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: {error}") from error


def _best_stream(
    path: str, container: av.container.InputContainer
) -> av.video.stream.VideoStream:
    stream = container.streams.best("video")
    cover = av.stream.Disposition.attached_pic
    if (
        not isinstance(stream, av.video.stream.VideoStream)
        or stream.disposition & cover
    ):
        raise VideoError(f"{path}: no video stream")
    codec = stream.codec_context
    if codec is None:
        raise VideoError(f"{path}: no decoder for the video stream")
    _check_pixels(path, codec.height, codec.width)
    # One thread a clip: tf.data reads several clips at a time.
    codec.thread_count = 1
    codec.thread_type = "NONE"
    # The size may also change on the way.
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _check_pixels(path: str, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise VideoError(
            f"{path}: frames of {width}x{height} pixels, at most "
            f"{MAX_PIXELS} pixels are read"
        )


def _converter(
    path: str,
    index: VideoIndex,
    short_side: int | None,
    transform: Callable[[np.ndarray], np.ndarray] | None,
) -> Callable[[av.VideoFrame], np.ndarray]:
    """Makes the function from a decoded frame to what `read_frames` gives."""
    height, width = index.height, index.width
    if short_side is not None:
        height, width = rescaled_size(height, width, short_side)
    _check_pixels(path, height, width)
    if index.rotation % 2:  # The size before rotation is the decoder's.
        height, width = width, height
    reformatter = VideoReformatter()

    def convert(frame: av.VideoFrame) -> np.ndarray:
        rgb = reformatter.reformat(
            frame, width, height, "rgb24", interpolation="BILINEAR"
        )
        upright = np.rot90(rgb.to_ndarray(), index.rotation)
        return upright if transform is None else transform(upright)

    return convert


def _decode_wanted(
    path: str,
    index: VideoIndex,
    wanted: set[int],
    convert: Callable[[av.VideoFrame], np.ndarray],
) -> dict[int, np.ndarray]:
    """Frames by number, from the nearest keyframe or from the start."""
    before = index.keyframes[index.keyframes <= min(wanted)]
    if len(before) and before[-1] > 0:
        # Whatever goes wrong after a seek, decoding from the start decides.
        with contextlib.suppress(VideoError):
            return _decode_from(path, index, int(before[-1]), wanted, convert)
    return _decode_from(path, index, 0, wanted, convert)


def _decode_from(
    path: str,
    index: VideoIndex,
    keyframe: int,
    wanted: set[int],
    convert: Callable[[av.VideoFrame], np.ndarray],
) -> dict[int, np.ndarray]:
    frames = {}
    number, last = keyframe, max(wanted)
    try:
        with _open(path) as (container, stream):
            for frame in _output(container, stream, index, keyframe):
                if number in wanted:
                    frames[number] = convert(frame)
                if number == last:
                    return frames
                number += 1
            raise VideoError("the decoder gives no more")
    except VideoError as error:
        raise VideoError(
            f"{path}: only {number} of {index.num_frames} frames could be "
            f"read: {str(error).removeprefix(f'{path}: ')}"
        ) from error


def _output(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    index: VideoIndex,
    keyframe: int,
) -> Iterator[av.VideoFrame]:
    """The decoder's output from frame number `keyframe` on."""
    if keyframe == 0:
        yield from container.decode(stream)
        return
    # Only the first packet names the encoder. The decoder of H.264 and MPEG-4
    # makes up for the known faults of old ones, and gives other pictures if it
    # has not seen that packet.
    next(container.demux(stream)).decode()
    expected = index.timestamps[keyframe:]
    container.seek(int(expected[0]), stream=stream)
    decoded = container.decode(stream)
    # A seek may land earlier, and leading pictures of the keyframe come first.
    decoded = itertools.dropwhile(
        lambda frame: frame.pts is not None and frame.pts < expected[0],
        decoded,
    )
    for frame, time in zip(decoded, expected, strict=False):
        if frame.pts != time:
            raise VideoError("the decoder skips frames after a seek")
        yield frame
