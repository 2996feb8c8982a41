import json
import os

import pytest

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text


def test_writes_all_of_it(tmp_path):
    write_json(tmp_path / "a.json", {"a\udcff": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "a\udcff": [1, None]
    }
    write_text(tmp_path / "a.json", "\u00e9\n")
    assert (tmp_path / "a.json").read_bytes() == b"\xc3\xa9\n"
    assert os.listdir(tmp_path) == ["a.json"]


def test_leaves_nothing_behind_that_is_not_whole(tmp_path):
    path = tmp_path / "a.html"
    write_text(path, "earlier")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "later \udcff")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "text")
    assert path.read_text() == "earlier"
    assert sorted(os.listdir(tmp_path)) == ["a.html", "folder"]
