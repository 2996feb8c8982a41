r"""Draws the pictures of the documentation, and writes them to `docs/images`.

    python -m docs.pictures [--run runs/demo/small_nl_c2d] [--clip SHOT.gif]

The clip is a cricket shot that the authors of the Inception I3D publish under
the Apache License 2.0; it is fetched unless `--clip` is a copy of it. The run
is one that `make demo` leaves, with its videos beside it.
"""

import io
import pathlib

import numpy as np
import PIL.Image
from absl import app
from absl import flags

from keras_nonlocal.cli import demo
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.attention_figures import attention_arrows
from keras_nonlocal.visualization.attention_figures import grad_cam_strip
from keras_nonlocal.visualization.grad_cam import grad_cam
from keras_nonlocal.visualization.video_clip import as_video_clip

IMAGES = pathlib.Path(__file__).resolve().parent / "images"
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "run", "runs/demo/small_nl_c2d", "A network trained by `make demo`."
)


def cricket(path: str) -> bytes:
    """What speaks for the class that the Inception I3D sees in the shot."""
    opened = open_model("inception_i3d_rgb_kinetics400")
    clip = as_video_clip(path, opened)
    cam = grad_cam(opened.model, clip.frames)
    name = opened.class_names[cam.class_index]
    return grad_cam_strip(clip, cam, name, max_frames=5)


def balls(run: pathlib.Path) -> bytes:
    """Where the second ball's place looks in a block of the demo network."""
    opened = open_model(run)
    folder = run.parent / "videos" / "test" / "same_colour"
    clip = as_video_clip(sorted(folder.glob("*.mp4"))[0], opened)
    attention = attend(opened.model, clip.frames)
    maps = attention.maps(attention.blocks[0], [_last_ball(clip.frames)])
    return attention_arrows(clip, maps, count=12)


def _last_ball(frames: np.ndarray) -> tuple[int, int, int]:
    """Where the last frame differs most from what all frames have there."""
    still = np.median(frames, axis=0)
    difference = np.abs(frames[-1] - still).sum(axis=-1)
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    return len(frames) - 1, int(row), int(column)


def _write(name: str, png: bytes) -> None:
    """As JPEG: photographs are a third of the size."""
    image = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    image.save(IMAGES / name, quality=88, optimize=True)


def main(_: list[str]) -> None:
    _write("grad_cam.jpg", cricket(FLAGS.clip or demo.fetched_clip()))
    _write("attention.jpg", balls(pathlib.Path(FLAGS.run)))


if __name__ == "__main__":
    app.run(main)
