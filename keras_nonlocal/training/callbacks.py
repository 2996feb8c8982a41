"""Callbacks of `fit`."""

import os
import pathlib
import time

import keras
from absl import logging

from keras_nonlocal.data.skips import SkipLog

_SECONDS_BETWEEN_SAVES = 10.0


class SkipReport(keras.callbacks.Callback):
    """Shows in `fit` how many clips could not be read, and keeps a list.

    Adds `skipped` and `slow` (those of them that took too long) to the logs
    of every epoch, so that the history, CSV files and TensorBoard hold them,
    and to those of every batch once there are any, so that the progress bar
    shows them. Counts go on over the epochs. Put it before callbacks that
    write logs.

    Args:
        skips: What the data set counts in.
        path: JSON file with the reason for every file, written at least after
            every epoch. `None` writes none.

    Example:

    ```python
    train = keras_nonlocal.video_dataset_from_directory("videos")
    report = keras_nonlocal.SkipReport(train.skips, "runs/mine/skipped.json")
    model.fit(train, callbacks=[report], shuffle=False)
    ```
    """

    def __init__(
        self, skips: SkipLog, path: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        self.skips = skips
        self.path = path
        self._saved = 0.0
        if path is not None:
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Adds the counts to the logs of a batch; keeps the list."""
        if self.skips.count:
            self._add_to(logs)
            # A run that is broken off does not get to the end of its epoch.
            if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
                self._save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the counts to the logs of an epoch and writes the list."""
        self._add_to(logs)
        self._save()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Writes the list."""
        self._save()

    def _add_to(self, logs: dict | None) -> None:
        if logs is not None:
            logs["skipped"] = self.skips.count
            logs["slow"] = self.skips.slow

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self.path is None:
            return
        try:
            self.skips.save(self.path)
        except OSError as error:  # A full disk is no reason to stop training.
            logging.warning("%s could not be written: %s", self.path, error)
