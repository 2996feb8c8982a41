"""Trains networks on a folder of videos and reports on them.

    python -m keras_nonlocal.cli.train --data videos --out runs/mine

--data is a folder with one folder of videos for each class, or a list in any of
the known formats with one class a video. A share of every class is held out.
Leaves `index.html`, `results.json` and for each network a `.keras` file and a
SavedModel that `keras_nonlocal.cli.predict` takes.
"""

import pathlib

from absl import app
from absl import flags

from keras_nonlocal.cli import clip_flags
from keras_nonlocal.cli import data_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.run import run
from keras_nonlocal.weights.lookup import find

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(data_flags)
clip_flags.define(
    clip="8x8", batch_size=16, crop_size=112, short_side=(128, 160)
)
flags.adopt_module_key_flags(clip_flags)
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
flags.DEFINE_integer(
    "epochs", 30, "Passes over the training videos.", lower_bound=1
)
flags.DEFINE_float("learning_rate", 0.05, "Peak learning rate.")
flags.DEFINE_boolean("flip", True, "Mirror half of the training clips.")
flags.DEFINE_integer(
    "seed", 0, "Seed of weights, split and augmentation.", lower_bound=0
)


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


def _split(videos: VideoList) -> tuple[VideoList, VideoList]:
    """Videos to train and to test on."""
    if videos.multi_label:
        raise app.UsageError(
            "--data must have one class a video to train on. Received: "
            f"{FLAGS.data}, whose videos may have several"
        )
    try:
        train_videos, test_videos = videos.split(FLAGS.held_out, FLAGS.seed)
    except ValueError as error:
        raise app.UsageError(f"--held_out: {error}") from error
    for use, part, least in (
        ("train on, those of a step", train_videos, FLAGS.batch_size),
        ("hold out", test_videos, 1),
    ):
        if len(part) < least:
            raise app.UsageError(
                f"--data must have {least} or more videos to {use}. Received: "
                f"{len(part)} of {len(videos)} with "
                f"--held_out={FLAGS.held_out}"
            )
    return train_videos, test_videos


def _left_out(videos: VideoList) -> list[str]:
    """What is wrong with the list, and how often."""
    return [
        f"{kind}: {count}" for kind, count in videos.problem_counts().items()
    ]


def main(_: list[str]) -> None:
    show_own_notes_only()
    networks = _networks()
    config = clip_flags.config(
        FLAGS.clip,
        epochs=FLAGS.epochs,
        learning_rate=FLAGS.learning_rate,
        flip=FLAGS.flip,
        seed=FLAGS.seed,
        weights=FLAGS.weights,
    )
    videos = data_flags.videos()
    train_videos, test_videos = _split(videos)
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
            *_left_out(videos),
        ),
    )
    print(f"\nThe report: {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
