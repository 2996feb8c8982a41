"""A training step of a detector: python -m benchmarks.detector_step.

Each row is measured in a process of its own: steps of `train_on_batch` after
the two that trace, and the largest resident set of the process.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from absl import app
from absl import flags

from benchmarks import harness

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "out",
    str(harness.ROOT / "benchmarks" / "results" / "detector_step.json"),
    "File of results.",
)
flags.DEFINE_integer("measure", None, "Measure the row of this number in here.")

_SIDE, _OBJECTS, _STEPS = 256, 8, 5
# Detector and images of a step.
_ROWS = (
    ("mask_rcnn_r50_paper", 2),
    ("nl_mask_rcnn_r50_paper", 2),
    ("nl_mask_rcnn_r50", 2),
    ("nl_mask_rcnn_x152_paper", 1),
    ("small_nl_mask_rcnn", 2),
)


def _batch(images):
    """Noise, and objects anywhere."""
    rng = np.random.default_rng(0)
    slots = (images, _OBJECTS)
    corners = rng.uniform(0, _SIDE / 2, (*slots, 2))
    sides = rng.uniform(16, _SIDE / 2, (*slots, 2))
    return {
        "images": rng.integers(0, 256, (images, _SIDE, _SIDE, 3), "uint8"),
        "sizes": np.full((images, 2), _SIDE, "int32"),
        "boxes": np.concatenate([corners, corners + sides], -1).astype("f4"),
        "classes": rng.integers(0, 80, slots, "int32"),
        "masks": rng.integers(0, 2, (*slots, 56, 56), "uint8"),
    }


def _measure(name, images):
    import keras

    from keras_nonlocal import MaskRCNN

    keras.utils.set_random_seed(0)
    model = MaskRCNN(name)
    # A rate of 0: frozen norms that nothing has trained let weights explode.
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    batch, walls, processor = _batch(images), [], []
    for _ in range(2 + _STEPS):
        start = time.perf_counter(), time.process_time()
        losses = model.train_on_batch(batch, return_dict=True)
        walls.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    if not all(np.isfinite(loss) for loss in losses.values()):
        raise RuntimeError(f"{name} is not finite: {losses}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "detector": name,
        "images": images,
        "seconds": round(statistics.median(walls[2:]), 3),
        "processor_seconds": round(statistics.median(processor[2:]), 3),
        "first_step_seconds": round(walls[0], 1),
        "peak_mib": round(peak / 2**10),
    }


def main(_):
    if FLAGS.measure is not None:
        print(json.dumps(_measure(*_ROWS[FLAGS.measure])))
        return
    rows = []
    for number, row in enumerate(_ROWS):
        print(*row, flush=True)
        ended = subprocess.run(
            [sys.executable, "-m", __spec__.name, f"--measure={number}"],
            check=True,
            stdout=subprocess.PIPE,
            cwd=harness.ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        rows.append(json.loads(ended.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    harness.write_json(
        FLAGS.out,
        {
            "date": harness.today(),
            "machine": harness.machine(),
            "side": _SIDE,
            "objects": _OBJECTS,
            "steps": _STEPS,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
