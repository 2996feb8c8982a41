import numpy as np
import pytest

from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList


def make(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = tuple(f"{i}.mp4" for i in range(len(labels)))
    return VideoList(paths, labels, tuple("abcdef"[: len(counts)]))


def test_keeps_a_read_only_copy_of_the_labels():
    labels = np.array([0, 1])
    videos = VideoList(("x", "y"), labels, ("a", "b"))
    labels[0] = 1
    assert videos.labels.tolist() == [0, 1]
    assert videos.labels.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        videos.labels[0] = 1


@pytest.mark.parametrize(
    ("paths", "labels", "names", "message"),
    [
        (("x",), [0, 1], ("a", "b"), "`labels` must have shape"),
        (("x",), [2], ("a", "b"), r"`labels` must be in \[0, 2\)"),
        (("x",), [-1], ("a", "b"), r"`labels` must be in \[0, 2\)"),
        (("x",), [0.5], ("a", "b"), "`labels` must be integers"),
        ((), [], (), "`class_names`"),
        (("x",), [0], ("",), "`class_names`"),
        (("x",), [0], ("a", "a"), "different names"),
    ],
)
def test_says_what_is_wrong(paths, labels, names, message):
    with pytest.raises(ValueError, match=message):
        VideoList(paths, labels, names)


def test_subset_keeps_order_and_classes():
    part = make([2, 2]).subset([3, 0])
    assert part.paths == ("3.mp4", "0.mp4")
    assert part.labels.tolist() == [1, 0]
    assert part.class_names == ("a", "b")
    assert len(make([2, 2]).subset([])) == 0


def test_split_is_stratified_and_complete():
    videos = make([10, 20, 5])
    first, second = videos.split(0.2, seed=3)
    assert np.bincount(second.labels).tolist() == [2, 4, 1]
    assert sorted(first.paths + second.paths) == sorted(videos.paths)
    order = [videos.paths.index(path) for path in first.paths]
    assert order == sorted(order)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_leaves_each_side_a_video_of_each_class(fraction):
    first, second = make([2, 3, 1]).split(fraction)
    assert set(first.labels) == {0, 1, 2}
    assert set(second.labels) == {0, 1}


def test_split_depends_on_the_seed_only():
    videos = make([50])
    same = [videos.split(0.5, seed=7)[1].paths for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != videos.split(0.5, seed=8)[1].paths


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_split_refuses_other_fractions(fraction):
    with pytest.raises(ValueError, match="`fraction`"):
        make([4]).split(fraction)


def several(**changes):
    arguments = {
        "paths": ("x", "y", "z"),
        "labels": None,
        "class_names": ("a", "b", "c"),
        "actions": [[[1, 0.0, 2.0], [2, 1.0, 3.0]], [], [[0, 4.0, 5.0]]],
        "segments": [[0.0, 9.0], [1.0, np.nan], [2.0, 3.0]],
    }
    return VideoList(**arguments | changes)


def test_several_classes_are_those_of_the_actions():
    videos = several()
    assert videos.multi_label
    assert videos.labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert videos.labels.dtype == np.float32
    given = np.ones((3, 3))
    assert several(labels=given).labels.tolist() == given.tolist()


def test_subset_keeps_segments_actions_and_problems():
    problem = Problem("missing file", "w", "listed in train.csv")
    part = several(problems=[problem]).subset([2, 1])
    assert part.paths == ("z", "y")
    np.testing.assert_array_equal(part.segments, [[2, 3], [1, np.nan]])
    assert [len(rows) for rows in part.actions] == [1, 0]
    assert part.problem_counts() == {"missing file": 1}
    assert str(problem) == "w: missing file (listed in train.csv)"


def test_split_of_several_classes():
    labels = np.repeat([[1, 0], [0, 1], [0, 0]], 4, axis=0)
    paths = tuple(str(i) for i in range(12))
    videos = VideoList(paths, labels, ("a", "b"))
    train, validation = videos.split(0.25)
    assert validation.labels.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert sorted(train.paths + validation.paths) == sorted(paths)


def test_existing_lists_what_is_missing(tmp_path):
    there = tmp_path / "there.mp4"
    there.touch()
    missing = str(tmp_path / "missing.mp4")
    videos = VideoList((missing, str(there)), [0, 1], ("a", "b")).existing()
    assert videos.paths == (str(there),)
    assert videos.labels.tolist() == [1]
    assert videos.problems == (Problem("missing file", missing),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((3, 2))}, r"must have shape \(3, 3\)"),
        ({"labels": np.full((3, 3), 0.5)}, "must be zeros and ones"),
        ({"labels": np.zeros((3, 3))}, "the classes of all `actions`"),
        ({"labels": [0, 0, 0]}, "the classes of all `actions`"),
        ({"fps": -1.0}, "`fps` must be 0 or positive"),
        ({"actions": [[]]}, "`actions` must have 3 arrays"),
        ({"actions": [[[3, 0, 1]], [], []]}, "class number in .*video 0"),
        ({"actions": [[], [[1, 2, 2]], []]}, "start < end.*video 1"),
        ({"segments": [[0, 1]]}, "3 pairs of seconds.*Received: 1 pairs"),
        ({"segments": [[0, 1], [2, 2], [0, 1]]}, r"wrong ones: \[\[2.0, 2.0\]"),
        ({"segments": [[0, 1], [np.nan, 2], [0, 1]]}, "wrong ones"),
        ({"segments": [[0, 1], [-1, 2], [0, 1]]}, "wrong ones"),
    ],
)
def test_says_what_is_wrong_with_times(changes, message):
    with pytest.raises(ValueError, match=message):
        several(**changes)


def test_subset_by_mask():
    videos = make([2, 2])
    assert videos.subset(videos.labels == 1).paths == ("2.mp4", "3.mp4")
    for wrong in ([True], [0.0, 1.0]):
        with pytest.raises(ValueError, match="integers or 4 booleans"):
            videos.subset(wrong)


def test_parts_of_one_file_stay_together():
    paths = [f"{name}.mp4" for name in "ddccbbaa"]
    segments = [[0, 1], [1, 2]] * 4
    videos = VideoList(paths, [0] * 8, ("x",), segments)
    train, validation = videos.split(0.5, seed=1)
    assert len(train) == len(validation) == 4
    assert not set(train.paths) & set(validation.paths)
    assert validation.segment(1) == (1.0, 2.0)
    assert make([1]).segment(0) is None
