"""The flags that say which clips a network trains on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import app
from absl import flags

from keras_nonlocal.data.pipeline import check_arguments
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.training.config import TrainConfig

FLAGS = flags.FLAGS


def define(
    *,
    clip: str | None,
    batch_size: int,
    crop_size: int,
    short_side: tuple[int, int],
) -> None:
    """Defines the flags, with the defaults of a command."""
    flags.DEFINE_string("clip", clip, "Frames x step between them, as 32x2.")
    flags.DEFINE_integer(
        "batch_size", batch_size, "Clips of a step.", lower_bound=1
    )
    flags.DEFINE_integer(
        "crop_size", crop_size, "Side of the clips, in pixels.", lower_bound=1
    )
    flags.DEFINE_list(
        "short_side",
        [str(side) for side in short_side],
        "Smallest and largest short side of the videos, in pixels.",
    )
    flags.DEFINE_integer(
        "num_workers", 0, "Processes that read; 0 for threads.", lower_bound=0
    )


def config(clip: str, **settings: Any) -> TrainConfig:
    """What the flags say; a wrong one is an error of usage.

    Args:
        clip: What `--clip` says, or stands for it.
        **settings: Of `TrainConfig`, those that are not of clips.

    Returns:
        The settings of a training run.

    Raises:
        app.UsageError: If one of them is out of range.
    """
    short_side = _short_side(FLAGS.short_side)
    try:
        check_arguments(
            FLAGS.batch_size, FLAGS.crop_size, short_side, process=(0, 1)
        )
        return TrainConfig(
            clip=_clip(clip),
            batch_size=FLAGS.batch_size,
            crop_size=FLAGS.crop_size,
            short_side=short_side,
            num_workers=FLAGS.num_workers,
            **settings,
        )
    except ValueError as error:
        raise app.UsageError(str(error)) from error


def given(clip: ClipSpec) -> dict[str, Any]:
    """The settings that the command line gives, without the defaults.

    Args:
        clip: Of which `--clip` changes length and step.

    Raises:
        app.UsageError: If one of them is not of its form.
    """
    settings = {
        name: FLAGS[name].value
        for name in ("batch_size", "crop_size", "num_workers")
        if FLAGS[name].present
    }
    if FLAGS["short_side"].present:
        settings["short_side"] = _short_side(FLAGS.short_side)
    if FLAGS["clip"].present:
        try:
            parsed = _clip(FLAGS.clip)
            settings["clip"] = dataclasses.replace(
                clip,
                num_frames=parsed.num_frames,
                sampling_rate=parsed.sampling_rate,
            )
        except ValueError as error:
            raise app.UsageError(str(error)) from error
    return settings


def _clip(text: str) -> ClipSpec:
    try:
        return ClipSpec.parse(text)
    except ValueError as error:
        raise ValueError(f"--clip: {error}") from error


def _short_side(texts: Sequence[str]) -> tuple[int, int]:
    try:
        smallest, largest = (int(text) for text in texts)
    except ValueError as error:
        raise app.UsageError(
            "--short_side must be two whole numbers, as 128,160. "
            f"Received: {','.join(texts)}"
        ) from error
    return smallest, largest
