"""Trains networks on a folder of videos and reports on them.

    python -m keras_nonlocal.cli.train --data videos --out runs/mine

The folder holds one folder of videos for each class. A share of every class is
held out. Leaves `index.html`, `results.json` and for each network a `.keras`
file and a SavedModel that `keras_nonlocal.cli.predict` takes.
"""

import pathlib

from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.run import run
from keras_nonlocal.weights.lookup import find

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Folder of class-named folders of videos.")
flags.DEFINE_string("out", "runs/train", "Folder to write to.")
flags.DEFINE_list(
    "variants",
    [],
    "Networks to train, by name; keras_nonlocal.cli.info lists them. By "
    "default that of the weights, or small_c2d and small_nl_c2d.",
)
flags.DEFINE_string(
    "weights",
    None,
    "Weights to start from: an entry that keras_nonlocal.cli.convert --list "
    "shows, kinetics400, or a file. The classifier starts anew.",
)
flags.DEFINE_float("held_out", 0.2, "Share of every class to test on.")
flags.DEFINE_string("clip", "8x8", "Frames x step between them.")
flags.DEFINE_integer("batch_size", 16, "Clips of a step.")
flags.DEFINE_integer("epochs", 30, "Passes over the training videos.")
flags.DEFINE_float("learning_rate", 0.05, "Peak learning rate.")
flags.DEFINE_integer("crop_size", 112, "Side of the clips, in pixels.")
flags.DEFINE_list("short_side", ["128", "160"], "Range of the short side.")
flags.DEFINE_boolean("flip", True, "Mirror half of the training clips.")
flags.DEFINE_integer("seed", 0, "Seed of weights, split and augmentation.")
flags.mark_flag_as_required("data")


def _networks() -> dict[str, Variant]:
    unknown = sorted(set(FLAGS.variants) - set(VARIANTS))
    if unknown:
        raise app.UsageError(
            f"--variants must be among {', '.join(VARIANTS)}. "
            f"Received: {', '.join(unknown)}"
        )
    if FLAGS.variants or not FLAGS.weights:
        names = FLAGS.variants or ("small_c2d", "small_nl_c2d")
        return {name: VARIANTS[name] for name in names}
    try:
        found = find(FLAGS.weights)
    except ValueError as error:
        raise app.UsageError(f"--weights: {error}") from error
    if not isinstance(found.network, Variant):
        raise app.UsageError(
            f"--weights={FLAGS.weights} does not say which network it is of: "
            "give --variants"
        )
    name = found.entry.name if found.entry else "network"
    return {name: found.network}


def main(_: list[str]) -> None:
    show_own_notes_only()
    networks = _networks()
    videos = read_folder(FLAGS.data)
    train_videos, test_videos = videos.split(FLAGS.held_out, FLAGS.seed)
    smallest, largest = (int(side) for side in FLAGS.short_side)
    config = TrainConfig(
        clip=ClipSpec.parse(FLAGS.clip),
        batch_size=FLAGS.batch_size,
        epochs=FLAGS.epochs,
        learning_rate=FLAGS.learning_rate,
        crop_size=FLAGS.crop_size,
        short_side=(smallest, largest),
        flip=FLAGS.flip,
        seed=FLAGS.seed,
        weights=FLAGS.weights,
    )
    out = pathlib.Path(FLAGS.out)
    run(
        networks,
        config,
        train_videos,
        test_videos,
        out,
        title=f"Networks trained on {FLAGS.data}",
        notes=(
            f"{len(train_videos)} videos of {len(videos.class_names)} classes "
            f"to train on, {len(test_videos)} held out.",
        ),
    )
    print(f"\nThe report: {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
