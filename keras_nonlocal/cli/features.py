r"""Writes features of videos, from any layer of a network.

    python -m keras_nonlocal.cli.features --model runs/demo/small_nl_c2d \
        --layer res5_2 --stride 0.64 --out features/{name}.h5 videos/*.mp4

A file `x.npy` has a row for each window, and `x.npy.json` beside it when each
window begins and ends; an `.h5` file has both. `{name}` stands for the
name of the video without its ending. `--layers` lists the layers.

Videos that cannot be read are named, and the status is then 1.
"""

import pathlib

from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.cli import window_flags
from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.prediction import features

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(window_flags)
flags.DEFINE_string(
    "layer", None, "Name of the layer; default: what the classifier takes."
)
flags.DEFINE_boolean(
    "layers",
    False,
    "Print names and shapes of the layers, for --layer, and do nothing else.",
)
flags.DEFINE_boolean(
    "pool", True, "Whether to average over a layer's frames, rows and columns."
)
flags.DEFINE_string(
    "out", "{name}.npy", "File to write, which ends with .npy or .h5."
)


def _check(videos: list[str]) -> None:
    if not videos:
        raise ValueError("name one or more videos after the flags")
    features.check_ending(FLAGS.out)
    window_flags.check_outs([FLAGS.out], videos)


def _print_layers(opened: OpenedModel) -> None:
    for layer in features.plain_network(opened.model).layers:
        print(f"{layer.name:40} {tuple(getattr(layer.output, 'shape', ()))}")


def _write(opened: OpenedModel, video: str) -> None:
    (path,) = window_flags.outs([FLAGS.out], video)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    about = features.write_features(
        opened,
        video,
        path,
        FLAGS.layer,
        pool=FLAGS.pool,
        **window_flags.arguments(opened),
    )
    for problem in about["problems"]:
        print(f"  problem: {printable(problem)}")
    shape = tuple(about["shape"])
    print(f"  {about['layer']}: {shape} in {printable(path)}")


def main(argv: list[str]) -> None:
    show_own_notes_only()
    try:
        if FLAGS.layers:
            _print_layers(open_model(FLAGS.model))
            return
        _check(argv[1:])
        opened = open_model(FLAGS.model)
    except (OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    window_flags.for_each(argv[1:], lambda video: _write(opened, video))


if __name__ == "__main__":
    app.run(main)
