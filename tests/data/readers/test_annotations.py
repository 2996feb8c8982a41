import os

import numpy as np
import pytest

from keras_nonlocal.data.readers import annotations
from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import csv_rows
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList


def collect(entries):
    found = Collector("x.txt", "rows of a path")
    rows = [(f"x.txt, line {n}", entry) for n, entry in enumerate(entries, 1)]
    found.collect(rows, lambda entry: entry)
    return found.videos(("run", "jump"))


def test_read_text_drops_the_byte_order_mark(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfpath\r\n")
    assert read_text(tmp_path / "a.csv") == "path\r\n"


def test_read_text_is_bounded(tmp_path):
    (tmp_path / "a.csv").write_text("12345")
    assert read_text(tmp_path / "a.csv", limit=5) == "12345"
    with pytest.raises(ValueError, match="a.csv must have at most 4 bytes"):
        read_text(tmp_path / "a.csv", limit=4)


def test_read_text_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe \(not a file\)"):
        read_text(tmp_path / "pipe")


def test_read_text_names_what_is_wrong(tmp_path):
    (tmp_path / "a.csv").write_bytes("path".encode("utf-16"))
    with pytest.raises(ValueError, match="a.csv must be UTF-8"):
        read_text(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"b.csv \(does not exist\)"):
        read_text(tmp_path / "b.csv")


def test_an_open_quotation_mark_spoils_one_row():
    rows, split = csv_rows('path,label\n"a,1\nb,2\nc,3,4', "x.csv", ["path"])
    found = Collector("x.csv", "rows")
    assert [row["path"] for _, row in found.parsed(rows, split)] == ["b"]
    assert [problem.where for problem in found.problems] == [
        "x.csv, line 2",
        "x.csv, line 4",
    ]
    assert found.problems[1].detail == "2 columns expected, 3 found: c,3,4"


def test_header_in_quotation_marks_and_capitals():
    rows, split = csv_rows('"Path", LABEL\na,1', "x.csv", ["path", "label"])
    assert [split(row) for _, row in rows] == [{"path": "a", "label": "1"}]


@pytest.mark.parametrize("header", ["path", "path,label,label", ""])
def test_wrong_header(header):
    with pytest.raises(ValueError, match="x.csv must have .* columns label"):
        csv_rows(f"{header}\na,1", "x.csv", ["label"])


def test_keeps_the_first_of_two_rows():
    videos = collect([Entry("a", 0), Entry("a", 0), Entry("a", 1)])
    assert videos.labels.tolist() == [0]
    assert videos.problems == (
        Problem(
            "duplicate row", "x.txt, line 2", "a; kept that of x.txt, line 1"
        ),
        Problem(
            "contradicting rows",
            "x.txt, line 3",
            "a; kept that of x.txt, line 1",
        ),
    )


def test_segments_of_one_file_are_videos():
    videos = collect([Entry("a", 0), Entry("a", 0, (1.0, None))])
    np.testing.assert_array_equal(videos.segments, [[0, np.nan], [1, np.nan]])


@pytest.mark.parametrize("path", ["../a", "b/../../a", "..", ".", "b/.."])
def test_paths_stay_in_the_root(path):
    videos = collect([Entry(path, 0), Entry("fine", 1)])
    assert videos.paths == ("fine",)
    assert videos.problems == (
        Problem("path outside the root", "x.txt, line 1", path),
    )


def test_no_usable_row():
    found = Collector("x.txt", "rows of a path", "hello\n")

    def fail(row):
        raise RowError("malformed row", "why")

    found.collect([("x.txt, line 1", "hello")], fail)
    with pytest.raises(
        ValueError,
        match=r"x.txt must have rows of a path. Received no usable row "
        r"\(x.txt, line 1: malformed row \(why\)\); first line: 'hello'",
    ):
        found.videos(("run",))


def test_located_in_a_root(tmp_path, touch):
    touch("root/a.mp4", "other.mp4", "rooted.mp4")
    paths = [
        "a.mp4",
        "missing.mp4",
        str(tmp_path / "root" / "a.mp4"),
        str(tmp_path / "other.mp4"),
        str(tmp_path / "root" / ".." / "other.mp4"),
        str(tmp_path / "rooted.mp4"),
    ]
    listed = VideoList(paths, [0] * 6, ("run",))
    videos = located(listed, tmp_path / "x.txt", tmp_path / "root")
    assert videos.paths == (str(tmp_path / "root/a.mp4"),) * 2
    assert videos.problem_counts() == {
        "path outside the root": 3,
        "missing file": 1,
    }


def test_located_without_a_root(tmp_path, touch):
    touch("lists/a.mp4", "other.mp4")
    listed = VideoList(("a.mp4", str(tmp_path / "other.mp4")), [0, 0], ("run",))
    videos = located(listed, tmp_path / "lists" / "x.txt", None)
    assert videos.paths == (
        str(tmp_path / "lists/a.mp4"),
        str(tmp_path / "other.mp4"),
    )


def test_located_nowhere(tmp_path):
    listed = VideoList(("a.mp4", "b\0.mp4"), [0, 0], ("run",))
    with pytest.raises(
        ValueError, match=r"one of the 2 videos of x.txt .*/a.mp4: missing file"
    ):
        located(listed, "x.txt", tmp_path)


def test_labels_of_many_classes_are_bounded(monkeypatch):
    monkeypatch.setattr(annotations, "_MAX_LABELS", 3)
    assert collect([Entry("a", (0, 1))]).labels.tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="at most 3 .* 2 times 2"):
        collect([Entry("a", (0, 1)), Entry("b", ())])
