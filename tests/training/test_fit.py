import csv
import dataclasses
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal import train
from keras_nonlocal.data.skips import TooManySkipsError
from keras_nonlocal.training import fit
from tests import checks

TINY = Variant(depth=26, width=4, num_nonlocal=1, stem="stride1")
_MIRRORED = pathlib.Path(__file__).with_name("mirrored.py")


def with_bad_file(videos, path):
    return VideoList(
        (*videos.paths, str(path)),
        np.append(videos.labels, np.int32(0)),
        videos.class_names,
    )


def test_learns_saves_and_measures(videos, config, tmp_path):
    config = dataclasses.replace(config, epochs=12)
    result = train("tiny", TINY, config, videos, videos, tmp_path)
    assert result.tested == 16 and result.correct >= 14
    assert result.accuracy == result.correct / 16
    assert result.interval[0] < result.accuracy <= result.interval[1]
    assert result.history["loss"][-1] < result.history["loss"][0]
    # The saved network gives the reported scores, as probabilities.
    saved = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(result.scores.sum(1), 1, rtol=1e-5)
    for ours, theirs in zip(
        saved.get_weights(), result.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    last = result.history["val_accuracy"][-1]
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(last)
    assert last == pytest.approx(result.accuracy)


def test_same_seed_same_losses(videos, config, tmp_path):
    def history(seed, folder):
        seeded = dataclasses.replace(config, seed=seed, epochs=1)
        out = tmp_path / folder
        return train("tiny", TINY, seeded, videos, videos, out).history

    one = history(3, "one")
    assert one == history(3, "again")
    assert one["loss"] != history(4, "other")["loss"]


def test_starts_from_trained_weights(videos, config, tmp_path):
    model = ResNet3D(TINY, classes=7)
    checks.randomize(model, scale=0.1)
    path = str(tmp_path / "other_classes.weights.h5")
    model.save_weights(path)
    config = dataclasses.replace(
        config, weights=path, learning_rate=1e-12, epochs=1
    )
    trained = train("tiny", TINY, config, videos, videos, tmp_path).model
    np.testing.assert_allclose(
        trained.get_layer("res3_0_branch2b").get_weights()[0],
        model.get_layer("res3_0_branch2b").get_weights()[0],
        atol=1e-6,
    )
    assert trained.get_layer("logits").units == 2
    other = dataclasses.replace(TINY, stem="stride4")
    tmp_path = tmp_path / "other"
    with pytest.raises(ValueError, match="stem: 'stride1' there"):
        train("tiny", other, config, videos, videos, tmp_path)


def test_bad_files_are_skipped_counted_and_reported(videos, config, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    whole = pathlib.Path(videos.paths[0]).read_bytes()
    half = tmp_path / "half.mp4"
    half.write_bytes(whole[: len(whole) // 2])
    result = train(
        "tiny",
        TINY,
        config,
        with_bad_file(videos, text),
        with_bad_file(videos, half),
        tmp_path / "out",
    )
    assert set(result.skipped) == {str(text), str(half)}
    assert result.tested == 16
    assert result.tested_videos == list(range(16))
    assert len(result.scores) == 16


def test_a_file_read_in_part_is_tested_where_it_can_be(
    videos, config, tmp_path, shared
):
    """Random clips of it fail, an earlier one and the middle one do not."""
    awkward = shared / "data" / "awkward" / "corrupted.mp4"
    both = with_bad_file(videos, awkward)
    config = dataclasses.replace(config, batch_size=17, epochs=8)
    result = train("tiny", TINY, config, both, both, tmp_path)
    assert result.skipped == {}
    assert set(result.damaged) == {str(awkward)}
    written = json.loads((tmp_path / "skipped.json").read_text())
    assert written["damaged"] == result.damaged
    assert result.tested == len(result.scores) == 17


def test_parts_of_one_file_are_told_apart(videos, config, tmp_path):
    """Two of the four parts are not in their files; their rows are not read."""
    paths = (videos.paths[0], videos.paths[1]) * 2
    segments = [[0, 0.3], [9, 10], [9, 10], [0, 0.3]]
    parts = VideoList(paths, [0, 1, 0, 1], videos.class_names, segments)
    config = dataclasses.replace(config, epochs=1)
    result = train("tiny", TINY, config, videos, parts, tmp_path)
    assert result.tested_videos == [0, 3]
    assert result.tested == len(result.scores) == 2
    right = result.scores.argmax(axis=1) == [0, 1]
    assert result.correct == right.sum()


def test_too_many_bad_files_end_training(videos, config, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    paths = (*videos.paths[:2], *[str(bad)] * 30)
    mostly_bad = VideoList(paths, [0, 1] * 16, videos.class_names)
    config = dataclasses.replace(config, max_skipped=0.3, epochs=20)
    with pytest.raises(TooManySkipsError, match="At most 30%.*bad.mp4") as info:
        train("tiny", TINY, config, mostly_bad, videos, tmp_path)
    assert len(str(info.value)) < 500
    written = json.loads((tmp_path / "skipped.json").read_text())
    assert set(written["skipped"]) == {str(bad)}


def test_nothing_to_read_is_an_error_of_one_line(videos, config, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    none = VideoList([str(bad)] * 4, [0, 1] * 2, videos.class_names)
    with pytest.raises(TooManySkipsError, match="must be readable.*bad.mp4"):
        train("tiny", TINY, config, none, videos, tmp_path)
    written = json.loads((tmp_path / "skipped.json").read_text())
    assert set(written["skipped"]) == {str(bad)}


def test_one_class_and_several_do_not_mix(videos, config, tmp_path):
    several = VideoList(videos.paths[:1], [[1, 1]], videos.class_names)
    with pytest.raises(ValueError, match="both have one class a video"):
        train("tiny", TINY, config, videos, several, tmp_path)


def test_plans_its_memory_and_can_save_it(
    videos, config, tmp_path, caplog, capsys
):
    """Recomputing blocks trains as well as without; the plan is printed."""
    config = dataclasses.replace(config, epochs=1, rematerialize="blocks")
    result = train("tiny", TINY, config, videos, videos, tmp_path / "blocks")
    printed = capsys.readouterr().out
    assert "training step with blocks computed again of" in printed
    assert "likely to run out" not in caplog.text
    plain = dataclasses.replace(config, rematerialize=None)
    out = tmp_path / "plain"
    expected = train("tiny", TINY, plain, videos, videos, out).history
    np.testing.assert_allclose(
        result.history["loss"], expected["loss"], rtol=1e-3
    )
    saved = keras.models.load_model(tmp_path / "blocks" / "model.keras")
    assert [layer.name for layer in saved.layers] == [
        layer.name for layer in result.model.layers
    ]


def test_warns_of_too_little_memory(
    videos, config, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(fit, "available_memory", lambda: 500_000)
    config = dataclasses.replace(config, epochs=1)
    train("tiny", TINY, config, videos, videos, tmp_path)
    assert "largest `batch_size` that should fit is" in caplog.text
    assert 'rematerialize="blocks"' in caplog.text


def test_lists_of_other_classes_are_refused(videos, config, tmp_path):
    other = VideoList(videos.paths, videos.labels, ("light", "dark"))
    with pytest.raises(ValueError, match="same classes.*'light', 'dark'"):
        train("tiny", TINY, config, videos, other, str(tmp_path))


def test_a_loss_that_explodes_is_an_error(videos, config, tmp_path):
    wild = dataclasses.replace(config, learning_rate=1e30, warmup=0.0)
    with pytest.raises(ValueError, match="epoch 1"):
        train("tiny", TINY, wild, videos, videos, tmp_path)


@pytest.fixture(scope="module")
def mirrored(videos, tmp_path_factory):
    """Histories on one device and on two replicas, in a process of their own.

    The devices of a process cannot be split after its first use of them.
    """
    folder = tmp_path_factory.mktemp("mirrored")
    job = {"paths": videos.paths, "labels": videos.labels.tolist()}
    (folder / "job.json").write_text(json.dumps(job))
    subprocess.run([sys.executable, str(_MIRRORED), str(folder)], check=True)
    return json.loads((folder / "histories.json").read_text())


def test_synchronized_replicas_train_as_one_device(mirrored):
    one, two = mirrored["one"], mirrored["two"]
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(two[key], one[key], rtol=2e-3, atol=2e-3)
    assert one["accuracy"] == two["accuracy"]


def test_unsynchronized_statistics_differ(mirrored):
    difference = np.subtract(mirrored["apart"]["loss"], mirrored["one"]["loss"])
    assert np.max(np.abs(difference)) > 1e-3


def test_evaluation_is_the_same_on_any_number_of_replicas(mirrored):
    assert mirrored["evaluated_one"]["accuracy"] == pytest.approx(
        mirrored["evaluated_two"]["accuracy"], abs=1e-7
    )
    assert mirrored["evaluated_one"]["loss"] == pytest.approx(
        mirrored["evaluated_two"]["loss"], rel=1e-5
    )
