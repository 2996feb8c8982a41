import dataclasses

import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data.decoders import tensorflow_io


def works():
    try:
        return bool(tensorflow_io._decode_video())
    except ImportError:
        return False


def test_says_where_it_works(videos):
    if works():
        pytest.skip("it works here")
    path, _ = videos("H.264", 30)
    for _ in range(2):
        message = r"tensorflow<2\.18|TensorFlow 2\.16 and 2\.17"
        with pytest.raises(ImportError, match=message) as caught:
            tensorflow_io.read_frames(path, [0])
        # A `VideoError` would count as a broken video and be skipped.
        assert not isinstance(caught.value, decode.VideoError)


def test_upright(tfio, shared):
    path = shared / "data" / "awkward" / "video_90.mov"
    frames = tfio.read_frames(path, [2, 0], 64)
    assert frames.shape == (2, 113, 64, 3)
    expected = decode.read_frames(path, [2, 0], 64).astype(int)
    assert np.abs(frames - expected).mean() < 2


def test_frames_of_the_file_must_be_those_of_scan(tfio, shared):
    """It takes the first video stream, not the best one."""
    path = shared / "data" / "awkward" / "nasa_13013.mp4"
    message = r"must give frames of shape \(390, 270, 480, 3\)"
    with pytest.raises(decode.VideoError, match=message):
        tfio.read_frames(path, [0])


def test_a_file_that_only_others_can_read(tfio, videos):
    path, _ = videos("AV1", 30)
    with pytest.raises(decode.VideoError, match=r"AV1_30\.mkv: .*codec"):
        tfio.read_frames(path, [0])


def test_sizes_that_it_gets_wrong(tfio, shared):
    path = shared / "data" / "awkward" / "part_0.mp4"
    with pytest.raises(decode.VideoError, match="multiple of 8.*340"):
        tfio.read_frames(path, [0])


def test_memory_is_bounded(tfio, videos, monkeypatch):
    path, frames = videos("H.264", 30)
    monkeypatch.setattr(tensorflow_io, "_MAX_BYTES", frames.nbytes)
    assert len(tfio.read_frames(path, [0])) == 1
    monkeypatch.setattr(tensorflow_io, "_MAX_BYTES", frames.nbytes - 1)
    with pytest.raises(decode.VideoError, match="270 frames of 64x48 pixels"):
        tfio.read_frames(path, [0])


def test_a_rotated_index_gives_the_stored_shape():
    index = decode.VideoIndex(
        num_frames=2,
        height=20,
        width=16,
        rotation=0,
        timestamps=np.zeros(0, "int64"),
        keyframes=np.zeros(0, "int64"),
        fps=0.0,
        times=np.zeros(0),
    )
    assert tensorflow_io._stored_shape("a", index) == (2, 20, 16, 3)
    turned = dataclasses.replace(index, height=16, width=20, rotation=1)
    assert tensorflow_io._stored_shape("a", turned) == (2, 20, 16, 3)
    with pytest.raises(decode.VideoError, match="Received: 20"):
        tensorflow_io._stored_shape("a", dataclasses.replace(index, width=20))
