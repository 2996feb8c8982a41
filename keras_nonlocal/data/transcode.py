"""Encodes one video anew, for quick random access; runs in worker processes.

No TensorFlow here.
"""

import contextlib
import dataclasses
import os
from fractions import Fraction

import av
import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.auditing.video import read_header
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import VideoIndex
from keras_nonlocal.data.decode import scan
from keras_nonlocal.data.decoders import Decoder
from keras_nonlocal.data.decoders import get_decoder
from keras_nonlocal.data.transforms import rescaled_size

# What video clocks count in: whole numbers for all usual frame rates.
_TIME_BASE = Fraction(1, 90_000)
# Of the frames that are decoded at a time. More parts take longer: the files
# that cannot be entered in the middle are decoded from the start for each.
_MAX_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class TranscodeRequest:
    """What to encode, and how.

    Attributes:
        source: The video.
        target: The mp4 file to write.
        part: Where to write it before it is complete, in the same folder.
        segment: The part of the source, in seconds; `None` for all of it.
        short_side: Shorter side of the result, in pixels; smaller videos stay
            as they are.
        gop: Most frames from one that can be decoded alone to the next.
        crf: Quality: 0 is best, 51 worst.
        fps: Frames per second where the video does not say.
    """

    source: str
    target: str
    part: str
    segment: tuple[float, float] | None = None
    short_side: int = 256
    gop: int = 30
    crf: int = 20
    fps: float = 25.0


def transcode(request: TranscodeRequest) -> int:
    """Writes H.264 in mp4: upright, without sound, complete or not at all.

    Frames keep their number, order and times. An odd height or width grows by
    a pixel that repeats its neighbour.

    Args:
        request: What to encode.

    Returns:
        Bytes of the file.

    Raises:
        VideoError: If not all of the video, or of the segment, can be read, or
            the source is shorter than its header says.
        OSError: If the target cannot be written.
    """
    source = request.source
    decoder = get_decoder("auto", source)
    index = decoder.scan(source).or_fps(request.fps)
    _check_whole(source, index)
    try:
        numbers = sampling.timeline(
            index.num_frames,
            index.fps,
            index.times,
            segment=request.segment,
        )
    except ValueError as error:
        raise VideoError(f"{source}: {error}") from error
    try:
        _encode(request, decoder, index, numbers)
        written = scan(request.part).num_frames
        if written != len(numbers):
            raise VideoError(
                f"{source}: {len(numbers)} frames were encoded, and {written} "
                "can be read"
            )
        size = os.path.getsize(request.part)
        os.replace(request.part, request.target)
        return size
    except OSError as error:
        # Not of the source, whose errors are a `VideoError`.
        raise OSError(error.errno, error.strerror, request.target) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(request.part)


def _check_whole(source: str, index: VideoIndex) -> None:
    """What is missing now would not be missed in the new file."""
    try:
        lacking = read_header(source, index).lacking
    except OSError as error:
        raise VideoError(f"{source}: {error.strerror}") from error
    if lacking:
        raise VideoError(f"{source}: truncated: {lacking}")


def _encode(
    request: TranscodeRequest,
    decoder: Decoder,
    index: VideoIndex,
    numbers: np.ndarray,
) -> None:
    short_side = min(request.short_side, index.height, index.width)
    height, width = rescaled_size(index.height, index.width, short_side)
    num_parts = -(-len(numbers) * height * width * 3 // _MAX_BYTES)
    ticks = iter(_ticks(index.times, index.fps, numbers).tolist())
    with av.open(request.part, "w", format="mp4") as container:
        stream = _add_stream(container, request, index.fps, height, width)
        for part in np.array_split(numbers, min(num_parts, len(numbers))):
            for frame in decoder.read_frames(request.source, part, short_side):
                picture = _picture(frame)
                picture.pts, picture.time_base = next(ticks), _TIME_BASE
                container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _ticks(times: np.ndarray, fps: float, numbers: np.ndarray) -> np.ndarray:
    """Times of the frames from the first one, strictly increasing."""
    seconds = times[numbers] if len(times) else numbers / fps
    ticks = np.rint((seconds - seconds[0]) / float(_TIME_BASE))
    steps = np.arange(len(numbers))
    return np.maximum.accumulate(ticks.astype("int64") - steps) + steps


def _add_stream(
    container: av.container.OutputContainer,
    request: TranscodeRequest,
    fps: float,
    height: int,
    width: int,
) -> av.video.stream.VideoStream:
    options = {
        "crf": str(request.crf),
        "preset": "veryfast",
        # Without mbtree=0 the same frames give other bytes each time.
        "x264-params": f"mbtree=0:keyint={request.gop}",
    }
    rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
    stream = container.add_stream("libx264", rate, options=options)
    stream.height, stream.width = height + height % 2, width + width % 2
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TIME_BASE
    # The workers are many; and one thread gives the same bytes each time.
    stream.codec_context.thread_count = 1
    return stream


def _picture(frame: np.ndarray) -> av.VideoFrame:
    # The colour of 2x2 pixels is one in H.264 files that play everywhere.
    height, width = frame.shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    frame = np.ascontiguousarray(np.pad(frame, padding, "edge"))
    return av.VideoFrame.from_ndarray(frame, format="rgb24")
