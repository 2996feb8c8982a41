import pytest

from keras_nonlocal.data.readers.classes import parse_class_names
from keras_nonlocal.data.readers.hmdb51 import labelled_by_name
from keras_nonlocal.data.readers.hmdb51 import parse_hmdb51
from keras_nonlocal.data.readers.hmdb51 import read_hmdb51
from keras_nonlocal.data.readers.hmdb51 import read_hmdb51_list
from keras_nonlocal.data.readers.lists import parse_list
from keras_nonlocal.data.videos import Problem

TEXTS = {
    "wave": "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 \nb.avi 2 \nc.avi 0 \n",
    "brush_hair": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \nd.avi 2 \n",
}


def test_subsets():
    train = parse_hmdb51(TEXTS)
    assert train.class_names == ("brush_hair", "wave")
    assert train.paths == (
        "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "wave/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi",
    )
    assert train.labels.tolist() == [0, 1]
    test = parse_hmdb51(TEXTS, subset="test")
    assert test.paths == ("brush_hair/d.avi", "wave/b.avi")


def test_problems():
    videos = parse_hmdb51({"wave": "a.avi 1\nb.avi 3\n../../c.avi 1"}, split=2)
    assert videos.paths == ("wave/a.avi",)
    assert videos.problems == (
        Problem("malformed row", "wave_test_split2.txt, line 2", "b.avi 3"),
        Problem(
            "path outside the root",
            "wave_test_split2.txt, line 3",
            "wave/../../c.avi",
        ),
    )
    with pytest.raises(ValueError, match="`subset` must be one of"):
        parse_hmdb51(TEXTS, subset="val")
    with pytest.raises(ValueError, match="VIDEO.avi and 0, 1 .*'b.avi'"):
        parse_hmdb51({"wave": "b.avi"})


def test_reads_what_exists(tmp_path, touch):
    touch("lists/readme.txt", "videos/wave/b.avi", "lists/brush_hair/d.avi")
    for label, text in TEXTS.items():
        (tmp_path / f"lists/{label}_test_split1.txt").write_text(text)
        (tmp_path / f"lists/{label}_test_split2.txt").write_text("z.avi 2")
    videos = read_hmdb51(tmp_path / "lists", tmp_path / "videos", subset="test")
    assert videos.paths == (str(tmp_path / "videos/wave/b.avi"),)
    assert videos.labels.tolist() == [1]
    assert videos.problem_counts() == {"missing file": 1}
    beside = read_hmdb51(tmp_path / "lists", subset="test")
    assert beside.paths == (str(tmp_path / "lists/brush_hair/d.avi"),)


@pytest.mark.parametrize("name", ["lists", "nowhere"])
def test_no_split_files(tmp_path, name):
    (tmp_path / "lists").mkdir()
    with pytest.raises(ValueError, match="files CLASS_test_split3.txt"):
        read_hmdb51(tmp_path / name, split=3)


def test_classes_of_a_list_by_the_names_of_its_videos(official):
    names = parse_class_names(official("mmaction2_hmdb51_label_map.txt"))
    listed = parse_list(official("hmdb51_tsnstyle_train_split1.head10.txt"))
    videos = labelled_by_name(listed, names)
    assert videos.paths == listed.paths
    assert [names[label] for label in videos.labels] == [
        "cartwheel",
        "hug",
        "kick",
        "throw",
        "turn",
        "pullup",
        "fall_floor",
        "climb_stairs",
        "ride_horse",
        "draw_sword",
    ]


def test_reads_a_list(tmp_path, touch):
    (tmp_path / "list.txt").write_text(
        "data/a_kick_l_cm_np1_le_med_3 9 21\n"
        "data/b_kick_ball_l_nm_np1_le_med_3 9 20\n"
        "data/c_9 9 3\ndata/d_kick_l_cm_np1_le_med_3 9 21\n"
    )
    touch("frames/a_kick_l_cm_np1_le_med_3/1.jpg", "frames/c_9/1.jpg")
    touch("frames/b_kick_ball_l_nm_np1_le_med_3/1.jpg")
    videos = read_hmdb51_list(
        tmp_path / "list.txt",
        tmp_path / "frames",
        class_names=["kick", "kick_ball"],
    )
    assert videos.labels.tolist() == [0, 1]
    assert videos.problem_counts() == {"missing file": 1, "unknown label": 1}
    with pytest.raises(ValueError, match="with a class in their names"):
        read_hmdb51_list(
            tmp_path / "list.txt", tmp_path / "frames", class_names=["wave"]
        )
