"""The sections of the benchmark, and how each is measured and written."""

import dataclasses
import functools

from benchmarks import harness
from benchmarks import networks
from benchmarks import operation
from benchmarks import pipeline
from benchmarks import runtimes

SECTIONS = {
    "operation": operation.measure,
    "networks": networks.measure,
    "runtimes": runtimes.measure,
    "pipeline": pipeline.measure,
}


@dataclasses.dataclass(frozen=True)
class Context:
    """What a section needs to measure its cases.

    Attributes:
        peaks: Floating point operations per second of a large matmul, by
            dtype.
        quick: Whether this is a trial.
        memory: Whether to measure peak memory.
        scale: Multiplies the minutes of each section.
    """

    peaks: dict[str, float]
    quick: bool
    memory: bool
    scale: float

    def run(self, cases, settings):
        """The rows of cases, as far as they are, after each step."""
        settings = dataclasses.replace(
            settings, minutes=self.scale * settings.minutes
        )
        if self.quick:
            settings = dataclasses.replace(settings, seconds=1.0, rounds=(2, 3))
        if not self.memory:
            cases = [dataclasses.replace(case, memory=None) for case in cases]
        return harness.run(
            cases,
            settings,
            self.peaks,
            functools.partial(print, flush=True),
        )


def measure(name, path, quick=False, memory=True, scale=1.0):
    """Measures a section and writes its file after each step.

    Args:
        name: One of `SECTIONS`.
        path: JSON file to write.
        quick: Small sizes and few rounds.
        memory: Whether to measure peak memory.
        scale: Multiplies the minutes after which no case is begun.
    """
    print(f"{name}: matmul peak", flush=True)
    peaks, matmul = harness.measure_peaks(
        harness.Settings(seconds=1.0 if quick else 8.0, rounds=(3, 10))
    )
    result = {
        "section": name,
        "date": harness.today(),
        "quick": quick,
        "machine": harness.machine(),
        "allocator": {
            "timed": harness.KEEP,
            "memory": harness.RETURN,
            "tensorflow": "TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1",
        },
        "peaks": peaks,
        "matmul": matmul,
        "complete": False,
        "cases": [],
    }
    for rows in SECTIONS[name](Context(peaks, quick, memory, scale)):
        harness.write_json(path, {**result, "cases": rows})
    harness.write_json(path, {**result, "complete": True, "cases": rows})
