import pytest

from keras_nonlocal.data.readers.recognize import READERS
from keras_nonlocal.data.readers.recognize import read_videos
from keras_nonlocal.data.readers.recognize import recognize

FILES = {
    "kinetics": "label,youtube_id,time_start,time_end,split\nrun,abc,1,2,val",
    "charades": "id,subject,actions,length\nABCDE,HR43,c092 11.90 21.20,30.0",
    "table": "label,path\nrun,a.mp4",
    "list": "a/b c.mp4,0\na/d.mp4,1",
    "something": '[\n  {"id": "1", "template": "Holding [something]"}]',
    "frames": "original_vido_id video_id frame_id path labels\nA 0 0 A/1.jpg",
    "ucf101": "Archery/v_Archery_g08_c01.avi\nArchery/v_Archery_g08_c02.avi",
}


@pytest.mark.parametrize("name", FILES)
def test_recognizes_files(tmp_path, name):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + FILES[name].encode())
    assert recognize(tmp_path / "x") == name
    assert name in READERS


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("kinetics-400_val.head40.csv", "kinetics"),
        ("kinetics-400_test.head10.csv", "kinetics"),
        ("kinetics400_nonlocal_vallist.head20.txt", "list"),
    ],
)
def test_recognizes_official_files(shared, file, name):
    assert recognize(shared / "data" / "annotations" / file) == name


def test_recognizes_parquet(tmp_path):
    (tmp_path / "x").write_bytes(b"PAR1\x15\x04")
    assert recognize(tmp_path / "x") == "table"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("run/deep/a.MP4", "folder"),
        ("videos/1.jpg", "frames"),
        ("run/video/1.png", "frames"),
        ("wave_test_split2.txt", "hmdb51"),
    ],
)
def test_recognizes_folders(tmp_path, touch, file, name):
    touch(file, "a.mp4", "b.jpg", "notes.txt", "run/.c.mp4", "run/._d.jpg")
    assert recognize(tmp_path) == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        # Official lists count from 1, others of the same look from 0.
        ("ucf101_trainlist01.head40.txt", "ucf101"),
        ("ucf101_testlist01.head40.txt", "ucf101"),
        # The numbers are not those of the label map.
        ("hmdb51_tsnstyle_train_split1.head10.txt", "hmdb51_list"),
    ],
)
def test_ambiguous_file(shared, file, name):
    with pytest.raises(ValueError, match=f"could be list or {name}. Received"):
        recognize(shared / "data" / "annotations" / file)


def test_ambiguous_folder(tmp_path, touch):
    touch("run/a.mp4", "run/a/1.jpg")
    with pytest.raises(ValueError, match="it could be folder or frames"):
        recognize(tmp_path)


@pytest.mark.parametrize("text", ["", "hello\n", '"' * 1000, "{}", "\0" * 99])
def test_unknown_file(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match="could be folder or kinetics or list"):
        recognize(tmp_path / "x.csv")


def test_unknown_folder(tmp_path):
    assert recognize(tmp_path) == "folder"
    with pytest.raises(ValueError, match="no class folders, expected videos"):
        read_videos(tmp_path)


@pytest.mark.parametrize(
    "part", ["a ", "1 ", "1", ",", "_f_cm_np1_", "v_a_g1_c1", '"', "a/"]
)
def test_long_lines_take_no_time(tmp_path, part):
    # A pattern that looks back from every place would take hours.
    (tmp_path / "x").write_text(f"a/b {part * 10**5}x\nb 1")
    for name in ("list", "ucf101"):
        with pytest.raises(ValueError, match="must"):
            read_videos(tmp_path / "x", format=name, class_names=["a"])
    with pytest.raises(ValueError, match="exist|given"):
        read_videos(tmp_path / "x")


def test_missing(tmp_path):
    with pytest.raises(ValueError, match="x.csv .does not exist"):
        read_videos(tmp_path / "x.csv")


def test_reads_with_the_reader(tmp_path, touch):
    (tmp_path / "x.txt").write_text("/far/a.mp4 1\n")
    touch("videos/a.mp4")
    videos = read_videos(
        tmp_path / "x.txt", tmp_path / "videos", class_names=["run", "jump"]
    )
    assert videos.paths == (str(tmp_path / "videos/a.mp4"),)
    assert videos.class_names == ("run", "jump")


def test_format_is_the_last_word(tmp_path, touch):
    (tmp_path / "x.txt").write_text("A/v_A_g01_c01.avi 1\n")
    (tmp_path / "classInd.txt").write_text("1 A\n2 B\n")
    touch("A/v_A_g01_c01.avi")
    official = read_videos(tmp_path / "x.txt", format="ucf101")
    assert official.labels.tolist() == [0]
    others = read_videos(tmp_path / "x.txt", format="list")
    assert others.labels.tolist() == [1]
    with pytest.raises(ValueError, match="`format` must be one of folder, kin"):
        read_videos(tmp_path / "x.txt", format="coco")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "hmdb51_list"}, "`read_hmdb51_list`.*'class_names'"),
        ({"format": "hmdb51", "class_names": ["a"]}, "x.txt.*'class_names'"),
        (
            {"format": "list", "prefixes": "a"},
            "`read_kinetics_list`.*'prefixes'",
        ),
    ],
)
def test_arguments_are_those_of_the_reader(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_videos(tmp_path / "x.txt", **arguments)


def test_reads_a_folder(tmp_path, touch):
    touch("run/a.mp4", "jump/b.mp4")
    assert read_videos(tmp_path).class_names == ("jump", "run")
    with pytest.raises(ValueError, match="`path` alone. Received: root"):
        read_videos(tmp_path, root=tmp_path)
