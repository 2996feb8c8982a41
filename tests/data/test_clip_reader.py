import os
import signal
import threading
import time

import numpy as np
import pytest

from keras_nonlocal.data import clip_reader
from keras_nonlocal.data import skips as skips_module
from keras_nonlocal.data.clip_reader import ClipReader
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList

UNITS = np.array([0.9, 0.99, 0.5, 0.2, 0.3], "float32")


def reader(videos, **changes):
    arguments = {
        "clip": ClipSpec(4, 2),
        "crop_size": 24,
        "short_side": (24, 32),
        "flip": False,
        "flip_pairs": (),
        "decoder": "auto",
        "seconds": 60.0,
        "skips": SkipLog(),
    }
    return ClipReader(videos, **arguments | changes)


def pids(pool):
    return [worker._process.pid for worker in pool._workers]


def test_the_next_video_stands_in(relation, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    paths = (str(bad), str(tmp_path / "missing.mp4"), relation[1].paths[0])
    videos = VideoList(paths, [0, 0, 1], ("a", "b"))
    ours = reader(videos)
    frames, label = ours.training(0, UNITS)
    assert label == 1
    assert label.dtype == np.int32
    assert frames.shape == ours.shape == (4, 24, 24, 3)
    assert set(ours.skips.reasons) == set(paths[:2])
    assert ours.skips.summary()["clips_read"] == 1


def test_evaluation_gives_none(tmp_path):
    videos = VideoList((str(tmp_path / "missing.mp4"),), [[1, 0]], ("a", "b"))
    clips, labels = reader(videos).evaluation(np.int64(0))
    assert clips.shape == (0, 4, 24, 24, 3)
    assert labels.shape == (0, 2)


def test_what_happens_in_the_clip(relation):
    """Frames 8 to 14 of 16, at 25 a second: from 0.32 to 0.56 s."""
    actions = [[[0, 0.0, 0.31], [1, 0.2, 0.33], [2, 0.57, 0.64]]]
    videos = VideoList(
        relation[1].paths[:1], None, ("a", "b", "c"), actions=actions
    )
    _, label = reader(videos).training(0, UNITS)
    assert label.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("clip", "segment", "first", "last"),
    [
        (ClipSpec(4, 2), None, 8, 14),
        (ClipSpec(4, 2, fps=24.0), None, 7, 13),
        (ClipSpec(4, 6), None, 0, 12),  # Looped: 0, 6, 12 and 2.
        (ClipSpec(4, 6, short="clamp"), None, 0, 15),
        (ClipSpec(4, 2), (0.2, 0.52), 5, 11),
        (ClipSpec(1), None, 14, 14),
    ],
)
def test_labels_of_a_clip_are_those_of_its_frames(
    relation, clip, segment, first, last
):
    """Of all from the first to the last, with those that are left out.

    Class k happens at frame k of 16 and nowhere else.
    """
    times = np.arange(16) / 25
    rows = np.stack([np.arange(16), times - 0.01, times + 0.01], axis=1)
    videos = VideoList(
        relation[1].paths[:1],
        None,
        tuple(f"frame {number}" for number in range(16)),
        None if segment is None else [segment],
        actions=[rows],
    )
    _, label = reader(videos, clip=clip).training(0, UNITS)
    assert np.flatnonzero(label).tolist() == list(range(first, last + 1))
    assert reader(videos, clip=clip).evaluation(0)[1].sum() == 16


def test_actions_that_touch_the_clip_happen_in_it(relation):
    """From 0.32 to 0.56 s of a video of 0.64 s."""
    actions = [[0, 0.1, 0.32], [1, 0.56, 99.0], [2, 0.1, 0.319], [3, 0.64, 9.0]]
    videos = VideoList(
        relation[1].paths[:1], None, tuple("abcd"), actions=[actions]
    )
    _, label = reader(videos).training(0, UNITS)
    assert label.tolist() == [1, 1, 0, 0]


def test_mirrored_labels(relation):
    videos = VideoList(relation[1].paths[:1], [1], ("a", "left", "right"))
    for flip, expected in ((False, 1), (True, 2)):
        ours = reader(videos, flip=flip, flip_pairs=((1, 2),))
        assert ours.training(0, UNITS)[1] == expected


def test_warns_once_about_each_file(relation, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(
        skips_module.logging,
        "warning",
        lambda _, unit, error: warned.append(f"{unit} {error}"),
    )
    paths = [str(tmp_path / f"{name}.mp4") for name in "ab"]
    videos = VideoList((*paths, relation[1].paths[0]), [0, 0, 0], ("a",))
    ours = reader(videos)
    for _ in range(3):
        ours.training(0, UNITS)
    said = [f"a video {path}" for path in paths]
    assert sorted(text.split(": ")[0] for text in warned) == said


def test_a_worker_that_hangs_is_killed(relation, monkeypatch):
    """Stopped like a decoder that is stuck, it does not keep time itself."""
    videos = VideoList(relation[1].paths[:2], [0, 1], ("a", "b"))
    monkeypatch.setattr(clip_reader, "_GRACE", 0.5)
    with clip_reader.make_pool(1, 0.5) as pool:
        ours = reader(videos, seconds=0.5, pool=pool)
        assert ours.training(0, UNITS)[1] == 0
        (worker,) = pids(pool)
        os.kill(worker, signal.SIGSTOP)
        start = time.monotonic()
        assert ours.training(0, UNITS)[1] == 1
        assert 0.9 < time.monotonic() - start < 20
        assert ours.skips.slow == 1
        assert videos.paths[0] in ours.skips.reasons[videos.paths[0]]
        assert pids(pool) != [worker]


def test_a_worker_that_dies_costs_one_clip(relation):
    videos = VideoList(relation[1].paths[:2], [0, 1], ("a", "b"))
    with clip_reader.make_pool(1, 60.0) as pool:
        ours = reader(videos, pool=pool)
        ours.training(0, UNITS)
        (worker,) = pids(pool)
        os.kill(worker, signal.SIGSTOP)
        timer = threading.Timer(0.3, os.kill, (worker, signal.SIGKILL))
        timer.start()
        assert ours.training(0, UNITS)[1] == 1
        timer.join()
        assert "SIGKILL" in ours.skips.reasons[videos.paths[0]]
        assert ours.training(0, UNITS)[1] == 0


def test_no_pool_without_workers():
    assert clip_reader.make_pool(0, 1.0) is None
