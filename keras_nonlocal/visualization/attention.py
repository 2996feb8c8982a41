"""What the non-local blocks of a network attend to in a clip."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.ops import algorithms
from keras_nonlocal.ops import windows
from keras_nonlocal.visualization import calls
from keras_nonlocal.visualization.receptive_field import ReceptiveField
from keras_nonlocal.visualization.receptive_field import ReceptiveFields
from keras_nonlocal.visualization.receptive_field import layout

# Weights that are computed at a time: 64 MB, a few times over.
_MAX_PAIRS = 2**24
# Which of (t, y, x) the positions of a tensor have, by its rank.
_AXES = {3: (0,), 4: (1, 2), 5: (0, 1, 2)}


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Where some queries of one block look.

    Attributes:
        block: Name of the block.
        mode: Its pairwise function.
        queries: What was asked, float64 `(Q, 3)`: (t, y, x) in frames and
            pixels of the clip.
        positions: The position of the block's input whose receptive field's
            centre is nearest to each query, int64 `(Q, 3)`.
        weights: `f(x_i, x_j) / C(x)` of every key (equation 1), exact, float32
            `(Q, T', H', W')`; 0 where a query does not look because of the
            block's `attention_axes` or `temporal_group`.
        is_distribution: Whether the weights of a query are positive and sum to
            1, as in both Gaussian modes. If not: those of the dot product have
            signs, those of the concatenation none; neither sum to 1, and only
            their ratios have a meaning.
        keys: Where in the clip the keys are from.
        num_keys: Keys that a query sees. Attention that prefers none gives
            each the weight `1 / num_keys`.
        attention_axes: Of the block.
        temporal_group: Of the block.
    """

    block: str
    mode: str
    queries: np.ndarray
    positions: np.ndarray
    weights: np.ndarray
    is_distribution: bool
    keys: ReceptiveField
    num_keys: int
    attention_axes: str = "spacetime"
    temporal_group: int | None = None

    @property
    def seen(self) -> np.ndarray:
        """Which keys each query sees, booleans `(Q, T', H', W')`."""
        return _seen_keys(self, self.positions, self.keys.shape)

    @property
    def clip_size(self) -> tuple[int, int, int]:
        """Frames, height and width of the clip."""
        return self.keys.clip_size

    def on_clip(self, size: Sequence[int] | None = None) -> np.ndarray:
        """The weights at every pixel of the clip.

        Between the centres of the keys they are interpolated linearly along
        each axis; beyond the outermost ones they stay the same. They are not
        normalised again: at a key's centre a pixel has that key's weight. Keys
        that a query does not see take no part, and pixels that are nearest to
        them are 0.

        Args:
            size: Frames, height and width of the result, which covers the
                whole clip. Default: those of the clip.

        Returns:
            float32 `(Q, T, H, W)`.
        """
        found = []
        for weights, seen in zip(self.weights, self.seen, strict=True):
            # What a query sees is a box: all of it along each axis.
            axes = [seen.any(axis=rest) for rest in ((1, 2), (0, 2), (0, 1))]
            found.append(self.keys.on_clip(weights, size, axes))
        return np.stack(found)

    def strongest(self, count: int = 20) -> list[np.ndarray]:
        """The keys with the largest absolute weights.

        Args:
            count: At most so many for each query. Keys of weight 0 are left
                out.

        Returns:
            For each query float64 `(K, 4)`, the strongest first: t, y, x of
            the key's centre in the clip, and its weight.

        Raises:
            ValueError: If `count` is not positive.
        """
        if count < 1:
            raise ValueError(
                f"`count` must be positive. Received: count={count}"
            )
        return [self._strongest(weights, count) for weights in self.weights]

    def _strongest(self, weights: np.ndarray, count: int) -> np.ndarray:
        flat = weights.ravel()
        best = np.argsort(-np.abs(flat), kind="stable")[:count]
        best = best[flat[best] != 0]
        positions = np.stack(np.unravel_index(best, weights.shape), axis=-1)
        return np.column_stack([self.keys.centres(positions), flat[best]])


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """A block in a clip: its layer, input and grids."""

    layer: NonLocal
    inputs: Any
    grid: ReceptiveField
    keys: ReceptiveField

    @property
    def axes(self) -> tuple[int, ...]:
        """Which of (t, y, x) the block's positions have."""
        return _AXES[len(self.inputs.shape)]


