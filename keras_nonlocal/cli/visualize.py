r"""Shows what a network looks at in a clip of a video.

    python -m keras_nonlocal.cli.visualize --model runs/demo/small_nl_c2d \
        --out runs/attention video.mp4
    python -m keras_nonlocal.cli.visualize --model model.keras --out runs/ball \
        --start 3.2 --block nonlocal_res4_3 --query 8,120,96 video.mp4

Leaves in the folder a page on which any place of the clip can be asked
(`index.html`); for one block and one query the paper's figure 3
(`arrows.png`) and where it looks as heat over the frames (`attention.png`,
`.gif`, `.mp4`); what all blocks look at on average (`statistics.png`, `.json`);
and where the network finds a class (`grad_cam.png`, `.gif`, `.mp4`). Networks
without non-local blocks get the page and the last of these.
"""

import pathlib
from typing import cast

import keras
import numpy as np
from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation import scoring
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.visualization import attention_figures
from keras_nonlocal.visualization import calls
from keras_nonlocal.visualization import media
from keras_nonlocal.visualization.attention import ClipAttention
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.attention_report import attention_report
from keras_nonlocal.visualization.attention_statistics import (
    AttentionStatistics,
)
from keras_nonlocal.visualization.attention_statistics import (
    attention_statistics,
)
from keras_nonlocal.visualization.figures import require_matplotlib
from keras_nonlocal.visualization.grad_cam import grad_cam
from keras_nonlocal.visualization.video_clip import VideoClip
from keras_nonlocal.visualization.video_clip import as_video_clip

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model",
    None,
    "A .keras file, the folder of a trained network, or an entry that "
    "keras_nonlocal.cli.convert --list shows.",
)
flags.DEFINE_string("out", None, "Folder to write to.")
flags.DEFINE_string(
    "block", None, "The non-local block to ask; default: the last one."
)
flags.DEFINE_list(
    "query",
    [],
    "Frame, row and column of the clip that is asked; default: its middle.",
)
flags.DEFINE_string(
    "target", None, "Name or number of the class to find; default: the best."
)
flags.DEFINE_float(
    "start",
    None,
    "Second at which the clip begins; default: the clip in the middle.",
)
flags.DEFINE_string(
    "clip", None, "Frames x step between them, as 32x2; default: the model's."
)
flags.DEFINE_integer(
    "crop_size",
    None,
    "Side of the clip, in pixels; default: the model's.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "short_side",
    None,
    "Of the video, in pixels; default: the model's.",
    lower_bound=1,
)
flags.DEFINE_float(
    "fps",
    None,
    "Frames per second of animations; default: as fast as the video.",
    lower_bound=0.1,
    upper_bound=media.MAX_GIF_FPS,
)
flags.mark_flags_as_required(["model", "out"])

# Where the video does not say, and slower than most.
_DEFAULT_FPS = 10.0


def _model() -> tuple[OpenedModel, keras.Model]:
    opened = open_model(FLAGS.model)
    if not isinstance(opened.model, keras.Model):
        raise ValueError(
            "--model must be a network whose layers can be seen: give its "
            "model.keras, which training leaves beside the exported model. "
            f"Received: {FLAGS.model}"
        )
    scoring.check_takes_pixels(opened.model)
    return opened, opened.model


def _clip(video: str, opened: OpenedModel) -> VideoClip:
    return as_video_clip(
        video,
        opened,
        FLAGS.start,
        clip=None if FLAGS.clip is None else ClipSpec.parse(FLAGS.clip),
        crop_size=FLAGS.crop_size,
        short_side=FLAGS.short_side,
    )


def _query() -> np.ndarray:
    """The place that `--query` says."""
    try:
        place = np.array([float(text) for text in FLAGS.query])
    except ValueError:
        place = np.empty(0)
    if place.shape != (3,):
        raise ValueError(
            "--query must be three numbers, frame, row and column, as "
            f"8,112,112. Received: {','.join(FLAGS.query)}"
        )
    return place


