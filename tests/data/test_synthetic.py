import itertools
import os

import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import synthetic


def make(root, **changes):
    arguments = {"num_train": 4, "num_test": 2, "num_frames": 8, "size": 32}
    arguments |= {"progress": False} | changes
    return synthetic.make_relation_dataset(root, **arguments)


def read(videos):
    total = decode.scan(videos.paths[0]).num_frames
    return [decode.read_frames(path, range(total)) for path in videos.paths]


def test_lists_and_folders(relation):
    train, test = relation
    assert train.class_names == ("different_colour", "same_colour")
    assert train.labels.tolist() == [0] * 6 + [1] * 6
    assert test.labels.tolist() == [0] * 3 + [1] * 3
    for videos, split in (train, "train"), (test, "test"):
        for path, label in zip(videos.paths, videos.labels, strict=True):
            folder = os.path.join(split, videos.class_names[label])
            assert folder in path
            assert path.endswith(".mp4")


def test_files_are_as_described(relation):
    index = decode.scan(relation[0].paths[0])
    assert (index.num_frames, index.height, index.width) == (16, 32, 32)
    assert index.keyframes.tolist() == [0, 12]


def find_ball(frame, background):
    """Colour and quadrant of the ball, `None` without one."""
    change = np.abs(frame.astype(int) - background).max(-1)
    rows, columns = np.nonzero(change > 60)
    if not len(rows):
        return None
    middle = round(rows.mean()), round(columns.mean())
    errors = np.abs(synthetic.COLOURS - frame[middle]).max(-1)
    return int(errors.argmin()), middle[0] >= 32, middle[1] >= 32


def test_scene(tmp_path):
    """The decoded files show what their class says, where and when."""
    train, _ = make(tmp_path, num_train=8, num_frames=64, size=64)
    for frames, label in zip(read(train), train.labels, strict=True):
        background = frames[32].astype(int)
        balls = [find_ball(frame, background) for frame in frames]
        assert balls[24:40] == [None] * 16
        assert len(set(balls[:24])) == len(set(balls[40:])) == 1
        first, second = balls[0], balls[-1]
        assert (first[0] == second[0]) == bool(label)
        assert (first[1], first[2]) == (not second[1], not second[2])


def test_balls_move(tmp_path):
    train, _ = make(tmp_path, num_frames=64)
    frames = read(train)[0].astype(int)
    for numbers in (0, 12, 23), (40, 52, 63):
        for a, b in itertools.combinations(numbers, 2):
            assert np.abs(frames[a] - frames[b]).max() > 60


def test_pairs_of_colours_are_balanced():
    pairs = [synthetic._colours(number) for number in range(24)]
    assert sorted(pairs[0::2]) == sorted(itertools.permutations(range(4), 2))
    equal = [(i, i) for i in range(4)]
    assert sorted(pairs[1::2]) == sorted(equal * 3)


def test_additive_scores_reach_75_percent_and_no_more():
    """All staircases of all orders of the 16 pairs of colours."""
    weights = np.full((4, 4), 1 / 24) + np.eye(4) * (1 / 8 - 1 / 24)
    equal = np.eye(4, dtype=bool)
    best = 0.0
    steps = [
        heights
        for heights in itertools.product(range(5), repeat=4)
        if list(heights) == sorted(heights, reverse=True)
    ]
    for heights in steps:
        above = np.arange(4) < np.array(heights)[:, np.newaxis]
        for rows in itertools.permutations(range(4)):
            for columns in itertools.permutations(range(4)):
                right = above[np.ix_(rows, columns)] == equal
                share = weights[right].sum()
                best = max(best, share, 1 - share)
    assert best == pytest.approx(0.75)


def test_same_seed_same_videos(tmp_path):
    first = read(make(tmp_path / "a", seed=1)[0])
    second = read(make(tmp_path / "b", seed=1)[0])
    np.testing.assert_array_equal(first, second)
    assert (np.array(first) != read(make(tmp_path / "c", seed=2)[0])).any()


def test_encoding_is_repeatable(tmp_path):
    """Not only the first few files: an encoder may differ now and then."""
    frames = synthetic.relation_frames(
        synthetic.COLOURS[:2], 64, 64, np.random.default_rng(0)
    )
    contents = set()
    for number in range(60):
        path = tmp_path / f"{number}.mp4"
        synthetic.write_video(path, frames)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_train_and_test_differ(tmp_path):
    train, test = make(tmp_path)
    assert (read(train)[0] != read(test)[0]).any()


def test_reuses_what_is_there_and_makes_what_is_missing(tmp_path):
    train, test = make(tmp_path)
    before = [os.stat(path).st_mtime_ns for path in train.paths]
    content = read(test)
    os.remove(test.paths[1])
    again, test = make(tmp_path)
    assert [os.stat(path).st_mtime_ns for path in again.paths] == before
    np.testing.assert_array_equal(read(test), content)


def test_refuses_a_folder_made_with_other_arguments(tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError, match="same arguments"):
        make(tmp_path, seed=1)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(path, frames):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_encode", fail)
    frames = np.zeros((2, 32, 32, 3), "uint8")
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_video(tmp_path / "a.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_progress_bar(tmp_path, capsys):
    make(tmp_path / "a", progress=True)
    assert "6/6" in capsys.readouterr().out
    make(tmp_path / "b", progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_train", 1), ("num_test", 0), ("num_frames", 7), ("size", 33)],
)
def test_refuses(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make(tmp_path, **{name: value})
