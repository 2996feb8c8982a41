import pytest

from keras_nonlocal.data.readers.classes import parse_class_names
from keras_nonlocal.data.readers.lists import parse_list
from keras_nonlocal.data.readers.lists import read_kinetics_list


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("a/b.mp4 1", "a/b.mp4"),
        ("a/b.mp4,1", "a/b.mp4"),
        ("a/b.mp4;1", "a/b.mp4"),
        ("a/b.mp4 | 1", "a/b.mp4"),
        ("a/b.mp4\t1\r", "a/b.mp4"),
        ("a, b/c d.mp4 1", "a, b/c d.mp4"),
        ("a/b 12.mp4 1", "a/b 12.mp4"),
        ("a/frames 250 1", "a/frames"),
        ("a/my frames 250 1", "a/my frames"),
    ],
)
def test_rows(line, path):
    videos = parse_list(line)
    assert videos.paths == (path,)
    assert videos.labels.tolist() == [1]
    assert videos.class_names == ("0", "1")


def test_the_papers_lists(official):
    names = parse_class_names(official("kinetics400_nonlocal_classids.json"))
    for name in ("vallist", "vallist_download"):
        text = official(f"kinetics400_nonlocal_{name}.head20.txt")
        videos = parse_list(text, class_names=names)
        assert len(videos) == 20
        folders = [path.split("/")[-2] for path in videos.paths]
        assert [names[label] for label in videos.labels] == folders


def test_frame_folders_of_hmdb51(official):
    names = parse_class_names(official("mmaction2_hmdb51_label_map.txt"))
    text = official("hmdb51_tsnstyle_train_split1.head10.txt")
    videos = parse_list(text, class_names=names, prefix="data/HMDB51_flow")
    assert len(videos) == 10
    assert all("/" not in path for path in videos.paths)
    others = [
        (path, names[label])
        for path, label in zip(videos.paths, videos.labels, strict=True)
        if f"_{names[label]}_" not in path
    ]
    # Not the numbers of the label map: that is what `read_hmdb51_list` is for.
    assert others == [
        ("American_History_X_kick_l_cm_np1_le_med_33", "kick_ball")
    ]


def test_problems():
    text = "a.mp4 0\nb.mp4\nc.mp4 2\n\nd.mp4 -1\n../e.mp4 0\na.mp4 1\n/f.mp4 1"
    videos = parse_list(text, class_names=["run", "jump"], source="x.txt")
    assert videos.paths == ("a.mp4", "/f.mp4")
    assert [(x.kind, x.where) for x in videos.problems] == [
        ("malformed row", "x.txt, line 2"),
        ("unknown label", "x.txt, line 3"),
        ("malformed row", "x.txt, line 5"),
        ("path outside the root", "x.txt, line 6"),
        ("contradicting rows", "x.txt, line 7"),
    ]


def test_nothing_usable():
    with pytest.raises(ValueError, match="a path and a class number.*'a.mp4'"):
        parse_list("a.mp4\nb.mp4")
    with pytest.raises(ValueError, match="no usable row; first line: ''"):
        parse_list("\n")


def test_finds_the_prefix(tmp_path, touch, official):
    text = official("kinetics400_nonlocal_vallist.head20.txt")
    (tmp_path / "vallist.txt").write_text(text)
    touch("256/abseiling/6_4kjPiQr7w.mkv", "256/abseiling/9EnSwbXxu5g.mp4.webm")
    videos = read_kinetics_list(tmp_path / "vallist.txt", tmp_path / "256")
    assert videos.paths == (
        str(tmp_path / "256/abseiling/6_4kjPiQr7w.mkv"),
        str(tmp_path / "256/abseiling/9EnSwbXxu5g.mp4.webm"),
    )
    assert videos.problem_counts() == {"missing file": 18}


def test_prefix_is_as_short_as_it_can_be(tmp_path, touch):
    (tmp_path / "x.txt").write_text("/far/train/a.mp4 0\n/far/val/a.mp4 1\n")
    touch("a.mp4", "train/a.mp4", "val/a.mp4")
    videos = read_kinetics_list(tmp_path / "x.txt", tmp_path)
    assert videos.paths == (
        str(tmp_path / "train/a.mp4"),
        str(tmp_path / "val/a.mp4"),
    )


def test_given_prefix(tmp_path, touch):
    (tmp_path / "x.txt").write_text("/far/a.mp4 0\n/near/b.mp4 1\n")
    touch("a.mp4", "b.mp4")
    videos = read_kinetics_list(tmp_path / "x.txt", tmp_path, prefix="/far")
    assert videos.paths == (str(tmp_path / "a.mp4"),)
    assert videos.problem_counts() == {"path outside the root": 1}


def test_absolute_paths_on_this_machine(tmp_path, touch):
    touch("disk/a.mp4", "disk/b.mp4", "lists/a.mp4")
    text = f"{tmp_path}/disk/a.mp4 0\n{tmp_path}/disk/b.mp4 1\n"
    (tmp_path / "lists" / "x.txt").write_text(text)
    expected = (str(tmp_path / "disk/a.mp4"), str(tmp_path / "disk/b.mp4"))
    for root in (None, tmp_path, tmp_path / "disk"):
        videos = read_kinetics_list(tmp_path / "lists" / "x.txt", root)
        assert videos.paths == expected
    # A root is a border: the file of the same name inside it is another.
    with pytest.raises(ValueError, match="path outside the root"):
        read_kinetics_list(
            tmp_path / "lists" / "x.txt", tmp_path / "lists", prefix=""
        )


def test_none_exists(tmp_path):
    (tmp_path / "x.txt").write_text("a.mp4 0\nb.mp4 1\n")
    with pytest.raises(ValueError, match=f"none does.*{tmp_path}/a.mp4"):
        read_kinetics_list(tmp_path / "x.txt")
