"""Writes videos as TFRecord shards, which train on any machine.

    python -m keras_nonlocal.cli.shard --data videos/train --out shards/train

--data is a folder with a folder of videos for each class, or a list in any of
the known formats. Interrupted, by kill -9 too, the same command goes on where
it was. Training reads the shards with `keras_nonlocal.read_shards`.
"""

import os
from collections.abc import Sequence

import tensorflow as tf
from absl import app
from absl import flags

from keras_nonlocal.cli import data_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.data.shard_writer import TIME_LIMIT
from keras_nonlocal.data.shard_writer import write_shards

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(data_flags)
flags.DEFINE_string("out", None, "Folder to write to.")
flags.DEFINE_integer(
    "num_shards", None, "Number of files; by default one for 32 videos."
)
flags.DEFINE_integer(
    "short_side", 256, "Shorter side of larger videos, in pixels; 0 keeps it."
)
flags.DEFINE_integer("quality", 90, "Of the JPEG compression, 1 to 100.")
flags.DEFINE_float("fps", None, "Frames per second of all; by default theirs.")
flags.DEFINE_integer(
    "num_workers",
    0,
    "Processes that read and can be killed. 0 reads in threads: faster, but a "
    "file on which the decoder hangs stops everything.",
)
flags.DEFINE_float(
    "time_limit", TIME_LIMIT, "Seconds that reading one video may take."
)
flags.DEFINE_boolean(
    "overwrite", False, "Delete the shards in the folder and start anew."
)
flags.mark_flag_as_required("out")


def main(_: Sequence[str]) -> None:
    show_own_notes_only()
    videos = data_flags.videos()
    try:
        index = write_shards(
            videos,
            FLAGS.out,
            num_shards=FLAGS.num_shards,
            short_side=FLAGS.short_side or None,
            quality=FLAGS.quality,
            fps=FLAGS.fps,
            num_workers=FLAGS.num_workers,
            time_limit=FLAGS.time_limit,
            overwrite=FLAGS.overwrite,
        )
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise app.UsageError(str(error)) from error
    problems = index.videos().problems
    for problem in (*videos.problems, *problems):
        print(printable(str(problem)))
    num_bytes = sum(shard.num_bytes for shard in index.shards)
    print(
        f"{len(videos) - len(problems):,} of {len(videos):,} videos in "
        f"{len(index.shards):,} shards of together {num_bytes / 1e9:.2f} GB: "
        f"{os.path.join(FLAGS.out, 'index.json')}"
    )


if __name__ == "__main__":
    app.run(main)
