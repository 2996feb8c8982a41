"""Trains every network of the study and writes what came of it.

    python -m zoo.studies.long_range --out runs/long_range

Goes on where an interrupted run left off. With `--publish` tables and plots go
beside this file, too; `--notrain --publish` takes the trainings done so far,
and `--report_only` writes page and plots anew from the `results.json` here.
"""

import json
import pathlib
import signal
import sys
import time

from absl import app
from absl import flags

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.training.environment import environment
from keras_nonlocal.visualization.figures import require_matplotlib
from zoo.studies.long_range import arms
from zoo.studies.long_range import files
from zoo.studies.long_range import report
from zoo.studies.long_range import schedule
from zoo.studies.long_range.files import Job
from zoo.studies.long_range.settings import FULL
from zoo.studies.long_range.settings import SMOKE
from zoo.studies.long_range.settings import Settings

FLAGS = flags.FLAGS
flags.DEFINE_string("out", "runs/long_range", "Folder of the trainings.")
flags.DEFINE_list("only", list(arms.ARMS), "Networks to train.")
flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of each network.")
flags.DEFINE_integer("workers", 2, "Trainings at a time, of one thread each.")
flags.DEFINE_bool("smoke", False, "Tiny sizes: whether everything runs.")
flags.DEFINE_bool(
    "publish", False, "Write results, page and plots beside this file too."
)
flags.DEFINE_bool(
    "train", True, "Train what is missing; --notrain takes what is there."
)
flags.DEFINE_bool("report_only", False, "Only write page and plots anew.")


def collect(
    folder: pathlib.Path,
    jobs: list[Job],
    settings: Settings,
    failed: dict[str, str],
) -> dict:
    """All that the study found, as JSON holds it."""
    runs, missing = [], {}
    for job in jobs:
        result = files.read_result(folder, job, settings)
        if result is None:
            missing[str(job)] = failed.get(str(job), "not trained")
        else:
            result.pop("settings")
            runs.append(result)
    return {
        **environment(),
        "seconds": round(sum(run["seconds"] for run in runs)),
        "settings": settings.as_dict(),
        "failed": missing,
        "runs": runs,
    }


def _check_flags() -> None:
    unknown = sorted(set(FLAGS.only) - set(arms.ARMS))
    if unknown or not FLAGS.only:
        raise app.UsageError(
            f"--only must be among {', '.join(arms.ARMS)}. "
            f"Received: {', '.join(unknown) or 'nothing'}"
        )
    if not FLAGS.seeds or not all(seed.isdigit() for seed in FLAGS.seeds):
        raise app.UsageError(
            "--seeds must be whole numbers. "
            f"Received: {', '.join(FLAGS.seeds) or 'nothing'}"
        )
    if FLAGS.workers < 1:
        raise app.UsageError(
            f"--workers must be positive. Received: {FLAGS.workers}"
        )


def main(_: list[str]) -> None:
    _check_flags()
    require_matplotlib()
    if FLAGS.report_only:
        results = json.loads((files.HOME / "results.json").read_text())
        report.write(files.HOME, results)
        return
    settings = SMOKE if FLAGS.smoke else FULL
    folder = pathlib.Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = files.list_jobs(FLAGS.only, [int(seed) for seed in FLAGS.seeds])
    # As Ctrl-C: ends the trainings under way, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    started = time.monotonic()
    failed = {}
    if FLAGS.train:
        failed = schedule.run(jobs, folder, settings, FLAGS.workers, _tell)
    results = collect(folder, jobs, settings, failed)
    for place in (folder, files.HOME) if FLAGS.publish else (folder,):
        write_json(place / "results.json", results)
        report.write(place, results)
        _tell(f"wrote {place / 'README.md'}")
    _tell(f"{(time.monotonic() - started) / 60:.1f} minutes")


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
