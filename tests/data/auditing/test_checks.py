import base64

import numpy as np
import pytest

from keras_nonlocal.data.auditing.checks import check
from keras_nonlocal.data.auditing.video import VideoFacts
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList

NAMES = ("jump", "run")


def facts(path, **fields):
    values = {
        "size": 1,
        "container": "mp4",
        "sha256": path,
        "num_frames": 100,
        "height": 32,
        "width": 32,
        "fps": 25.0,
        "seconds": 4.0,
        "has_times": True,
    }
    return VideoFacts(**{**values, **fields})


def findings(splits, known=None, clip=None, **arguments):
    """What is found in lists, most of whose files are fine."""
    paths = {path for videos in splits.values() for path in videos.paths}
    known = {**{path: facts(path) for path in paths}, **(known or {})}
    found = check(splits, known, clip or ClipSpec(32, 2), **arguments)
    return [(x.severity, x.kind, x.where, x.detail) for x in found]


def text(pictures):
    return base64.b64encode(pictures.tobytes()).decode()


def both(paths, labels=(0, 1), **fields):
    """A list with videos of both classes."""
    return VideoList(paths, labels, NAMES, **fields)


def test_problems_of_the_list():
    problems = (Problem("missing file", "x"), Problem("odd label", "y", "z"))
    assert findings({"all": both("ab", problems=problems)}) == [
        ("error", "missing file", "x", ""),
        ("warning", "odd label", "y", "z"),
    ]


def test_balance():
    videos = VideoList([str(i) for i in range(12)], [0] * 11 + [1], NAMES)
    assert findings({"all": videos}) == [
        ("warning", "unbalanced classes", "all", "11 of 'jump', 1 of 'run'")
    ]
    videos = VideoList("ab", [1, 1], [f"class {i}" for i in range(8)])
    assert findings({"all": videos}) == [
        (
            "warning",
            "class without videos",
            "all",
            "7 of 8: class 0, class 2, class 3, class 4, class 5 and 2 more",
        )
    ]


def test_classes_of_the_splits():
    splits = {"a": both("ab"), "b": VideoList("cd", [0, 1], NAMES[::-1])}
    ((severity, kind, where, detail),) = findings(splits)
    assert (severity, kind, where) == ("error", "different classes", "a and b")
    assert "a: 2 classes from 'jump' on, b: 2 classes from 'run' on" in detail


def test_several_classes():
    videos = VideoList("abc", np.array([[1, 0], [0, 0], [1, 1]]), NAMES)
    assert findings({"all": videos}) == [
        ("note", "videos without a class", "all", "1 of 3")
    ]


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([[0, 3], [0, np.nan]], []),
        # Half a second is no matter: clocks and annotators differ.
        ([[0, 4.4], [0, 3]], []),
        (
            [[0, 4.6], [0, 3]],
            [
                (
                    "warning",
                    "segment past the end",
                    "a",
                    "the segment ends at 4.60 s, the file at 4.00 s",
                )
            ],
        ),
        (
            [[0, 3], [4, np.nan]],
            [
                (
                    "error",
                    "segment past the end",
                    "b",
                    "the segment starts at 4.00 s, the file at 4.00 s",
                )
            ],
        ),
        (
            [[0, 3], [1, 3]],
            [
                (
                    "warning",
                    "short",
                    "b",
                    "50 of the 63 frames that a 32x2 clip spans",
                )
            ],
        ),
    ],
)
def test_segments(segments, expected):
    assert findings({"all": both("ab", segments=segments)}) == expected


def test_segments_need_times():
    known = {"b": facts("b", seconds=0.0, fps=0.0, num_frames=70)}
    videos = both("ab", segments=[[0, 3], [1, 9]])
    assert findings({"all": videos}, known) == []


