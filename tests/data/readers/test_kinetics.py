import pytest

from keras_nonlocal.data.readers.classes import parse_class_names
from keras_nonlocal.data.readers.kinetics import parse_kinetics
from keras_nonlocal.data.readers.kinetics import read_kinetics
from keras_nonlocal.data.readers.lists import parse_list

HEADER = "label,youtube_id,time_start,time_end,split"
TWO = (
    f"{HEADER}\n"
    "air drumming,abcdefghijk,1,11,train\n"
    "zumba,ABC-_fghijk,0,10,train\n"
)
PREFIX = "/scratch/xiaolonw/kinetics/data/compress/val_256"


def file_of(files, text=TWO, **arguments):
    return parse_kinetics(text, files, **arguments).paths[0]


def test_official_csv(official):
    names = parse_class_names(official("kinetics400_label_map.txt"))
    text = official("kinetics-400_val.head40.csv")
    videos = parse_kinetics(text, class_names=names)
    assert len(videos) == 39
    assert videos.problems == ()
    assert videos.paths[0] == "val/0wR5jVB-WPk_000417_000427.mp4"
    rows = [line.split(",") for line in text.splitlines()[1:]]
    assert [names[label] for label in videos.labels] == [x[0] for x in rows]


def test_labels_are_those_of_the_papers_list(official):
    names = parse_class_names(official("kinetics400_nonlocal_classids.json"))
    listed = parse_list(
        official("kinetics400_nonlocal_vallist.head20.txt"), prefix=PREFIX
    )
    videos = parse_kinetics(
        official("kinetics-400_val.head40.csv"),
        listed.paths,
        class_names=names,
    )
    # The csv begins with the videos of the list, files .mkv and .mp4.webm
    # among them.
    assert videos.paths[: len(listed)] == listed.paths
    assert videos.labels[: len(listed)].tolist() == listed.labels.tolist()


def test_official_test_list_has_no_labels(official):
    with pytest.raises(ValueError, match="a test list without labels"):
        parse_kinetics(official("kinetics-400_test.head10.csv"))


def test_other_columns_and_order():
    text = "youtube_id,is_cc,split,time_end,time_start,label\nabc,1,val,11,1,x"
    assert parse_kinetics(text).paths == ("val/abc_000001_000011.mp4",)


def test_labels_in_quotation_marks():
    text = f'{HEADER}\n"passing, in game",abc,1,11,validate'
    videos = parse_kinetics(text)
    assert videos.class_names == ("passing, in game",)
    assert videos.paths == ("val/abc_000001_000011.mp4",)


@pytest.mark.parametrize(
    "file",
    [
        "abcdefghijk.mp4",
        "abcdefghijk_000001_000011.mkv",
        "train/abcdefghijk_000001_000011.mp4",
        "air drumming/abcdefghijk.mp4.webm",
        "train/air_drumming/abcdefghijk_000001_000011.MP4",
        "replacement/replacement_for_corrupted_k400/abcdefghijk.mp4",
    ],
)
def test_layouts(file):
    assert file_of([file, "train/other.mp4"]) == file


@pytest.mark.parametrize(
    "file",
    [
        "zumba/abcdefghijk.mp4",
        "train/zumba/abcdefghijk_000001_000011.mp4",
        "abcdefghijk_000002_000012.mp4",
        "abcdefghijk_1_11.mp4",
    ],
)
def test_files_of_other_clips(file):
    assert file_of([file]) == "train/abcdefghijk_000001_000011.mp4"


def test_the_best_of_several_files():
    files = [
        "replacement/abcdefghijk_000001_000011.mp4",
        "air drumming/abcdefghijk_000001_000011.mp4",
        "train/abcdefghijk_000001_000011.mp4",
        "test/abcdefghijk_000001_000011.mp4",
        "train/air drumming/abcdefghijk.mp4",
    ]
    while files:
        assert file_of(reversed(files)) == files.pop(0)


def test_whole_videos():
    files = ["abcdefghijk.mp4", "train/ABC-_fghijk_000000_000010.mp4"]
    videos = parse_kinetics(TWO, files, trimmed=False)
    assert videos.segments[0].tolist() == [1, 11]
    # This file is cut already.
    assert videos.segments[1, 0] == 0
    assert parse_kinetics(TWO, files).segments is None


def test_problems():
    text = TWO + "\n".join(
        [
            "zumba,ABC-_fghijk,0,10,train",
            "zumba,../../passwd,0,10,train",
            "zumba,abc,10,0,train",
            "zumba,abc,0.5,10,train",
            "zumba,abc,0,10,../..",
            ",abc,0,10,train",
            "juggling,abc,0,10,train",
            "zumba,abc",
        ]
    )
    videos = parse_kinetics(
        text, class_names=["air drumming", "zumba"], source="train.csv"
    )
    assert len(videos) == 2
    assert videos.problem_counts() == {
        "duplicate row": 1,
        "malformed row": 5,
        "path outside the root": 1,
        "unknown label": 1,
    }
    unknown = [x for x in videos.problems if x.kind == "unknown label"]
    assert str(unknown[0]) == ("train.csv, line 10: unknown label ('juggling')")


def test_nothing_usable():
    with pytest.raises(ValueError, match="train.csv, line 2: unknown label"):
        parse_kinetics(TWO, class_names=["run"], source="train.csv")
    with pytest.raises(ValueError, match="rows of label,youtube_id,.* usable"):
        parse_kinetics(HEADER)


def test_reads_what_exists(tmp_path, touch):
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + TWO.encode())
    touch("k400/train/abcdefghijk_000001_000011.mp4")
    touch("k400/train/._ABC-_fghijk_000000_000010.mp4")
    touch("k400/too/deep/down/ABC-_fghijk_000000_000010.mp4")
    videos = read_kinetics(tmp_path / "train.csv", tmp_path / "k400")
    assert videos.paths == (
        str(tmp_path / "k400/train/abcdefghijk_000001_000011.mp4"),
    )
    assert videos.class_names == ("air drumming", "zumba")
    missing = str(tmp_path / "k400/train/ABC-_fghijk_000000_000010.mp4")
    assert [str(x) for x in videos.problems] == [f"{missing}: missing file"]


def test_reads_through_links(tmp_path, touch):
    (tmp_path / "train.csv").write_text(TWO)
    touch("disk/abcdefghijk.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root")
    videos = read_kinetics(tmp_path / "train.csv", tmp_path / "root")
    assert videos.paths == (str(tmp_path / "root/train/abcdefghijk.mp4"),)


def test_reads_class_names_from_a_file(tmp_path, touch):
    (tmp_path / "train.csv").write_text(TWO)
    (tmp_path / "classids.json").write_text(
        r'{"zumba": 0, "\"air drumming\"": 1}'
    )
    touch("abcdefghijk.mp4", "ABC-_fghijk.mp4")
    videos = read_kinetics(
        tmp_path / "train.csv", class_names=tmp_path / "classids.json"
    )
    assert videos.labels.tolist() == [1, 0]


def test_none_exists(tmp_path):
    (tmp_path / "train.csv").write_text(TWO)
    with pytest.raises(
        ValueError, match="none does.*train/abcdefghijk_000001_000011.mp4"
    ):
        read_kinetics(tmp_path / "train.csv", tmp_path)
    with pytest.raises(ValueError, match="`root` must be the folder"):
        read_kinetics(tmp_path / "train.csv", tmp_path / "nowhere")
