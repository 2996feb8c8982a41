r"""Looks for what is wrong with a data set before a network trains on it.

    python -m keras_nonlocal.cli.audit --data videos
    python -m keras_nonlocal.cli.audit --data train=lists/train.csv \
        --data test=lists/test.csv --root videos --out runs/audit

Each --data is one split: a folder with a folder of videos for each class, or a
list in any of the known formats. Leaves `audit.html` and `audit.json`, and
goes on where an earlier run was interrupted. Ends with status 0 if there is no
error, 1 if there are some, 2 if a flag is wrong or a list cannot be read.
"""

import pathlib
import sys

from absl import app
from absl import flags

from keras_nonlocal.cli import list_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.audit import Audit
from keras_nonlocal.data.audit import audit
from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.data.auditing.video import DECODE
from keras_nonlocal.data.videos import VideoList

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "data",
    [],
    "Folder or list of videos, as NAME=PATH if there are several splits; "
    "repeat it for each split.",
)
flags.adopt_module_key_flags(list_flags)
flags.DEFINE_string("out", "runs/audit", "Folder to write to.")
flags.DEFINE_enum("decode", "all", DECODE, "How much of each file to decode.")
flags.DEFINE_string("clip", "32x2", "Clips of the training, frames x step.")
flags.DEFINE_integer("num_workers", None, "Processes; default: one a core.")
flags.DEFINE_float("time_limit", 120.0, "Seconds for a file.")
flags.DEFINE_boolean("resume", True, "Go on where an earlier run has ended.")

_WRONG_USAGE = 2


def main(argv: list[str]) -> int:
    show_own_notes_only()
    try:
        if argv[1:]:
            raise ValueError(f"unknown arguments: {' '.join(argv[1:])}")
        result = audit(
            _splits(FLAGS.data),
            FLAGS.out,
            decode=FLAGS.decode,
            clip=FLAGS.clip,
            num_workers=FLAGS.num_workers,
            time_limit=FLAGS.time_limit,
            resume=FLAGS.resume,
        )
    except (OSError, ValueError) as error:
        raise app.UsageError(str(error), _WRONG_USAGE) from error
    _print(result)
    print(f"The report: {pathlib.Path(FLAGS.out) / 'audit.html'}")
    return int(result.count("error") > 0)


def _splits(texts: list[str]) -> dict[str, VideoList]:
    if not texts:
        raise ValueError("--data must name a folder or list. Received: none")
    splits: dict[str, VideoList] = {}
    for text in texts:
        # A path may have an equals sign; the name of a split has no slash.
        name, _, path = text.partition("=")
        if not path or "/" in name:
            name, path = pathlib.Path(text).name, text
        if name in splits:
            raise ValueError(
                "--data must have a name for each split, as NAME=PATH. "
                f"Received twice: {name}"
            )
        splits[name] = list_flags.read(path)
    return splits


def _print(result: Audit) -> None:
    for split, videos in result.splits.items():
        print(
            f"{printable(split)}: {len(videos):,} videos of "
            f"{len(videos.class_names):,} classes"
        )
    examples = {(x.severity, x.kind): x.where for x in result.findings[::-1]}
    for (severity, kind), count in result.kinds().items():
        where = printable(examples[severity, kind])
        print(f"  {severity:<8}{count:>7,} {kind}, for example {where}")
    if not result.findings:
        print("  nothing was found to be wrong")


def _parse_flags(argv: list[str]) -> list[str]:
    """As absl does it, but for the status, which is 1 there."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        print(f"FATAL Flags parsing error: {error}", file=sys.stderr)
        sys.exit(_WRONG_USAGE)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
