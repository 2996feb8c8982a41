"""The flags that say how windows slide over a video."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from absl import app
from absl import flags

from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.frame_stream import TIME_LIMIT
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation.models import ClipInput
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import clip_input

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model",
    None,
    "A .keras file, the folder of a trained network or of an exported model, "
    "or a name that keras_nonlocal.cli.convert --list shows.",
)
flags.DEFINE_string(
    "window", None, "Frames x step between them, as 32x2; default: the model's."
)
flags.DEFINE_float(
    "stride",
    None,
    "Seconds from one window to the next; default: a window's span.",
)
flags.DEFINE_integer(
    "batch_size", 4, "Windows of a forward pass.", lower_bound=1
)
flags.DEFINE_integer("crop_size", None, "Side of the crop, in pixels.")
flags.DEFINE_integer("short_side", None, "Of the video, in pixels.")
flags.DEFINE_float(
    "fps",
    0.0,
    "Frames per second of folders of pictures and of files that do not say.",
    lower_bound=0,
)
flags.DEFINE_float(
    "time_limit",
    TIME_LIMIT,
    "Seconds that may pass until the next frame of a file is there.",
)
flags.mark_flag_as_required("model")


def settings(opened: OpenedModel) -> ClipInput:
    """Clips and sizes by the flags, and else those of the model.

    Raises:
        ValueError: If one is not known, or not of its form.
    """
    clip = opened.clip
    if clip is None and FLAGS.window is None:
        raise ValueError(
            "--window must be given, as 32x2: the model does not say which "
            f"clips it takes. Received: {FLAGS.model}"
        )
    if FLAGS.window is not None:
        try:
            parsed = ClipSpec.parse(FLAGS.window)
        except ValueError as error:
            raise ValueError(f"--window: {error}") from error
        clip = dataclasses.replace(
            clip or parsed,
            num_frames=parsed.num_frames,
            sampling_rate=parsed.sampling_rate,
        )
    return clip_input(opened, clip, FLAGS.crop_size, FLAGS.short_side)


def arguments(opened: OpenedModel) -> dict[str, Any]:
    """The arguments of `predict_video` and `extract_features` by the flags."""
    found = settings(opened)
    return {
        "window": found.clip,
        "crop_size": found.crop_size,
        "short_side": found.short_side,
        "stride": FLAGS.stride,
        "batch_size": FLAGS.batch_size,
        "fps": FLAGS.fps,
        "time_limit": FLAGS.time_limit,
    }


def outs(patterns: Sequence[str], video: str) -> list[str]:
    """Names of files for a video: `{name}` is its own, without the ending."""
    name = pathlib.PurePath(video.rstrip("/")).stem
    return [pattern.replace("{name}", name) for pattern in patterns]


def check_outs(patterns: Sequence[str], videos: Sequence[str]) -> None:
    """Raises `ValueError` if two videos would be written to one file."""
    paths = [path for video in videos for path in outs(patterns, video)]
    path, count = collections.Counter(paths or [""]).most_common(1)[0]
    if count > 1:
        raise ValueError(
            "--out must have {name} in it for several videos, of different "
            f"names. Received: {path} for more than one"
        )


def for_each(videos: Sequence[str], work: Callable[[str], None]) -> None:
    """Does something for every video, and names those that cannot be read.

    Raises:
        app.UsageError: If an argument is wrong.
        SystemExit: With status 1 if a video could not be read.
    """
    unreadable = 0
    for video in videos:
        print(printable(video))
        try:
            work(video)
        except VideoError as error:
            unreadable += 1
            print(f"  cannot be read: {printable(str(error))}")
        except (OSError, ValueError) as error:
            raise app.UsageError(str(error)) from error
    if unreadable:
        raise SystemExit(1)
