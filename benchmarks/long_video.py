"""Memory over a video of an hour: python -m benchmarks.long_video.

Makes videos of an hour and one of six minutes, predicts them window by window,
and writes down the resident memory of the process along the way, as pairs of
seconds and bytes; once more for features that are written to a file. The
network is small: what grows would be what reads, and what keeps the results.
"""

import dataclasses
import json
import multiprocessing
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from absl import app
from absl import flags

from benchmarks import harness

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "out",
    str(harness.ROOT / "benchmarks" / "results" / "long_video.json"),
    "File of results.",
)
flags.DEFINE_float("minutes", 60.0, "Length of the videos.")
flags.DEFINE_string("measure", None, "A row as JSON: measure it in here.")

_HEIGHT, _WIDTH = 48, 64
# Measurements that are kept, and seconds between two of all.
_POINTS, _EVERY = 40, 0.1


@dataclasses.dataclass(frozen=True)
class Row:
    """What to measure.

    Attributes:
        work: "predict" or "features".
        fps: Frames per second of the video.
        minutes: Its length.
    """

    work: str
    fps: int
    minutes: float


def _write_video(path, row):
    """Coarse noise that moves, in H.264."""
    import av

    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(_HEIGHT // 8, _WIDTH // 8, 3), dtype="u1")
    picture = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "g": str(10 * row.fps)}
        stream = container.add_stream("libx264", row.fps, options=options)
        stream.height, stream.width = _HEIGHT, _WIDTH
        stream.pix_fmt = "yuv420p"
        for number in range(round(60 * row.minutes * row.fps)):
            moved = np.roll(picture, number, (0, 1))
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _network():
    from keras_nonlocal import VARIANTS
    from keras_nonlocal import ResNet3D

    variant = dataclasses.replace(
        VARIANTS["small_nl_c2d"], width=4, num_frames=8, crop_size=48
    )
    return ResNet3D(variant, classes=400)


class _Sampler(threading.Thread):
    """Notes the resident memory every so often until it is stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.points = []
        self._ended = threading.Event()

    def run(self):
        start = time.perf_counter()
        while True:
            elapsed = round(time.perf_counter() - start, 1)
            self.points.append((elapsed, _resident()))
            if self._ended.wait(_EVERY):
                return

    def stop(self):
        self._ended.set()
        self.join()


def _resident():
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (x for x in status.splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _measure(row):
    """Resident bytes while a video is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "long.mp4"
        # In a process of its own: an encoder leaves memory behind.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(_write_video, (path, row))
        network = _network()
        # What is imported and built at first use is there already.
        frames = np.zeros((200, _HEIGHT, _WIDTH, 3), "uint8")
        _work(row, network, frames, folder)
        sampler = _Sampler()
        sampler.start()
        windows, problems = _work(row, network, path, folder)
        sampler.stop()
        size = path.stat().st_size
    points = sampler.points
    resident = [value for _, value in points]
    # In the first tenth caches fill; at the end the result is put together and
    # the graph is built anew for the last batch, which is smaller.
    tenth = len(points) // 10
    return {
        **dataclasses.asdict(row),
        "file_bytes": size,
        "windows": windows,
        "problems": list(problems),
        "processing_seconds": points[-1][0],
        "resident_bytes": points[:: -(-len(points) // _POINTS)],
        "peak_bytes": max(resident),
        "growth_between_first_and_last_tenth": (
            resident[-1 - tenth] - resident[tenth]
        ),
    }


def _work(row, network, video, folder):
    """Number of windows of the video, and what could not be read of it."""
    from keras_nonlocal import ClipSpec
    from keras_nonlocal.prediction.features import write_features
    from keras_nonlocal.prediction.predict import predict_video

    options = {
        "window": ClipSpec(8, 2),
        "stride": 1.0,
        "batch_size": 8,
        "crop_size": 48,
        "short_side": 48,
        "progress": False,
        "fps": row.fps,
    }
    if row.work == "predict":
        timeline = predict_video(network, video, **options)
        return len(timeline.scores), timeline.problems
    # Not pooled: what is written is far more than may stay in memory.
    about = write_features(
        network,
        video,
        pathlib.Path(folder) / "x.h5",
        "pool1",
        pool=False,
        **options,
    )
    return about["shape"][0], about["problems"]


def _rows():
    return [
        Row("predict", 5, FLAGS.minutes / 10),
        Row("predict", 5, FLAGS.minutes),
        Row("predict", 25, FLAGS.minutes),
        Row("features", 5, FLAGS.minutes),
    ]


def main(_):
    if FLAGS.measure:
        row = Row(**json.loads(FLAGS.measure))
        harness.write_json(FLAGS.out, _measure(row))
        return
    from keras_nonlocal.training.environment import environment

    done = []
    for row in _rows():
        with tempfile.TemporaryDirectory() as folder:
            part = pathlib.Path(folder) / "row.json"
            subprocess.run(
                [
                    *(sys.executable, "-m", "benchmarks.long_video"),
                    *("--measure", json.dumps(dataclasses.asdict(row))),
                    *("--out", str(part)),
                ],
                check=True,
                cwd=harness.ROOT,
            )
            done.append(json.loads(part.read_text()))
        print(
            f"{row.work}, {row.minutes:g} minutes at {row.fps} fps: "
            f"{done[-1]['windows']:,} windows, grew by "
            f"{done[-1]['growth_between_first_and_last_tenth'] / 2**20:.1f} MiB"
            f", peak {done[-1]['peak_bytes'] / 2**20:.0f} MiB",
            flush=True,
        )
    harness.write_json(FLAGS.out, {**environment(), "rows": done})


if __name__ == "__main__":
    app.run(main)
