"""What a training run leaves behind: its settings, its curves and a page."""

import csv
import datetime
import importlib.util
import io
import json
import math
import os
import pathlib
import shlex
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
from absl import logging

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.training.checkpoints import RunState
from keras_nonlocal.training.environment import environment
from keras_nonlocal.visualization import figures
from keras_nonlocal.visualization import report

_SECONDS_BETWEEN_PAGES = 30.0
# Drawing takes longer than an epoch of a tiny set.
_SECONDS_BETWEEN_CURVES = 5.0
# Rows of the page's tables.
_SHOWN = 100


def begin_run(
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    name: str | None = None,
    command: Sequence[str] | None = None,
    resumed: bool = False,
) -> dict[str, Any]:
    """Writes `config.json` about a run that begins, or goes on.

    Args:
        folder: Where to; made if missing.
        settings: As `run_settings` gives.
        name: Of the network or the recipe.
        command: What was called, with arguments; by default this process.
        resumed: Whether an earlier run in the folder goes on: its starts are
            kept.

    Returns:
        What it has written: `name`, the settings, and for every start of
        the run in `starts` its command and `environment()`.

    Raises:
        OSError: If it cannot be written.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    start = {
        "command": shlex.join(sys.orig_argv if command is None else command),
        **environment(),
    }
    about = {
        "name": name,
        **settings,
        "starts": [*(_starts(path) if resumed else []), start],
    }
    write_json(path, about)
    return about


def _starts(path: pathlib.Path) -> list:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        logging.warning("Earlier starts are not in %s: %s", path, error)
        return []


def write_history(
    path: str | os.PathLike[str], epoch_logs: Sequence[Mapping[str, Any]]
) -> None:
    """Writes a CSV file with a row for each epoch.

    Args:
        path: The file; replaced if it is there.
        epoch_logs: Those of every epoch. Their numbers are from 0, as those of
            `keras.callbacks.CSVLogger`.

    Raises:
        OSError: If it cannot be written.
    """
    names = {name: None for logs in epoch_logs for name in logs}
    text = io.StringIO()
    table = csv.DictWriter(text, ["epoch", *names], lineterminator="\n")
    table.writeheader()
    for epoch, logs in enumerate(epoch_logs):
        table.writerow({"epoch": epoch, **logs})
    write_text(path, text.getvalue())


def tensorboard(
    folder: str | os.PathLike[str],
) -> keras.callbacks.TensorBoard:
    """The callback that writes logs for TensorBoard.

    Args:
        folder: Where to.

    Raises:
        ImportError: If tensorboard is not installed, which TensorFlow's own
            writing needs.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "`tensorboard` needs it: pip install 'keras-nonlocal[tensorboard]'"
        )
    return keras.callbacks.TensorBoard(os.fspath(folder), write_graph=False)


