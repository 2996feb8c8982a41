import dataclasses

import numpy as np
import pytest

from keras_nonlocal import ResNet3D
from tests import checks
from tests.models.test_resnet3d import SMALL
from tests.models.test_resnet3d import random_clip
from tests.models.test_resnet3d import small


@pytest.fixture(params=[".weights.h5", ".keras"])
def saved(request, tmp_path):
    model = small()
    path = str(tmp_path / f"small{request.param}")
    if request.param == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return model, path


def test_weights_argument(saved, rng):
    model, path = saved
    clip = random_clip(rng)
    loaded = ResNet3D(SMALL, classes=5, weights=path)
    np.testing.assert_array_equal(
        checks.numpy(loaded(clip)), checks.numpy(model(clip))
    )


def test_one_file_serves_without_top(saved, rng):
    model, path = saved
    clip = random_clip(rng)
    headless = ResNet3D(SMALL, include_top=False, pooling="avg", weights=path)
    with_weights = [layer for layer in headless.layers if layer.weights]
    assert len(with_weights) > 50
    for layer in with_weights:
        for ours, theirs in zip(
            layer.weights, model.get_layer(layer.name).weights, strict=True
        ):
            np.testing.assert_array_equal(
                checks.numpy(ours), checks.numpy(theirs)
            )
    assert checks.numpy(headless(clip)).shape == (2, 128)


def test_contradicting_number_of_classes(saved):
    _, path = saved
    with pytest.raises(ValueError, match="holds 5 classes but classes=7"):
        ResNet3D(SMALL, classes=7, weights=path)


def test_another_network_lists_the_difference(saved):
    _, path = saved
    other = dataclasses.replace(SMALL, num_nonlocal=1)
    with pytest.raises(ValueError, match="Left over.*nonlocal_res3_1"):
        ResNet3D(other, classes=5, weights=path)
    other = dataclasses.replace(SMALL, inflation=None)
    with pytest.raises(ValueError, match="Of another shape.*conv1"):
        ResNet3D(other, classes=5, weights=path)


def test_equal_shapes_in_another_place_do_not_load(tmp_path):
    """Keras alone would fill one stage's block from the other's position."""
    one = dataclasses.replace(SMALL, num_nonlocal=1, nonlocal_stage="res3")
    path = str(tmp_path / "one.weights.h5")
    ResNet3D(one, classes=5).save_weights(path)
    moved = dataclasses.replace(one, nonlocal_stage="res4")
    with pytest.raises(
        ValueError, match="nonlocal_res4_0.*\n.*nonlocal_res3_0"
    ):
        ResNet3D(moved, classes=5, weights=path)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_broken_files(suffix, tmp_path):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"not a weights file")
    with pytest.raises(ValueError, match="not a Keras weights file"):
        ResNet3D(SMALL, classes=5, weights=str(path))
    with pytest.raises(ValueError, match="no file"):
        ResNet3D(SMALL, weights=str(tmp_path / f"absent{suffix}"))
    with pytest.raises(ValueError, match="ends in"):
        ResNet3D(SMALL, weights=str(tmp_path / "model.pth"))
