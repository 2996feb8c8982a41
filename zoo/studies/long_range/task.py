"""A made-up question about two things that may be far apart.

A clip shows two rings among discs and squares, all in a few colours, over
noise. The class says whether the rings have the same colour. Each clip belongs
to a cell: so many frames from one ring to the other, `DELAYS`, and so many
pixels, `REACHES`. A ring is seen in one frame only; with a delay of 0 both are
in the same frame.

With a delay above 0 a frame holds one ring at most, and either colour goes with
either class as often: by one frame half of the answers are right. A network
that scores frames one by one and averages, as C2D without pooling over time,
is additive: with all else equal its score is `s(first colour) + r(second
colour)`, and a threshold makes it a decision. `additive_ceiling` says how many
answers can then be right, whatever is learnt from however many clips: 75 %.
"""

import dataclasses
import itertools

import numpy as np

CLASS_NAMES = ("different_colour", "same_colour")
COLOURS = np.array([[220, 40, 40], [40, 200, 40], [50, 70, 230]], "int16")
DELAYS = (0, 1, 5)
# Least and largest distance of the centres, as shares of the clip's side.
REACHES = {"near": (0.25, 0.35), "far": (0.6, 0.75)}
CELLS = tuple(itertools.product(DELAYS, REACHES))
# Twice as many as cells: each cell has each class as often.
ROUND = 2 * len(CELLS)

