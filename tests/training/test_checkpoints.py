import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal.training.checkpoints import OtherSettingsError
from keras_nonlocal.training.checkpoints import RunState
from keras_nonlocal.training.checkpoints import run_settings
from tests.training import resumed

SETTINGS = {"config": {"learning_rate": 0.1, "num_workers": 0}, "backend": "x"}


def run_script(mode, videos, folder, **environment):
    job = folder / "job.json"
    job.write_text(
        json.dumps({"paths": videos.paths, "labels": videos.labels.tolist()})
    )
    states = str(folder / "states")
    command = ["-m", "tests.training.resumed", mode, str(job), states]
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        check=False,
        env=os.environ | environment,
        text=True,
        timeout=200,
    )


def test_a_killed_run_goes_on_as_if_it_had_not_been(videos, tmp_path):
    result = run_script("killed", videos, tmp_path)
    assert result.returncode == -signal.SIGKILL, result.stderr
    saved = sorted(path.name for path in (tmp_path / "states").iterdir())
    assert saved == ["state-000001.npz", "state-000002.npz"]
    broken = resumed.train(videos, tmp_path / "states")
    resumed.assert_same(broken, resumed.train(videos, tmp_path / "whole"))
    history = broken[0].history
    assert len(set(history["loss"])) == resumed.EPOCHS
    assert history["learning_rate"][-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("mode", "backend"), [("mirrored", "tensorflow"), ("one", "jax")]
)
def test_goes_on_elsewhere(videos, tmp_path, mode, backend):
    result = run_script(mode, videos, tmp_path, KERAS_BACKEND=backend)
    assert result.returncode == 0, result.stderr


def fitted(state, epochs, initial_epoch=None, units=2, model=None):
    """A model that was trained on with `state`."""
    model = model or make_model(units)
    if initial_epoch is None:
        initial_epoch = state.restore(model)
    model.fit(
        np.ones((4, 3), "float32"),
        np.arange(4.0),
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[state],
        verbose=0,
    )
    return model


