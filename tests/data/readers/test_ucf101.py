import pytest

from keras_nonlocal.data.readers.classes import parse_class_names
from keras_nonlocal.data.readers.ucf101 import parse_ucf101
from keras_nonlocal.data.readers.ucf101 import read_ucf101


@pytest.mark.parametrize("name", ["trainlist01", "testlist01"])
def test_official_lists(official, name):
    names = parse_class_names(official("ucf101_classInd.txt"))
    videos = parse_ucf101(official(f"ucf101_{name}.head40.txt"), names)
    assert len(videos) == 40
    assert videos.problems == ()
    label_map = official("mmaction2_ucf101_label_map.txt").split()
    folders = [path.split("/")[0] for path in videos.paths]
    assert [label_map[label] for label in videos.labels] == folders
    assert all(path.endswith(".avi") for path in videos.paths)


def test_with_and_without_numbers():
    rows = "Biking/v_Biking_g01_c01.avi 2\nArchery/v_Archery_g01_c01.avi\n"
    videos = parse_ucf101(rows, ["Archery", "Biking"])
    assert videos.labels.tolist() == [1, 0]
    assert videos.paths[0] == "Biking/v_Biking_g01_c01.avi"


def test_the_class_that_official_files_spell_in_two_ways():
    row = "HandstandPushups/v_HandStandPushups_g01_c01.avi 1"
    videos = parse_ucf101(row, ["HandStandPushups"])
    assert videos.labels.tolist() == [0]
    assert videos.class_names == ("HandStandPushups",)


def test_numbers_from_0_contradict():
    rows = "Archery/a.avi 0\nBiking/a.avi 1\nBiking/b.avi 2\nRun/a.avi 3\na.avi"
    videos = parse_ucf101(rows, ["Archery", "Biking"])
    assert videos.paths == ("Biking/b.avi",)
    assert videos.problem_counts() == {
        "contradicting label": 2,
        "unknown label": 1,
        "malformed row": 1,
    }
    with pytest.raises(ValueError, match="class 1 expected: Archery/a.avi 0"):
        parse_ucf101("Archery/a.avi 0", ["Archery"])


def test_reads_what_exists(tmp_path, touch):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/testlist01.txt").write_text("B/b.avi\r\nA/a.avi\r\n")
    touch("UCF-101/B/b.avi")
    with pytest.raises(ValueError, match="has no classInd.txt beside it"):
        read_ucf101(tmp_path / "lists/testlist01.txt", tmp_path / "UCF-101")
    (tmp_path / "lists/classInd.txt").write_text("1 A\r\n2 B\r\n")
    videos = read_ucf101(
        tmp_path / "lists/testlist01.txt", tmp_path / "UCF-101"
    )
    assert videos.paths == (str(tmp_path / "UCF-101/B/b.avi"),)
    assert videos.labels.tolist() == [1]
    assert videos.problem_counts() == {"missing file": 1}
    given = read_ucf101(
        tmp_path / "lists/testlist01.txt",
        tmp_path / "UCF-101",
        class_names=["B", "A"],
    )
    assert given.labels.tolist() == [0]
