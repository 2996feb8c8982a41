import json

import keras
import pytest

from keras_nonlocal.evaluation import detector_models
from keras_nonlocal.evaluation.detector_models import OpenedDetector
from keras_nonlocal.evaluation.detector_models import open_detector
from keras_nonlocal.models.labels import class_names
from keras_nonlocal.weights.catalogue import CATALOGUE
from tests.detection.detectors import tiny_detector


@pytest.fixture(scope="module")
def model():
    return tiny_detector(classes=3)


def test_a_run_says_classes_and_sizes(model, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    model.save(folder / "model.keras")
    about = {
        "name": "mine",
        "class_names": ["cat", "dog", "cow"],
        "config": {"test_short_side": 320, "max_side": 500},
    }
    (folder / "config.json").write_text(json.dumps(about))
    opened = open_detector(folder)
    assert opened.class_names == ("cat", "dog", "cow")
    assert (opened.short_side, opened.max_side) == (320, 500)
    assert opened.name == "mine"
    (tmp_path / "copy.keras").write_bytes((folder / "model.keras").read_bytes())
    # What is beside a file of another name may be of another model.
    (tmp_path / "config.json").write_text(json.dumps(about))
    other = open_detector(tmp_path / "copy.keras")
    assert other.class_names is None and other.short_side == 800


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"class_names": ["two", "only"], "config": {"test_short_side": -1}}',
        '{"class_names": [1, 2, 3], "config": 7, "name": 3}',
    ],
)
def test_settings_that_do_not_fit_are_passed_over(text, model, tmp_path):
    (tmp_path / "config.json").write_text(text)
    plain = OpenedDetector(model, "plain")
    path = tmp_path / "model.keras"
    assert detector_models._with_about(plain, path) == plain


def test_what_is_no_detector_is_refused(tmp_path):
    classifier = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    classifier.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="must be a detector.*: Sequential"):
        open_detector(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(ValueError, match="text.keras must be a model that"):
        open_detector(tmp_path / "text.keras")
    (tmp_path / "empty").mkdir()
    for name in (
        "nothing",
        str(tmp_path / "empty"),
        str(tmp_path / "missing.keras"),
        "torchvision_resnet50",
    ):
        with pytest.raises(ValueError, match=f"Received: .*{name}"):
            open_detector(name)


def test_published_detectors_have_cocos_classes():
    entry = CATALOGUE["detectron2_mask_rcnn_R_50_FPN_3x"]
    assert entry.classes == len(class_names(entry.dataset))
