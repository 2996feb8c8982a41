"""Scores that nothing was computed for."""

import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import VideoList
from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.evaluation.protocols import Protocol


@pytest.fixture
def make():
    """Makes evaluations of `n` videos, of which some could not be read."""

    def evaluation(
        scores, labels, classes=None, skipped=(), folder="rgb", **fields
    ):
        scores = np.asarray(scores, "float32")
        count, width = len(labels), scores.shape[-1]
        names = classes or tuple(f"class {i}" for i in range(width))
        numbers = [n for n in range(count) if n not in skipped]
        paths = [f"{folder}/{number}.mp4" for number in range(count)]
        segments = fields.pop("segments", None)
        return Evaluation(
            **{
                "name": "net",
                "dataset": "set",
                "videos": VideoList(paths, np.asarray(labels), names, segments),
                "clip": ClipSpec(8, 8),
                "protocol": Protocol("x", 2),
                "numbers": np.array(numbers),
                "scores": {"1 clip": np.roll(scores, -1, 1), "2 clips": scores},
                "skipped": {n: f"{paths[n]}: no video" for n in skipped},
                "about": {"seconds": 1.5},
                **fields,
            }
        )

    return evaluation
