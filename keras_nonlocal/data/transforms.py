"""Scale jitter, crop and flip: one draw per clip, the same for all frames."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# How a short side between two others is drawn.
JITTERS = ("uniform", "inverse")


def check_jitter(jitter: str) -> None:
    """Raises `ValueError` if `jitter` is none of `JITTERS`."""
    if jitter not in JITTERS:
        raise ValueError(
            f"`jitter` must be one of {JITTERS}. Received: jitter={jitter!r}"
        )


def rescaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size that makes the shorter side `short_side`, the other truncated.

    >>> rescaled_size(256, 340, short_side=300)
    (300, 398)
    """
    shorter = min(height, width)
    return height * short_side // shorter, width * short_side // shorter


@dataclasses.dataclass(frozen=True)
class ClipTransform:
    """What happens to every frame of a clip.

    `short_side` is for the decoder, which rescales while it converts to RGB;
    calling the object does the rest: it crops `(..., height, width, 3)` frames
    to `(..., crop_size, crop_size, 3)` and, if `flip`, mirrors left and right.

    Args:
        short_side: Shorter side of the rescaled frames, in pixels.
        top: First row of the crop.
        left: First column of the crop.
        crop_size: Height and width of the crop, in pixels.
        flip: Whether to mirror the crop.

    >>> frame = np.arange(16).reshape(4, 4, 1)
    >>> ClipTransform(4, 1, 0, 2, flip=True)(frame)[..., 0]
    array([[5, 4],
           [9, 8]])
    """

    short_side: int
    top: int
    left: int
    crop_size: int
    flip: bool = False

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        bottom, right = self.top + self.crop_size, self.left + self.crop_size
        height, width = frames.shape[-3:-1]
        if min(self.top, self.left) < 0 or bottom > height or right > width:
            raise ValueError(
                "`frames` must contain the crop, rows "
                f"{self.top}:{bottom} and columns {self.left}:{right}. "
                f"Received: frames of {height}x{width} pixels"
            )
        frames = frames[..., self.top : bottom, self.left : right, :]
        return frames[..., ::-1, :] if self.flip else frames


def random_transform(
    units: Sequence[float] | np.ndarray,
    height: int,
    width: int,
    crop_size: int,
    short_side: tuple[int, int],
    flip: bool,
    jitter: str = "uniform",
) -> ClipTransform:
    """The paper's augmentation, from four random numbers.

    Args:
        units: Four numbers in [0, 1): short side, row and column of the crop,
            flip.
        height: Height of the video, in pixels.
        width: Width of the video, in pixels.
        crop_size: Height and width of the crop, in pixels.
        short_side: Smallest and largest short side, both included, in pixels;
            the smallest is at least `crop_size`.
        flip: Whether to mirror half of the clips.
        jitter: `"uniform"`: any short side is equally likely. `"inverse"`:
            its inverse is drawn evenly, and smaller ones are likelier.

    Returns:
        The transform, any crop position equally likely.

    >>> random_transform([0.5, 0, 0.99, 0.1], 256, 340, 224, (256, 320), True)
    ClipTransform(short_side=288, top=0, left=157, crop_size=224, flip=True)
    """
    side = _random_side(units[0], short_side, jitter)
    new_height, new_width = rescaled_size(height, width, side)
    return ClipTransform(
        short_side=side,
        top=int(units[1] * (new_height - crop_size + 1)),
        left=int(units[2] * (new_width - crop_size + 1)),
        crop_size=crop_size,
        flip=bool(flip and units[3] < 0.5),
    )


def _random_side(unit: float, short_side: tuple[int, int], jitter: str) -> int:
    smallest, largest = short_side
    if jitter == "inverse":
        inverse = 1 / smallest - unit * (1 / smallest - 1 / largest)
        return round(1 / inverse)
    return smallest + int(unit * (largest - smallest + 1))


def center_transform(
    height: int, width: int, crop_size: int, short_side: int
) -> ClipTransform:
    """Evaluation: rescales to `short_side` and takes the centre, no flip.

    >>> center_transform(256, 340, crop_size=224, short_side=256)
    ClipTransform(short_side=256, top=16, left=58, crop_size=224, flip=False)
    """
    new_height, new_width = rescaled_size(height, width, short_side)
    return ClipTransform(
        short_side=short_side,
        top=(new_height - crop_size) // 2,
        left=(new_width - crop_size) // 2,
        crop_size=crop_size,
    )
