import numpy as np
import pytest

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
