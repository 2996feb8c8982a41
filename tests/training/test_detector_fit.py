"""Detectors as a user trains them."""

import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.detection.mask_rcnn import LOSSES
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.training import detector_fit
from keras_nonlocal.training.checkpoints import OtherSettingsError
from keras_nonlocal.training.detector_config import DetectorConfig
from keras_nonlocal.training.detector_fit import initial_detector
from keras_nonlocal.training.detector_fit import train_detector
from keras_nonlocal.training.distribution import Devices
from keras_nonlocal.training.guards import NonFiniteLossError
from tests.checks import randomize
from tests.detection.detectors import tiny_variant
from tests.training.detector_images import write_images

CONFIG = DetectorConfig(
    batch_size=2,
    reference_batch=2,
    steps=2,
    steps_per_epoch=1,
    test_every=2,
    learning_rate=0.01,
    warmup=0.5,
    short_side=(64, 72),
    test_short_side=64,
    max_side=96,
    mask_size=14,
)
VARIANT = tiny_variant(classes=2)


@pytest.fixture(scope="module", autouse=True)
def _step_by_step():
    """Tracing takes much longer than a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


pytestmark = pytest.mark.filterwarnings(
    "ignore:Even though the `tf.config.experimental_"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four images, of which the last is none."""
    folder = tmp_path_factory.mktemp("detector") / "images"
    path, folder = write_images(folder, count=4)
    (folder / "004.png").write_bytes(b"no picture")
    return read_coco(path, folder)


@pytest.fixture(scope="module")
def tested(images):
    return images.subset([0, 3])


@pytest.fixture(scope="module")
def run(images, tested, tmp_path_factory):
    """The folder of a run, and its result."""
    out = tmp_path_factory.mktemp("run")
    return out, train_detector("tiny", VARIANT, CONFIG, images, tested, out)


