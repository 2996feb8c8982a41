"""Frame-exact reading of video files with PyAV.

A frame's number is its place in the decoder's output when the file is decoded
from the start, which is the order of the frames' times. `scan` learns from the
packets, without decoding them, how many frames there are and where decoding
can start; `read_frames` uses that to decode only what a clip needs, and checks
on the way that it is where it thinks it is.
"""

import contextlib
import dataclasses
import functools
import math
import os
import stat
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from keras_nonlocal.data.transforms import rescaled_size

# Bounds for damaged and hostile files, far beyond any data set's videos.
MAX_PIXELS = 2**26
MAX_PACKETS = 1_000_000
# Longest time between two frames, and of a file, that is taken seriously:
# damaged and joined files have clocks that jump.
MAX_GAP_SECONDS = 60
_MAX_SECONDS = 24 * 60 * 60

# Formats whose files name others, which FFmpeg would open.
_NAMING = {
    "applehttp",
    "concat",
    "dash",
    "hls",
    "image2",
    "imf",
    "rtsp",
    "sdp",
    "vobsub",
    "webm_dash_manifest",
}
_FORMATS = ",".join(sorted(av.formats_available - _NAMING))

_PYAV = int(av.__version__.split(".")[0])
# By default newer versions start threads for every clip.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if _PYAV >= 17 else {}

# Damaged files make FFmpeg write to stderr for every frame; what matters is
# in the exceptions.
av.logging.set_level(av.logging.PANIC)


class VideoError(ValueError):
    """A file that cannot be read as a video; the message names it."""


class TimeLimitError(VideoError):
    """A file that could not be read within the `time_limit`."""


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
        fps: Frames per second on average, as the file says or as its
            timestamps give; 0.0 if neither does.
        times: Seconds of each frame from the first one, increasing, float64
            of shape `(num_frames,)`; empty if the file has no times, or none
            that can be trusted.
    """

    num_frames: int
    height: int
    width: int
    rotation: int
    timestamps: np.ndarray
    keyframes: np.ndarray
    fps: float
    times: np.ndarray

    def or_fps(self, fps: float) -> "VideoIndex":
        """This index, with `fps` frames a second if the file does not say."""
        return self if self.fps > 0 else dataclasses.replace(self, fps=fps)


@dataclasses.dataclass(frozen=True, order=True)
class _Deadline:
    moment: float  # Of `time.monotonic`.
    seconds: float


class _Thread(threading.local):
    deadline: _Deadline | None = None


_thread = _Thread()
_is_stopped = threading.Event()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Bounds the time that `scan` and `read_frames` take, all calls together.

    Holds for the calling thread. Of limits inside each other the one that ends
    first holds. Time is looked at between packets and between reads: a disk
    that does not answer at all can only be left by ending the process.

    Args:
        seconds: Time from now on.

    Yields:
        Nothing. In the block `scan` and `read_frames` raise `TimeLimitError`
        when the time is up.

    Raises:
        ValueError: If `seconds` is not positive.
    """
    if not seconds > 0:
        raise ValueError(
            f"`seconds` must be positive. Received: seconds={seconds}"
        )
    outer = _thread.deadline
    deadline = _Deadline(time.monotonic() + seconds, seconds)
    _thread.deadline = deadline if outer is None else min(outer, deadline)
    try:
        yield
    finally:
        _thread.deadline = outer


def stop_reading() -> None:
    """Makes `check_time` raise `RuntimeError` in all threads from now on.

    For a process that is about to end: what is being read ends first.
    """
    _is_stopped.set()


def check_time(path: str) -> None:
    """Raises `TimeLimitError`, naming `path`, if the `time_limit` is over."""
    if _is_stopped.is_set():  # Not the file's fault: no `VideoError`.
        raise RuntimeError(f"{path}: not read, as this process is to end")
    deadline = _thread.deadline
    if deadline is not None and time.monotonic() >= deadline.moment:
        raise TimeLimitError(
            f"{path}: not read within the limit of {deadline.seconds:g} s"
        )


