"""Frames with times, once through."""

import io
import itertools
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import frame_stream
from keras_nonlocal.data import sampling
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decoders import frame_folder
from keras_nonlocal.data.frame_stream import open_frames
from tests.data import files

FRAME = np.zeros((4, 4, 3), "uint8")
TICKS = np.cumsum([0, *([40, 40, 7, 93, 120] * 7)]).tolist()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """36 frames of 48 x 64 pixels, at times that are not even."""
    frames = files.moving(0, 36, 64)[:, :48]
    path = tmp_path_factory.mktemp("stream") / "uneven.mp4"
    return files.write(path, frames, ticks=TICKS)


def read(video, fps=0.0, time_limit=60.0, at_fps=None, **sizes):
    with open_frames(video, fps=fps, time_limit=time_limit) as stream:
        found = stream.read(fps=at_fps, **sizes)
        times, pictures = zip(*found, strict=True)
        return np.array(times), np.stack(pictures), stream.problems


def test_a_file_is_what_read_frames_gives(video, tmp_path):
    times, pictures, problems = read(video, short_side=32, crop_size=32)
    index = decode.scan(video)
    np.testing.assert_array_equal(times, index.times)
    expected = decode.read_frames(video, range(36), 32)
    assert expected.shape == (36, 32, 42, 3)
    np.testing.assert_array_equal(pictures, expected[:, :, 5:37])
    assert problems == ()
    turned = tmp_path / "turned.mp4"
    files.turn(video, turned)
    _, pictures, _ = read(turned)
    assert pictures.shape == (36, 64, 48, 3)
    expected = decode.read_frames(turned, range(36))
    np.testing.assert_array_equal(pictures, expected)


@pytest.mark.parametrize("fps", [0.7, 9.0, 25.0, 61.0])
def test_another_rate_is_that_of_clips(video, fps):
    index = decode.scan(video)
    line = sampling.timeline(36, index.fps, index.times, target_fps=fps)
    times, pictures, _ = read(video, short_side=16)
    with open_frames(video) as stream:
        found = list(stream.read(fps=fps, short_side=16))
    np.testing.assert_allclose(
        [picture.seconds for picture in found], np.arange(len(line)) / fps
    )
    np.testing.assert_array_equal(
        np.stack([picture.picture for picture in found]), pictures[line]
    )


def test_any_times_are_brought_to_a_rate_as_for_clips(rng):
    for _ in range(200):
        count = int(rng.integers(1, 30))
        # As files have them, in milliseconds.
        steps = rng.integers(3, 200, count - 1) / 1000
        times = np.concatenate([[0.0], np.cumsum(steps)])
        fps, target = float(rng.choice([0, 15, 30])), rng.uniform(0.5, 90)
        if count == 1:
            fps = 30.0
        pairs = zip(times, range(count), strict=True)
        found = frame_stream.at_rate(pairs, target, fps)
        expected = sampling.timeline(count, fps, times, target_fps=target)
        numbers = [number for _, number in found]
        np.testing.assert_array_equal(numbers, expected)


def test_damage_is_told_and_the_rest_read(tmp_path):
    whole = files.write(tmp_path / "a.mp4", files.moving(1, 100), g="10")
    expected = decode.read_frames(whole, range(100))
    files.cut(whole, tmp_path / "cut.mp4", 0.8)
    times, pictures, problems = read(tmp_path / "cut.mp4")
    assert 20 < len(pictures) < 90
    same = (pictures == expected[: len(pictures)]).all(axis=(1, 2, 3))
    assert same[:-2].all()
    assert any(
        line.startswith("early end") and "the file says 4.00 s" in line
        for line in problems
    )
    files.damage(whole, tmp_path / "holes.mp4")
    times, pictures, problems = read(tmp_path / "holes.mp4")
    assert any(line.startswith("damaged frame at ") for line in problems)
    assert len(pictures) > 60 and (np.diff(times) > 0).all()
    # What can be decoded again after the damage is at its own time.
    assert times[-1] == pytest.approx(3.96)
    with pytest.raises(VideoError, match="none.mp4"):
        (tmp_path / "none.mp4").write_text("no video")
        read(tmp_path / "none.mp4")