class ClipAttention:
    """The blocks of a network with what they were given for one clip.

    `attend` returns it. No weights have been computed yet: each call computes
    those of the queries that it is asked for.

    Attributes:
        blocks: Names of the blocks, in the order of the network. In a nested
            model a block has the names of both, `"backbone/nonlocal_res4"`; of
            a layer that is called several times, the second call is
            `"name:2"` and so on.
        size: Frames, height and width of the clip; an image has 1 frame.
        outputs: What the network gave for the clip, of its own structure and
            without the batch axis.
    """

    def __init__(
        self,
        blocks: dict[str, _Block],
        size: tuple[int, int, int],
        outputs: Any,
    ) -> None:
        self._blocks = blocks
        self.blocks = tuple(blocks)
        self.size = size
        self.outputs = outputs

    @property
    def middle(self) -> np.ndarray:
        """The middle of the clip as a query, float64 (t, y, x)."""
        return (np.array(self.size) - 1) / 2

    def grid(self, block: str) -> ReceptiveField:
        """Where in the clip the positions of a block's input are from."""
        return self._find(block).grid

    def key_grid(self, block: str) -> ReceptiveField:
        """Where its keys are from, after sub-sampling."""
        return self._find(block).keys

    def layer(self, block: str) -> NonLocal:
        """The layer of a block."""
        return self._find(block).layer

    def maps(
        self, block: str, query: Sequence[float] | np.ndarray
    ) -> AttentionMaps:
        """Where queries at some places of the clip look.

        Args:
            block: One of `blocks`.
            query: (t, y, x) or `(Q, 3)`: frames, rows and columns of the clip.
                Whole numbers are the centres of frames and pixels. Each stands
                for the nearest position of the block.

        Raises:
            ValueError: If there is no such block, a query is not in the clip,
                or weights are not finite.
        """
        places = np.asarray(query, "float64")
        places = places[None] if places.ndim == 1 else places
        if places.ndim != 2 or places.shape[1] != 3 or not len(places):
            raise ValueError(
                "`query` must be (t, y, x) or (Q, 3) of the clip. "
                f"Received: shape {np.shape(query)}"
            )
        inside = (places >= -0.5) & (places <= np.array(self.size) - 0.5)
        outside = places[~inside.all(axis=1)]
        if len(outside):
            raise ValueError(
                "`query` must be in the clip of (frames, height, width) = "
                f"{self.size}. Received: {outside.tolist()}"
            )
        grid = self._find(block).grid
        return self._maps(block, grid.nearest(places), places)

    def positions(
        self, block: str, positions: Sequence[Sequence[int]] | np.ndarray
    ) -> AttentionMaps:
        """Where positions of a block's own grid look.

        Args:
            block: One of `blocks`.
            positions: Integers `(Q, 3)`, as `grid(block)` counts them.

        Raises:
            ValueError: If there is no such block or position, or weights are
                not finite.
        """
        grid = self._find(block).grid
        places = np.asarray(positions)
        if (
            places.ndim != 2
            or places.shape[1:] != (3,)
            or not len(places)
            or not np.issubdtype(places.dtype, np.integer)
        ):
            raise ValueError(
                "`positions` must be (Q, 3) integers. Received: shape "
                f"{places.shape}, dtype {places.dtype}"
            )
        if (places < 0).any() or (places >= grid.shape).any():
            raise ValueError(
                f"`positions` must be on the block's grid, {grid.shape}. "
                f"Received: {places.tolist()}"
            )
        places = places.astype("int64")
        return self._maps(block, places, grid.centres(places))

    def _maps(
        self, name: str, positions: np.ndarray, queries: np.ndarray
    ) -> AttentionMaps:
        block = self._find(name)
        layer, keys = block.layer, block.keys
        weights = _weights(block, positions)
        if not np.isfinite(weights).all():
            raise ValueError(
                f"The weights of block {name!r} are not finite: the clip or "
                "the model's weights may hold a NaN, or numbers that are too "
                "large"
            )
        return AttentionMaps(
            name,
            layer.mode,
            queries,
            positions,
            weights,
            algorithms.has_softmax(layer.mode),
            keys,
            int(_seen_keys(layer, positions[:1], keys.shape).sum()),
            layer.attention_axes,
            layer.temporal_group,
        )

    def _find(self, block: str) -> _Block:
        if block not in self._blocks:
            raise ValueError(
                f"`block` must be one of {list(self.blocks)}. "
                f"Received: block={block!r}"
            )
        return self._blocks[block]


def attend(model: keras.Model, clip: np.ndarray) -> ClipAttention:
    """Runs a network on a clip and keeps what its non-local blocks are given.

    One forward pass, at inference, serves all blocks and any number of
    queries. What is kept is the input of each block.

    Args:
        model: A functional `keras.Model` or built `keras.Sequential` that
            holds `NonLocal` layers: of this package, a reloaded one, one with
            blocks by `insert_nonlocal`, with folded norms or rematerialized,
            with nested models. For clips, images or sequences.
        clip: One input as the model takes it, `(T, H, W, C)` or
            `(1, T, H, W, C)`; without T for images, without H and W for
            sequences.

    Returns:
        A `ClipAttention`.

    Raises:
        ValueError: If the model has no graph, no block or one inside a
            `TimeDistributed`, or does not take the clip.

    Example:

    >>> inputs = keras.Input((4, 16, 16, 3))
    >>> x = keras.layers.Conv3D(8, 3, 2, padding="same")(inputs)
    >>> model = keras.Model(inputs, NonLocal(name="block")(x))
    >>> found = attend(model, np.random.rand(4, 16, 16, 3))
    >>> found.maps("block", (0, 8, 8)).weights.shape
    (1, 2, 4, 4)
    """
    graph = calls.graph_of(model)
    _check_no_time_distributed(graph)
    if not _holds_block(graph):
        raise ValueError(
            "`model` must hold a NonLocal layer, in itself or in a functional "
            f"model nested in it. Received: the model {model.name!r}"
        )
    batch = calls.one_clip(graph, clip)
    data_format = layout(graph)
    shape = batch.shape
    size = shape[2:] if data_format == "channels_first" else shape[1:-1]
    given: dict[str, list[tuple[NonLocal, Any]]] = {}

    def apply(path: str, node: Any, tensors: list[Any]) -> list[Any]:
        if isinstance(node.operation, NonLocal):
            given.setdefault(path, []).append((node.operation, tensors[0]))
        args, kwargs = calls.arguments(node, tensors)
        return keras.tree.flatten(node.operation(*args, **kwargs))

    outputs = calls.run(graph, [ops.convert_to_tensor(batch)], apply)
    fields = ReceptiveFields(graph, size, data_format)
    blocks = {}
    for path, inputs in given.items():
        for call, (layer, tensor) in enumerate(inputs):
            name = path if call == 0 else f"{path}:{call + 1}"
            grid = fields.of(path, call)
            keys = _key_grid(layer, grid, len(tensor.shape))
            blocks[name] = _Block(layer, tensor, grid, keys)
    arrays = [ops.convert_to_numpy(output)[0] for output in outputs]
    return ClipAttention(
        blocks,
        fields.clip_size,
        keras.tree.pack_sequence_as(graph.output, arrays),
    )


