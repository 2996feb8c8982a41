"""Measures speed and memory: python -m benchmarks [--only operation] [--quick].

Sections: operation, networks, runtimes, pipeline, roi_align. Each writes
`benchmarks/results/SECTION_MACHINE.json` as it goes; at the end the page and
the pictures of that folder are made from all files in it.
"""

import time

from absl import app
from absl import flags

from benchmarks import harness
from benchmarks import report
from benchmarks import sections

FLAGS = flags.FLAGS
flags.DEFINE_list("only", list(sections.SECTIONS), "Sections to measure.")
flags.DEFINE_bool("quick", False, "Small sizes and few rounds: a trial.")
flags.DEFINE_bool("memory", True, "Whether to measure peak memory.")
flags.DEFINE_float(
    "scale", 1.0, "Multiplies the minutes after which no case is begun."
)
flags.DEFINE_bool(
    "resume", False, "Keep what the files have; measure what is missing."
)
flags.DEFINE_string("machine", harness.machine_slug(), "Name for the files.")
flags.DEFINE_string(
    "out", str(harness.ROOT / "benchmarks" / "results"), "Folder of results."
)


def main(_: list[str]) -> None:
    unknown = sorted(set(FLAGS.only) - set(sections.SECTIONS))
    if unknown:
        raise app.UsageError(
            f"--only must be among {', '.join(sections.SECTIONS)}. "
            f"Received: {', '.join(unknown)}"
        )
    started = time.monotonic()
    for name in FLAGS.only:
        sections.measure(
            name,
            f"{FLAGS.out}/{name}_{FLAGS.machine}.json",
            quick=FLAGS.quick,
            memory=FLAGS.memory,
            scale=FLAGS.scale,
            resume=FLAGS.resume,
        )
    for path in report.write(FLAGS.out):
        print(f"wrote {path}")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    app.run(main)
