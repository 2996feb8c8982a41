"""Tiny files of several codecs, made once."""

import av
import numpy as np
import pytest
from PIL import Image

from keras_nonlocal.data.decoders import tensorflow_io

NUM_FRAMES = 270
HEIGHT, WIDTH = 48, 64
# Wheels of PyAV have the one or the other.
_AV1 = "libaom-av1" if "libaom-av1" in av.codecs_available else "libsvtav1"
_AV1_OPTIONS = {
    "libaom-av1": {"cpu-used": "8"},
    "libsvtav1": {"preset": "13", "svtav1-params": "lp=1"},
}
CODECS = {
    "H.264": ("libx264", "mp4", {"preset": "veryfast", "bf": "3"}),
    "MPEG-4": ("mpeg4", "mp4", {"bf": "2"}),
    "VP9": ("libvpx-vp9", "webm", {"cpu-used": "8", "deadline": "realtime"}),
    "AV1": (_AV1, "mkv", _AV1_OPTIONS[_AV1]),
}


def write_video(path, codec, options):
    """Coloured squares that move, `NUM_FRAMES` different frames."""
    rng = np.random.default_rng(0)
    squares = rng.integers(
        256, size=(HEIGHT // 4, WIDTH // 4, 3), dtype="uint8"
    )
    squares = squares.repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25, options=options)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = "yuv420p"
        for number in range(NUM_FRAMES):
            image = np.roll(squares, (number, 3 * number), (0, 1))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def all_frames(path):
    """Every frame, decoded from the start."""
    with av.open(str(path)) as container:
        return np.stack(
            [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        )


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Gives (path, frames) of a codec and a distance of keyframes."""
    folder, made = tmp_path_factory.mktemp("videos"), {}

    def make(name, gop):
        if (name, gop) not in made:
            codec, suffix, options = CODECS[name]
            path = folder / f"{name}_{gop}.{suffix}"
            write_video(path, codec, options | {"g": str(gop)})
            made[name, gop] = path, all_frames(path)
        return made[name, gop]

    return make


@pytest.fixture(scope="session")
def pictures(videos, tmp_path_factory):
    """A folder of the frames of an H.264 file as PNG, and the frames."""
    folder = tmp_path_factory.mktemp("pictures")
    _, frames = videos("H.264", 250)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"img_{number}.png")
    return folder, frames


@pytest.fixture(scope="session")
def tfio():
    """The decoder; skips with its own reason where it does not work."""
    try:
        tensorflow_io._decode_video()
    except ImportError as error:
        pytest.skip(str(error))
    return tensorflow_io