def attention_maps(
    model: keras.Model,
    clip: np.ndarray,
    block: str | None = None,
    query: Sequence[float] | np.ndarray | None = None,
) -> AttentionMaps:
    """Where queries of a non-local block look in a clip.

    The weights are exact; none but those of the asked queries are computed or
    stored. For several blocks, or more queries of the same clip, call `attend`
    once.

    Args:
        model: As of `attend`.
        clip: As of `attend`.
        block: Name of the block. Default: the only one that the model has.
        query: (t, y, x) or `(Q, 3)` in frames and pixels of the clip. Default:
            the middle of the clip.

    Returns:
        `AttentionMaps`.

    Raises:
        ValueError: As of `attend`; if the model has several blocks and none is
            named; if a query is not in the clip.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> model = keras.Model(inputs, NonLocal(inter_channels=2)(inputs))
    >>> maps = attention_maps(model, np.random.rand(8, 8, 3), query=(0, 3, 5))
    >>> maps.on_clip().shape
    (1, 1, 8, 8)
    """
    found = attend(model, clip)
    if block is None:
        if len(found.blocks) != 1:
            raise ValueError(
                "`block` must be given for a model of several blocks: one of "
                f"{list(found.blocks)}. Received: block=None"
            )
        block = found.blocks[0]
    if query is None:
        query = found.middle
    return found.maps(block, query)


def _seen_keys(
    block: NonLocal | AttentionMaps,
    positions: np.ndarray,
    shape: tuple[int, int, int],
) -> np.ndarray:
    """Which keys some queries of a block see.

    Args:
        block: Its layer, or maps of it.
        positions: Integers `(Q, 3)`, the queries.
        shape: Of the keys, (T', H', W').

    Returns:
        Booleans `(Q, T', H', W')`; every query sees equally many keys.
    """
    seen = windows.same_window(
        positions, shape, block.attention_axes, block.temporal_group
    )
    return ops.convert_to_numpy(seen).reshape(len(positions), *shape)


def _check_no_time_distributed(graph: keras.Model) -> None:
    """That no block is given frames one by one, out of which it cannot see."""
    for layer in calls.operations(graph):
        is_wrapper = isinstance(layer, keras.layers.TimeDistributed)
        if is_wrapper and _holds_block(layer):
            raise ValueError(
                "Blocks inside TimeDistributed cannot be asked; a block with "
                '`attention_axes="space"` does the same without it. Received: '
                f"the layer {layer.name!r}"
            )


def _holds_block(layer: Any) -> bool:
    if isinstance(layer, keras.layers.TimeDistributed):
        return _holds_block(layer.layer)
    if functional_graph(layer) is not None:
        return any(map(_holds_block, calls.operations(layer)))
    return isinstance(layer, NonLocal)


def _key_grid(
    layer: NonLocal, grid: ReceptiveField, rank: int
) -> ReceptiveField:
    """Where the keys of a block are from, by its sub-sampling."""
    pool = layer.pool_window(rank)
    if pool is None:
        return grid
    pool_size = np.ones(3, int)
    pool_size[list(_AXES[rank])] = pool
    return grid.pooled(pool_size.tolist())


def _weights(block: _Block, positions: np.ndarray) -> np.ndarray:
    """Weights `(Q, T', H', W')`, computed for some queries at a time."""
    shape = block.keys.shape
    weights = np.empty((len(positions), *shape), "float32")
    step = max(_MAX_PAIRS // int(np.prod(shape)), 1)
    for start in range(0, len(positions), step):
        part = slice(start, start + step)
        found = block.layer.attention(
            block.inputs, positions[part][:, list(block.axes)]
        )
        found = ops.convert_to_numpy(found)[0]
        weights[part] = found.reshape(len(found), *shape)
    return weights
