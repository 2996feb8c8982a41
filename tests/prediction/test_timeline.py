"""What is made of scores over time."""

import csv
import dataclasses
import io
import json
import re

import matplotlib.image
import numpy as np
import pytest

from keras_nonlocal.prediction.timeline import Timeline

NAMES = ("run", '=x,"<b>{\\an8}\n-->', "$100\n\N{SNOWMAN} \udcff")


def make(best, span=2.0, stride=2.0, **fields):
    """Windows of which class `best` has 0.75."""
    starts = stride * np.arange(len(best))
    scores = np.full((len(best), 3), 0.125, "float32")
    scores[np.arange(len(best)), best] = 0.75
    seconds = np.stack([starts, starts + span], axis=1)
    return Timeline(seconds, scores, NAMES, **fields)


def parts(timeline):
    return [
        (segment.start, segment.end, [index for index, *_ in segment.classes])
        for segment in timeline.segments()
    ]


def test_the_same_class_is_one_segment():
    timeline = make([0, 0, 2, 2, 0])
    assert parts(timeline) == [(0, 4, [0]), (4, 8, [2]), (8, 10, [0])]
    # Of windows that overlap, the one whose middle is nearest counts.
    assert parts(make([0, 0, 2, 0], span=4.0)) == [
        (0, 5, [0]),
        (5, 7, [2]),
        (7, 10, [0]),
    ]
    # Where no window was, there is nothing.
    assert parts(make([0, 0, 2], span=1.0)) == [
        (0, 1, [0]),
        (2, 3, [0]),
        (4, 5, [2]),
    ]


def test_spans_of_windows_of_any_length(rng):
    seconds = np.sort(rng.uniform(0, 9, (50, 2)), axis=1)
    seconds = seconds[np.argsort(seconds[:, 0])]
    spans = Timeline(seconds, np.zeros((50, 3)), NAMES).spans()
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()


def test_windows_that_touch_are_one_segment_whatever_their_lengths():
    seconds = np.array([[0, 1], [1, 4], [4, 4.5], [4.2, 4.9]])
    scores = np.array([[0.75, 0.25]] * 4, "float32")
    timeline = Timeline(seconds, scores, ("a", "b"))
    assert parts(timeline) == [(0, 4.9, [0])]


def test_means_and_the_best():
    timeline = make([0, 0, 2], top_count=2)
    np.testing.assert_allclose(timeline.mean(), [1.625 / 3, 0.125, 1 / 3])
    assert [index for index, *_ in timeline.mean_top()] == [0, 2]
    assert timeline.top()[2] == [(2, NAMES[2], 0.75), (0, "run", 0.125)]
    assert [len(best) for best in timeline.top(9)] == [3, 3, 3]


def test_several_classes_above_a_threshold():
    timeline = make([0, 0, 2, 1], is_multi_label=True)
    scores = timeline.scores
    scores[1, 2] = 0.5
    scores[3] = 0.25
    assert [[i for i, *_ in best] for best in timeline.top()] == [
        [0],
        [0, 2],
        [2],
        [],
    ]
    assert parts(timeline) == [(0, 2, [0]), (2, 4, [0, 2]), (4, 6, [2])]


def test_subtitles(tmp_path):
    timeline = make([0, 1, 2, 2], span=1800.25, stride=1800.25)
    timeline.write(tmp_path / "a.srt")
    text = (tmp_path / "a.srt").read_text(encoding="utf-8")
    blocks = text.split("\n\n")
    assert [block.splitlines()[:2] for block in blocks] == [
        ["1", "00:00:00,000 --> 00:30:00,250"],
        ["2", "00:30:00,250 --> 01:00:00,500"],
        ["3", "01:00:00,500 --> 02:00:01,000"],
    ]
    for block in blocks:
        number, times, line = block.splitlines()
        assert re.fullmatch(r"[^<>{}]+ \(75%\)", line)
    # Shorter than a millisecond is a millisecond.
    make([0], span=1e-5).write_srt(tmp_path / "b.srt")
    assert "00:00:00,000 --> 00:00:00,001" in (tmp_path / "b.srt").read_text()
    # A player's clock begins with the sound.
    make([0], about={"begins": 1.5}).write_srt(tmp_path / "b.srt")
    assert "00:00:01,500 --> 00:00:03,500" in (tmp_path / "b.srt").read_text()


def test_tables(tmp_path):
    make([1, 2], top_count=2).write(tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["start"], row["rank"], row["class"]) for row in rows] == [
        ("0.000", "1", "1"),
        ("0.000", "2", "0"),
        ("2.000", "1", "2"),
        ("2.000", "2", "0"),
    ]
    # No formula, and in one line.
    assert rows[0]["class_name"] == """'=x,"<b>{\\an8} -->"""
    assert rows[2]["class_name"] == "$100 \N{SNOWMAN} ?"
    odd = dataclasses.replace(make([0]), class_names=("a\rb", "\t=1", "\r@"))
    odd.write(tmp_path / "b.csv")
    text = (tmp_path / "b.csv").read_bytes().decode()
    names = [line.split(",")[4] for line in text.splitlines()[1:]]
    assert names == ["a b", "'=1", "'@"]
    assert rows[2]["score"] == "0.750000"


def test_json(tmp_path):
    timeline = make([1, 2], about={"video": "a\udcff.mp4"}, problems=("x",))
    timeline.write(tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found == json.loads(json.dumps(timeline.as_dict()))
    assert found["video"] == "a\udcff.mp4" and found["problems"] == ["x"]
    assert [window["end"] for window in found["windows"]] == [2.0, 4.0]
    assert found["windows"][0]["top"][0] == {
        "class": 1,
        "class_name": NAMES[1],
        "score": 0.75,
    }
    assert found["class_names"] == list(NAMES)
    np.testing.assert_allclose(found["mean"], timeline.mean(), atol=1e-6)


def test_strip(tmp_path):
    red = np.zeros((8, 8, 3), "uint8") + np.array([255, 0, 0], "uint8")
    timeline = make([0, 0, 2, 1, 0, 0], thumbnails=((1.0, red),))
    timeline.write(tmp_path / "a.PNG")
    picture = matplotlib.image.imread(tmp_path / "a.PNG")[..., :3] * 255

    def columns(*colour):
        return np.nonzero((picture.round() == colour).all(axis=2))[1]

    blue, orange, green = (
        columns(*colour)
        for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115))
    )
    # The lanes: the longest first, in the order of their means.
    assert len(blue) > 1.5 * len(orange) > 0 and len(green)
    left, width = blue.min(), np.ptp(blue)
    # High bars are thicker than the rest of a lane: seen at 4 of 6 windows.
    shares = (blue - left) // (width / 6 + 1)
    counts = np.bincount(shares.astype(int), minlength=6)
    assert (counts[[0, 1, 4, 5]] > 3 * max(counts[[2, 3]])).all()
    # And the frame above the first of them.
    assert left <= columns(255, 0, 0).min() < left + width / 6


@pytest.mark.parametrize("name", ["a", "a.txt", "json"])
def test_refuses_other_files(tmp_path, name):
    with pytest.raises(ValueError, match=".json, .csv, .srt or .png"):
        make([0]).write(tmp_path / name)
    assert not list(tmp_path.iterdir())
