"""How `tf.data` service scales: python -m benchmarks.service.

Clips of shards, made by one worker and by two, each a process on a core of its
own, and by this process without the service. The three take turns; a rate is
the median of the rounds. This process, which takes the clips, has no core of
its own where there are only two: its processor time is measured as well.
"""

import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

from benchmarks import harness
from keras_nonlocal.data import synthetic
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.shard_writer import write_shards
from keras_nonlocal.data.shards import distribute
from keras_nonlocal.data.shards import read_shards
from keras_nonlocal.data.videos import VideoList

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "out",
    str(harness.ROOT / "benchmarks" / "results"),
    "Folder of results.",
)

_VIDEOS, _FRAMES, _HEIGHT, _WIDTH = 16, 120, 256, 340
_BATCHES = 32
_ROUNDS = 5
# All of TensorFlow's threads of a worker share a core.
_WORKER = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
import tensorflow as tf
service = tf.data.experimental.service
server = service.WorkerServer(service.WorkerConfig(sys.argv[1]))
print("ready", flush=True)
server.join()
"""


def write_videos(folder: pathlib.Path) -> VideoList:
    """H.264 files of smooth noise that moves."""
    paths = []
    for number in range(_VIDEOS):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (1, _HEIGHT // 8, _WIDTH // 8 + 60, 3))
        picture = tf.image.resize(coarse, (_HEIGHT, _WIDTH + 2 * _FRAMES))[0]
        picture = picture.numpy().astype("uint8")
        paths.append(str(folder / f"{number:02}.mp4"))
        synthetic.write_video(
            paths[-1],
            np.stack(
                [
                    picture[:, 2 * frame : 2 * frame + _WIDTH]
                    for frame in range(_FRAMES)
                ]
            ),
        )
    return VideoList(tuple(paths), [0] * _VIDEOS, ("noise",))


@contextlib.contextmanager
def workers(number: int):
    """The address of a dispatcher with so many workers."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        started = []
        for index in range(number):
            process = stack.enter_context(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-c",
                        _WORKER,
                        address,
                        str(cores[index % len(cores)]),
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("A worker did not start.")
        yield dispatcher.target


def measure(dataset: tf.data.Dataset) -> tuple[float, float]:
    """Clips per second, and this process's milliseconds for each.

    Of a data set without an end, which workers are slow to tell, and after the
    batches that were made in advance.
    """
    iterator = iter(dataset)
    for _ in range(_BATCHES // 2):
        next(iterator)
    start, processor = time.perf_counter(), time.process_time()
    clips = sum(len(next(iterator)[1]) for _ in range(_BATCHES))
    seconds = time.perf_counter() - start
    return clips / seconds, 1e3 * (time.process_time() - processor) / clips


def main(_) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as all:
        shards = pathlib.Path(folder, "shards")
        write_shards(write_videos(pathlib.Path(folder)), shards, progress=False)
        clips = read_shards(
            shards,
            ClipSpec(32, 2),
            batch_size=2,
            training=False,
            short_side=(288, 288),
            num_parallel_calls=1,
        ).repeat()
        sides = {"no service": clips}
        for number in (1, 2):
            address = all.enter_context(workers(number))
            sides[f"workers: {number}"] = distribute(clips, address)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        costs: dict[str, list[float]] = {name: [] for name in sides}
        for round_number in range(_ROUNDS):
            for name, dataset in sides.items():
                rate, cost = measure(dataset)
                rates[name].append(rate)
                costs[name].append(cost)
                print(
                    f"round {round_number}: {name}: {rate:.1f} clips/s, "
                    f"{cost:.1f} ms of this process for each"
                )
    ratios = [
        two / one
        for one, two in zip(
            rates["workers: 1"], rates["workers: 2"], strict=True
        )
    ]
    path = pathlib.Path(FLAGS.out, f"service_{harness.machine_slug()}.json")
    harness.write_json(
        path,
        {
            "date": harness.today(),
            "machine": harness.machine(),
            "clips": "32x2 of 120 frames of 256x340, short side 288, crop 224",
            "rounds": _ROUNDS,
            "clips_per_second": {
                name: {
                    "median": statistics.median(values),
                    "range": [min(values), max(values)],
                }
                for name, values in rates.items()
            },
            "milliseconds_of_this_process_per_clip": {
                name: statistics.median(values)
                for name, values in costs.items()
            },
            "two_workers_over_one": {
                "median": statistics.median(ratios),
                "range": [min(ratios), max(ratios)],
            },
        },
    )
    print(f"{statistics.median(ratios):.2f} times with two workers: {path}")


if __name__ == "__main__":
    app.run(main)
