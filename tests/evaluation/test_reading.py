import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import VideoList
from keras_nonlocal.data import decode
from keras_nonlocal.data import worker
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.evaluation import reading
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.evaluation.protocols import Protocol
from keras_nonlocal.evaluation.reading import Request
from keras_nonlocal.evaluation.reading import read_clips
from keras_nonlocal.evaluation.reading import read_videos
from tests.data import files

SMALL = {
    name: dataclasses.replace(
        protocol, num_clips=min(protocol.num_clips, 3)
    ).scaled(28)
    for name, protocol in PROTOCOLS.items()
}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("reading") / "video.mp4"
    frames = files.moving(0, num_frames=200, size=64)[:, :48]
    write_video(path, frames)
    return str(path)


@pytest.mark.parametrize("name", list(SMALL))
def test_views_are_those_frames_and_crops(video, name):
    protocol = dataclasses.replace(SMALL[name], flips=True)
    clip = protocol.clip(ClipSpec(4, 3))
    found = read_clips(Request(video, clip, protocol))
    every = decode.read_frames(video, np.arange(200), protocol.short_side)
    places = protocol.places(clip, 200, fps=25.0)
    for views in found.settings.values():
        for view in views:
            top, left, height, width, flip = view.window
            expected = every[places[view.clip]]
            expected = expected[:, top : top + height, left : left + width]
            expected = expected[:, :, ::-1] if flip else expected
            np.testing.assert_array_equal(found.cut(view), expected)


def test_each_frame_is_read_once(video, monkeypatch):
    read = []
    real = decode.read_frames

    def count(path, indices, *others):
        read.extend(indices)
        return real(path, indices, *others)

    monkeypatch.setattr(decode, "read_frames", count)
    protocol = Protocol("x", 10, crops="three", crop_size=32, short_side=32)
    found = read_clips(Request(video, ClipSpec(16, 2), protocol))
    assert len(read) == len(set(read)) == len(found.frames)
    assert len(read) < 11 * 16


def test_long_stretches_are_not_decoded(video, monkeypatch):
    """Where a keyframe is beyond the gap, reading goes on there."""
    runs = []
    real = decode.read_frames

    def note(path, indices, *others):
        runs.append(list(indices))
        return real(path, indices, *others)

    monkeypatch.setattr(decode, "read_frames", note)
    # With a keyframe every 12 frames.
    protocol = Protocol("x", 2, crop_size=32, short_side=32)
    read_clips(Request(video, ClipSpec(2, 1), protocol))
    assert runs == [[0, 1], [99, 100, 101]]


def test_what_a_video_is_that_is_too_short(video):
    protocol = SMALL["clip"]
    clip = ClipSpec(201, 1, short="error")
    with pytest.raises(VideoError, match="video.mp4: .*200 frames"):
        read_clips(Request(video, clip, protocol))


def test_bounds_of_memory_and_time(video, monkeypatch):
    request = Request(video, ClipSpec(4), SMALL["clip"], seconds=1e-9)
    with pytest.raises(TimeLimitError, match=r"video\.mp4"):
        read_clips(request)
    monkeypatch.setattr(reading, "_MAX_BYTES", 4 * 28 * 28 * 3 - 1)
    request = dataclasses.replace(request, seconds=60.0)
    with pytest.raises(VideoError, match="4 frames of 28x28 .*9408"):
        read_clips(request)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_several_videos_come_in_order(video, tmp_path, num_workers):
    (tmp_path / "text.mp4").write_text("not a video")
    paths = [video, str(tmp_path / "text.mp4"), video, str(tmp_path / "none")]
    segments = [[0.0, 1.0], [0, np.nan], [2.0, np.nan], [0, np.nan]]
    videos = VideoList(paths, [0] * 4, ("x",), segments)
    read = list(
        read_videos(
            videos,
            [3, 2, 1, 0],
            ClipSpec(4, 3),
            SMALL["clip"],
            seconds=60.0,
            num_workers=num_workers,
        )
    )
    assert [number for number, _ in read] == [3, 2, 1, 0]
    none, last, text, first = (found for _, found in read)
    for error, name in ((none, "none"), (text, "text.mp4")):
        assert isinstance(error, VideoError) and name in str(error)
    every = decode.read_frames(video, np.arange(200), 32)
    for found, begin, total in ((first, 0, 25), (last, 50, 150)):
        numbers = begin + (total - 12) // 2 + 3 * np.arange(4)
        (view,) = found.settings["1 clip"]
        top, left = view.window[:2]
        np.testing.assert_array_equal(
            found.cut(view),
            every[numbers, top : top + 28, left : left + 28],
        )


def test_leaving_early_ends_the_workers(video):
    videos = VideoList([video] * 50, [0] * 50, ("x",))
    read = read_videos(
        videos, range(50), ClipSpec(4), SMALL["clip"], num_workers=1, seconds=60
    )
    others = set(worker._pools)
    next(read)
    pools = set(worker._pools) - others
    read.close()
    assert pools and not any(pool._workers for pool in pools)


def test_workers_import_neither_keras_nor_tensorflow():
    script = (
        "import sys, types\n"
        "package = types.ModuleType('keras_nonlocal')\n"
        f"package.__path__ = [{worker._PACKAGE_FOLDER!r}]\n"
        "sys.modules['keras_nonlocal'] = package\n"
        "import keras_nonlocal.evaluation.reading\n"
        "print({'keras', 'tensorflow'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "set()\n", result.stderr
