r"""Encodes a data set anew, so that clips of it are quick to read.

    python -m keras_nonlocal.cli.prepare --data videos --out prepared

--data is a folder with a folder of videos for each class, or a list in any of
the known formats. The new videos are small, upright and without sound, and can
be entered at any second. Goes on where an earlier run was interrupted. Videos
that cannot be read to their end are left out, which `prepared.json` says, and
the status of 1.
"""

import pathlib

from absl import app
from absl import flags

from keras_nonlocal.cli import data_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.data.preparation import prepare

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(data_flags)
flags.DEFINE_string("out", None, "Folder to write to.")
flags.DEFINE_integer("short_side", 256, "Shorter side, in pixels.")
flags.DEFINE_integer("gop", 30, "Most frames between two keyframes.")
flags.DEFINE_integer("crf", 20, "Quality, 0 (best) to 51 (worst).")
flags.DEFINE_integer("num_workers", None, "Processes; default: one a core.")
flags.DEFINE_float("time_limit", 600.0, "Seconds for a video.")
flags.mark_flag_as_required("out")

_MAX_SHOWN = 20


def main(_: list[str]) -> int:
    show_own_notes_only()
    videos = data_flags.videos()
    try:
        prepared = prepare(
            videos,
            FLAGS.out,
            short_side=FLAGS.short_side,
            gop=FLAGS.gop,
            crf=FLAGS.crf,
            num_workers=FLAGS.num_workers,
            time_limit=FLAGS.time_limit,
        )
    except (OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    print(f"{len(prepared):,} of {len(videos):,} videos are in {FLAGS.out}")
    for problem in prepared.problems[:_MAX_SHOWN]:
        print(f"  {printable(str(problem))}")
    more = len(prepared.problems) - _MAX_SHOWN
    if more > 0:
        print(
            f"  and {more:,} more in {pathlib.Path(FLAGS.out, 'prepared.json')}"
        )
    return int(len(prepared) < len(videos))


if __name__ == "__main__":
    app.run(main)