def _seconds_left(path: str) -> float | None:
    check_time(path)
    deadline = _thread.deadline
    if deadline is None or math.isinf(deadline.seconds):
        return None
    return deadline.moment - time.monotonic()


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
            beyond `MAX_PIXELS` or `MAX_PACKETS`; as `TimeLimitError` if a
            `time_limit` ends.
    """
    path = os.fspath(path)
    status = file_status(path)
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
            fewer frames than the file has, or a frame exceeds `MAX_PIXELS`; as
            `TimeLimitError` if a `time_limit` ends.
        ValueError: If `indices` is empty or not in `[0, num_frames)`.
    """
    path = os.fspath(path)
    index = scan(path)
    clip = ClipBuffer(path, index, indices, short_side, transform)
    return _decode(path, index, clip)


class ClipBuffer:
    """Takes frames from a decoder and becomes the array of a clip.

    Args:
        path: The video, for messages.
        index: What is known of it.
        indices: As of `read_frames`, and so the others.
        short_side: Shorter side to rescale to, in pixels.
        transform: Applied to every rescaled frame.

    Attributes:
        wanted: Numbers of the frames to `put`.
        frames: The clip; complete when each of `wanted` has been put.

    Raises:
        VideoError: If rescaled frames would exceed `MAX_PIXELS`.
        ValueError: If `indices` is empty or not in `[0, num_frames)`.
    """

    def __init__(
        self,
        path: str,
        index: VideoIndex,
        indices: Sequence[int] | np.ndarray,
        short_side: int | None,
        transform: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        numbers = np.asarray(indices, "int64")
        total = index.num_frames
        if not len(numbers) or not 0 <= numbers.min() <= numbers.max() < total:
            raise ValueError(
                f"`indices` must be one or more frame numbers in [0, {total}) "
                f"for {path}. Received: {indices}"
            )
        self._upright = FrameRescaler(
            path, (index.height, index.width), index.rotation, short_side
        )
        self._places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers.tolist()):
            self._places.setdefault(number, []).append(place)
        self.wanted = set(self._places)
        self.frames = np.empty(0, "uint8")
        self._length = len(numbers)
        self._transform = transform

    def put(self, number: int, frame: av.VideoFrame | np.ndarray) -> None:
        """Rescales, turns and transforms frame `number` of the video.

        Args:
            number: One of `wanted`.
            frame: As the decoder gives it, or as uint8 RGB of shape
                `(height, width, 3)`.
        """
        picture = self._upright(frame)
        if self._transform is not None:
            picture = self._transform(picture)
        if not len(self.frames):
            shape = (self._length, *picture.shape)
            self.frames = np.empty(shape, picture.dtype)
        for place in self._places[number]:
            _copy(picture, self.frames[place])


class FrameRescaler:
    """Makes frames upright RGB pictures of one size.

    Args:
        path: The video, for messages.
        size: Height and width of its frames as displayed, in pixels.
        rotation: Quarter turns, counter-clockwise, that make them upright.
        short_side: Rescales bilinearly to this shorter side, the other
            truncated, in pixels; `None` keeps the size.

    Raises:
        VideoError: If the pictures would exceed `MAX_PIXELS`.
    """

    def __init__(
        self,
        path: str,
        size: tuple[int, int],
        rotation: int,
        short_side: int | None,
    ) -> None:
        height, width = size
        if short_side is not None:
            height, width = rescaled_size(height, width, short_side)
        check_pixels(path, height, width)
        if rotation % 2:  # The size before rotation is the decoder's.
            height, width = width, height
        self._height, self._width = height, width
        self._rotation = rotation
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame | np.ndarray) -> np.ndarray:
        """A picture, uint8 `(height, width, 3)`.

        Args:
            frame: As the decoder gives it, or as uint8 RGB of shape
                `(height, width, 3)`.
        """
        if isinstance(frame, np.ndarray):
            frame = av.VideoFrame.from_ndarray(frame, "rgb24")
        rgb = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            "rgb24",
            interpolation="BILINEAR",
            **_ONE_THREAD,
        )
        return np.rot90(rgb.to_ndarray(), self._rotation)


def _copy(source: np.ndarray, target: np.ndarray) -> None:
    if source.ndim == 3 and source.strides[1] != source[0, 0].nbytes:
        # Mirrored or turned, it is copied four times as fast by channels.
        for channel in range(source.shape[2]):
            target[..., channel] = source[..., channel]
    else:
        target[...] = source


