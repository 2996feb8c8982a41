import sys

import numpy as np
import pytest

from keras_nonlocal.data.readers.table import parse_table
from keras_nonlocal.data.readers.table import read_column
from keras_nonlocal.data.readers.table import read_table


def test_names():
    videos = parse_table("label,path,other\nrun,a.mp4,x\njump,b.mp4,y\n")
    assert videos.paths == ("a.mp4", "b.mp4")
    assert videos.class_names == ("jump", "run")
    assert videos.labels.tolist() == [1, 0]
    assert videos.segments is None


def test_numbers():
    videos = parse_table("path,label\na.mp4,2\nb.mp4,0\n")
    assert videos.class_names == ("0", "1", "2")
    assert videos.labels.tolist() == [2, 0]
    named = parse_table(
        "path,label\na.mp4,2\nb.mp4,run\n", class_names=["jump", "swim", "run"]
    )
    assert named.labels.tolist() == [2, 2]


def test_a_number_that_is_too_large():
    videos = parse_table("path,label\na.mp4,2\nb.mp4,999999999\n")
    assert videos.labels.tolist() == [2]
    assert videos.problem_counts() == {"unknown label": 1}


def test_names_that_are_numbers():
    text = "path,label\na.mp4,10\nb.mp4,1\n"
    videos = parse_table(text, class_names=["10", "20"])
    assert videos.labels.tolist() == [0, 1]


def test_several_labels():
    text = "path,label\na.mp4,run;jump\nb.mp4,run\nc.mp4,\n"
    videos = parse_table(text, source="x.csv")
    assert videos.labels.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert [str(x) for x in videos.problems] == [
        "x.csv, line 4: no labels (c.mp4)"
    ]


def test_segments():
    text = "path,label,start,end\na,x,1,2.5\na,x,,3\na,x,4,\nb,x,,\n"
    expected = [[1, 2.5], [0, 3], [4, np.nan], [0, np.nan]]
    videos = parse_table(text)
    np.testing.assert_array_equal(videos.segments, expected)


def test_problems():
    text = "\n".join(
        [
            "path,label,start,end",
            "a,run,,",
            ",run,,",
            "b,,,",
            "c,run,2,1",
            "d,run,-1,1",
            "e,run,nan,1",
            "f,fly,,",
            "g,5,,",
            "../h,run,,",
            "a,run,,",
            "i,run",
        ]
    )
    videos = parse_table(text, class_names=["run"])
    assert videos.paths == ("a",)
    assert videos.problem_counts() == {
        "malformed row": 6,
        "unknown label": 2,
        "path outside the root": 1,
        "duplicate row": 1,
    }


def test_nothing_usable():
    with pytest.raises(ValueError, match=r"rows of path,label\[,start,end\]"):
        parse_table("path,label\na,\n")
    with pytest.raises(ValueError, match="columns label, each once"):
        parse_table("path,class\na,b\n")


def test_reads_what_exists(tmp_path, touch):
    (tmp_path / "x.csv").write_bytes(
        b"\xef\xbb\xbfpath,label\r\na,run\r\nb,run"
    )
    touch("videos/a")
    videos = read_table(tmp_path / "x.csv", tmp_path / "videos")
    assert videos.paths == (str(tmp_path / "videos/a"),)
    assert videos.problem_counts() == {"missing file": 1}


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    # Python then raises what it raises where there is none.
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"keras-nonlocal\[parquet\]"):
        read_table(tmp_path / "x.parquet")


def write_parquet(path, columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


def test_parquet(tmp_path, touch):
    write_parquet(
        tmp_path / "x.parquet",
        {
            "path": ["a", "b", None],
            "label": [1.0, 0.0, 0.0],
            "end": [2.5, None, 1.0],
            "other": [1, 2, 3],
        },
    )
    touch("a", "b")
    videos = read_table(tmp_path / "x.parquet")
    assert videos.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(videos.segments, [[0, 2.5], [0, np.nan]])
    assert [str(x) for x in videos.problems] == [
        "x.parquet, row 3: malformed row (no path)"
    ]


def test_parquet_with_lists_of_labels(tmp_path, touch):
    write_parquet(
        tmp_path / "x.parquet",
        {"path": ["a", "b"], "label": [["run", "jump"], []]},
    )
    touch("a", "b")
    videos = read_table(tmp_path / "x.parquet")
    assert videos.class_names == ("jump", "run")
    assert videos.labels.tolist() == [[1, 1], [0, 0]]


def test_bad_parquet(tmp_path):
    write_parquet(tmp_path / "x.parquet", {"path": ["a"], "class": ["b"]})
    with pytest.raises(ValueError, match="x.parquet must have the columns"):
        read_table(tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content[:-20])
    with pytest.raises(ValueError, match="x.parquet cannot be read"):
        read_table(tmp_path / "x.parquet")


def read_with_column(path, column):
    videos = read_table(path)
    return videos, read_column(path, column, videos)


def test_a_further_column(tmp_path, touch):
    (tmp_path / "x.csv").write_text(
        "path,label,Subject,start,end\n"
        "b,run,ann,,\n"
        "gone,run,bob,,\n"
        "a,jump,bob,0,1\n"
        "a,jump,eve,1,\n"
        "a,jump,,2,1\n"
        "b,run,ann,,\n"
    )
    touch("a", "b")
    videos, subjects = read_with_column(tmp_path / "x.csv", "subject")
    assert subjects == ("ann", "bob", "eve")
    some = videos.subset([2, 0])
    assert read_column(tmp_path / "x.csv", "SUBJECT", some) == ("eve", "ann")


def test_a_further_column_in_another_root(tmp_path, touch):
    (tmp_path / "x.csv").write_text("path,label,subject\na,run,7\n")
    touch("videos/a")
    videos = read_table(tmp_path / "x.csv", tmp_path / "videos")
    found = read_column(
        tmp_path / "x.csv", "subject", videos, tmp_path / "videos"
    )
    assert found == ("7",)


def test_a_further_column_of_parquet(tmp_path, touch):
    write_parquet(
        tmp_path / "x.parquet",
        {"path": ["a", "b"], "label": ["run", "jump"], "Subject": [3.0, 4.0]},
    )
    touch("a", "b")
    _, subjects = read_with_column(tmp_path / "x.parquet", "Subject")
    assert subjects == ("3", "4")
    with pytest.raises(ValueError, match="columns path, label, subject"):
        read_with_column(tmp_path / "x.parquet", "subject")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,run,x\nb,run,\n", r"for every video.*/b: \[''\]"),
        ("a,run,x\nb,run,y\na,run,z\n", r"/a: \['x', 'z'\]"),
    ],
)
def test_a_further_column_that_is_not_known(tmp_path, touch, rows, words):
    (tmp_path / "x.csv").write_text(f"path,label,subject\n{rows}")
    touch("a", "b")
    with pytest.raises(ValueError, match=words):
        read_with_column(tmp_path / "x.csv", "subject")


def test_a_further_column_that_is_missing(tmp_path, touch):
    (tmp_path / "x.csv").write_text("path,label\na,run\n")
    touch("a")
    with pytest.raises(ValueError, match="x.csv must have .* columns subject"):
        read_with_column(tmp_path / "x.csv", "subject")
