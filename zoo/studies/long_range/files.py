"""What a study keeps in its folder, written whole or not at all."""

import dataclasses
import json
import pathlib
from typing import Any

from keras_nonlocal.data.atomic_files import write_json
from zoo.studies.long_range.settings import Settings

TRUNK = "trunk"
# Of the study itself, with what it found.
HOME = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        arm: A name in `arms.ARMS`, or `TRUNK`: the pretraining of a seed.
        seed: Of weights, clips and their order.
    """

    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


def list_jobs(names: list[str], seeds: list[int]) -> list[Job]:
    """Trunks first, then seed by seed, so that a part is a balanced part."""
    jobs = [Job(TRUNK, seed) for seed in seeds]
    return jobs + [Job(arm, seed) for seed in seeds for arm in names]


def trunk_path(folder: pathlib.Path, seed: int) -> pathlib.Path:
    """The pretrained weights of a seed."""
    return folder / f"{TRUNK}_{seed}.weights.h5"


def result_path(folder: pathlib.Path, job: Job) -> pathlib.Path:
    """What came of a training."""
    return folder / f"{job.arm}_{job.seed}.json"


def write_result(
    folder: pathlib.Path, job: Job, settings: Settings, result: dict[str, Any]
) -> None:
    """Keeps what came of a training, with the settings it was made with."""
    content = {**dataclasses.asdict(job), **result}
    content["settings"] = settings.as_dict()
    write_json(result_path(folder, job), content)


def read_result(
    folder: pathlib.Path, job: Job, settings: Settings
) -> dict[str, Any] | None:
    """What came of a training, or `None` if it has not been done.

    Raises:
        ValueError: If it was done with other settings.
    """
    path = result_path(folder, job)
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    if result["settings"] != settings.as_dict():
        raise ValueError(
            f"`out` must be a new folder or one made with the same settings, "
            f"{settings.as_dict()}. Received: {path}, made with "
            f"{result['settings']}"
        )
    return result
