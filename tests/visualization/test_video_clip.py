import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.visualization.video_clip import VideoClip
from keras_nonlocal.visualization.video_clip import as_video_clip
from keras_nonlocal.visualization.video_clip import read_video_clip

SPEC = ClipSpec(4, 5)


def corner(number):
    """Of the square in frame `number` of the video."""
    return 8 + number, 60 - number


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A white square of 8 x 8 pixels moves through 40 frames, 25 a second."""
    frames = np.full((40, 64, 96, 3), 20, "uint8")
    for number, frame in enumerate(frames):
        top, left = corner(number)
        frame[top : top + 8, left : left + 8] = 255
    path = tmp_path_factory.mktemp("videos") / "square.mp4"
    write_video(path, frames)
    return path


@pytest.mark.parametrize(("crop_size", "short_side"), [(28, 32), (112, 128)])
def test_finds_the_square_in_the_video(path, crop_size, short_side):
    clip = read_video_clip(
        path, SPEC, start=0.2, crop_size=crop_size, short_side=short_side
    )
    assert clip.name == "square.mp4"
    assert clip.frames.shape == (4, crop_size, crop_size, 3)
    assert clip.numbers.tolist() == [5, 10, 15, 20]
    np.testing.assert_allclose(clip.seconds, clip.numbers / 25)
    assert clip.box == (4, 20, 56, 56)
    light = clip.frames[..., 1].astype(float)
    light[light < 128] = 0
    for number, frame, t in zip(clip.numbers, light, range(4), strict=True):
        mass = frame / frame.sum()
        y, x = (
            mass.sum(1) @ np.arange(crop_size),
            mass.sum(0) @ np.arange(crop_size),
        )
        place = clip.to_video([t, y, x])
        middle = np.array(corner(number)) + 3.5
        assert place[0] == pytest.approx(number / 25)
        np.testing.assert_allclose(place[1:], middle, atol=0.6)


def test_places_are_those_of_pixel_centres(path):
    clip = read_video_clip(path, SPEC, crop_size=28, short_side=32)
    # Two pixels of the video are one of the clip.
    places = clip.to_video(np.array([[[0, 0, 0], [1.5, 27, 27.5]]]))
    assert places.shape == (1, 2, 3)
    first = clip.seconds[0]
    np.testing.assert_allclose(
        places[0], [[first, 4.5, 20.5], [first + 0.3, 58.5, 75.5]]
    )
    with pytest.raises(ValueError, match="`places` must be"):
        clip.to_video([[0, 0]])


@pytest.mark.parametrize(
    "name",
    ["real_clips/arm_wrestling_mmaction2_demo.mp4", "awkward/video_90.mov"],
)
def test_real_clips_fit_their_video(shared, name):
    """Also where the picture is turned: the pixels are those of the video."""
    path = shared / "data" / name
    clip = read_video_clip(path, ClipSpec(2), crop_size=112)
    whole = decode.read_frames(path, clip.numbers[:1])[0].astype(float)
    small = clip.frames[0].astype(float)
    rows, columns = np.meshgrid(
        np.arange(8, 104), np.arange(8, 104), indexing="ij"
    )
    places = clip.to_video(np.stack([0 * rows, rows, columns], axis=-1))

    def error(down, across):
        y, x = np.moveaxis(places[..., 1:].round().astype(int), -1, 0)
        return np.abs(whole[y + down, x + across] - small[rows, columns]).mean()

    here = error(0, 0)
    apart = [error(3, 0), error(-3, 0), error(0, 3), error(0, -3)]
    assert here < 0.8 * min(apart)
    expected = read_clip(ClipRequest(str(path), ClipSpec(2), 112, (128, 128)))
    np.testing.assert_array_equal(clip.frames, expected.frames)


def test_times_of_a_variable_frame_rate(shared):
    path = shared / "data/awkward/made/vfr_2_speeds.mp4"
    times = decode.scan(path).times
    clip = read_video_clip(path, ClipSpec(3, 2), start=2.0, crop_size=32)
    assert times[clip.numbers[0]] <= 2.001 < times[clip.numbers[0] + 1]
    np.testing.assert_array_equal(clip.seconds, times[clip.numbers])
    # On a clock of its own, 10 frames a second.
    even = read_video_clip(
        path, ClipSpec(3, 2, fps=10.0), start=1.0, crop_size=32
    )
    np.testing.assert_allclose(even.seconds, [1, 1.2, 1.4], atol=0.1)


def test_a_clip_longer_than_its_video_comes_back(path):
    clip = read_video_clip(path, SPEC, start=1.2, crop_size=28)
    assert clip.numbers.tolist() == [30, 35, 0, 5]
    np.testing.assert_allclose(clip.to_video([3, 0, 0])[0], 0.2)


def test_frames_without_a_clock(tmp_path, rng):
    for number in range(4):
        keras.utils.save_img(
            tmp_path / f"{number:03}.png", rng.integers(0, 256, (20, 24, 3))
        )
    clip = read_video_clip(tmp_path, ClipSpec(2), crop_size=16)
    assert np.isnan(clip.seconds).all() and clip.numbers.tolist() == [1, 2]
    with pytest.raises(ValueError, match="`fps` must be given"):
        read_video_clip(tmp_path, ClipSpec(2), start=0.1, crop_size=16)
    timed = read_video_clip(
        tmp_path, ClipSpec(2), start=0.1, crop_size=16, fps=10.0
    )
    np.testing.assert_allclose(timed.seconds, [0.1, 0.2])


def test_as_video_clip(path):
    opened = OpenedModel(None, "mine", SPEC, crop_size=28, short_side=32)
    clip = as_video_clip(path, opened, start=0.2)
    assert clip.numbers[0] == 5 and clip.box == (4, 20, 56, 56)
    assert as_video_clip(clip, opened) is clip
    larger = as_video_clip(path, opened, crop_size=32, short_side=32)
    assert larger.box == (0, 16, 64, 64)
    frames = as_video_clip(clip.frames, opened)
    assert isinstance(frames, VideoClip) and np.isnan(frames.seconds).all()
    np.testing.assert_array_equal(frames.to_video([0, 2, 3])[1:], [2, 3])
    with pytest.raises(ValueError, match="`start` is for a path"):
        as_video_clip(clip, opened, start=1.0)
    with pytest.raises(ValueError, match="`video` must be a path"):
        as_video_clip(clip.frames / 255, opened)
    with pytest.raises(ValueError, match="'mine' does not say"):
        as_video_clip(path, dataclasses.replace(opened, clip=None))


def test_says_what_is_wrong(path, tmp_path):
    for start in (-0.1, 1.7, float("nan")):
        with pytest.raises(ValueError, match="`start` must be .* to 1.600 s"):
            read_video_clip(path, SPEC, start=start, crop_size=28)
    with pytest.raises(ValueError, match="`crop_size` must be positive"):
        read_video_clip(path, SPEC, crop_size=28, short_side=27)
    with pytest.raises(VideoError, match="nothing.mp4"):
        read_video_clip(tmp_path / "nothing.mp4", SPEC, crop_size=28)
