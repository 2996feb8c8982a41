"""The sections of the benchmark, and how each is measured and written."""

import dataclasses
import functools
import json
import pathlib

from benchmarks import harness
from benchmarks import networks
from benchmarks import operation
from benchmarks import pipeline
from benchmarks import roi_align
from benchmarks import runtimes

SECTIONS = {
    "operation": operation.measure,
    "networks": networks.measure,
    "runtimes": runtimes.measure,
    "pipeline": pipeline.measure,
    "roi_align": roi_align.measure,
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
        known: Rows by name that were measured before and are taken over.
    """

    peaks: dict[str, float]
    quick: bool
    memory: bool
    scale: float
    known: dict[str, dict]

    def run(self, cases, settings):
        """The rows of cases, as far as they are, after each step."""
        settings = dataclasses.replace(
            settings, minutes=self.scale * settings.minutes
        )
        if self.quick:
            settings = dataclasses.replace(settings, seconds=1.0, rounds=(2, 3))
        if not self.memory:
            cases = [dataclasses.replace(case, memory=None) for case in cases]
        known = [self.known[x.name] for x in cases if x.name in self.known]
        yield known
        left = [case for case in cases if case.name not in self.known]
        show = functools.partial(print, flush=True)
        for rows in harness.run(left, settings, self.peaks, show):
            yield [*known, *rows]


def measure(name, path, quick=False, memory=True, scale=1.0, resume=False):
    """Measures a section and writes its file after each step.

    Args:
        name: One of `SECTIONS`.
        path: JSON file to write.
        quick: Small sizes and few rounds.
        memory: Whether to measure peak memory.
        scale: Multiplies the minutes after which no case is begun.
        resume: Take over what the file has and measure only what is missing.
    """
    known = _measured(path) if resume else {}
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
            "tensorflow": "TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 unless a case has "
            "a pool",
        },
        "peaks": peaks,
        "matmul": matmul,
        "complete": False,
        "cases": [],
    }
    for rows in SECTIONS[name](Context(peaks, quick, memory, scale, known)):
        harness.write_json(path, {**result, "cases": rows})
    harness.write_json(path, {**result, "complete": True, "cases": rows})


def _measured(path):
    """Rows of a file of results by name, those with at least one time."""
    path = pathlib.Path(path)
    rows = json.loads(path.read_text())["cases"] if path.exists() else []
    return {
        row["name"]: row
        for row in rows
        if any(side["status"] == "ok" for side in row["sides"])
    }