@pytest.mark.parametrize(
    ("clip", "frames"),
    [
        # 4 seconds at 25 frames a second.
        (ClipSpec(50, 2), None),
        (ClipSpec(51, 2), "100 of the 101"),
        (ClipSpec(20, 2, fps=10.0), None),
        (ClipSpec(21, 2, fps=10.0), "40 of the 41"),
        (ClipSpec(99, 2, fps=50.0, short="loop"), None),
        (ClipSpec(60, 2, rule="slowfast"), None),
        (ClipSpec(61, 2, rule="slowfast"), "100 of the 102"),
        (ClipSpec(61, 2, rule="slowfast", fps=30.0), "120 of the 122"),
    ],
)
def test_frames_that_a_clip_needs(clip, frames):
    expected = []
    if frames:
        detail = f"{frames} frames that a {clip} clip spans"
        expected = [("warning", "short", path, detail) for path in "ab"]
    assert findings({"all": both("ab")}, clip=clip) == expected


def test_the_frame_rate_of_the_list():
    folder = {"seconds": 0.0, "fps": 0.0, "has_times": False, "container": ""}
    known = {path: facts(path, **folder) for path in "ab"}
    segments = [[0, 7], [10, 12]]
    videos = both("ab", segments=segments, fps=10.0)
    assert findings({"all": videos}, known, ClipSpec(8, 2)) == [
        (
            "error",
            "segment past the end",
            "b",
            "the segment starts at 10.00 s, the file at 10.00 s",
        )
    ]
    videos = both("ab", segments=[[0, 7], [9, 10]], fps=10.0)
    assert findings({"all": videos}, known, ClipSpec(8, 2)) == [
        ("warning", "short", "b", "10 of the 15 frames that a 8x2 clip spans")
    ]


def test_actions():
    actions = [[[0, 0.0, 4.4]], [[1, 0.0, 2.0], [0, 1.0, 9.0]]]
    assert findings({"all": both("ab", None, actions=actions)}) == [
        (
            "note",
            "action past the end",
            "b",
            "an action ends at 9.00 s, the file at 4.00 s",
        )
    ]


def test_videos_listed_again():
    assert findings({"all": both("aab", [0, 0, 1])}) == [
        ("warning", "listed repeatedly", "a", "2 times in all")
    ]
    assert findings({"all": both("aab", [0, 1, 1])}) == [
        (
            "error",
            "conflicting labels",
            "a",
            "listed as jump and as run",
        )
    ]
    # Several parts of one recording are no repeats.
    segments = [[0, 3], [1, 4], [0, 3]]
    assert findings({"all": both("aab", [0, 1, 1], segments=segments)}) == []


def test_leaks():
    known = {"b": facts("b", sha256="d"), "d": facts("d")}
    splits = {"train": both("abc", [0, 1, 0]), "test": both("ad")}
    assert findings(splits, known) == [
        ("error", "leak", "a", "listed in train and test"),
        ("error", "leak", "d", "the same file as b, in train and test"),
    ]


def test_copies_with_two_labels():
    known = {"b": facts("b", sha256="a")}
    assert findings({"all": both("ab")}, known) == [
        (
            "error",
            "conflicting labels",
            "b",
            "the same file as a, as jump and as run",
        )
    ]
    rng = np.random.default_rng(0)
    cells = rng.integers(256, size=512, dtype="uint8")
    noise = rng.integers(-3, 4, size=512)
    copy = np.clip(cells + noise, 0, 255).astype("uint8")
    known = {
        path: facts(path, pictures=text(pictures))
        for path, pictures in (("a", cells), ("b", cells[::-1]), ("c", copy))
    }
    assert findings({"all": both("abc", [0, 1, 0])}, known) == [
        ("warning", "duplicate pictures", "c", "the same pictures as a")
    ]


def test_groups():
    splits = {"train": both(["g1_a", "g2_b"]), "test": both(["g2_c", "g3_d"])}
    assert findings(splits, group_of=lambda path: path[:2]) == [
        (
            "error",
            "group in several splits",
            "g2",
            "test: g2_c, train: g2_b",
        )
    ]


def test_what_follows_from_a_fault_is_left_out():
    known = {"a": facts("a", fault="truncated", num_frames=3, is_even=False)}
    assert findings({"all": both("ab")}, known) == [
        ("error", "truncated", "a", "")
    ]
