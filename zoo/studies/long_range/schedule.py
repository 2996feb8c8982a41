"""Runs trainings side by side, each in a process of its own."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence

from zoo.studies.long_range import files
from zoo.studies.long_range.files import Job
from zoo.studies.long_range.settings import Settings

# Called with arm, seed, folder and settings; leaves a result.
PROGRAM = (sys.executable, "-m", "zoo.studies.long_range.training")

_ROOT = pathlib.Path(__file__).resolve().parents[3]
_PAUSE = 0.2
# Seconds for one training, on a busy machine; one that takes longer hangs.
_LIMIT = 7200.0


def run(
    jobs: Sequence[Job],
    folder: pathlib.Path,
    settings: Settings,
    workers: int = 2,
    tell: Callable[[str], None] = print,
    program: Sequence[str] = PROGRAM,
) -> dict[str, str]:
    """Runs the jobs that have no result yet.

    A training that fails is noted, and the rest goes on. Whatever ends this
    function ends the trainings under way.

    Args:
        jobs: Trunks first.
        folder: Of results.
        settings: Of all of them.
        workers: Trainings at a time, of one thread each.
        tell: Takes lines of progress.
        program: What a training runs.

    Returns:
        For each failed job the reason.
    """
    waiting = collections.deque(
        job for job in jobs if files.read_result(folder, job, settings) is None
    )
    total = len(waiting)
    if total < len(jobs):
        tell(f"{len(jobs) - total} of {len(jobs)} trainings are done already")
    running: list[_Training] = []
    failed: dict[str, str] = {}
    started, done = time.monotonic(), 0
    try:
        while waiting or running:
            for job in _ready(waiting, running, workers):
                trunk = files.trunk_path(folder, job.seed)
                if job.arm != files.TRUNK and not trunk.exists():
                    failed[str(job)] = "its trunk was not trained"
                    done += 1
                    continue
                running.append(_Training(job, folder, settings, program))
            time.sleep(_PAUSE)
            for training in [item for item in running if item.has_ended()]:
                running.remove(training)
                done += 1
                reason = training.failure(settings)
                if reason is not None:
                    failed[str(training.job)] = reason
                tell(_progress(training, reason, done, total, started))
    finally:
        for training in running:
            training.stop()
    return failed


def _ready(
    waiting: collections.deque[Job], running: list["_Training"], workers: int
) -> list[Job]:
    """Takes the jobs that may begin now."""
    ready: list[Job] = []
    training_trunks = {
        item.job.seed for item in running if item.job.arm == files.TRUNK
    }
    while waiting and len(running) + len(ready) < workers:
        job = waiting[0]
        if job.arm != files.TRUNK and job.seed in training_trunks:
            break
        ready.append(waiting.popleft())
        if job.arm == files.TRUNK:
            training_trunks.add(job.seed)
    return ready


class _Training:
    """A process."""

    def __init__(
        self,
        job: Job,
        folder: pathlib.Path,
        settings: Settings,
        program: Sequence[str],
    ):
        self.job = job
        self.folder = folder
        self.started = time.monotonic()
        self.log = folder / f"{job.arm}_{job.seed}.log"
        command = [
            *program,
            job.arm,
            str(job.seed),
            str(folder.resolve()),
            json.dumps(settings.as_dict()),
        ]
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_BACKEND": "tensorflow",
        }
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def has_ended(self) -> bool:
        if self.seconds > _LIMIT:
            self.stop()
        return self.process.poll() is not None

    def failure(self, settings: Settings) -> str | None:
        if files.read_result(self.folder, self.job, settings) is not None:
            return None
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no message"
        return f"exit status {self.process.returncode}: {last[:200]}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _progress(
    training: _Training,
    reason: str | None,
    done: int,
    total: int,
    started: float,
) -> str:
    left = (time.monotonic() - started) / done * (total - done)
    outcome = "done" if reason is None else f"FAILED, {reason}"
    end = time.strftime("%H:%M", time.localtime(time.time() + left))
    return (
        f"[{done}/{total}] {training.job}: {outcome} in "
        f"{training.seconds:.0f} s; {left / 60:.0f} minutes left, until {end}"
    )