def make_model(units=2):
    inputs = keras.Input((3,))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(units)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the states of 2 epochs."""
    folder = tmp_path_factory.mktemp("saved")
    fitted(RunState(folder, SETTINGS, {"numpy": "1"}), epochs=2)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "copy")


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_bit(path):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        # Behind the two headers of an array.
        place = archive.getinfo("00000.npy").header_offset + 195
    content[place] ^= 1
    path.write_bytes(content)


def damage_all(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_half, damage_bit, damage_all])
def test_a_damaged_state_is_passed_over(folder, damage, caplog):
    damage(folder / "state-000002.npz")
    state, model = RunState(folder, SETTINGS, {"numpy": "1"}), make_model()
    assert state.restore(model) == 1
    assert "state-000002.npz is damaged" in caplog.text
    # It is the same as it would be without the damaged one.
    (folder / "state-000002.npz").unlink()
    other = make_model()
    RunState(folder, SETTINGS, {"numpy": "1"}).restore(other)
    for ours, theirs in zip(
        model.get_weights(), other.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def rewritten(path, name, content):
    """Puts another member into an archive, with a right checksum."""
    with zipfile.ZipFile(path) as archive:
        members = {x: archive.read(x) for x in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in {**members, name: content}.items():
            archive.writestr(key, value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("00000.npy", b"not an array"),
        (
            "00000.npy",
            b"\x93NUMPY\x01\x00\x76\x00"
            + b"{'descr': '<f4', 'fortran_order': False, "
            b"'shape': (1000000000000,), }".ljust(117)
            + b"\n",
        ),
        ("about.json", b"{}"),
        ("about.json", b"[1]"),
        ("about.json", b"{"),
    ],
)
def test_a_state_that_is_none_is_passed_over(folder, name, content):
    rewritten(folder / "state-000002.npz", name, content)
    state = RunState(folder, SETTINGS, {"numpy": "1"})
    assert state.restore(make_model()) == 1


def test_damaged_states_alone_are_an_error(folder):
    for path in folder.iterdir():
        damage_half(path)
    with pytest.raises(ValueError, match="not damaged; .* remove state-00000"):
        RunState(folder, SETTINGS).restore(make_model())


def test_states_can_be_read_without_pickle(folder):
    with np.load(folder / "state-000002.npz", allow_pickle=False) as arrays:
        assert arrays["00000"].dtype == "float32"
        about = json.loads(arrays["about.json"])
    assert len(about["epochs"]) == 2
    assert about["settings"] == {**SETTINGS, "replicas": 1}


def test_no_more_than_two_states_are_kept(folder):
    state = RunState(folder, SETTINGS, {"numpy": "1"})
    fitted(state, epochs=5)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["state-000004.npz", "state-000005.npz"]
    assert [len(x) for x in state.history.values()] == [5, 5]
    assert set(state.history) == {"loss", "learning_rate"}
    # What is over stays over.
    again = RunState(folder, SETTINGS, {"numpy": "1"})
    fitted(again, epochs=5)
    assert again.epoch_logs == state.epoch_logs


def test_other_settings_are_refused(folder):
    other = {"config": {"learning_rate": 0.2, "num_workers": 0}, "seed": 1}
    model = make_model()
    before = model.get_weights()
    message = (
        "config.learning_rate was 0.1 and is now 0.2, backend was 'x' and is "
        "now None, seed was None and is now 1. Take another folder"
    )
    with pytest.raises(OtherSettingsError, match=message):
        RunState(folder, other).restore(model)
    for ours, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_settings_that_change_nothing_may_differ(folder):
    other = {"config": {"learning_rate": 0.1, "num_workers": 3}, "backend": "x"}
    assert RunState(folder, other).restore(make_model()) == 2


def test_another_network_is_refused(folder):
    with pytest.raises(OtherSettingsError, match="variables of network"):
        RunState(folder, SETTINGS).restore(make_model(units=5))


def test_other_versions_are_warned_of(folder, caplog):
    state = RunState(folder, SETTINGS, {"numpy": "2", "keras": "3"})
    assert state.restore(make_model()) == 2
    assert "numpy was 1 and is now 2, keras was None and is now 3" in (
        caplog.text
    )


def test_the_epoch_must_be_the_next(folder):
    state = RunState(folder, SETTINGS, {"numpy": "1"})
    model = make_model()
    state.restore(model)
    with pytest.raises(ValueError, match="`initial_epoch`.*2. Received: 0"):
        fitted(state, 3, initial_epoch=0, model=model)


def test_a_run_that_begins_anew_removes_the_other(folder):
    (folder / "state-000007.npz.123.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    state = RunState(folder, SETTINGS)
    fitted(state, epochs=1, initial_epoch=0)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["notes.txt", "state-000001.npz"]
    state.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    state = RunState(tmp_path / "file", SETTINGS)
    fitted(state, epochs=2)
    assert len(state.epoch_logs) == 2
    assert "could not be saved" in caplog.text


def test_scale_of_the_loss_is_restored(tmp_path):
    """A half-precision run that was broken off goes on with its scale."""

    def make():
        keras.utils.set_random_seed(0)
        model = make_model()
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.01, momentum=0.9), dynamic_growth_steps=3
        )
        model.compile(optimizer, "mse")
        return model

    def train(folder, epochs):
        state = RunState(folder, SETTINGS)
        return state, fitted(state, epochs, model=make())

    train(tmp_path / "two", 2)
    state, model = train(tmp_path / "two", 5)
    other_state, other = train(tmp_path / "one", 5)
    assert state.epoch_logs == other_state.epoch_logs
    assert float(model.optimizer.dynamic_scale) == 2.0**16
    for ours, theirs in zip(
        model.optimizer.variables, other.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_must_be_compiled(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="compiled"):
        RunState(tmp_path, SETTINGS).restore(model)


def test_settings_say_what_results_depend_on(tmp_path):
    config = TrainConfig(ClipSpec(8, 2))
    lists = {
        "moved": VideoList(("/b/x/1.mp4", "/b/y/2.mp4"), [0, 1], ("x", "y")),
        "label": VideoList(("/a/x/1.mp4", "/a/y/2.mp4"), [1, 1], ("x", "y")),
        "path": VideoList(("/a/x/1.mp4", "/a/y/3.mp4"), [0, 1], ("x", "y")),
        "class": VideoList(("/a/x/1.mp4", "/a/y/2.mp4"), [0, 1], ("x", "z")),
        "part": VideoList(
            ("/a/x/1.mp4", "/a/y/2.mp4"), [0, 1], ("x", "y"), [[0, 1], [0, 2]]
        ),
    }
    videos = VideoList(("/a/x/1.mp4", "/a/y/2.mp4"), [0, 1], ("x", "y"))
    settings = run_settings(config, Variant(), videos, videos)
    assert settings["config"]["clip"]["num_frames"] == 8
    assert settings["network"]["depth"] == Variant().depth
    assert settings["train_videos"].startswith("2 videos, sha256 ")
    for name, other in lists.items():
        found = run_settings(config, Variant(), other, videos)
        assert (found == settings) == (name == "moved"), name
    several = dataclasses.replace(
        videos, labels=None, actions=[[[0, 1.0, 2.0]], []]
    )
    assert run_settings(config, Variant(), several, several) != settings
