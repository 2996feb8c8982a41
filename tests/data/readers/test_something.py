import json
import re

import pytest

from keras_nonlocal.data.readers.something import parse_something
from keras_nonlocal.data.readers.something import read_something

NAMES = ("Closing something", "Holding something next to something")
ROW = {
    "id": "78687",
    "label": "holding potato next to vicks vaporub bottle",
    "template": "Holding [something] next to [something]",
    "placeholders": ["potato", "vicks vaporub bottle"],
}


def row(**changes):
    return {**ROW, **changes}


def test_every_class_with_brackets(official):
    names = official("mmaction2_sthv2_label_map.txt").splitlines()
    rows = [
        row(id=str(n), template=re.sub("(something)", r"[\1]", name))
        for n, name in enumerate(names)
    ]
    videos = parse_something(json.dumps(rows), names)
    assert videos.labels.tolist() == list(range(174))
    assert videos.paths[173] == "173.webm"
    assert videos.problems == ()


def test_problems():
    rows = [
        row(),
        row(template="Flying"),
        {"id": "1"},
        "1",
        row(id="../1"),
        row(id="2", template=None),
        row(template="Closing [something]"),
    ]
    videos = parse_something(json.dumps(rows), NAMES, source="train.json")
    assert videos.paths == ("78687.webm",)
    assert [(x.kind, x.where) for x in videos.problems] == [
        ("unknown label", "train.json, entry 2"),
        ("malformed row", "train.json, entry 3"),
        ("malformed row", "train.json, entry 4"),
        ("path outside the root", "train.json, entry 5"),
        ("unknown label", "train.json, entry 6"),
        ("contradicting rows", "train.json, entry 7"),
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[{"id": "1420"}, {"id": "3095"}]', "a test list without labels"),
        ("{}", "must have a JSON list"),
        ("[", "must be JSON"),
        ("[" * 10**5, "must be JSON"),
        (json.dumps([ROW])[:-1], "must be JSON"),
        (json.dumps([row(template="Flying")]), "entry 1: unknown label"),
    ],
)
def test_bad_files(text, match):
    with pytest.raises(ValueError, match=match):
        parse_something(text, NAMES)


def test_reads_what_exists(tmp_path, touch):
    (tmp_path / "train.json").write_text(json.dumps([row(), row(id="5")]))
    touch("videos/78687.webm", "frames/5/000001.jpg")
    with pytest.raises(ValueError, match="has no labels.json or something-"):
        read_something(tmp_path / "train.json", tmp_path / "videos")
    (tmp_path / "labels.json").write_text(
        json.dumps({NAMES[1]: "1", NAMES[0]: "0"})
    )
    videos = read_something(tmp_path / "train.json", tmp_path / "videos")
    assert videos.paths == (str(tmp_path / "videos/78687.webm"),)
    assert videos.labels.tolist() == [1]
    assert videos.class_names == NAMES
    assert videos.problem_counts() == {"missing file": 1}
    frames = read_something(
        tmp_path / "train.json",
        tmp_path / "frames",
        class_names=NAMES,
        extension="",
    )
    assert frames.paths == (str(tmp_path / "frames/5"),)
