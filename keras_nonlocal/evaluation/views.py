"""Scoring a video from several clips."""

import os
from collections.abc import Callable

import numpy as np

from keras_nonlocal.data.decode import read_frames
from keras_nonlocal.data.decode import scan
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.sampling import frame_indices
from keras_nonlocal.data.sampling import uniform_starts
from keras_nonlocal.data.transforms import center_transform


def score_video(
    predict: Callable[[np.ndarray], np.ndarray],
    path: str | os.PathLike[str],
    clip: ClipSpec,
    *,
    num_clips: int = 10,
    crop_size: int = 256,
    short_side: int = 256,
) -> np.ndarray:
    """Mean scores over clips spread evenly over a video (section 4.1).

    Args:
        predict: From uint8 clips `(1, T, H, W, 3)` to scores `(1, classes)`:
            a model, or the `serve` function of an exported one.
        path: Of the video.
        clip: Frames of a clip.
        num_clips: Clips; the paper takes 10.
        crop_size: Height and width of the centre crop, in pixels.
        short_side: Short side of the rescaled video, in pixels.

    Returns:
        Scores `(classes,)`, float64.

    Raises:
        VideoError: If the video cannot be read.
    """
    video = scan(path)
    crop = center_transform(video.height, video.width, crop_size, short_side)
    scores = []
    for start in uniform_starts(num_clips, video.num_frames):
        indices = frame_indices(int(start), clip, video.num_frames)
        frames = read_frames(path, indices, short_side, crop)
        scores.append(np.asarray(predict(frames[None]), "float64")[0])
    return np.mean(scores, axis=0)
