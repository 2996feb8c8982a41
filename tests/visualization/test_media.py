import builtins

import av
import numpy as np
import PIL.Image
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.visualization import media

COLOURS = np.array([[230, 40, 30], [40, 200, 50], [30, 60, 220]], "uint8")


def bars(num_frames, height, width):
    """A bar of another place and colour in every frame, on grey."""
    frames = np.full((num_frames, height, width, 3), 128, "uint8")
    for number, frame in enumerate(frames):
        left = (number * 4) % (width - 4)
        frame[:, left : left + 4] = COLOURS[number % 3]
    return frames


def read_gif(path):
    """Frames and the seconds that each is shown."""
    frames, seconds = [], []
    with PIL.Image.open(path) as image:
        assert image.info["loop"] == 0
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            seconds.append(image.info["duration"] / 1000)
    return np.array(frames), np.array(seconds)


@pytest.mark.parametrize("fps", [30, 12.5, 50])
def test_gif_has_the_frames_at_their_times(tmp_path, fps):
    frames = bars(7, 9, 33)
    media.write_gif(tmp_path / "a.gif", frames, fps)
    found, seconds = read_gif(tmp_path / "a.gif")
    np.testing.assert_allclose(found, frames, atol=2)
    # In hundredths, whose errors do not add up.
    starts = np.cumsum(seconds) - seconds
    np.testing.assert_allclose(starts, np.arange(7) / fps, atol=0.00501)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_gif_of_many_colours_has_no_noise_where_nothing_moves(tmp_path, rng):
    still = rng.integers(0, 256, (24, 24, 3), "uint8")
    frames = np.stack([still] * 3)
    frames[1, :4, :4] = 0
    media.write_gif(tmp_path / "a.gif", frames, 10)
    found, _ = read_gif(tmp_path / "a.gif")
    assert (found[0, 8:] == found[1, 8:]).all()
    assert (found[1, :4, :4] < 16).all()
    assert np.abs(found[0].astype(int) - still).mean() < 20


@pytest.mark.parametrize("fps", [25, 29.97, 7.3, 0.5])
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_mp4_has_the_frames_at_their_times(tmp_path, monkeypatch, fps, encoder):
    if encoder == "mpeg4":
        monkeypatch.setattr(media, "_can_encode", "mpeg4".__eq__)
    # Odd: a row and a column are repeated.
    frames = bars(8, 33, 47)
    path = tmp_path / "a.mp4"
    media.write_mp4(path, frames, fps)
    index = decode.scan(str(path))
    assert (index.num_frames, index.height, index.width) == (8, 34, 48)
    np.testing.assert_allclose(index.times, np.arange(8) / fps, atol=1e-3)
    found = decode.read_frames(str(path), np.arange(8), 34)
    # Colours of 2x2 pixels are one.
    error = np.abs(np.asarray(found)[:, :33, :47].astype(int) - frames)
    assert error.mean() < 12
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert context.name == {"libx264": "h264"}.get(encoder, encoder)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_one_frame_of_one_pixel_is_a_video(tmp_path):
    frames = np.full((1, 1, 1, 3), 200, "uint8")
    media.write_gif(tmp_path / "a.gif", frames, 1)
    media.write_mp4(tmp_path / "a.mp4", frames, 1)
    assert read_gif(tmp_path / "a.gif")[0].shape == (1, 1, 1, 3)
    assert decode.scan(str(tmp_path / "a.mp4")).num_frames == 1


@pytest.mark.parametrize("write", [media.write_gif, media.write_mp4])
def test_says_what_is_wrong_and_keeps_what_was_there(tmp_path, write):
    path = tmp_path / "a"
    path.write_text("before")
    frames = bars(2, 8, 8)
    for wrong in (frames[0], frames[:0], frames / 255, frames[..., :1]):
        with pytest.raises(ValueError, match="`frames` must be uint8"):
            write(path, wrong, 10)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`fps` must be from 0.0"):
            write(path, frames, fps)
    with pytest.raises(OSError):
        write(tmp_path / "absent" / "a", frames, 10)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_gif_is_not_faster_than_browsers_play(tmp_path):
    with pytest.raises(ValueError, match="to 50 frames per second"):
        media.write_gif(tmp_path / "a.gif", bars(2, 8, 8), 60)


def test_slowest_rates(tmp_path):
    frames = bars(3, 8, 8)
    media.write_gif(tmp_path / "a.gif", frames, 1 / 655)
    assert read_gif(tmp_path / "a.gif")[1].tolist() == [655] * 3
    media.write_mp4(tmp_path / "a.mp4", frames, 1 / 3600)
    index = decode.scan(str(tmp_path / "a.mp4"))
    times = index.timestamps / index.timestamps[1]
    assert index.num_frames == 3 and times.tolist() == [0, 1, 2]
    with av.open(str(tmp_path / "a.mp4")) as container:
        unit = container.streams.video[0].time_base
    assert index.timestamps[1] * unit == 3600
    # What a GIF can hold is 655.35 seconds a picture.
    with pytest.raises(ValueError, match="`fps` must be from 0.00153 to 50"):
        media.write_gif(tmp_path / "b.gif", frames, 1 / 656)
    with pytest.raises(ValueError, match="the same for more than 655 seconds"):
        media.write_gif(tmp_path / "b.gif", frames[[0, 1, 1]], 1 / 400)
    assert not (tmp_path / "b.gif").exists()


def test_says_how_to_get_pillow(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install .*\[plot\]"):
        media.write_gif(tmp_path / "a.gif", bars(2, 8, 8), 10)
