"""Finds videos that show the same pictures."""

import base64
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from keras_nonlocal.data.auditing.video import NUM_CELLS
from keras_nonlocal.data.auditing.video import NUM_MOMENTS

# How far the grey levels of copies are apart on average: coding again moves
# them by up to three.
_MEAN_BOUND = 5.0
# How alike the changes over time are, as a correlation. Copies of poor quality
# have more than 0.9; other moments of the same scene less than 0.7, even where
# hardly anything moves.
_MOTION_BOUND = 0.9


def lookalikes(pictures: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of videos with the same pictures.

    Videos in which nothing moves look like no other: of the same scene there
    may be many.

    Args:
        pictures: `VideoFacts.pictures` of each video; "" looks like nothing.

    Yields:
        The number of a video and that of the first before it that looks the
        same.

    >>> rising = base64.b64encode(bytes(i // 2 for i in range(512))).decode()
    >>> falling = base64.b64encode(bytes(i // -2 % 256 for i in range(512)))
    >>> list(lookalikes([rising, falling.decode(), "", rising]))
    [(3, 0)]
    """
    numbers = np.array([i for i, text in enumerate(pictures) if text], int)
    if not len(numbers):
        return
    cells = _decode([pictures[i] for i in numbers])
    coarse = _coarse(cells).astype("float32")
    # Every coarse value of a pair is within the bound on the mean difference:
    # only neighbours in the order of one of them have to be looked at.
    order = np.argsort(coarse[0], kind="stable")
    cells, coarse, numbers = cells[order], coarse[:, order], numbers[order]
    levels = coarse[0]
    first = np.searchsorted(levels, levels - _MEAN_BOUND, "left")
    end = np.searchsorted(levels, levels + _MEAN_BOUND, "right")
    for place, number in enumerate(numbers):
        near = slice(first[place], end[place])
        is_near = numbers[near] < number
        for values in coarse[1:]:
            is_near &= np.abs(values[near] - values[place]) <= _MEAN_BOUND
        near = first[place] + np.flatnonzero(is_near)
        near = near[_is_near(cells[near], cells[place])]
        near = near[_moves_alike(cells[near], cells[place])]
        if len(near):
            yield int(number), int(numbers[near].min())


def _decode(pictures: Sequence[str]) -> np.ndarray:
    values = b"".join(base64.b64decode(text) for text in pictures)
    shape = (-1, NUM_MOMENTS, NUM_CELLS, NUM_CELLS)
    return np.frombuffer(values, "uint8").reshape(shape)


def _coarse(cells: np.ndarray) -> np.ndarray:
    """Means of all cells with signs, brightness and slopes: `(4, videos)`."""
    count = len(cells)
    means = cells.reshape(
        count, 2, NUM_MOMENTS // 2, 2, NUM_CELLS // 2, 2, NUM_CELLS // 2
    ).mean(axis=(2, 4, 6))
    halves = [
        np.diff(means.mean(axis=others), axis=1)[:, 0] / 2
        for others in ((2, 3), (1, 3), (1, 2))
    ]
    return np.stack([means.mean(axis=(1, 2, 3)), *halves])


def _is_near(cells: np.ndarray, other: np.ndarray) -> np.ndarray:
    # The absolute difference, in bytes that do not wrap.
    distance = np.maximum(cells, other) - np.minimum(cells, other)
    return distance.mean(axis=(1, 2, 3), dtype="float32") <= _MEAN_BOUND


def _moves_alike(cells: np.ndarray, other: np.ndarray) -> np.ndarray:
    motion, others = _motion(cells), _motion(other[None])
    axes = (1, 2, 3)
    energy = (motion**2).sum(axis=axes) * (others**2).sum(axis=axes)
    product = (motion * others).sum(axis=axes)
    return product > _MOTION_BOUND * np.sqrt(energy)


def _motion(cells: np.ndarray) -> np.ndarray:
    """What is left of the cells without their means over time."""
    return cells - cells.mean(axis=1, keepdims=True, dtype="float32")