def _target(opened: OpenedModel) -> int | None:
    """The number of the class that `--target` says."""
    text, names = FLAGS.target, opened.class_names or ()
    if text is None or text in names:
        return None if text is None else names.index(text)
    if not text.isascii() or not text.isdigit():
        known = f"one of {', '.join(names)}, or " if names else ""
        raise ValueError(f"--target must be {known}a number. Received: {text}")
    return int(text)


def _fps(clip: VideoClip) -> float:
    """As fast as the video, where its times say so and a GIF can."""
    if FLAGS.fps is not None:
        return FLAGS.fps
    steps = np.diff(clip.seconds)
    # A clip that is longer than its video comes back to its beginning.
    steps = steps[steps > 0]
    if not len(steps):
        return _DEFAULT_FPS
    return float(np.clip(1 / np.median(steps), 0.1, media.MAX_GIF_FPS))


def _write(path: pathlib.Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _animate(path: pathlib.Path, frames: np.ndarray, fps: float) -> None:
    media.write_gif(path.with_suffix(".gif"), frames, fps)
    media.write_mp4(path.with_suffix(".mp4"), frames, fps)


def _show_block(
    out: pathlib.Path, clip: VideoClip, found: ClipAttention, fps: float
) -> None:
    block = FLAGS.block or found.blocks[-1]
    maps = found.maps(block, _query() if FLAGS.query else found.middle)
    _write(out / "arrows.png", attention_figures.attention_arrows(clip, maps))
    _write(
        out / "attention.png", attention_figures.attention_overlay(clip, maps)
    )
    heated = attention_figures.heat_overlay(
        clip.frames, maps.on_clip()[0], attention_figures.is_signed(maps)
    )
    _animate(out / "attention", heated, fps)


def _show_statistics(
    out: pathlib.Path, model: keras.Model, attention: ClipAttention
) -> None:
    found = attention_statistics(model, attention)
    found = cast(dict[str, AttentionStatistics], found)  # Of all blocks.
    values = {name: block.as_dict() for name, block in found.items()}
    write_json(out / "statistics.json", values)
    _write(out / "statistics.png", attention_figures.attention_plots(found))


def _show_class(
    out: pathlib.Path, opened: OpenedModel, clip: VideoClip, fps: float
) -> None:
    cam = grad_cam(opened.model, clip.frames, _target(opened))
    names = opened.class_names
    name = None if names is None else names[cam.class_index]
    _write(
        out / "grad_cam.png",
        attention_figures.grad_cam_strip(clip, cam, name),
    )
    heated = attention_figures.heat_overlay(clip.frames, cam.on_clip())
    _animate(out / "grad_cam", heated, fps)


def _visualize(video: str, out: pathlib.Path) -> None:
    require_matplotlib()
    opened, network = _model()
    clip = _clip(video, opened)
    fps = _fps(clip)
    graph = calls.graph_of(network)
    has_blocks = any(
        isinstance(operation, NonLocal) for operation in calls.operations(graph)
    )
    if not has_blocks and (FLAGS.block or FLAGS.query):
        raise ValueError(
            "--block and --query are for networks with non-local blocks. "
            f"Received: {FLAGS.model}, which has none"
        )
    out.mkdir(parents=True, exist_ok=True)
    # From what tells soonest that a flag is wrong to what takes longest.
    if [len(output.shape) for output in graph.outputs] == [2]:
        _show_class(out, opened, clip, fps)
    else:
        print("No Grad-CAM: the network does not give scores of classes alone.")
    if has_blocks:
        attention = attend(network, clip.frames)
        _show_block(out, clip, attention, fps)
        _show_statistics(out, network, attention)
    attention_report(opened, clip, out / "index.html")


def main(argv: list[str]) -> None:
    show_own_notes_only()
    out = pathlib.Path(FLAGS.out)
    try:
        if len(argv) != 2:
            raise ValueError(
                "name one video after the flags. Received: "
                f"{' '.join(argv[1:]) or 'none'}"
            )
        _visualize(argv[1], out)
    except (ImportError, OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    print(f"The page: {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