_NOISE = 12
_MAX_DISTRACTORS = 6


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips with all that was drawn for them.

    Attributes:
        frames: uint8 RGB `(N, T, size, size, 3)`.
        labels: int64 `(N,)`, positions in `CLASS_NAMES`.
        cells: int64 `(N,)`, positions in `CELLS`.
        colours: int64 `(N, 2)`, of the first and the second ring.
        times: int64 `(N, 2)`, frames of the rings.
        centers: float64 `(N, 2, 2)`, row and column of the rings.
        distractors: int64 `(N, colours)`, how many there are of each colour.
    """

    frames: np.ndarray
    labels: np.ndarray
    cells: np.ndarray
    colours: np.ndarray
    times: np.ndarray
    centers: np.ndarray
    distractors: np.ndarray


def additive_ceiling(num_colours: int) -> float:
    """Share of answers that an additive score can get right.

    Say that the score is above the threshold for `k` of the `n` pairs of equal
    colours. For two of these, `(a, a)` and `(b, b)`, the scores of `(a, b)` and
    of `(b, a)` have the same sum, so that one of them is above it, too: at
    least `k (k - 1) / 2` of the `n (n - 1)` pairs of different colours are.
    The same holds with "below" for "above".

    Args:
        num_colours: `n`, at least 2.

    Returns:
        The largest share over all `k`, with the classes equally frequent.

    Example:

    >>> additive_ceiling(3)
    0.75
    """
    pairs = num_colours * (num_colours - 1)
    return max(
        0.5 * k / num_colours + 0.5 * (1 - k * (k - 1) / 2 / pairs)
        for k in range(num_colours + 1)
    )


def make_clips(
    count: int, seed: tuple[int, ...], num_frames: int = 8, size: int = 48
) -> Clips:
    """Draws clips, in an order without a pattern.

    In every `ROUND` clips each cell has each class once, and inside a cell and
    class the pairs of colours take turns. Places, frames and distractors know
    nothing of class and colours.

    Args:
        count: Clips, a multiple of `ROUND`.
        seed: Same seed, same clips; others for another seed.
        num_frames: Frames of a clip, more than the longest delay.
        size: Height and width in pixels, at least 32.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> make_clips(ROUND, seed=(0,)).frames.shape
    (12, 8, 48, 48, 3)
    """
    if count < 1 or count % ROUND:
        raise ValueError(
            f"`count` must be a multiple of {ROUND}, so that the cells have "
            f"both classes alike. Received: {count}"
        )
    if num_frames <= max(DELAYS) or size < 32:
        raise ValueError(
            f"`num_frames` must be above {max(DELAYS)} and `size` at least "
            f"32. Received: num_frames={num_frames}, size={size}"
        )
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(count)
    labels = numbers % 2
    cells = numbers // 2 % len(CELLS)
    colours = np.array(
        [_colours(*pair) for pair in zip(labels, numbers // ROUND, strict=True)]
    )
    frames = np.empty((count, num_frames, size, size, 3), "uint8")
    times = np.empty((count, 2), int)
    centers = np.empty((count, 2, 2))
    distractors = np.zeros((count, len(COLOURS)), int)
    for clip in range(count):
        delay, reach = CELLS[cells[clip]]
        scene = _Scene(num_frames, size, rng)
        centers[clip] = scene.place(REACHES[reach])
        times[clip] = scene.times(delay)
        # The rings come last, so that their colours change nothing else.
        for colour in scene.draw_distractors(times[clip], centers[clip]):
            distractors[clip, colour] += 1
        for ring in range(2):
            scene.draw_ring(
                times[clip, ring], centers[clip, ring], colours[clip, ring]
            )
        frames[clip] = scene.developed()
    return Clips(frames, labels, cells, colours, times, centers, distractors)


def make_frames(
    count: int, seed: tuple[int, ...], size: int = 48
) -> tuple[np.ndarray, np.ndarray]:
    """Draws single frames with one ring, to learn colours and shapes from.

    Args:
        count: Frames.
        seed: Same seed, same frames; others for another seed.
        size: Height and width in pixels.

    Returns:
        uint8 RGB `(N, 1, size, size, 3)` and the colour of the ring, int64
        `(N,)`, each as often.
    """
    rng = np.random.default_rng(seed)
    colours = rng.permutation(count) % len(COLOURS)
    frames = np.empty((count, 1, size, size, 3), "uint8")
    for number, colour in enumerate(colours):
        scene = _Scene(1, size, rng)
        centers = scene.place(REACHES["near"])[:1]
        scene.draw_distractors(np.zeros(1, int), centers)
        scene.draw_ring(0, centers[0], colour)
        frames[number] = scene.developed()
    return frames, colours


def _colours(label: int, turn: int) -> tuple[int, int]:
    """Colours of the rings of the `turn`-th clip of a cell and class."""
    if label:
        colour = turn % len(COLOURS)
        return colour, colour
    pairs = list(itertools.permutations(range(len(COLOURS)), 2))
    return pairs[turn % len(pairs)]


class _Scene:
    """One clip while it is drawn."""

    def __init__(self, num_frames: int, size: int, rng: np.random.Generator):
        self.rng = rng
        self.size = size
        self.radius = size * 0.11
        dark = rng.integers(20, 90, 3)
        self.frames = np.empty((num_frames, size, size, 3), "int16")
        self.frames[:] = dark
        offsets = np.arange(size) + 0.5
        self.rows, self.columns = offsets[:, None], offsets[None, :]

    def place(self, reach: tuple[float, float]) -> np.ndarray:
        """Two centres, `(2, 2)`, whose distance is within reach."""
        low, high = np.multiply(reach, self.size)
        margin = self.radius
        while True:
            pair = self.rng.uniform(margin, self.size - margin, (2, 2))
            if low <= np.hypot(*(pair[0] - pair[1])) < high:
                return pair

    def times(self, delay: int) -> tuple[int, int]:
        first = int(self.rng.integers(len(self.frames) - delay))
        return first, first + delay

    def draw_ring(self, time: int, center: np.ndarray, colour: int) -> None:
        distance = np.hypot(self.rows - center[0], self.columns - center[1])
        inside = (distance < self.radius) & (distance > self.radius * 0.5)
        self.frames[time][inside] = COLOURS[colour]

    def draw_distractors(
        self, times: np.ndarray, centers: np.ndarray
    ) -> list[int]:
        """Discs and squares clear of the rings; returns their colours."""
        drawn = []
        for _ in range(self.rng.integers(2, _MAX_DISTRACTORS + 1)):
            time = int(self.rng.integers(len(self.frames)))
            center = self.rng.uniform(0, self.size, 2)
            radius = self.radius * self.rng.uniform(0.7, 1.1)
            colour = int(self.rng.integers(len(COLOURS)))
            is_disc = self.rng.random() < 0.5
            apart = np.hypot(*(centers - center).T)
            if np.any((times == time) & (apart < 2.6 * self.radius)):
                continue
            down = np.abs(self.rows - center[0])
            across = np.abs(self.columns - center[1])
            distance = np.hypot(down, across)
            if not is_disc:
                distance = np.maximum(down, across) * 1.1
            self.frames[time][distance < radius] = COLOURS[colour]
            drawn.append(colour)
        return drawn

    def developed(self) -> np.ndarray:
        """The frames under noise, uint8."""
        noise = self.rng.integers(
            -_NOISE, _NOISE + 1, self.frames.shape, "int8"
        )
        return np.clip(self.frames + noise, 0, 255).astype("uint8")
