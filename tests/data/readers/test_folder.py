import pytest

from keras_nonlocal.data.readers.folder import read_folder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_orders_classes_and_files(tmp_path):
    touch(tmp_path, "run/b.MP4", "run/a.avi", "jump/deep/er/x.webm")
    touch(tmp_path, "jump/y.mkv", "notes.txt", "jump/notes.txt")
    touch(tmp_path, ".git/z.mp4", "run/.hidden.mp4", "run/.cache/z.mp4")
    videos = read_folder(tmp_path)
    assert videos.class_names == ("jump", "run")
    assert videos.labels.tolist() == [0, 0, 1, 1]
    names = ["jump/deep/er/x.webm", "jump/y.mkv", "run/a.avi", "run/b.MP4"]
    assert videos.paths == tuple(str(tmp_path / name) for name in names)


def test_missing_root(tmp_path):
    with pytest.raises(ValueError, match=r"does not exist.*CLASS/\*\.mp4"):
        read_folder(tmp_path / "nowhere")


def test_root_is_a_file(tmp_path):
    touch(tmp_path, "a.mp4")
    with pytest.raises(ValueError, match="`root` is not a folder"):
        read_folder(tmp_path / "a.mp4")


def test_no_class_folders(tmp_path):
    touch(tmp_path, "a.mp4", ".hidden/a.mp4")
    with pytest.raises(ValueError, match="no class folders"):
        read_folder(tmp_path)


def test_no_videos(tmp_path):
    touch(tmp_path, "run/a.txt")
    with pytest.raises(ValueError, match="`root` has no videos"):
        read_folder(tmp_path)


def test_names_the_empty_classes(tmp_path):
    touch(tmp_path, "run/a.mp4", "jump/a.txt", "swim/.a.mp4")
    with pytest.raises(ValueError, match="no videos in: jump, swim"):
        read_folder(tmp_path)
