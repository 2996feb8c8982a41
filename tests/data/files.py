"""Makes tiny video files."""

from fractions import Fraction

import av
import numpy as np

FPS = 25


def moving(seed, num_frames=64, size=32):
    """Frames of coarse grey noise that moves, another for every seed."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(256, size=(size // 8, size // 8, 1), dtype="uint8")
    picture = noise.repeat(8, 0).repeat(8, 1).repeat(3, 2)
    return np.stack([np.roll(picture, i, (0, 1)) for i in range(num_frames)])


def write(path, frames, codec="libx264", ticks=None, **options):
    """Encodes frames, at times of `ticks` / 1000 s or else evenly.

    Mp4 files are written so that one that is cut can be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_mp4 = path.suffix == ".mp4"
    muxing = {"movflags": "faststart"} if is_mp4 else {}
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(codec, FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks is not None:
                frame.pts = ticks[number]
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_folder(path, frames):
    """Writes pictures, counted from 1, as `ffmpeg img_%05d.png` does."""
    path.mkdir(parents=True)
    for number, picture in enumerate(frames, 1):
        codec = av.CodecContext.create("png", "w")
        codec.height, codec.width = picture.shape[:2]
        codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        packets = [*codec.encode(frame), *codec.encode(None)]
        content = b"".join(bytes(packet) for packet in packets)
        (path / f"img_{number:05}.png").write_bytes(content)
    return path


def cut(source, target, share):
    """The first part of a file."""
    content = source.read_bytes()
    target.write_bytes(content[: int(share * len(content))])


def damage(source, target):
    """A file that is overwritten towards the end."""
    content = bytearray(source.read_bytes())
    begin, end = len(content) * 3 // 4, len(content) * 7 // 8
    content[begin:end] = b"\xff" * (end - begin)
    target.write_bytes(content)


def turn(source, target):
    """An mp4 that is to be shown a quarter turn to the right."""
    content = bytearray(source.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one, minus_one, zero = (
        value.to_bytes(4, "big", signed=True)
        for value in (1 << 16, -1 << 16, 0)
    )
    content[matrix : matrix + 16] = zero + one + zero + minus_one
    content[matrix + 16 : matrix + 20] = zero
    target.write_bytes(content)
