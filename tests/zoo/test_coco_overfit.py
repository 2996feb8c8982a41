import json
import pathlib

import numpy as np
import pytest

from keras_nonlocal.data.coco_annotations import read_coco
from tests.training.detector_images import write_images
from zoo.studies import coco_overfit


def test_learns_the_first_images_with_clear_objects(shared):
    folder = shared / "data" / "coco128"
    every = read_coco(folder / "instances_coco128.json", folder / "images")
    chosen = coco_overfit.choose(every)
    ids = [image.image_id for image in chosen.images]
    assert ids == [9, 25, 30, 34, 36, 42, 72, 73]
    for image in chosen.images:
        sides = image.boxes[:, 2:] - image.boxes[:, :2]
        assert np.min(sides) >= max(image.height, image.width) / 16


def test_too_few_images_are_said_to_be(tmp_path):
    few = read_coco(*write_images(tmp_path / "images", count=2))
    with pytest.raises(ValueError, match="must have 8 images.*Received: 2"):
        coco_overfit.choose(few)


def test_what_was_measured_is_of_these_settings():
    if not coco_overfit.RESULTS.exists():
        pytest.skip("not measured: python -m zoo.studies.coco_overfit")
    found = json.loads(coco_overfit.RESULTS.read_text())
    settings = coco_overfit.settings()
    assert {key: found[key] for key in settings} == settings
    assert found["is_reached"]
    assert found["box"]["AP50"] > found["goal"]["AP50"] == 0.8
    assert found["mask"]["AP50"] > 0.8
    assert found["history"]["box_AP50"][-1] == found["box"]["AP50"]


def test_the_guide_says_what_was_measured():
    if not coco_overfit.RESULTS.exists():
        pytest.skip("not measured: python -m zoo.studies.coco_overfit")
    found = json.loads(coco_overfit.RESULTS.read_text())
    guide = pathlib.Path(__file__).parents[2] / "docs" / "detection.md"
    said = (
        f"box AP50 {found['box']['AP50']:.2f} and mask AP50 "
        f"{found['mask']['AP50']:.2f} after {found['seconds']:.0f} s"
    )
    assert said in " ".join(guide.read_text().split())
