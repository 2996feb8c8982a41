import csv
import json
import sys
import types

import keras
import numpy as np
import pytest

from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.training import run_folder
from keras_nonlocal.training.checkpoints import RunState
from keras_nonlocal.training.run_folder import RunPage

SETTINGS = {"config": {"batch_size": 2}, "network": {"depth": 50}}
FIRST = b"\x89PNG"


def fit(folder, epochs, *callbacks, skips=None, metrics=("accuracy",)):
    """Trains, or goes on, with a page."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(
        "sgd", "sparse_categorical_crossentropy", metrics=list(metrics)
    )
    state = RunState(folder / "states", SETTINGS)
    page = RunPage(folder, "a <network>", state, SETTINGS, skips)
    x, y = np.ones((4, 3), "float32"), np.arange(4) % 2
    model.fit(
        x,
        y,
        batch_size=2,
        epochs=epochs,
        initial_epoch=state.restore(model),
        validation_data=(x, y),
        callbacks=[*callbacks, state, page],
        verbose=0,
    )
    return state


def rows(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_page_table_and_curves_of_a_run_that_goes_on(tmp_path):
    skips = SkipLog()
    skips.add("a&b.mp4", VideoError("a&b.mp4: no video stream"))
    skips.add_read("c.mp4")
    fit(tmp_path, 2)
    page = (tmp_path / "index.html").read_text()
    assert "Training is over, after 2 epochs." in page
    assert "They were not counted." in page
    state = fit(tmp_path, 4, skips=skips)
    found = rows(tmp_path)
    # Every epoch once.
    assert [row["epoch"] for row in found] == ["0", "1", "2", "3"]
    for name, values in state.history.items():
        assert [float(row[name]) for row in found] == values
    assert {"loss", "val_accuracy", "learning_rate"} <= set(found[0])
    assert (tmp_path / "curves.png").read_bytes().startswith(FIRST)
    page = (tmp_path / "index.html").read_text()
    assert "a &lt;network&gt;" in page and "<network>" not in page
    assert "Training is over, after 4 epochs." in page
    assert 'src="data:image/png;base64' in page
    assert "1 of 2 clips since" in page
    assert "a&amp;b.mp4: no video stream" in page
    assert f"{state.epoch_logs[-1]['val_loss']:.4g}" in page
    assert "learning_rate" in page and "batch_size" in page
    assert page.index("<td>4</td>") < page.index("<td>1</td>")
    assert not list(tmp_path.glob("*.part"))


class Snapshots(keras.callbacks.Callback):
    """What the page says before every step."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        page = (self.folder / "index.html").read_text()
        self.found.append(page.split("<p>")[1].split("</p>")[0])


def test_the_page_is_up_to_date_when_an_epoch_begins(tmp_path):
    snapshots = Snapshots(tmp_path)
    fit(tmp_path, 2, snapshots)
    assert snapshots.found[:2] == ["0 of 2 epochs are over."] * 2
    # That of the first epoch, as the second lasts no time.
    assert snapshots.found[2] == snapshots.found[3]
    assert snapshots.found[2].startswith("1 of 2 epochs are over. About ")


def test_the_page_tells_how_far_it_is(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(run_folder, "time", clock)
    state = RunState(tmp_path, SETTINGS)
    state.epoch_logs.append({"loss": 1.0})
    page = RunPage(tmp_path, "title", state, SETTINGS)
    page.set_params({"epochs": 6, "steps": 10})

    def status():
        text = (tmp_path / "index.html").read_text()
        return text.split("<p>")[1].split("</p>")[0]

    page.on_train_begin()
    assert status() == "1 of 6 epochs are over."
    state.epoch_logs.append({"loss": 0.5})
    clock.now += 40
    page.on_epoch_end(1)
    assert status() == "2 of 6 epochs are over. About 2 min 40 s to go."
    clock.now += 20
    page.on_train_batch_end(4, {"loss": 0.25})  # The page is 20 s old.
    assert status().startswith("2 of 6 epochs are over. ")
    clock.now += 40
    page.on_train_batch_end(9, {"loss": 0.25})
    expected = (
        "2 of 6 epochs are over, and 10 of 10 steps of the next. About 2 min "
        "30 s to go. The loss of the epoch so far is 0.25."
    )
    assert status() == expected


def test_without_matplotlib_the_page_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    fit(tmp_path, 1)
    page = (tmp_path / "index.html").read_text()
    assert "pip install &#x27;keras-nonlocal[plot]&#x27;" in page
    assert not (tmp_path / "curves.png").exists()
    assert len(rows(tmp_path)) == 1


def test_other_metrics_are_in_the_tables(tmp_path):
    fit(tmp_path, 1, metrics=["mae"])
    assert {"mae", "val_mae"} <= set(rows(tmp_path)[0])
    assert "val_mae" in (tmp_path / "index.html").read_text()


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    for name in ("index.html", "history.csv", "curves.png"):
        (tmp_path / name).mkdir()
    assert len(fit(tmp_path, 1).epoch_logs) == 1
    for name in ("page", "history", "curves"):
        assert f"The {name} could not be written" in caplog.text


def test_a_metric_may_have_several_values_or_none(tmp_path):
    logs = [{"loss": 0.5, "f1": [0.1, 0.2]}, {"loss": 0.25}]
    run_folder.write_history(tmp_path / "history.csv", logs)
    first, second = rows(tmp_path)
    assert first == {"epoch": "0", "loss": "0.5", "f1": "[0.1, 0.2]"}
    assert second == {"epoch": "1", "loss": "0.25", "f1": ""}


def test_settings_of_a_run_and_its_starts(tmp_path):
    folder = tmp_path / "new" / "run"
    first = run_folder.begin_run(
        folder, SETTINGS, name="nl", command=["train", "--out", "a b"]
    )
    written = json.loads((folder / "config.json").read_text())
    assert written == first
    assert written["name"] == "nl"
    assert written["config"] == SETTINGS["config"]
    (start,) = written["starts"]
    assert start["command"] == "train --out 'a b'"
    assert start["versions"]["keras"] == keras.__version__
    again = run_folder.begin_run(folder, SETTINGS, resumed=True)
    assert again["starts"][0] == start
    # This process: pytest, or what it has started.
    assert "python" in again["starts"][1]["command"]
    anew = run_folder.begin_run(folder, SETTINGS)
    assert len(anew["starts"]) == 1


def test_settings_that_cannot_be_read_stop_nothing(tmp_path, caplog):
    (tmp_path / "config.json").write_text("[]")
    about = run_folder.begin_run(tmp_path, SETTINGS, resumed=True)
    assert len(about["starts"]) == 1
    assert "Earlier starts are not in" in caplog.text


def test_tensorboard_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-nonlocal\[ten"):
        run_folder.tensorboard(tmp_path)


def test_logs_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    fit(tmp_path, 1, run_folder.tensorboard(tmp_path / "logs"))
    assert list((tmp_path / "logs" / "train").glob("events*"))
    assert list((tmp_path / "logs" / "validation").glob("events*"))
