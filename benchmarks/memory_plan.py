"""Predicted and measured memory: python -m benchmarks.memory_plan.

Every row is measured in a process of its own, warm, with allocators that return
what is freed: the largest resident set during a step, less that before it.
PyTorch's rows, of its own statement of the same network, have no prediction.
"""

import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib import metadata

from absl import app
from absl import flags

from benchmarks import harness
from benchmarks import worker

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "out",
    str(harness.ROOT / "benchmarks" / "results" / "memory_plan.json"),
    "File of results.",
)
flags.DEFINE_bool("resume", False, "Keep the rows that the file has.")
flags.DEFINE_string("measure", None, "A row as JSON: measure it in here.")

_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """What to measure.

    Attributes:
        variant: Name of a network, or "torch".
        training: Whether it is a training step.
        dtype: A dtype policy.
        batch: Clips.
        frames: Of a clip.
        size: Its height and width.
        rematerialize: As of `keras_nonlocal.rematerialize`.
        optimizer: "ours", or "keras" for its SGD.
        scope: Mode of a `keras.RematScope` around the construction.
    """

    variant: str = "nl_i3d_r50_8x8"
    training: bool = True
    dtype: str = "float32"
    batch: int = 1
    frames: int = 8
    size: int = 224
    rematerialize: str | None = None
    optimizer: str = "ours"
    scope: str | None = None


def rows() -> list[Row]:
    """All of them, small ones first."""
    table = []
    for dtype in ("float32", "mixed_bfloat16"):
        table += [Row(dtype=dtype, training=False), Row(dtype=dtype)]
        table += [
            Row(dtype=dtype, rematerialize=units)
            for units in ("norms", "blocks")
        ]
        table += [Row(dtype=dtype, optimizer="keras")]
        table += [Row(dtype=dtype, batch=2)]
        table += [Row("torch", dtype=dtype, training=False)]
        table += [Row("torch", dtype=dtype)]
    for training in (False, True):
        table += [
            Row("small_nl_c2d", training=training, batch=8, size=112),
            Row("c2d_r50", training=training),
            Row("nl_i3d_r50_8x8", training=training, frames=32),
        ]
    table += [Row(scope="full")]
    return table


def measure(row: Row) -> dict:
    """Runs a row in this process."""
    if row.variant == "torch":
        work, predicted = _torch_step(row), None
    else:
        work, predicted = _keras_step(row)
    server = worker.Server()
    server._work = work
    for _ in range(3):
        work()
    extra, seconds = [], []
    for _ in range(_STEPS):
        start = time.perf_counter()
        extra.append(server.extra_memory())
        seconds.append(time.perf_counter() - start)
    measured = statistics.median(extra)
    return {
        **dataclasses.asdict(row),
        "measured": measured,
        "measured_all": extra,
        "predicted": predicted,
        "ratio": predicted and round(predicted / measured, 3),
        "seconds": round(statistics.median(seconds), 3),
    }


def _keras_step(row: Row):
    import keras
    import numpy as np

    import keras_nonlocal
    from keras_nonlocal.models.memory import memory_plan
    from keras_nonlocal.models.rematerialization import rematerialize
    from keras_nonlocal.training.optimizers import SGD

    keras.config.set_dtype_policy(row.dtype)
    shape = (row.frames, row.size, row.size, 3)
    scope = keras.RematScope(row.scope) if row.scope else nullcontext()
    with scope:
        model = keras_nonlocal.ResNet3D(row.variant, input_shape=shape)
    sgd = {"ours": SGD, "keras": keras.optimizers.SGD}[row.optimizer]
    model.compile(
        sgd(1e-3, momentum=0.9, nesterov=True),
        loss="sparse_categorical_crossentropy",
        jit_compile=False,
    )
    plan = memory_plan(
        model,
        row.batch,
        row.frames,
        row.size,
        training=row.training,
        rematerialize=row.rematerialize,
    )
    predicted = None if row.scope else plan.step
    if row.rematerialize:
        trained = rematerialize(model, row.rematerialize)
        trained.compile_from_config(model.get_compile_config())
        model = trained
    clips = np.random.default_rng(0).uniform(0, 255, (row.batch, *shape))
    clips = clips.astype("float32")
    labels = np.zeros(row.batch, "int32")
    if row.training:
        return lambda: model.train_on_batch(clips, labels), predicted
    return lambda: model.predict_on_batch(clips), predicted


def _torch_step(row: Row):
    import torch

    from benchmarks import torch_network

    torch.manual_seed(0)
    network = torch_network.Network().to(memory_format=torch.channels_last_3d)
    clips = torch.rand(row.batch, 3, row.frames, row.size, row.size) * 255
    clips = clips.to(memory_format=torch.channels_last_3d)
    labels = torch.zeros(row.batch, dtype=torch.long)
    half = torch.autocast(
        "cpu", torch.bfloat16, enabled=row.dtype == "mixed_bfloat16"
    )
    network.train(row.training)
    optimizer = torch.optim.SGD(
        network.parameters(), 1e-3, momentum=0.9, nesterov=True
    )

    def infer():
        with torch.no_grad(), half:
            network(clips)

    def train():
        with half:
            logits = network(clips)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train if row.training else infer


def _measured_apart(row: Row) -> dict:
    environment = {
        **os.environ,
        "GLIBC_TUNABLES": harness.RETURN,
        "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-m", "benchmarks.memory_plan", "--measure"]
    finished = subprocess.run(
        [*command, json.dumps(dataclasses.asdict(row))],
        env=environment,
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        last = finished.stderr.strip().splitlines()[-1]
        return {**dataclasses.asdict(row), "failed": last}
    return json.loads(finished.stdout.splitlines()[-1])


def _known_rows() -> list[dict]:
    if not FLAGS.resume:
        return []
    with open(FLAGS.out, encoding="utf-8") as file:
        before = json.load(file)["rows"]
    return [row for row in before if "measured" in row]


def main(_: list[str]) -> None:
    if FLAGS.measure:
        print(json.dumps(measure(Row(**json.loads(FLAGS.measure)))))
        return
    known = _known_rows()
    done: list[dict] = []
    for row in rows():
        fields = dataclasses.asdict(row).items()
        same = (
            other
            for other in known
            if all(other.get(key) == value for key, value in fields)
        )
        done.append(next(same, None) or _measured_apart(row))
        print(done[-1], flush=True)
        text = json.dumps(
            {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "versions": {
                    name: metadata.version(name)
                    for name in ("keras", "tensorflow", "torch")
                },
                "allocators": "system, freed memory is returned",
                "rows": done,
            },
            indent=1,
        )
        with open(FLAGS.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    app.run(main)
