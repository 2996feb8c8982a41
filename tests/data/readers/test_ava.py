import numpy as np
import pytest

from keras_nonlocal.data.readers.ava import parse_frame_list
from keras_nonlocal.data.readers.ava import read_ava_frames

HEADER = "original_vido_id video_id frame_id path labels\n"
AVA = HEADER + (
    '-5KQ66BBWC4 0 0 -5KQ66BBWC4/-5KQ66BBWC4_000001.jpg ""\n'
    '-5KQ66BBWC4 0 1 -5KQ66BBWC4/-5KQ66BBWC4_000002.jpg ""\n'
    '-FaXLcSFjUI 1 0 -FaXLcSFjUI/-FaXLcSFjUI_000001.jpg """"\n'
)
CHARADES = HEADER + (
    'YSKX3 0 12 YSKX3/YSKX3-000003.jpg "9"\n'
    'YSKX3 0 10 YSKX3/YSKX3-000001.jpg "1,9"\n'
    'YSKX3 0 11 YSKX3/YSKX3-000002.jpg "1"\n'
)


def test_ava_has_no_labels():
    videos = parse_frame_list(AVA)
    assert videos.paths == ("-5KQ66BBWC4", "-FaXLcSFjUI")
    assert videos.class_names == ("unlabelled",)
    assert videos.labels.tolist() == [[0], [0]]
    assert [len(rows) for rows in videos.actions] == [0, 0]
    assert videos.problems == ()
    named = parse_frame_list(AVA, class_names=["stand", "sit"])
    assert named.labels.tolist() == [[0, 0], [0, 0]]


def test_stretches_of_frames():
    videos = parse_frame_list(CHARADES, fps=4)
    assert videos.paths == ("YSKX3",)
    assert np.argwhere(videos.labels).tolist() == [[0, 1], [0, 9]]
    assert videos.actions[0].tolist() == [
        [1, 0, 0.5],
        [9, 0, 0.25],
        [9, 0.5, 0.75],
    ]


def test_times_where_a_row_is_missing():
    text = CHARADES.replace('"1"', '"1,x"')
    videos = parse_frame_list(text, fps=4)
    assert videos.problem_counts() == {"unknown label": 1}
    assert videos.actions[0].tolist() == [
        [1, 0, 0.25],
        [9, 0, 0.25],
        [9, 0.5, 0.75],
    ]


def test_problems():
    text = CHARADES + (
        'YSKX3 0 13 other/YSKX3-000004.jpg "1"\n'
        'YSKX3 0 12 YSKX3/YSKX3-000003.jpg "1"\n'
        'YSKX3 0 x YSKX3/YSKX3-000003.jpg "1"\n'
        "YSKX3 0 14\n"
        'YSKX3 0 14 YSKX3/YSKX3-000005.jpg "10"\n'
        'B 1 0 ../B/B-000001.jpg "1"\n'
        'C 2 0 C-000001.jpg "1"\n'
    )
    names = [f"c{number}" for number in range(10)]
    videos = parse_frame_list(text, class_names=names, source="train.csv")
    assert videos.paths == ("YSKX3",)
    assert [(x.kind, x.where) for x in videos.problems] == [
        ("several folders of a video", "train.csv, line 5"),
        ("duplicate row", "train.csv, line 6"),
        ("malformed row", "train.csv, line 7"),
        ("malformed row", "train.csv, line 8"),
        ("unknown label", "train.csv, line 9"),
        ("path outside the root", "train.csv, video B"),
        ("path outside the root", "train.csv, video C"),
    ]


@pytest.mark.parametrize("text", ["", "a b c d e\n", HEADER, HEADER + "a b\n"])
def test_nothing_usable(text):
    with pytest.raises(ValueError, match="rows of `original_vido_id video_id"):
        parse_frame_list(text)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_bad_fps(fps):
    with pytest.raises(ValueError, match="`fps` must be above 0"):
        parse_frame_list(AVA, fps=fps)


def test_reads_what_exists(tmp_path, touch):
    (tmp_path / "frame_lists").mkdir()
    (tmp_path / "frame_lists/train.csv").write_text(AVA)
    touch("frames/-FaXLcSFjUI/-FaXLcSFjUI_000001.jpg")
    videos = read_ava_frames(
        tmp_path / "frame_lists/train.csv", tmp_path / "frames"
    )
    assert videos.paths == (str(tmp_path / "frames/-FaXLcSFjUI"),)
    assert videos.problem_counts() == {"missing file": 1}


def test_folders_without_classes(tmp_path, touch):
    touch("b/1.jpg", "a/1.PNG", "a/2.png", "empty/notes.txt", ".hidden/1.jpg")
    videos = read_ava_frames(tmp_path)
    assert videos.paths == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert videos.labels.tolist() == [[0], [0]]


def test_folders_of_classes(tmp_path, touch):
    touch("run/b/1.jpg", "run/a/1.jpg", "jump/c/1.jpg", "empty/d/notes.txt")
    videos = read_ava_frames(tmp_path)
    expected = ["jump/c", "run/a", "run/b"]
    assert videos.paths == tuple(str(tmp_path / name) for name in expected)
    assert videos.class_names == ("jump", "run")
    assert videos.labels.tolist() == [0, 1, 1]


def test_folders_of_neither_kind(tmp_path, touch):
    match = r"either as VIDEO/\*.jpg or as CLASS/VIDEO/\*.jpg"
    with pytest.raises(ValueError, match=match):
        read_ava_frames(tmp_path)
    touch("a/1.jpg", "run/b/1.jpg")
    with pytest.raises(ValueError, match=match):
        read_ava_frames(tmp_path)
    with pytest.raises(ValueError, match="are for a frame list"):
        read_ava_frames(tmp_path, tmp_path)