def test_a_clock_that_jumps_is_set_right(tmp_path):
    ticks = [0, 40, 80, 200_080, 200_120, 200_160]
    path = files.write(tmp_path / "jump.mkv", files.moving(0, 6), ticks=ticks)
    times, _, problems = read(path)
    np.testing.assert_allclose(times, np.arange(6) / 25, atol=1e-6)
    assert problems == ("jump of the clock at 0.08 s",)
    pairs = [(1.7e9 + tick / 1000, FRAME) for tick in ticks]
    times, _, problems = read(iter(pairs))
    np.testing.assert_allclose(times, np.arange(6) / 25, atol=1e-6)
    assert problems == ("jump of the clock at 0.08 s",)


@pytest.mark.parametrize(
    ("codec", "ticks"),
    [
        ("libx264", range(0, 960, 40)),
        ("mpeg4", [0, 40, 80, 1000, 1040, 1080]),
    ],
)
def test_times_of_avi(tmp_path, codec, ticks):
    """Of frames in another order than shown, and in order with gaps."""
    frames = files.moving(0, len(ticks))
    given = None if codec == "libx264" else ticks
    path = files.write(tmp_path / "a.avi", frames, codec, ticks=given)
    times, _, problems = read(path)
    np.testing.assert_allclose(times, np.array(ticks) / 1000, atol=1e-6)
    assert problems == ()


