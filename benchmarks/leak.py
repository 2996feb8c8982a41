"""Memory over many batches: python -m benchmarks.leak.

Reads 2,000 batches of clips of small videos, some of which are damaged, in
threads and in worker processes, and writes the resident memory of this process
and of its workers down after every hundred of them.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from absl import app
from absl import flags

from benchmarks import harness

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "out",
    str(harness.ROOT / "benchmarks" / "results" / "leak.json"),
    "File of results.",
)
flags.DEFINE_integer("batches", 2000, "Batches to read.")
flags.DEFINE_integer("workers", None, "Measure here, with so many processes.")

_VIDEOS, _BATCH, _EVERY = 24, 4, 100


def _write_videos(folder):
    """H.264 files with an error in every eighth, and one that is none."""
    from keras_nonlocal.data import synthetic

    for number in range(_VIDEOS):
        rng = np.random.default_rng(number)
        path = folder / "all" / f"{number:02}.mp4"
        frames = synthetic.relation_frames(synthetic.COLOURS[:2], 48, 96, rng)
        synthetic.write_video(path, frames)
        if number % 8 == 7:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) * 2 // 3])
    (folder / "all" / "none.mp4").write_bytes(b"no video")


def _measure(num_workers, batches):
    """Resident bytes after each hundred batches."""
    from keras_nonlocal.data.pipeline import clip_dataset
    from keras_nonlocal.data.readers.folder import read_folder
    from keras_nonlocal.data.sampling import ClipSpec
    from keras_nonlocal.data.skips import SkipLog

    with tempfile.TemporaryDirectory() as name:
        _write_videos(pathlib.Path(name))
        skips = SkipLog()
        dataset = clip_dataset(
            read_folder(name),
            ClipSpec(8, 2),
            batch_size=_BATCH,
            training=True,
            crop_size=64,
            short_side=(64, 80),
            repeat=True,
            num_workers=num_workers,
            skips=skips,
        )
        resident = []
        for number, _ in enumerate(dataset.take(batches), 1):
            if number % _EVERY == 0:
                resident.append(_resident())
    return {
        "num_workers": num_workers,
        "batches": batches,
        "clips_skipped": skips.count,
        "every": _EVERY,
        "resident_bytes": resident,
        "growth_per_batch": _slope(resident) / _EVERY,
    }


def _resident():
    """Bytes of this process and of those that it has started."""
    own = pathlib.Path("/proc/self/task")
    children = {
        child
        for task in own.iterdir()
        for child in (task / "children").read_text().split()
    }
    return sum(_of_process(pid) for pid in ("self", *children))


def _of_process(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _slope(resident):
    """Bytes a measurement over the second half: the first fills caches."""
    half = np.asarray(resident[len(resident) // 2 :], "float64")
    return float(np.polyfit(np.arange(len(half)), half, 1)[0])


def main(_):
    if FLAGS.workers is not None:
        harness.write_json(FLAGS.out, _measure(FLAGS.workers, FLAGS.batches))
        return
    rows = []
    for workers in (0, 2):
        with tempfile.TemporaryDirectory() as folder:
            part = pathlib.Path(folder) / "row.json"
            subprocess.run(
                [
                    *(sys.executable, "-m", "benchmarks.leak"),
                    *("--workers", str(workers)),
                    *("--batches", str(FLAGS.batches), "--out", str(part)),
                ],
                check=True,
                cwd=harness.ROOT,
            )
            rows.append(json.loads(part.read_text()))
        growth = rows[-1]["growth_per_batch"]
        print(f"{workers} workers: {growth:.0f} bytes a batch")
    harness.write_json(
        FLAGS.out,
        {"date": harness.today(), "machine": harness.machine(), "rows": rows},
    )


if __name__ == "__main__":
    app.run(main)
