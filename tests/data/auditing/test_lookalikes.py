import base64

import numpy as np

from keras_nonlocal.data.auditing.lookalikes import lookalikes
from keras_nonlocal.data.auditing.video import inspect
from tests.data import files


def pictures(path):
    return inspect((str(path), "all")).pictures


def pairs(cells):
    return list(
        lookalikes([base64.b64encode(x.tobytes()).decode() for x in cells])
    )


def test_copies_of_another_size_and_quality_are_found(tmp_path):
    frames = files.moving(0, size=64)
    paths = [
        files.write(tmp_path / "original.mp4", frames),
        files.write(tmp_path / "other.mp4", files.moving(1, size=64)),
        files.write(tmp_path / "small.mp4", frames[:, ::2, ::2]),
        files.write(tmp_path / "poor.mp4", frames, crf="40"),
        files.write(tmp_path / "old.avi", frames, "mpeg4", b="200k"),
    ]
    found = list(lookalikes([pictures(path) for path in paths]))
    assert sorted(found) == [(2, 0), (3, 0), (4, 0)]


def test_other_moments_of_a_scene_are_no_copies(tmp_path):
    """A still background with something small that moves."""
    background = files.moving(0, 1, size=64)[0]
    frames = np.repeat(background[np.newaxis], 128, axis=0)
    for number, frame in enumerate(frames):
        frame[10:26, 20 + number // 4 :][:, :8] = 255
    paths = [
        files.write(tmp_path / "first.mp4", frames[:64]),
        files.write(tmp_path / "second.mp4", frames[64:]),
        files.write(tmp_path / "again.mp4", frames[64:], crf="28"),
    ]
    assert list(lookalikes([pictures(path) for path in paths])) == [(2, 1)]


def test_videos_in_which_nothing_moves_look_like_no_other():
    rng = np.random.default_rng(0)
    still = rng.integers(256, size=(1, 8, 8), dtype="uint8").repeat(8, 0)
    assert pairs([still, still]) == []


def test_all_are_compared_with_all():
    rng = np.random.default_rng(0)
    cells = rng.integers(256, size=(60, 8, 8, 8), dtype="uint8")
    # As dark as the others, so that all are neighbours.
    originals = rng.permutation(60)[:20]
    noise = rng.integers(-4, 5, size=(20, 8, 8, 8))
    copies = np.clip(cells[originals] + noise, 0, 255).astype("uint8")
    expected = [(60 + i, int(n)) for i, n in enumerate(originals)]
    assert sorted(pairs(np.concatenate([cells, copies]))) == expected


def test_nothing_to_compare():
    assert list(lookalikes([])) == []
    assert list(lookalikes(["", ""])) == []