def test_sound_that_begins_before_and_ends_after(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", 25)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("aac", 44100)
        packets = []
        for number, picture in enumerate(files.moving(0, 10)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number + 50, Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode()
        for pts in range(0, 4 * 44100, 1024):
            silence = np.zeros((2, 1024), "float32")
            frame = av.AudioFrame.from_ndarray(silence, "fltp", "stereo")
            frame.sample_rate = 44100
            frame.pts, frame.time_base = pts, Fraction(1, 44100)
            packets += sound.encode(frame)
        packets += sound.encode()
        for packet in sorted(packets, key=lambda x: x.dts * x.time_base):
            container.mux(packet)
    with open_frames(path) as stream:
        assert [x.seconds for x in stream.read()][:2] == [0, 0.04]
        assert stream.begins == pytest.approx(2.0, abs=0.03)
        assert stream.problems == ()


def test_long_gaps_have_no_end_of_ticks(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_TICKS", 200)
    ticks = [50_000 * number for number in range(5)]
    path = files.write(tmp_path / "a.mkv", files.moving(0, 5), ticks=ticks)
    with open_frames(path) as stream:
        assert sum(1 for _ in stream.read(fps=25.0)) == 200
        (line,) = stream.problems
        assert line.startswith("early end at 8.00 s: at 25 fps")
    # What goes on for ever may.
    with open_frames(itertools.repeat(FRAME), fps=1) as stream:
        ticks = stream.read(fps=1.0)
        assert len(list(itertools.islice(ticks, 300))) == 300


def test_no_frame_in_time(video):
    with pytest.raises(VideoError, match="within the limit"):
        read(video, time_limit=1e-6)
    with pytest.raises(ValueError, match="`time_limit` must be"):
        read(video, time_limit=0)
    # Only reading counts, not what is done with the frames meanwhile.
    with open_frames(video, time_limit=0.3) as stream:
        frames = stream.read()
        next(frames)
        time.sleep(0.4)
        next(frames)
        with decode.time_limit(1e-9), pytest.raises(decode.TimeLimitError):
            decode.check_time("outside")
        decode.check_time("outside")


def test_a_folder_with_a_picture_that_is_none(tmp_path, monkeypatch):
    frames = files.moving(0, 5)
    folder = files.write_folder(tmp_path / "frames", frames)
    times, pictures, problems = read(folder, fps=2)
    np.testing.assert_array_equal(pictures, frames)
    (folder / "img_00003.png").write_bytes(b"no picture")
    times, pictures, problems = read(folder, fps=2)
    np.testing.assert_array_equal(times, [0, 0.5, 1.5, 2.0])
    np.testing.assert_array_equal(pictures, frames[[0, 1, 3, 4]])
    (line,) = problems
    assert line.startswith("picture that cannot be read at 1.00 s: ")
    # The size is that of the first one that can be read.
    (folder / "img_00001.png").write_bytes(b"no picture")
    times, pictures, problems = read(folder, fps=2)
    np.testing.assert_array_equal(times, [0.5, 1.5, 2.0])
    assert problems[0].startswith("picture that cannot be read at 0.00 s and 1")
    with pytest.raises(VideoError, match="frames: `fps` must say"):
        read(folder)
    # As of a file, the time limit ends the video.
    original = frame_folder._decode

    def slow(picture):
        if "4" in picture[-6:]:
            time.sleep(0.4)
            decode.check_time(picture)
        return original(picture)

    monkeypatch.setattr(frame_folder, "_decode", slow)
    times, _, problems = read(folder, fps=2, time_limit=0.3)
    np.testing.assert_array_equal(times, [0.5])
    assert problems[1].startswith("early end at 1.50 s: ")


def test_frames_are_taken_one_at_a_time():
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            frame = np.full((8, 8, 3), number % 256, "uint8")
            yield 10.0 + number / 4, frame

    with open_frames(endless()) as stream:
        found = list(itertools.islice(stream.read(), 3))
    assert [picture.seconds for picture in found] == [0, 0.25, 0.5]
    assert [int(p.picture[0, 0, 0]) for p in found] == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_an_array_that_is_filled_again():
    def camera():
        picture = np.empty((8, 8, 3), "uint8")
        for number in range(4):
            picture[:] = number
            yield number / 4, picture

    for fps in (None, 4.0):
        _, pictures, _ = read(camera(), at_fps=fps)
        assert pictures[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_frames_of_another_size_are_told():
    frames = [FRAME, np.zeros((8, 4, 3), "uint8"), FRAME]
    _, pictures, problems = read(frames, fps=1)
    assert pictures.shape == (3, 4, 4, 3)
    assert problems == ("stretched frame of another size at 1.00 s",)


@pytest.mark.parametrize(
    ("video", "fps", "message"),
    [
        ("https://example.org/a.mp4", 0, "must be a path here"),
        ("concat:a.mp4", 0, "No such file"),
        (7, 0, "must be a path, an array or an iterable"),
        (FRAME, 1, r"must be uint8 \(T, H, W, 3\)"),
        (FRAME[None], 0, "`fps` must say"),
        ([FRAME], 0, "`fps` must say"),
        ([FRAME], -1, "`fps` must be 0 or more"),
        (b"a.mp4", 1, "must be a path as text"),
        (io.BytesIO(b"a"), 1, "not an open file"),
        ([[[[0, 0, 0]], [[0, 0, 0]]]], 1, r"int64 of shape \(2, 1, 3\)"),
        ([FRAME / 2], 1, "float64 of shape"),
        ([FRAME[..., :1]], 1, r"shape \(4, 4, 1\)"),
        ([(1.0, FRAME), (0.5, FRAME)], 0, "finite and rise"),
        ([(float("nan"), FRAME)], 0, "finite and rise"),
        ([], 1, "no frame could be read"),
    ],
)
def test_says_what_is_wrong(video, fps, message):
    with pytest.raises(ValueError, match=message):
        read(video, fps=fps)


def test_without_a_camera():
    with pytest.raises(VideoError, match="camera|/dev/"):
        next(frame_stream.camera("/dev/no-such-camera"))
