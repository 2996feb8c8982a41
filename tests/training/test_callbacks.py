import csv
import json

import keras
import numpy as np
import pytest

from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.training import callbacks
from keras_nonlocal.training.callbacks import SkipReport


class Failing(keras.callbacks.Callback):
    """Two clips that cannot be read in every epoch of 10 steps."""

    def __init__(self, skips):
        super().__init__()
        self.skips = skips

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            self.skips.add("a.mp4", VideoError("a.mp4: no video stream"))
        if batch == 6:
            self.skips.add("b.mp4", TimeLimitError("b.mp4: not read in 1 s"))


def fit(*extra, verbose=0):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model.fit(
        np.zeros((20, 2)),
        np.zeros((20, 1)),
        batch_size=2,
        epochs=2,
        callbacks=list(extra),
        verbose=verbose,
    ).history


def test_counts_are_in_history_files_and_progress(tmp_path, capsys):
    skips = SkipLog()
    table = tmp_path / "history.csv"
    report = SkipReport(skips, tmp_path / "new" / "folder" / "skipped.json")
    logger = keras.callbacks.CSVLogger(str(table))
    history = fit(Failing(skips), report, logger, verbose=1)
    assert history["skipped"] == [2, 4]
    assert history["slow"] == [1, 2]
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["skipped"] for row in rows] == ["2", "4"]
    assert "skipped: 4.0" in capsys.readouterr().out
    assert json.loads(report.path.read_text()) == skips.summary()


def test_the_list_outlives_a_run_that_is_broken_off(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_SECONDS_BETWEEN_SAVES", 0.0)
    skips = SkipLog()

    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 8:
                raise KeyboardInterrupt

    path = tmp_path / "skipped.json"
    with pytest.raises(KeyboardInterrupt):
        fit(Failing(skips), SkipReport(skips, path), Break())
    assert set(json.loads(path.read_text())["skipped"]) == {"a.mp4", "b.mp4"}


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    path = tmp_path / "skipped.json"
    report = SkipReport(SkipLog(), path)
    path.mkdir()
    assert len(fit(report)["loss"]) == 2
    assert "skipped.json could not be written" in caplog.text
