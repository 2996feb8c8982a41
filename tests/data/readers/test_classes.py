import json

import pytest

from keras_nonlocal.data.readers.classes import label_of_number
from keras_nonlocal.data.readers.classes import names_of_numbers
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import parse_class_names
from keras_nonlocal.data.readers.classes import resolved_names


def test_kinetics_files_agree(official):
    names = parse_class_names(official("kinetics400_label_map.txt"))
    assert len(names) == 400
    assert names == sorted(names)
    classids = official("kinetics400_nonlocal_classids.json")
    assert classids.count('\\"') == 2 * 320
    assert parse_class_names(classids) == names


def test_ucf101_files_agree(official):
    names = parse_class_names(official("ucf101_classInd.txt"))
    label_map = official("mmaction2_ucf101_label_map.txt").split()
    assert [x.lower() for x in names] == [x.lower() for x in label_map]
    assert set(names) - set(label_map) == {"HandStandPushups"}
    assert len(names) == 101


def test_something_labels(official):
    names = official("mmaction2_sthv2_label_map.txt").splitlines()
    as_official = {name: str(n) for n, name in enumerate(names)}
    assert parse_class_names(json.dumps(as_official)) == names
    assert parse_class_names(json.dumps(names)) == names


def test_charades_classes():
    text = "c000 Holding some clothes\nc001 Putting clothes somewhere\n"
    assert parse_class_names(text) == [
        "Holding some clothes",
        "Putting clothes somewhere",
    ]


def test_names_that_begin_with_numbers():
    text = "100 metres\nrunning"
    assert parse_class_names(text) == ["100 metres", "running"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "1 to 100000 different names"),
        ("run\nrun", r"wrong: \['run'\]"),
        ('{"run": 0, "jump": 2}', "must number its 2 classes"),
        ('{"run": 0, "jump": 0}', "must number its 2 classes"),
        ('{"run": 0, "jump": null}', "must number its 2 classes"),
        ('{"run": 5}', "must number its 1 classes"),
        ("1 run\n3 jump", "must number its 2 classes"),
        ('{"run": 0', "names.json must be JSON"),
        ("[" * 10**5, "names.json must be JSON"),
        ('{"run": %s}' % ("9" * 10**4), "names.json must be JSON"),
    ],
)
def test_bad_files(text, match):
    with pytest.raises(ValueError, match=match):
        parse_class_names(text, "names.json")


def test_resolved_names(tmp_path):
    (tmp_path / "names.txt").write_text("run\njump\n")
    expected = ["run", "jump"]
    assert resolved_names(("run", "jump")) == expected
    assert resolved_names(tmp_path / "names.txt") == expected
    assert resolved_names(str(tmp_path / "names.txt")) == expected
    assert resolved_names(None) is None
    with pytest.raises(ValueError, match="`class_names` must have"):
        resolved_names(["run", "run"])
    with pytest.raises(ValueError, match="`class_names` must have"):
        numbered(["run", "run"])


@pytest.mark.parametrize("text", ["-1", "2", "1.0", "", "²", "1" * 5000])
def test_label_of_number(text):
    with pytest.raises(Exception, match="unknown label"):
        label_of_number(text, 2)


def test_names_of_numbers_are_bounded():
    with pytest.raises(Exception, match="unknown label"):
        label_of_number("999999999", None)
    assert names_of_numbers([]) == ["0"]
