"""Training and testing every arm on every fold with every seed; resumable."""

import dataclasses
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.folds import grouped_folds
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.training.environment import environment
from zoo.studies.own_videos.arms import ARMS
from zoo.studies.own_videos.features import digest
from zoo.studies.own_videos.features import stamp
from zoo.studies.own_videos.outcome import Outcome

# Of a run, beside its last loss.
_REPORTED = (
    *("arm", "fold", "seed", "tested", "correct"),
    *("parameters", "seconds", "predictions"),
)


class Trainer(Protocol):
    """Trains one arm on some videos and tests it on others."""

    def run(
        self, arm: str, train: np.ndarray, test: np.ndarray, seed: int
    ) -> Outcome:
        """Does so, with the numbers of the videos."""


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """The videos of a comparison and how they are dealt.

    Attributes:
        videos: The videos, of one class each.
        groups: The group of each.
        folds: The fold in which each is tested.
        settings: Everything else that results depend on, for JSON.
    """

    videos: VideoList
    groups: tuple[str, ...]
    folds: np.ndarray
    settings: dict

    @classmethod
    def deal(
        cls,
        videos: VideoList,
        groups: Sequence[str],
        num_folds: int,
        settings: dict,
    ) -> "Study":
        """Deals videos into folds.

        Raises:
            ValueError: If videos may have several classes, there is one class
                alone, or `grouped_folds` finds no folds.
        """
        if videos.multi_label:
            raise ValueError(
                "--data must have one class a video. Received: videos that "
                "may have several"
            )
        labels = [videos.class_names[label] for label in videos.labels]
        if len(set(labels)) < 2:
            raise ValueError(
                "--data must have videos of two or more classes. "
                f"Received: {sorted(set(labels))}"
            )
        folds = grouped_folds(groups, num_folds, labels)
        return cls(videos, tuple(groups), folds, settings)

    @property
    def name(self) -> str:
        """Changes with all that results depend on but arm, fold and seed."""
        videos = [
            [stamp(path), str(self.videos.segment(number))]
            for number, path in enumerate(self.videos.paths)
        ]
        return digest(
            {
                "settings": self.settings,
                "videos": videos,
                "labels": self.videos.labels.tolist(),
                "groups": self.groups,
                "folds": self.folds.tolist(),
                "version": importlib.metadata.version("keras-nonlocal"),
            }
        )

    def run(self, trainer: Trainer, seeds: int, out: pathlib.Path) -> list:
        """Trains what is not yet there.

        Args:
            trainer: What trains.
            seeds: How many seeds.
            out: Folder; each result is kept in a file of its own below it, so
                that a run that was stopped goes on where it was. Those of
                other settings or videos stay beside them.

        Returns:
            A dict of each run, arms first.

        Raises:
            ValueError: If a loss is not finite.
        """
        folder = out / "runs" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        num_folds = int(self.folds.max()) + 1
        # All arms of a fold in a row: a run that is stopped can be compared.
        places = [
            (arm, fold, seed)
            for seed, fold, arm in itertools.product(
                range(seeds), range(num_folds), ARMS
            )
        ]
        files = {
            place: folder / "{}-fold{}-seed{}.json".format(*place)
            for place in places
        }
        missing = [place for place in places if not files[place].exists()]
        start = time.monotonic()
        for number, (arm, fold, seed) in enumerate(missing, 1):
            run = self._run(trainer, arm, fold, seed)
            write_json(files[arm, fold, seed], run)
            left = (time.monotonic() - start) / number * (len(missing) - number)
            print(
                f"{number} of {len(missing)}: {arm}, fold {fold}, seed {seed}: "
                f"{run['correct']} of {run['tested']} right; "
                f"{left / 60:.0f} minutes left",
                flush=True,
            )
        runs = [json.loads(files[place].read_text()) for place in places]
        return sorted(runs, key=lambda run: ARMS.index(run["arm"]))

    def _run(self, trainer: Trainer, arm: str, fold: int, seed: int) -> dict:
        train = np.flatnonzero(self.folds != fold)
        test = np.flatnonzero(self.folds == fold)
        start = time.monotonic()
        outcome = trainer.run(arm, train, test, seed)
        if not all(map(math.isfinite, outcome.losses)):
            raise ValueError(
                f"{arm}, fold {fold}, seed {seed}: the loss is no longer "
                "finite; lower --learning_rate. Losses of the epochs: "
                f"{outcome.losses}"
            )
        labels = self.videos.labels
        return {
            "arm": arm,
            "fold": fold,
            "seed": seed,
            "tested": len(outcome.predictions),
            "correct": sum(
                int(labels[number] == label)
                for number, label in outcome.predictions.items()
            ),
            "parameters": outcome.parameters,
            "seconds": round(time.monotonic() - start, 1),
            "losses": [round(loss, 4) for loss in outcome.losses],
            "skipped": outcome.skipped,
            "predictions": outcome.predictions,
        }


def results(
    study: Study, runs: list[dict], base: str, skipped: dict[str, str]
) -> dict:
    """Everything about a study, as `results.json` has it.

    Args:
        study: The study.
        runs: What `Study.run` gave.
        base: Folder of the videos, which paths begin after.
        skipped: Reason for each video that was left out beforehand.
    """

    def inner(path: str) -> str:
        return os.path.relpath(path, base)

    for run in runs:
        skipped = {**skipped, **run["skipped"]}
    videos = study.videos
    return {
        **environment(),
        "settings": study.settings,
        "class_names": list(videos.class_names),
        "problems": videos.problem_counts(),
        "skipped": {
            inner(path): reason.replace(path, inner(path))
            for path, reason in skipped.items()
        },
        "videos": [
            {
                "path": inner(path),
                "segment": _segment(videos, number),
                "label": int(videos.labels[number]),
                "group": study.groups[number],
                "fold": int(study.folds[number]),
            }
            for number, path in enumerate(videos.paths)
        ],
        "runs": [
            {key: run[key] for key in _REPORTED} | {"loss": run["losses"][-1]}
            for run in runs
        ],
    }


def _segment(videos: VideoList, number: int) -> list[float | None] | None:
    """Start and end in seconds, as JSON has them: it has no NaN."""
    found = videos.segment(number)
    if found is None:
        return None
    return [None if math.isnan(second) else second for second in found]