def path_status(path: str) -> os.stat_result:
    """Status of a file or folder; `VideoError` if there is none."""
    try:
        return os.stat(path)
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # A NUL in the name.
        raise VideoError(f"{path!r}: {error}") from error


def file_status(path: str) -> os.stat_result:
    """Status of a regular file; of anything else, `VideoError`."""
    status = path_status(path)
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for its writer.
        raise VideoError(f"{path}: not a regular file")
    return status


@functools.lru_cache(maxsize=1024)
def _scan(path: str, size: int, mtime_ns: int) -> VideoIndex:
    # `size` and `mtime_ns` are there for the cache: a changed file is new.
    with open_stream(path) as (container, stream):
        first = None
        packets: list[_Packet] = []
        for packet in _in_time(path, container.demux(stream)):
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
        times = _times(timestamps, stream)
        fps = _average_fps(stream, times)
    height, width, rotation = upright_size(first)
    return VideoIndex(
        num_frames,
        height,
        width,
        rotation,
        timestamps,
        keyframes,
        fps,
        times,
    )


def upright_size(frame: av.VideoFrame) -> tuple[int, int, int]:
    """Height and width as displayed, and the quarter turns that takes."""
    # Screens show quarter turns; no phone writes other angles.
    rotation = round(frame.rotation / 90) % 4
    size = (frame.height, frame.width)
    return (*(size[::-1] if rotation % 2 else size), rotation)


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


def _times(
    timestamps: np.ndarray, stream: av.video.stream.VideoStream
) -> np.ndarray:
    """Seconds of the frames from the first one; empty if they are not sane."""
    nothing = np.zeros(0)
    unit = stream.time_base
    if not len(timestamps) or not unit:
        return nothing
    # In Python's integers, which do not overflow.
    if (int(timestamps[-1]) - int(timestamps[0])) * float(unit) > _MAX_SECONDS:
        return nothing
    times = (timestamps - timestamps[0]) * float(unit)
    return times if (np.diff(times) <= MAX_GAP_SECONDS).all() else nothing


def _average_fps(
    stream: av.video.stream.VideoStream, times: np.ndarray
) -> float:
    if stream.average_rate:
        return float(stream.average_rate)
    return (len(times) - 1) / float(times[-1]) if len(times) > 1 else 0.0


