"""What is read from a checkpoint, whatever it was written by."""

import dataclasses
from typing import Any

import numpy as np

from keras_nonlocal.layers.batch_norm import EPSILON

# The family of files that Keras saved from our networks.
OWN = "keras_nonlocal"


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """The content of a checkpoint.

    Attributes:
        path: Where it is.
        family: A key of `names.FAMILIES`, or `OWN`.
        tensors: Arrays by the path of our variable, in the source's layout.
        sources: The names in the file, by the path of our variable.
        ignored: Names in the file that are no weights.
        about: What our own files say of themselves: the `network`, and what
            a converted file was.
        settings: The layers' settings in a `.keras` file, by layer name.
        config: The configuration that SlowFast and mmaction2 put in, as text.
        is_bgr: Whether its network takes blue, green, red.
        epsilon: What its network adds to the variance in a batch norm.
    """

    path: str
    family: str
    tensors: dict[str, np.ndarray]
    sources: dict[str, list[str]]
    ignored: list[str] = dataclasses.field(default_factory=list)
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] | None = None
    config: str = ""
    is_bgr: bool = False
    epsilon: float = EPSILON
