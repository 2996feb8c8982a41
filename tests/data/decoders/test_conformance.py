"""What every decoder must do, frame by frame."""

import shutil

import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data.decoders import DECODERS
from keras_nonlocal.data.decoders import get_decoder

CODECS = ("H.264", "MPEG-4", "VP9", "AV1")
GOPS = (250, 30)
CASES = [
    *(("pyav", codec, gop) for codec in CODECS for gop in GOPS),
    # Its FFmpeg 4 knows no AV1.
    *(("tfio", codec, gop) for codec in CODECS[:3] for gop in GOPS),
    ("frames", None, None),
]


@pytest.fixture
def find(request):
    """Gives (decoder, path, all frames) of a case."""

    def find(name, codec="H.264", gop=30):
        if name == "tfio":
            request.getfixturevalue("tfio")
        if name == "frames":
            source = request.getfixturevalue("pictures")
        else:
            source = request.getfixturevalue("videos")(codec, gop)
        return get_decoder(name, source[0]), *source

    return find


@pytest.mark.parametrize(("name", "codec", "gop"), CASES)
def test_frame_exact_at_random_places(find, name, codec, gop):
    decoder, path, frames = find(name, codec, gop)
    total = len(frames)
    # Few frames are alike, so a wrong one would be seen.
    assert total == 270
    assert len({frame.tobytes() for frame in frames}) > 200
    rng = np.random.default_rng(0)
    for start in [0, total - 1, *rng.integers(total, size=8)]:
        clip = (start + 2 * np.arange(8)) % total
        for indices in ([start], clip, clip[::-1]):
            np.testing.assert_array_equal(
                decoder.read_frames(path, indices), frames[indices]
            )


@pytest.mark.parametrize("name", DECODERS)
def test_what_scan_tells(find, name):
    decoder, path, frames = find(name)
    index = decoder.scan(path)
    assert (index.num_frames, index.height, index.width) == frames.shape[:3]
    assert index.rotation == 0
    known = name != "frames"
    assert index.fps == (25 if known else 0)
    np.testing.assert_allclose(
        index.times, np.arange(270 if known else 0) / 25, atol=1e-9
    )
    assert decoder.scan(str(path)) is index  # Known already.


@pytest.mark.parametrize("name", DECODERS)
def test_rescales_then_transforms(find, name):
    decoder, path, frames = find(name)
    rescaled = decoder.read_frames(path, [9, 4], 24)
    assert rescaled.shape == (2, 24, 32, 3)
    assert rescaled.dtype == np.uint8
    boxes = frames[[9, 4]].reshape(2, 24, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(rescaled - boxes).mean() < 20  # 50 for the other frame.
    mirrored = decoder.read_frames(path, [9, 4], 24, lambda f: f[5:, 20:2:-1])
    np.testing.assert_array_equal(mirrored, rescaled[:, 5:, 20:2:-1])


@pytest.mark.parametrize("indices", [[], [-1], [270]])
@pytest.mark.parametrize("name", DECODERS)
def test_indices_must_exist(find, name, indices):
    decoder, path, _ = find(name)
    with pytest.raises(ValueError, match=r"`indices` must be .* \[0, 270\)"):
        decoder.read_frames(path, indices)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_not_a_video(find, name, tmp_path):
    decoder, _, _ = find(name)
    broken = tmp_path / "broken"
    broken.write_bytes(b"no video")
    for path in (broken, tmp_path / "missing", "a\0b"):
        with pytest.raises(decode.VideoError, match="broken|missing|null"):
            decoder.scan(path)
        with pytest.raises(decode.VideoError, match="broken|missing|null"):
            decoder.read_frames(path, [0])


@pytest.mark.parametrize("name", DECODERS)
def test_a_time_limit_ends_it(find, name, tmp_path):
    decoder, path, _ = find(name)
    copy = tmp_path / "copy"
    (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
    with decode.time_limit(1e-9):
        with pytest.raises(decode.TimeLimitError, match="copy"):
            decoder.scan(copy)
    assert decoder.scan(copy).num_frames == 270
    with decode.time_limit(1e-9):
        with pytest.raises(decode.TimeLimitError, match="copy"):
            decoder.read_frames(copy, [0])