def test_leaves_a_page_curves_and_figures(run):
    out, result = run
    with open(out / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for name in ("loss", *LOSSES, "learning_rate"):
        assert [float(row[name]) for row in rows] == result.history[name]
    # Tested every other epoch.
    assert rows[0]["box_AP"] == ""
    assert float(rows[1]["box_AP"]) == result.history["box_AP"][1]
    total = np.sum([result.history[name] for name in LOSSES], axis=0)
    np.testing.assert_allclose(result.history["loss"], total, rtol=1e-5)
    assert (out / "curves.png").read_bytes()[1:4] == b"PNG"
    page = (out / "index.html").read_text()
    assert "Training is over, after 2 epochs." in page
    assert "Images that could not be read" in page and "004.png" in page
    metrics = json.loads((out / "test" / "metrics.json").read_text())
    assert metrics["images"] == 2
    assert metrics["box"]["AP"] == result.history["box_AP"][-1]
    about = json.loads((out / "config.json").read_text())
    assert about["class_names"] == ["bright", "dark"]
    assert about["network"]["classes"] == 2


def test_an_image_that_cannot_be_read_is_counted_and_named(run, images):
    out, result = run
    bad = images.images[3].path
    assert set(result.skipped) == {bad}
    written = json.loads((out / "skipped.json").read_text())
    assert set(written["skipped"]) <= {bad}
    assert written["images_skipped"] == result.history["skipped"][-1]


def test_the_saved_detector_is_the_trained_one(run):
    out, result = run
    saved = keras.models.load_model(out / "model.keras")
    assert saved.variant == result.model.variant
    for ours, theirs in zip(saved.weights, result.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.parameters == sum(
        int(np.prod(weight.shape)) for weight in saved.trainable_weights
    )


def test_goes_on_exactly_after_it_was_broken_off(
    run, images, tested, tmp_path, capsys
):
    out, whole = run
    broken = tmp_path / "broken"
    shutil.copytree(out, broken)
    (broken / "states" / "state-000002.npz").unlink()
    (broken / "model.keras").unlink()
    again = train_detector("tiny", VARIANT, CONFIG, images, tested, broken)
    assert "tiny: goes on after epoch 1" in capsys.readouterr().out
    for name in ("loss", *LOSSES, "mask_AP"):
        np.testing.assert_array_equal(again.history[name], whole.history[name])
    for ours, theirs in zip(
        again.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_other_settings_are_refused(run, images, tested):
    out, _ = run
    config = dataclasses.replace(CONFIG, learning_rate=0.02)
    other = dataclasses.replace(VARIANT, rpn_samples=16)
    both = "config.learning_rate was .* network.rpn_samples was 32 "
    with pytest.raises(OtherSettingsError, match=both):
        train_detector("tiny", other, config, images, tested, out)


def test_a_loss_that_is_not_finite_names_the_images(images, tmp_path):
    wild = dataclasses.replace(
        CONFIG, learning_rate=1e30, warmup=0.0, clip_norm=None
    )
    with pytest.raises(NonFiniteLossError, match="clip_norm") as info:
        train_detector("tiny", VARIANT, wild, images, images, tmp_path)
    report = json.loads((tmp_path / "nan_batch.json").read_text())
    paths = {image.path for image in images.images}
    assert len(report["images"]) == 2 and set(report["images"]) <= paths
    assert report["images"][0] in str(info.value)
    assert set(LOSSES) <= set(report["logs"])


def test_starts_from_a_detector_of_other_classes(tmp_path):
    source = MaskRCNN(dataclasses.replace(VARIANT, classes=5))
    randomize(source, scale=0.1)
    path = str(tmp_path / "five.keras")
    source.save(path)
    config = dataclasses.replace(CONFIG, weights=path)
    model = initial_detector(VARIANT, config, classes=2)
    for part, layer in (
        ("trunk", "res4_1_branch2c"),
        ("trunk", "fpn_inner_res3"),
        ("box_head", "box_fc1"),
        ("mask_head", "mask_fcn2"),
    ):
        ours, theirs = (
            getattr(detector, part).get_layer(layer).get_weights()
            for detector in (model, source)
        )
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    assert model.box_head.get_layer("box_classes").units == 3
    same = initial_detector(VARIANT, config, classes=5)
    np.testing.assert_array_equal(
        same.box_head.get_layer("box_classes").get_weights()[0],
        source.box_head.get_layer("box_classes").get_weights()[0],
    )


def test_a_trunk_that_nothing_normalizes_is_warned_of(caplog):
    small = DETECTOR_VARIANTS["small_mask_rcnn"]
    detector_fit._warn_of_fresh_trunk(small, CONFIG)
    assert not caplog.text
    detector_fit._warn_of_fresh_trunk(VARIANT, CONFIG)
    assert "backbone_weights" in caplog.text


def test_lists_that_do_not_fit_are_refused(images, tmp_path):
    other = dataclasses.replace(images, class_names=("dark", "bright"))
    with pytest.raises(ValueError, match="same classes.*'dark', 'bright'"):
        train_detector("tiny", VARIANT, CONFIG, images, other, tmp_path)
    with pytest.raises(ValueError, match="`test` must have images"):
        train_detector(
            "tiny", VARIANT, CONFIG, images, images.subset([]), tmp_path
        )


def test_several_processes_are_refused(monkeypatch):
    """As they are not told to read different images."""
    several = Devices(2, (0, 2))
    monkeypatch.setattr(detector_fit, "find_devices", lambda _: several)
    with pytest.raises(ValueError, match="in one process.*of 2 processes"):
        detector_fit._devices(None)


def test_the_fingerprint_is_of_what_the_lists_say(images):
    found = detector_fit._fingerprint(images)
    assert found.startswith("4 images, sha256 ")
    assert detector_fit._fingerprint(images.subset([0, 1])) != found
    first = images.images[0]
    moved = dataclasses.replace(first, boxes=first.boxes + 1)
    changed = dataclasses.replace(images, images=(moved, *images.images[1:]))
    assert detector_fit._fingerprint(changed) != found