@contextlib.contextmanager
def open_stream(
    path: str,
) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Opens the best video stream; FFmpeg's errors become `VideoError`.

    Only a regular file is opened, up to the size that it has now: no URL, and
    no file that another one names.
    """
    left = _seconds_left(path)
    # Up to its present size, as a writer could append for ever. Absolute: a
    # colon in a relative path would name a protocol.
    size = file_status(path).st_size
    if not size:  # Would stand for no end at all.
        raise VideoError(f"{path}: empty file")
    url = f"subfile,,start,0,end,{size},,:{os.path.abspath(path)}"
    try:
        # Tags in any encoding are common, and of no interest here.
        with av.open(
            url,
            # Not `options`, by which PyAV before 18 writes beyond its memory.
            container_options={"format_whitelist": _FORMATS},
            timeout=left,
            metadata_errors="replace",
        ) as container:
            yield container, _best_stream(path, container)
    except av.FFmpegError as error:
        check_time(path)  # Which is why FFmpeg gave up, if so.
        raise VideoError(f"{path}: {ffmpeg_reason(error)}") from error


def ffmpeg_reason(error: av.FFmpegError) -> str:
    """FFmpeg's message, with the last line of its log where there is one."""
    if not error.log:
        return str(error.strerror)
    *_, line = error.log
    if str(line).startswith("Format not on whitelist"):  # And the list.
        return "playlists and other files that name files are not read"
    return f"{error.strerror} ({str(line).strip()})"


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
    check_pixels(path, codec.height, codec.width)
    # One thread a clip: tf.data reads several clips at a time.
    codec.thread_count = 1
    codec.thread_type = "NONE"
    # The size may also change on the way.
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def check_pixels(path: str, height: int, width: int) -> None:
    """Raises `VideoError`, naming `path`, beyond `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise VideoError(
            f"{path}: frames of {width}x{height} pixels, at most "
            f"{MAX_PIXELS} pixels are read"
        )


def _decode(path: str, index: VideoIndex, clip: ClipBuffer) -> np.ndarray:
    """Fills `clip` from the nearest keyframe, or from the start."""
    if len(index.timestamps):
        before = index.keyframes[index.keyframes <= min(clip.wanted)]
        # That of the first frames may be one that is not shown.
        keyframe = int(before[-1]) if len(before) else 0
        # Whatever goes wrong here, counting from the start decides.
        with contextlib.suppress(VideoError):
            return _decode_by_times(path, index, keyframe, clip)
        check_time(path)
    return _decode_by_counting(path, index, clip)


def _decode_by_counting(
    path: str, index: VideoIndex, clip: ClipBuffer
) -> np.ndarray:
    """Decodes from the start up to the last frame of `clip`."""
    number, last = 0, max(clip.wanted)
    try:
        with open_stream(path) as (container, stream):
            for packet in _in_time(path, container.demux(stream)):
                for frame in packet.decode():
                    if number in clip.wanted:
                        clip.put(number, frame)
                    if number == last:
                        return clip.frames
                    number += 1
            raise VideoError("the decoder gives no more")
    except TimeLimitError:
        raise
    except VideoError as error:
        raise VideoError(
            f"{path}: only {number} of {index.num_frames} frames could be "
            f"read: {str(error).removeprefix(f'{path}: ')}"
        ) from error


def _decode_by_times(
    path: str, index: VideoIndex, keyframe: int, clip: ClipBuffer
) -> np.ndarray:
    """Decodes from `keyframe` on, and little more than `clip` needs."""
    last = max(clip.wanted)
    timestamps = index.timestamps[keyframe : last + 1].tolist()
    numbers: dict[int | None, int] = {
        timestamp: number
        for number, timestamp in enumerate(timestamps, keyframe)
    }
    missing = set(clip.wanted)
    with open_stream(path) as (container, stream):
        if keyframe:
            _seek(container, stream, timestamps[0])
        packets = _in_time(path, container.demux(stream))
        for number, frame in _numbered_frames(
            packets, stream.codec_context, numbers, clip.wanted
        ):
            if number in missing:
                clip.put(number, frame)
                missing.discard(number)
            if not missing:
                return clip.frames
    raise VideoError(f"{path}: the decoder gives no more")


def _seek(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    timestamp: int,
) -> None:
    # Only the first packet names the encoder. The decoder of H.264 and MPEG-4
    # makes up for the known faults of old ones, and gives other pictures if it
    # has not seen that packet.
    next(container.demux(stream)).decode()
    container.seek(timestamp, stream=stream)


def _numbered_frames(
    packets: Iterable[av.Packet],
    codec: av.VideoCodecContext,
    numbers: dict[int | None, int],
    wanted: set[int],
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decodes the `wanted` frames and others, as cheaply as is safe.

    Args:
        packets: Those from the keyframe of the first of `numbers` on, perhaps
            with some before it.
        codec: Their decoder.
        numbers: Frame numbers by timestamp, in order.
        wanted: Numbers of the frames that must come.

    Yields:
        Frames and their numbers, increasing.

    Raises:
        VideoError: If the decoder gives other frames than the packets promise.
    """
    first = min(time for time in numbers if time is not None)
    unread: set[int | None] = set(wanted)
    promised: set[int] = set()  # Read, and not yet given by the decoder.
    # Once the first frame has shown that it is safe: leave out frames that no
    # other frame refers to, and stop at the last packet that is wanted.
    lean = False
    for packet in packets:
        number = numbers.get(packet.pts)
        unread.discard(number)
        if lean and number not in wanted:
            codec.skip_frame = "NONREF"
        else:
            codec.skip_frame = "DEFAULT"
            if number is not None:
                promised.add(number)
        frames = packet.decode()
        at_end = lean and not unread
        if at_end:
            frames += codec.decode()
        for frame in frames:
            if frame.pts is not None and frame.pts < first:
                continue  # A seek may land earlier.
            number = numbers.get(frame.pts)
            if number is None or number > min(promised, default=number):
                raise VideoError("the decoder skips frames")
            # Two packets may be the two fields of an interlaced frame.
            if lean and frame.interlaced_frame:
                raise VideoError("the decoder gives interlaced frames")
            promised.discard(number)
            lean = codec.name == "h264" and not frame.interlaced_frame
            yield number, frame
        if at_end:
            return


def _in_time(path: str, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
    for packet in packets:
        check_time(path)
        yield packet
