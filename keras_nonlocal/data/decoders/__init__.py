"""Decoders by name: ways to get at the frames of a video.

The modules of `DECODERS` have the two functions of a `Decoder`.
"""

import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from keras_nonlocal.data import decode
from keras_nonlocal.data.decoders import frame_folder
from keras_nonlocal.data.decoders import tensorflow_io


class Decoder(Protocol):
    """`scan` and `read_frames`, as `keras_nonlocal.data.decode` has them."""

    def scan(self, path: str | os.PathLike[str]) -> decode.VideoIndex:
        """Counts the frames, and finds out what else is known of them."""

    def read_frames(
        self,
        path: str | os.PathLike[str],
        indices: Sequence[int] | np.ndarray,
        short_side: int | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Decodes frames by number."""


DECODERS: dict[str, Decoder] = {
    "pyav": decode,
    "frames": frame_folder,
    "tfio": tensorflow_io,
}


def check_decoder(name: str) -> None:
    """Raises `ValueError` if `name` is neither in `DECODERS` nor "auto"."""
    names = ("auto", *DECODERS)
    if name not in names:
        raise ValueError(
            f"`decoder` must be one of {names}. Received: decoder={name!r}"
        )


def get_decoder(name: str, path: str | os.PathLike[str]) -> Decoder:
    """The decoder to read `path` with.

    Args:
        name: A key of `DECODERS`, or "auto": "frames" for a folder and "pyav"
            for anything else.
        path: The video.

    Returns:
        The `Decoder`.

    Raises:
        ValueError: If there is no decoder of that name.

    >>> get_decoder("auto", "video.mp4") is DECODERS["pyav"]
    True
    """
    check_decoder(name)
    if name == "auto":
        name = "frames" if os.path.isdir(path) else "pyav"
    return DECODERS[name]
