"""Compares networks with and without non-local blocks on one's own videos.

    python -m zoo.studies.own_videos --data videos --groups subject \
        --folds 5 --out runs/own

--data is a folder with one folder of videos for each class, or a list in any of
the known formats with one class a video. Leaves `index.html` and
`results.json`. A run that was stopped goes on where it was.
"""

import logging as std_logging
import os
import pathlib

from absl import app
from absl import flags

from keras_nonlocal.cli import clip_flags
from keras_nonlocal.cli import data_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.ops.pairwise import MODES
from keras_nonlocal.ops.windows import AXES
from zoo.studies.own_videos.arms import Block
from zoo.studies.own_videos.compare import INCEPTION
from zoo.studies.own_videos.compare import Plan
from zoo.studies.own_videos.compare import compare
from zoo.studies.own_videos.groups import groups_of

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(data_flags)
clip_flags.define(
    clip="32x2", batch_size=16, crop_size=224, short_side=(256, 320)
)
flags.adopt_module_key_flags(clip_flags)
flags.DEFINE_string("out", "runs/own", "Folder to write to.")
flags.DEFINE_string(
    "groups",
    None,
    "What must not be on both sides of a test: a column of the table --data; "
    "'folder', the name of the folder that a video is in; or a regular "
    r"expression whose first group names it in the path, as 'person(\d+)'.",
)
flags.mark_flag_as_required("groups")
flags.DEFINE_integer("folds", 5, "Parts, each tested once.", lower_bound=2)
flags.DEFINE_integer("seeds", 3, "Trainings of each fold.", lower_bound=1)
flags.DEFINE_string(
    "trunk",
    INCEPTION,
    f"'{INCEPTION}': heads on features of the published Inception I3D. Or a "
    "network that keras_nonlocal.cli.info lists: all of it is trained, which "
    "takes long.",
)
flags.DEFINE_string("layer", "Mixed_5c", "Inception block to put heads behind.")
flags.DEFINE_enum("mode", Block.mode, MODES, "Pairwise function.")
flags.DEFINE_enum(
    "attention_axes", Block.attention_axes, AXES, "What sees each other."
)
flags.DEFINE_integer(
    "inter_channels",
    None,
    "Width of the block; half the channels by default.",
    lower_bound=1,
)
flags.DEFINE_integer("num_blocks", 1, "Blocks of a network.", lower_bound=1)
flags.DEFINE_integer(
    "epochs", 30, "Passes over the training videos.", lower_bound=1
)
flags.DEFINE_float(
    "learning_rate",
    None,
    "Peak learning rate; by default 0.001 for heads (Adam), 0.05 for networks "
    "(SGD).",
)
flags.DEFINE_boolean("flip", True, "Mirror half of a network's clips.")
flags.DEFINE_boolean(
    "smoke", False, "Try everything in seconds, with tiny random networks."
)


def _plan() -> Plan:
    rate = FLAGS.learning_rate
    if rate is None:
        rate = 0.001 if FLAGS.trunk == INCEPTION else 0.05
    config = clip_flags.config(
        FLAGS.clip, epochs=FLAGS.epochs, learning_rate=rate, flip=FLAGS.flip
    )
    block = Block(
        FLAGS.mode, FLAGS.attention_axes, FLAGS.inter_channels, FLAGS.num_blocks
    )
    plan = Plan(
        config, block, FLAGS.trunk, FLAGS.layer, FLAGS.folds, FLAGS.seeds
    )
    return plan.smoke() if FLAGS.smoke else plan


def _hide_retracing() -> None:
    """Hides a warning of TensorFlow's: that networks are traced, one by one.

    It takes them for one that is traced again and again.
    """
    std_logging.getLogger("tensorflow").addFilter(
        lambda record: "tf.function retracing" not in record.getMessage()
    )


def main(_: list[str]) -> None:
    show_own_notes_only()
    _hide_retracing()
    videos = data_flags.videos()
    base = FLAGS.root or FLAGS.data
    if os.path.isfile(base):
        base = os.path.dirname(base) or os.curdir
    try:
        plan = _plan()
        groups = groups_of(videos, FLAGS.groups, FLAGS.data, FLAGS.root)
        compare(videos, groups, plan, FLAGS.out, base=base)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    print(f"\nThe report: {pathlib.Path(FLAGS.out) / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
