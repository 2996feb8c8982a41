import json
import zipfile

import numpy as np
import pytest

from keras_nonlocal.evaluation import score_files

SCORES = np.arange(6, dtype="float32").reshape(3, 2) / 10


@pytest.mark.parametrize("segments", [None, [[0, 1], [2, np.nan]] * 2])
@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [[1, 0], [1, 1]] * 2])
def test_gives_back_what_was_written(make, tmp_path, labels, segments):
    path = tmp_path / "scores.npz"
    evaluation = make(
        SCORES, labels, skipped=[2], segments=segments, folder="b\udcff"
    )
    score_files.save(evaluation, path, "mark")
    found, fingerprint = score_files.read(path)
    assert fingerprint == "mark" and list(tmp_path.iterdir()) == [path]
    for name in ("name", "dataset", "clip", "protocol", "skipped", "about"):
        assert getattr(found, name) == getattr(evaluation, name)
    for name in ("paths", "class_names", "fps", "multi_label"):
        assert getattr(found.videos, name) == getattr(evaluation.videos, name)
    np.testing.assert_array_equal(found.videos.labels, labels)
    if segments is None:
        assert found.videos.segments is None
    else:
        np.testing.assert_array_equal(found.videos.segments, segments)
    np.testing.assert_array_equal(found.numbers, [0, 1, 3])
    assert list(found.scores) == ["1 clip", "2 clips"]
    for setting, scores in evaluation.scores.items():
        np.testing.assert_array_equal(found.scores[setting], scores)
    assert score_files.load(path).figures() == evaluation.figures()


def test_a_test_that_has_not_ended(make, tmp_path):
    path = tmp_path / "scores.npz"
    evaluation = make(SCORES, [0, 1, 1, 0], skipped=[2])
    evaluation.skipped.clear()
    score_files.save(evaluation, path)
    with pytest.raises(ValueError, match="1 of 4 videos to go"):
        score_files.load(path)


def test_a_failing_disk_leaves_what_was_there(make, tmp_path, monkeypatch):
    path = tmp_path / "scores.npz"
    score_files.save(make(SCORES, [0, 1, 1]), path)

    def fail(*_, **__):
        raise OSError("full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="full"):
        score_files.save(make(SCORES[:1], [0]), path)
    assert list(tmp_path.iterdir()) == [path]
    assert score_files.load(path).tested == 3


@pytest.fixture
def arrays(make, tmp_path):
    """The parts of a file, to write another of."""
    path = tmp_path / "good.npz"
    score_files.save(make(SCORES, [0, 1, 1, 0], skipped=[2]), path)
    with np.load(path) as file:
        return dict(file)


def changed(arrays, **fields):
    about = {**json.loads(arrays["about"].tobytes()), **fields}
    text = json.dumps(about).encode()
    return {**arrays, "about": np.frombuffer(text, "uint8")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {**x, "scores": x["scores"][:, :2]}, "scores of shape"),
        (lambda x: {**x, "scores": x["scores"] * np.nan}, "scores of shape"),
        (lambda x: {**x, "scores": x["scores"].astype("O")}, "allow_pickle"),
        (lambda x: {**x, "numbers": np.array([0, 1, 9])}, "of 4 videos"),
        (lambda x: {**x, "numbers": np.array([1, 0, 3])}, "of 4 videos"),
        (lambda x: {**x, "numbers": np.array([0, 1, 2])}, "of 4 videos"),
        (lambda x: {**x, "labels": np.array([0, 1, 1, 7])}, "`labels` must"),
        (lambda x: {"labels": x["labels"]}, "KeyError"),
        (lambda x: changed(x, format=99), "format 99"),
        (lambda x: changed(x, clip={"frames": 3}), "TypeError"),
        (lambda x: changed(x, protocol=None), "TypeError"),
        (lambda x: changed(x, settings=[]), "scores of shape"),
        (lambda x: {**x, "about": np.full(9, 33, "uint8")}, "JSONDecode"),
    ],
)
def test_what_is_no_such_file(arrays, tmp_path, change, message):
    path = tmp_path / "scores.npz"
    np.savez(path, **change(arrays))
    with pytest.raises(ValueError, match=rf"scores\.npz: .*{message}"):
        score_files.load(path)


def test_files_that_grow_or_are_cut(arrays, tmp_path):
    path = tmp_path / "scores.npz"
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match=r"scores\.npz: .*compressed"):
        score_files.load(path)
    path.write_bytes((tmp_path / "good.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"scores\.npz: .*BadZipFile"):
        score_files.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        # A header that promises more than there is.
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2**60,)}"
        text = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("about.npy", text + header.encode())
    with pytest.raises(ValueError, match=r"scores\.npz"):
        score_files.load(path)
    with pytest.raises(ValueError, match=r"none\.npz: .*FileNotFoundError"):
        score_files.load(tmp_path / "none.npz")
