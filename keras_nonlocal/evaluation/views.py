"""Scoring a video from several clips."""

import math
import os
from collections.abc import Callable

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.clips import ClipSource
from keras_nonlocal.data.decode import time_limit
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.transforms import center_transform
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights.catalogue import CATALOGUE


def score_video(
    predict: Callable[[np.ndarray], np.ndarray],
    path: str | os.PathLike[str],
    clip: ClipSpec,
    *,
    num_clips: int = 10,
    crop_size: int = 256,
    short_side: int = 256,
    segment: tuple[float, float] | None = None,
    fps: float = 0.0,
    seconds: float = math.inf,
) -> np.ndarray:
    """Mean scores over clips spread evenly over a video (section 4.1).

    The clips begin where the rule of `clip` has them.

    Args:
        predict: From uint8 clips `(1, T, H, W, 3)` to scores `(1, classes)`:
            a model, or the `serve` function of an exported one.
        path: Of the video, or of a folder of its frames.
        clip: Frames of a clip.
        num_clips: Clips; the paper takes 10.
        crop_size: Height and width of the centre crop, in pixels.
        short_side: Short side of the rescaled video, in pixels.
        segment: The part of the file, in seconds; `None` for all of it.
        fps: Frames per second where the video does not say.
        seconds: Time limit for reading a clip.

    Returns:
        Scores `(classes,)`, float64.

    Raises:
        VideoError: If one of the clips cannot be read; `TimeLimitError` if
            that takes too long.
    """
    with time_limit(seconds):
        source = ClipSource.open(
            os.fspath(path), clip, segment=segment, fps=fps
        )
    transform = center_transform(
        source.index.height, source.index.width, crop_size, short_side
    )
    starts = sampling.uniform_starts(
        num_clips, clip, len(source.line), source.fps
    )
    scores = []
    for start in starts:
        with time_limit(seconds):
            frames = source.read(source.numbers(start), transform)
        scores.append(np.asarray(predict(frames[None]), "float64")[0])
    return np.mean(scores, axis=0)


def published_clip(weights: str) -> ClipSpec:
    """The clips in which published weights were tested.

    Args:
        weights: An entry of `list_weights()`.

    Returns:
        Their length, step, rule and frame rate; the paper's rule where that of
        the publisher is none of `keras_nonlocal.data.sampling.RULES`.

    Raises:
        ValueError: If there is no such entry, or it is not of a `ResNet3D`.

    >>> published_clip("slowfast_I3D_NLN_8x8_R50").rule
    'slowfast'
    """
    entry = CATALOGUE.get(weights)
    if entry is None or not isinstance(entry.network, Variant):
        names = [
            name
            for name, entry in CATALOGUE.items()
            if isinstance(entry.network, Variant)
        ]
        raise ValueError(
            f"`weights` must be one of {', '.join(names)}. "
            f"Received: weights={weights!r}"
        )
    return ClipSpec(
        entry.network.num_frames,
        entry.network.sampling_rate,
        rule=entry.sampling or "paper",
        fps=entry.fps,
    )
