import numpy as np
import pytest

from keras_nonlocal.data.readers.charades import parse_charades
from keras_nonlocal.data.readers.charades import read_charades
from keras_nonlocal.data.videos import Problem

HEADER = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,"
    "actions,length"
)


def csv(*rows):
    """Rows as official: id, actions, length and invented words."""
    made = [
        f'{name},HR43,Kitchen,6,7,Yes,"A person, cooking.",food;stove,'
        f'"She said ""hello"", cooks.",{actions},{length}'
        for name, actions, length in rows
    ]
    return "\n".join([HEADER, *made]) + "\n"


def test_actions():
    text = csv(
        ("YSKX3", "c092 11.90 21.20;c147 0.00 12.60;c092 1.00 2.00", "31.50"),
        ("ABCDE", "", "12.00"),
    )
    videos = parse_charades(text, source="train.csv")
    assert videos.paths == ("YSKX3.mp4", "ABCDE.mp4")
    assert videos.actions[0].tolist() == [
        [92, 11.9, 21.2],
        [147, 0, 12.6],
        [92, 1, 2],
    ]
    assert videos.multi_label
    assert videos.labels.shape == (2, 157)
    assert np.argwhere(videos.labels).tolist() == [[0, 92], [0, 147]]
    assert videos.class_names[92] == "c092"
    assert videos.problems == (
        Problem("no actions", "train.csv, line 3", "ABCDE.mp4"),
    )


def test_mends_actions():
    text = csv(
        (
            "YSKX3",
            "c000 1.00 40.00;c001 5.00 5.00;c002 6.00 5.00;c003 31.00 40.00;"
            "c004 31.50 32.00;c005 a b;c999 1.00 2.00;c006 nan 2.00;"
            "c007 -1.00 2.00",
            "31.50",
        )
    )
    videos = parse_charades(text)
    assert videos.actions[0].tolist() == [[0, 1, 31.5], [3, 31, 31.5]]
    # What happens at an impossible time happens all the same.
    assert np.flatnonzero(videos.labels[0]).tolist() == [0, 1, 2, 3, 4]
    assert videos.problem_counts() == {
        "action ends after the video": 2,
        "action ends before it starts": 2,
        "action outside the video": 1,
        "malformed action": 3,
        "unknown label": 1,
    }


def test_long_numbers_take_no_time():
    videos = parse_charades(csv(("A", f"c001 {'1' * 10**5}x 2", "3")))
    assert videos.problem_counts() == {"malformed action": 1, "no actions": 1}


def test_malformed_rows():
    text = csv(("A", "", "nan"), ("", "", "1"), ("../B", "", "1"), ("C", "", 1))
    videos = parse_charades(text)
    assert videos.paths == ("C.mp4",)
    assert videos.problem_counts() == {
        "malformed row": 2,
        "path outside the root": 1,
        "no actions": 1,
    }
    with pytest.raises(ValueError, match="rows of id,...,actions,length"):
        parse_charades(csv(("A", "", "")))
    with pytest.raises(ValueError, match="columns actions"):
        parse_charades("id,length\nA,1")


def test_reads_what_exists(tmp_path, touch):
    (tmp_path / "Charades_v1_classes.txt").write_text(
        "c000 Holding some clothes\nc001 Putting clothes somewhere\n"
    )
    (tmp_path / "train.csv").write_text(
        csv(("A", "c001 0.00 5.00", "9.00"), ("B", "c000 0.00 5.00", "9.00"))
    )
    touch("videos/A.mp4", "frames/B/B-000001.jpg")
    videos = read_charades(
        tmp_path / "train.csv",
        tmp_path / "videos",
        class_names=tmp_path / "Charades_v1_classes.txt",
    )
    assert videos.paths == (str(tmp_path / "videos/A.mp4"),)
    assert videos.class_names[1] == "Putting clothes somewhere"
    assert videos.labels.tolist() == [[0, 1]]
    assert videos.actions[0].tolist() == [[1, 0, 5]]
    assert videos.problem_counts() == {"missing file": 1}
    frames = read_charades(
        tmp_path / "train.csv", tmp_path / "frames", extension=""
    )
    assert frames.paths == (str(tmp_path / "frames/B"),)