class RunPage(keras.callbacks.Callback):
    """Keeps a page about a run up to date while it trains.

    Writes `history.csv`, `curves.png` and `index.html` after every epoch, the
    page also in between, the curves of very short epochs not after each. They
    are complete at any time. Without matplotlib the page says how to get the
    curves.

    Put it behind `RunState`, whose epochs it shows.

    Args:
        folder: Where to; made if missing.
        title: Of the page.
        state: What knows of all epochs, also those before an interruption.
        about: How the run was made, as `begin_run` has written it.
        skips: What could not be read.
        draw: Gives the curves as a PNG, of the title and the history; `None`
            where there is nothing to draw. Default: loss and metrics, in
            training and testing.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        title: str,
        state: RunState,
        about: Mapping[str, Any],
        skips: SkipLog | None = None,
        draw: Callable[[str, Mapping[str, list]], bytes | None] | None = None,
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder)
        self._draw_curves = draw or _curves
        self._title = title
        self._state = state
        self._about = about
        self._skips = skips
        self._curves = ""
        self._began = self._written = time.monotonic()
        self._drawn = -math.inf
        self._epochs_before = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Writes what there is of an earlier part of the run."""
        self._began = time.monotonic()
        self._epochs_before = len(self._state.epoch_logs)
        self._write_history()
        self._draw()
        self._write_page(self._progress(0))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the page if the last one is old."""
        if time.monotonic() - self._written > _SECONDS_BETWEEN_PAGES:
            loss = (logs or {}).get("loss", math.nan)
            self._write_page(
                f"{self._progress(batch + 1)} The loss of the epoch so far is "
                f"{loss:.4g}."
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes all of it."""
        self._write_history()
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_CURVES:
            self._draw()
        self._write_page(self._progress(0))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Writes the page that stays."""
        self._draw()
        done = len(self._state.epoch_logs)
        self._write_page(f"Training is over, after {done} epochs.")

    def _progress(self, step: int) -> str:
        """Where the run is after a step of an epoch that has begun."""
        done, epochs = len(self._state.epoch_logs), self.params["epochs"]
        steps = self.params["steps"]
        where = f"{done} of {epochs} epochs are over"
        if step:
            where += f", and {step} of {steps or 'unknown'} steps of the next"
        share = step / steps if steps else 0.0
        now = done - self._epochs_before + share
        if not now:
            return f"{where}."
        seconds = (time.monotonic() - self._began) / now
        left = duration((epochs - done - share) * seconds)
        return f"{where}. About {left} to go."

    def _write_history(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_history(self.folder / "history.csv", self._state.epoch_logs)
        except OSError as error:  # No reason to stop training.
            logging.warning("The history could not be written: %s", error)

    def _draw(self) -> None:
        try:
            png = self._draw_curves(self._title, self._state.history)
            if png is None:
                return
            with replacing(self.folder / "curves.png") as file:
                file.write(png)
        except ImportError as error:
            self._curves = report.paragraph(str(error), note=True)
        except OSError as error:
            logging.warning("The curves could not be written: %s", error)
        else:
            self._curves = report.picture(png, "Losses and scores over epochs")
        self._drawn = time.monotonic()

    def _write_page(self, status: str) -> None:
        self._written = time.monotonic()
        now = datetime.datetime.now().isoformat(" ", "seconds")
        unit = "clip" if self._skips is None else self._skips.unit
        sections = [
            report.paragraph(status),
            report.paragraph(f"Written {now}.", note=True),
            self._curves,
            report.heading("Epochs"),
            _epoch_table(self._state.epoch_logs),
            report.heading(f"{unit.capitalize()}s that could not be read"),
            *_skipped(self._skips),
            report.heading("How this is made"),
            report.code(json.dumps(self._about, indent=1)),
        ]
        page = report.page(self._title, sections)
        try:
            write_text(self.folder / "index.html", page)
        except OSError as error:  # No reason to stop training.
            logging.warning("The page could not be written: %s", error)


def duration(seconds: float) -> str:
    """A time for people to read.

    >>> duration(75), duration(7260), duration(200_000)
    ('1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    # The first that is not 0 and the one after it.
    first = next((i for i, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2])


def _epoch_table(epoch_logs: Sequence[Mapping[str, Any]]) -> str:
    """The last epochs, the newest first."""
    names = list({name: None for logs in epoch_logs for name in logs})
    rows = [
        (str(number), *(_number(logs.get(name)) for name in names))
        for number, logs in enumerate(epoch_logs, 1)
    ]
    return report.table(("epoch", *names), rows[: -_SHOWN - 1 : -1])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _curves(title: str, history: Mapping[str, list]) -> bytes | None:
    """Loss and metrics in training and in the tests after it."""
    if "val_loss" not in history:
        return None
    return figures.training_curves({title: history})


def _skipped(skips: SkipLog | None) -> list[str]:
    if skips is None:
        return [report.paragraph("They were not counted.")]
    summary = skips.summary()
    skipped = summary[f"{skips.unit}s_skipped"]
    total = skipped + summary[f"{skips.unit}s_read"]
    count = (
        f"{skipped:,} of {total:,} {skips.unit}s since the run was last "
        "started."
    )
    reasons = list(summary["skipped"].items())[:_SHOWN]
    if not reasons:
        return [report.paragraph(count)]
    table = report.table(("file", "reason"), reasons)
    return [report.paragraph(count), table]
