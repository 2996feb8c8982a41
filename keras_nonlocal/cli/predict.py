r"""Classifies video files with an exported model.

python -m keras_nonlocal.cli.predict \
        --model runs/demo/small_nl_c2d/saved_model video.mp4
"""

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation.views import score_video
from keras_nonlocal.export import read_about

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Folder of an exported model.")
flags.DEFINE_integer("clips", 10, "Clips to average over.")
flags.DEFINE_integer("top", 5, "Classes to print.")
flags.mark_flag_as_required("model")


def _clip(about: str | dict) -> ClipSpec:
    """The clips of training; exports of earlier versions say "32x2"."""
    return (
        ClipSpec(**about) if isinstance(about, dict) else ClipSpec.parse(about)
    )


def main(argv: list[str]) -> None:
    show_own_notes_only()
    paths = argv[1:]
    if not paths:
        raise app.UsageError("name one or more video files after the flags")
    about = read_about(FLAGS.model)
    missing = {"class_names", "clip", "crop_size", "short_side"} - set(about)
    if missing:
        raise app.UsageError(
            f"{FLAGS.model} does not say its {', '.join(sorted(missing))}: "
            "give them to export_saved_model as `about`"
        )
    clip = _clip(about["clip"])
    model = tf.saved_model.load(FLAGS.model)
    unreadable = 0
    for path in paths:
        print(path)
        try:
            scores = score_video(
                model.serve,
                path,
                clip,
                num_clips=FLAGS.clips,
                crop_size=about["crop_size"],
                short_side=about["short_side"],
            )
        except VideoError as error:
            unreadable += 1
            print(f"  cannot be read: {error}")
            continue
        for number in np.argsort(-scores)[: FLAGS.top]:
            print(f"  {scores[number]:6.1%}  {about['class_names'][number]}")
    if unreadable:
        raise SystemExit(1)


if __name__ == "__main__":
    app.run(main)
