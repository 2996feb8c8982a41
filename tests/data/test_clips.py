import dataclasses

import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import synthetic
from keras_nonlocal.data import transforms
from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.sampling import ClipSpec


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """32 frames of noise at 25 a second."""
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (32, 32, 48, 3), "uint8")
    synthetic.write_video(path, frames)
    return str(path)


def request(path, **changes):
    return ClipRequest(path, ClipSpec(4, 2), 24, (24, 32), **changes)


def test_random_clip_is_what_the_numbers_say(path):
    units = (0.99, 0.5, 0.2, 0.8, 0.3)
    clip = read_clip(request(path, units=units, flip=True))
    transform = transforms.random_transform(
        units[1:], 32, 48, 24, (24, 32), True
    )
    assert transform.short_side == 28
    whole = decode.read_frames(path, [24, 26, 28, 30], short_side=28)
    np.testing.assert_array_equal(clip.frames, transform(whole))
    assert clip.flipped
    assert (clip.first, clip.last) == (0.96, 1.2)
    assert clip.damage is None


def test_inverse_jitter(path):
    units = (0.0, 0.5, 0.0, 0.0, 0.9)
    clip = read_clip(
        dataclasses.replace(
            request(path, units=units), short_side=(24, 96), jitter="inverse"
        )
    )
    # The inverse of 1 / 24 and 1 / 96 on average, where 60 is the mean.
    whole = decode.read_frames(path, [0, 2, 4, 6], short_side=38)
    np.testing.assert_array_equal(clip.frames, whole[:, :24, :24])


def test_middle_clip(path):
    clip = read_clip(request(path))
    expected = decode.read_frames(path, [12, 14, 16, 18], short_side=24)
    np.testing.assert_array_equal(clip.frames, expected[:, :, 6:30])
    assert not clip.flipped


def test_segment(path):
    clip = read_clip(request(path, segment=(0.32, 0.64)))
    assert (clip.first, clip.last) == (0.32, 0.56)
    looped = read_clip(request(path, segment=(0.32, 0.48)))
    expected = decode.read_frames(path, [8, 10, 8, 10], short_side=24)
    np.testing.assert_array_equal(looped.frames, expected[:, :, 6:30])
    with pytest.raises(decode.VideoError, match=r"a\.mp4: the segment from 9"):
        read_clip(request(path, segment=(9.0, 10.0)))


def test_frames_per_second(path):
    four = dataclasses.replace(
        request(path), clip=ClipSpec(4, 1, fps=12.5), segment=(0.32, 0.64)
    )
    clip = read_clip(four)
    expected = decode.read_frames(path, [8, 10, 12, 14], short_side=24)
    np.testing.assert_array_equal(clip.frames, expected[:, :, 6:30])


def test_short_videos_are_refused_by_name(path):
    strict = dataclasses.replace(
        request(path), clip=ClipSpec(32, 2, short="error")
    )
    with pytest.raises(
        decode.VideoError, match=r"a\.mp4: a 32x2 clip needs 63"
    ):
        read_clip(strict)


def test_damaged_videos_are_read_where_they_can_be(shared):
    """The decoder gives 28 of this file's 50 frames."""
    path = str(shared / "data" / "awkward" / "corrupted.mp4")
    units = (0.99, 0.0, 0.0, 0.0, 0.0)
    clip = read_clip(request(path, units=units))
    assert "28 of 50" in clip.damage
    # From half as far in: frame 20 of the 42 that are possible.
    expected = decode.read_frames(path, [21, 23, 25, 27], short_side=24)
    np.testing.assert_array_equal(clip.frames, expected[:, :24, :24])
    with pytest.raises(decode.VideoError, match="28 of 50"):
        read_clip(request(path, segment=(3.0, 5.0)))


def test_time_limit(path):
    with pytest.raises(decode.TimeLimitError, match=r"a\.mp4"):
        read_clip(request(path, seconds=1e-9))
