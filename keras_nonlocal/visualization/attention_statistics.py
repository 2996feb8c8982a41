"""What a non-local block attends to on average."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_nonlocal.ops import algorithms
from keras_nonlocal.visualization import calls
from keras_nonlocal.visualization.attention import ClipAttention
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.receptive_field import ReceptiveField

# Weights that are in memory at a time: a few tens of MB with what is computed
# from them.
_MAX_PAIRS = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class DistanceHistogram:
    """How far from a query its weights are.

    Attributes:
        edges: Of the bins, float64 `(B + 1,)`, in pixels or frames of the clip.
        share: Share of the weight in each bin, float64 `(B,)`, of sum 1.
        uniform: The same for queries that weigh all keys that they see alike:
            what the shape of the clip alone gives.
        mean: Mean distance, by weight.
        uniform_mean: The same for such queries.
    """

    edges: np.ndarray
    share: np.ndarray
    uniform: np.ndarray
    mean: float
    uniform_mean: float

    def as_dict(self) -> dict[str, Any]:
        """The attributes, as JSON can hold them."""
        return {
            "edges": self.edges.tolist(),
            "share": self.share.tolist(),
            "uniform": self.uniform.tolist(),
            "mean": self.mean,
            "uniform_mean": self.uniform_mean,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """What a block attends to, on average over queries and clips.

    For every query its weights, `p_j = |w_j| / sum_k |w_k|`. For the Gaussian
    modes these are the weights themselves; for the dot product and the
    concatenation, whose weights are signed or of any sum, they say where a
    query looks but not whether it adds or takes away.

    Attributes:
        block: Name of the block.
        mode: Its pairwise function.
        is_distribution: Whether the weights themselves are distributions.
        num_clips: Clips.
        num_queries: Queries, of all clips.
        num_empty: Queries of which all weights are 0, as the ReLU of the
            concatenation can make them; they count nowhere else.
        num_keys: Keys that a query sees.
        keys: Where in a clip the keys are from.
        mean_map: Mean weight of every key, float64 `(T', H', W')`.
        uniform_map: The same for queries that weigh all keys that they see
            alike; 0 where no query looked.
        space: Distances in the picture, in pixels.
        time: Distances in time, in frames of the clip, either way.
        entropy: Mean entropy of a query's weights, in nats.
        relative_entropy: The same over `log(num_keys)`: 0 if every query looks
            at one key, 1 if at all that it sees alike (also if it sees one).
        same_frame: Mean share of the weight on keys of the query's own frame,
            of those that the block's input has.
        uniform_same_frame: The same for queries that weigh all keys alike.
        similarity: Mean cosine between the weights of two different queries of
            a clip. 1: every query looks at the same place, and the block does
            for all of them what a global pooling with weights does. `None` with
            fewer than two queries.
        information: What the query tells of where is looked, in nats: the
            entropy of the mean weights less the mean entropy (the generalised
            Jensen-Shannon divergence), mean over clips. 0: nothing, all queries
            look alike. At most `log(num_keys)`, and the logarithm of the number
            of queries of a clip.
    """

    block: str
    mode: str
    is_distribution: bool
    num_clips: int
    num_queries: int
    num_empty: int
    num_keys: int
    keys: ReceptiveField
    mean_map: np.ndarray
    uniform_map: np.ndarray
    space: DistanceHistogram
    time: DistanceHistogram
    entropy: float
    relative_entropy: float
    same_frame: float
    uniform_same_frame: float
    similarity: float | None
    information: float

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        names = [field.name for field in dataclasses.fields(self)]
        found = {
            name: getattr(self, name)
            for name in names
            if name not in ("keys", "mean_map", "uniform_map", "space", "time")
        }
        return {
            **found,
            "clip_size": list(self.keys.clip_size),
            "key_times": self.keys.times.tolist(),
            "key_rows": self.keys.rows.tolist(),
            "key_columns": self.keys.columns.tolist(),
            "mean_map": self.mean_map.tolist(),
            "uniform_map": self.uniform_map.tolist(),
            "space": self.space.as_dict(),
            "time": self.time.as_dict(),
        }


def attention_statistics(
    model: keras.Model,
    clips: Iterable[np.ndarray | ClipAttention] | np.ndarray | ClipAttention,
    block: str | None = None,
    *,
    num_queries: int | None = 256,
    seed: int = 0,
) -> AttentionStatistics | dict[str, AttentionStatistics]:
    """What blocks attend to, on average over queries and clips.

    Weights are exact, and computed for some queries at a time: memory does not
    grow with the number of queries or clips.

    Args:
        model: As of `attend`.
        clips: Clips of one size, each as `attend` takes it: an iterable, an
            array of them, or a single one. What `attend` returned stands for
            its clip and saves running the model again.
        block: Name of a block. Default: all.
        num_queries: Queries of each clip and block, drawn from all positions
            without repeats; `None` takes all positions.
        seed: Of that draw.

    Returns:
        `AttentionStatistics`; without `block` a dict of them, by the name of
        the block.

    Raises:
        ValueError: As of `attend`; if there are no clips, or of several sizes;
            or if a block gives no weight to anything.

    Example:

    >>> from keras_nonlocal import NonLocal
    >>> inputs = keras.Input((2, 8, 8, 3))
    >>> model = keras.Model(inputs, NonLocal(name="block")(inputs))
    >>> found = attention_statistics(model, np.zeros((1, 2, 8, 8, 3)))
    >>> round(found["block"].relative_entropy, 6)
    1.0
    """
    if num_queries is not None and num_queries < 1:
        raise ValueError(
            "`num_queries` must be positive or None. "
            f"Received: num_queries={num_queries}"
        )
    rng = np.random.default_rng(seed)
    sums: dict[str, _Sums] = {}
    rank = len(calls.graph_of(model).inputs[0].shape)
    for clip in _clips(clips, rank):
        is_done = isinstance(clip, ClipAttention)
        attention = clip if is_done else attend(model, clip)
        for name in attention.blocks if block is None else (block,):
            if name not in sums:
                sums[name] = _Sums(attention, name)
            sums[name].add(attention, num_queries, rng)
    if not sums:
        raise ValueError("`clips` must hold a clip. Received: none")
    found = {name: value.result() for name, value in sums.items()}
    return found if block is None else found[block]


class _Histogram:
    """Sums of weights by distance."""

    def __init__(self, edges: np.ndarray) -> None:
        self.edges = edges
        self.counts = np.zeros((2, len(edges) - 1))
        self.totals = np.zeros(2)

    def add(self, distances: np.ndarray, *weights: np.ndarray) -> None:
        """Distances of pairs, with their weights and with uniform ones."""
        bins = np.searchsorted(self.edges, distances.ravel(), "right") - 1
        bins = np.minimum(bins, len(self.edges) - 2)
        for row, values in enumerate(weights):
            self.counts[row] += np.bincount(
                bins, values.ravel(), len(self.edges) - 1
            )
            self.totals[row] += np.vdot(distances, values)

    def result(self, count: int) -> DistanceHistogram:
        share, uniform = self.counts / count
        mean, uniform_mean = (self.totals / count).tolist()
        return DistanceHistogram(self.edges, share, uniform, mean, uniform_mean)


class _Sums:
    """Sums over the queries of one block, from which the means come."""

    def __init__(self, attention: ClipAttention, block: str) -> None:
        self.block = block
        self.grid, self.keys = attention.grid(block), attention.key_grid(block)
        self.layer = attention.layer(block)
        self.map = np.zeros(self.keys.shape)
        self.uniform_map = np.zeros(self.keys.shape)
        self.num_clips = self.num_empty = self.num_queries = 0
        self.num_keys = 0
        self.entropy = self.same_frame = self.uniform_same_frame = 0.0
        self.similarities: list[float] = []
        self.information: list[float] = []
        self.space = _Histogram(_edges(self._longest(), self._step()))
        stride = self.keys.stride[0]
        places = np.arange(len(self.keys.times) + 1)
        # One bin for each number of key frames.
        self.time = _Histogram(np.maximum(places - 0.5, 0) * stride)

    def add(
        self,
        attention: ClipAttention,
        num_queries: int | None,
        rng: np.random.Generator,
    ) -> None:
        """The queries of a clip."""
        if attention.size != self.keys.clip_size:
            raise ValueError(
                "`clips` must be of one size. Received: "
                f"{self.keys.clip_size} and {attention.size}"
            )
        total = math.prod(self.grid.shape)
        chosen = np.arange(total)
        if num_queries is not None and num_queries < total:
            chosen = np.sort(rng.choice(total, num_queries, replace=False))
        positions = np.stack(np.unravel_index(chosen, self.grid.shape), -1)
        step = max(_MAX_PAIRS // math.prod(self.keys.shape), 1)
        clip = _OfClip()
        for first in range(0, len(positions), step):
            self._add(attention, positions[first : first + step], clip)
        self.num_clips += 1
        if clip.count > 1:
            self.similarities.append(clip.similarity())
        if clip.count:
            self.information.append(clip.information())

    def result(self) -> AttentionStatistics:
        count = self.num_queries - self.num_empty
        if not count:
            raise ValueError(
                f"The block {self.block!r} gives no weight to any key, for "
                f"{self.num_queries} queries"
            )
        entropy = self.entropy / count
        most = math.log(self.num_keys)
        return AttentionStatistics(
            self.block,
            self.layer.mode,
            algorithms.has_softmax(self.layer.mode),
            self.num_clips,
            self.num_queries,
            self.num_empty,
            self.num_keys,
            self.keys,
            self.map / count,
            self.uniform_map / count,
            self.space.result(count),
            self.time.result(count),
            entropy,
            entropy / most if most else 1.0,
            self.same_frame / count,
            self.uniform_same_frame / count,
            float(np.mean(self.similarities)) if self.similarities else None,
            float(np.mean(self.information)),
        )

    def _add(
        self, attention: ClipAttention, positions: np.ndarray, clip: "_OfClip"
    ) -> None:
        maps = attention.positions(self.block, positions)
        self.num_keys = maps.num_keys
        self.num_queries += len(positions)
        weights = np.abs(maps.weights.astype("float64"))
        sums = weights.sum(axis=(1, 2, 3))
        used = sums > 0
        self.num_empty += int((~used).sum())
        weights = weights[used] / sums[used, None, None, None]
        positions, seen = positions[used], maps.seen[used]
        uniform = seen / maps.num_keys
        self.map += weights.sum(axis=0)
        self.uniform_map += uniform.sum(axis=0)
        logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
        entropies = -(weights * logs).sum(axis=(1, 2, 3))
        self.entropy += float(entropies.sum())
        # Queries are compared by what they see: each its own window.
        clip.add(weights[seen].reshape(-1, maps.num_keys), entropies)
        self._add_distances(positions, weights, uniform)

    def _add_distances(
        self, positions: np.ndarray, weights: np.ndarray, uniform: np.ndarray
    ) -> None:
        places = self.grid.centres(positions)
        times, rows, columns = (
            np.abs(axis - place[:, None])
            for axis, place in zip(
                (self.keys.times, self.keys.rows, self.keys.columns),
                places.T,
                strict=True,
            )
        )
        self.time.add(times, weights.sum((2, 3)), uniform.sum((2, 3)))
        space = np.hypot(rows[:, :, None], columns[:, None])
        self.space.add(space, weights.sum(1), uniform.sum(1))
        same = times < self.keys.stride[0] / 2
        self.same_frame += float(weights[same].sum())
        self.uniform_same_frame += float(uniform[same].sum())

    def _longest(self) -> float:
        """The largest distance in the picture between query and key."""
        sides = [
            max(abs(one[0] - other[-1]), abs(one[-1] - other[0]))
            for one, other in (
                (self.grid.rows, self.keys.rows),
                (self.grid.columns, self.keys.columns),
            )
        ]
        return math.hypot(*sides)

    def _step(self) -> float:
        return max(self.keys.stride[1:])


class _OfClip:
    """How alike the queries of one clip are."""

    def __init__(self) -> None:
        self.count = 0
        self.entropy = 0.0
        self.total: Any = 0.0
        self.directions: Any = 0.0

    def add(self, weights: np.ndarray, entropies: np.ndarray) -> None:
        """Weights `(Q, keys seen)` of queries, and their entropies."""
        self.count += len(weights)
        self.entropy += entropies.sum()
        self.total += weights.sum(axis=0)
        lengths = np.linalg.norm(weights, axis=1, keepdims=True)
        self.directions += (weights / lengths).sum(axis=0)

    def similarity(self) -> float:
        """Mean cosine of all pairs, by the length of the sum of all units."""
        pairs = self.count * (self.count - 1)
        return float((np.sum(self.directions**2) - self.count) / pairs)

    def information(self) -> float:
        mean = self.total / self.count
        mean = mean[mean > 0]
        entropy = -np.sum(mean * np.log(mean))
        return float(max(entropy - self.entropy / self.count, 0.0))


def _edges(longest: float, step: float) -> np.ndarray:
    return np.arange(max(math.ceil(longest / step), 1) + 1) * step


def _clips(clips: Any, rank: int) -> Iterable[Any]:
    """Clips one by one; `rank` is that of a batch."""
    is_one = len(getattr(clips, "shape", ())) == rank - 1
    return [clips] if is_one or isinstance(clips, ClipAttention) else clips
