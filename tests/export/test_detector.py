"""Detectors as they are served."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data.images import resize_image
from keras_nonlocal.data.images import resized
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.detection.masks import paste_masks
from keras_nonlocal.export import detector as export
from keras_nonlocal.export.saved_model import read_about
from tests import checks
from tests.detection.detectors import tiny_detector

SIZE = {"short_side": 64, "max_side": 96}
ABOUT = {"class_names": ["a", "b", "c"]}
# A process that has Keras and TensorFlow but not this package.
FRESH = """
import sys
import numpy as np
import tensorflow as tf
folder, images, found = sys.argv[1:]
served = tf.saved_model.load(folder)
serve = served.signatures["serving_default"]
data = np.load(images)
objects = {}
for name in data:
    got = {k: v.numpy() for k, v in serve(tf.constant(data[name])).items()}
    objects |= {f"{name}/{k}": v for k, v in got.items()}
    objects[f"{name}/pasted"] = served.paste(
        got["masks"][0], got["boxes"][0], *data[name].shape[1:3]
    )
np.savez(found, **objects)
assert "keras_nonlocal" not in sys.modules
"""


@pytest.fixture(scope="module")
def model():
    model = tiny_detector(score_threshold=0.01)
    checks.randomize(model, scale=0.1)
    return model


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "served"
    export.export_detector(model, folder, ABOUT, **SIZE)
    return folder


def expected(model, images):
    """What the model finds in images that are resized before."""
    size = resized(*images.shape[1:3], *SIZE.values())
    rows = (len(images), 1)
    # Not `predict`, which would trace each size.
    return model(
        {
            "images": np.stack(
                [resize_image(image, *size) for image in images]
            ),
            "sizes": np.tile(size, rows),
            "original_sizes": np.tile(images.shape[1:3], rows),
        }
    )


def test_a_fresh_process_serves_any_batch_and_size(
    model, served, rng, tmp_path
):
    shapes = [(1, 50, 70, 3), (3, 90, 60, 3), (2, 40, 100, 3)]
    images = {
        f"images{i}": rng.integers(0, 256, shape, "uint8")
        for i, shape in enumerate(shapes)
    }
    images["black"] = np.zeros((1, 64, 64, 3), "uint8")
    np.savez(tmp_path / "images.npz", **images)
    subprocess.run(
        [sys.executable, "-c", FRESH, str(served)]
        + [str(tmp_path / x) for x in ("images.npz", "found.npz")],
        check=True,
        cwd=tmp_path,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""},
    )
    found = np.load(tmp_path / "found.npz")
    total = 0
    for name, batch in images.items():
        wanted = {
            key: np.asarray(value)
            for key, value in expected(model, batch).items()
        }
        for key, value in wanted.items():
            np.testing.assert_allclose(
                found[f"{name}/{key}"], value, atol=1e-3, err_msg=name
            )
        total += wanted["num_detections"].sum()
        pasted = paste_masks(
            wanted["masks"][0], wanted["boxes"][0], *batch.shape[1:3]
        )
        # A pixel on the edge of a mask may fall on either side.
        assert np.mean(found[f"{name}/pasted"] != np.asarray(pasted)) < 1e-3
    assert total > 5


def test_half_precision_is_served_in_float32(model, rng):
    half = MaskRCNN(model.variant, dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    copy = export._in_float32(half)
    images = rng.integers(0, 256, (1, 64, 96, 3), "uint8")
    found, wanted = copy(images), model(images)
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value)
    assert export._in_float32(model) is model


def test_about_is_kept(served):
    assert read_about(served) == {**SIZE, **ABOUT}


@pytest.mark.parametrize("size", [(480, 640), (375, 1242), (33, 17), (1, 900)])
def test_sizes_are_those_of_the_data(size):
    found = export._resized(tf.constant(size), 800, 1333)
    assert tuple(found.numpy()) == resized(*size, 800, 1333)


def test_refuses(model, served, tmp_path):
    for error, arguments, message in (
        (FileExistsError, (model, served), "overwrite=True"),
        (ValueError, (tf.Module(), tmp_path / "x"), "must be a MaskRCNN"),
    ):
        with pytest.raises(error, match=message):
            export.export_detector(*arguments, **SIZE)
    with pytest.raises(ValueError, match="at most `max_side`"):
        export.export_detector(model, tmp_path / "x", short_side=9, max_side=8)
    assert not (tmp_path / "x").exists()


def test_what_differs_is_refused(served):
    def other(images):
        return {"scores": tf.fill((tf.shape(images)[0], 8), 2.0)}

    with pytest.raises(ValueError, match="differs from the .*in `scores`"):
        export._verify(other, served)
