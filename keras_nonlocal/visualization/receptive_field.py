"""Which part of a clip each position of a feature map is computed from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_nonlocal.visualization import calls
from keras_nonlocal.visualization.layer_windows import Axis
from keras_nonlocal.visualization.layer_windows import Grid
from keras_nonlocal.visualization.layer_windows import State
from keras_nonlocal.visualization.layer_windows import states


@dataclasses.dataclass(frozen=True, eq=False)
class ReceptiveField:
    """Where in a clip the positions of a feature map look.

    A position (t, y, x) is computed from a box of the clip with its centre at
    `(times[t], rows[y], columns[x])`. Whole numbers are the centres of frames
    and pixels, so that the first pixel reaches from -0.5 to 0.5. Boxes at the
    border reach beyond the clip, where the network pads.

    Attributes:
        times: Centres in frames of the clip, float64 `(T',)`; `[0.0]` for
            images.
        rows: Centres in pixels, float64 `(H',)`.
        columns: Centres in pixels, float64 `(W',)`.
        size: Frames, height and width of the boxes; where they differ, of the
            largest.
        stride: Frames and pixels from one position to the next; where it
            differs, on average.
        clip_size: Frames, height and width of the clip.
    """

    times: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    size: tuple[int, int, int]
    stride: tuple[float, float, float]
    clip_size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Positions along the three axes."""
        return (len(self.times), len(self.rows), len(self.columns))

    def centres(self, positions: np.ndarray) -> np.ndarray:
        """Centres `(..., 3)` of integer positions `(..., 3)`, as (t, y, x)."""
        t, y, x = np.moveaxis(np.asarray(positions), -1, 0)
        return np.stack([self.times[t], self.rows[y], self.columns[x]], axis=-1)

    def nearest(self, places: np.ndarray) -> np.ndarray:
        """Positions, int64, whose centres are nearest to places `(..., 3)`."""
        places = np.moveaxis(np.asarray(places, "float64"), -1, 0)
        centres = (self.times, self.rows, self.columns)
        return np.stack(list(map(_nearest, centres, places)), axis=-1)

    def on_clip(
        self,
        values: np.ndarray,
        size: Sequence[int] | None = None,
        seen: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Values of the positions at every pixel of the clip.

        Between centres they are interpolated linearly along each axis; beyond
        the outermost ones they stay the same.

        Args:
            values: `(..., T', H', W')`, of the positions.
            size: Frames, height and width of the result, which covers the
                whole clip. Default: those of the clip.
            seen: Booleans for the times, rows and columns: which positions
                have a value. Nothing is interpolated towards the others, and
                pixels that are nearest to them are 0. Default: all.

        Returns:
            float32 `(..., T, H, W)`.
        """
        if values.shape[-3:] != self.shape:
            raise ValueError(
                f"`values` must have the positions {self.shape} as its last "
                f"axes. Received: shape {values.shape}"
            )
        t, y, x = (
            _interpolation(centres, end, end if count is None else count, some)
            for centres, end, count, some in zip(
                (self.times, self.rows, self.columns),
                self.clip_size,
                (None,) * 3 if size is None else size,
                (None,) * 3 if seen is None else seen,
                strict=True,
            )
        )
        values = np.asarray(values, "float32")
        # From the shortest axis to the longest: the least work.
        values = np.einsum("...tyx,st->...syx", values, t, optimize=True)
        values = np.einsum("...tyx,iy->...tix", values, y, optimize=True)
        return np.einsum("...tyx,jx->...tyj", values, x, optimize=True)

    def pooled(self, pool_size: Sequence[int]) -> "ReceptiveField":
        """That of a pooling of the positions without padding or overlap.

        Args:
            pool_size: `(t, y, x)` of a window, which is the stride as well.
        """
        axes = []
        for centres, extent, stride, factor in zip(
            (self.times, self.rows, self.columns),
            self.size,
            self.stride,
            pool_size,
            strict=True,
        ):
            reach = (extent - 1) / 2
            axis = Axis(centres - reach, centres + reach, stride)
            axes.append(axis.slide(len(axis) // factor, factor, factor, 0))
        return _field(axes, self.clip_size)


def receptive_field(
    model: keras.Model,
    layer: str | Any,
    size: Sequence[int] | None = None,
    data_format: str | None = None,
) -> ReceptiveField:
    """The receptive field of a layer's output.

    Follows the graph from the input. Known are the convolutions (but
    transposed ones), poolings, paddings, croppings and up-samplings of Keras
    and of this package, `Permute`, `TimeDistributed` and nested models. Where
    branches meet, a position sees what any of them sees, and its centre is the
    middle of that. Any other layer that keeps all sizes is taken to work on
    each position by itself; this holds for the path around a `NonLocal` too,
    whose long-range part is left out, and a factor for whole channels, as in a
    squeeze-and-excitation, is left out as well. A layer of another package can
    say better by a method `receptive_windows(sizes)`, from the sizes of its
    input's positions to `(extent, stride, padding before)` for each of them.

    Args:
        model: A functional `keras.Model` or built `keras.Sequential` with one
            input: clips, images or sequences.
        layer: The name of a layer, in a nested model with the names of both
            (`"resnet50/conv4_block6_out"`), or a tensor of the model.
        size: Positions of the input: frames, height and width for clips.
            Default: those of the model's input.
        data_format: Layout of the input. Default: as the first layer that has
            one takes it, or `"channels_last"`.

    Returns:
        A `ReceptiveField`. An axis that was averaged away has one position,
        which sees all of it.

    Raises:
        ValueError: If the model has no such layer; if sizes are not known; if
            the layer comes after one that is not known and changes sizes; or
            if its output has time, rows and columns in another order.

    Example:

    >>> inputs = keras.Input((32, 32, 3))
    >>> x = keras.layers.ZeroPadding2D(1)(inputs)
    >>> x = keras.layers.Conv2D(4, 3, strides=2, name="conv")(x)
    >>> field = receptive_field(keras.Model(inputs, x), "conv")
    >>> field.rows[:3], field.size
    (array([0., 2., 4.]), (1, 3, 3))
    """
    return ReceptiveFields(model, size, data_format).of(layer)


class ReceptiveFields:
    """The receptive fields of all tensors of a model; see `receptive_field`.

    Args:
        model: As of `receptive_field`.
        size: As of `receptive_field`.
        data_format: As of `receptive_field`.
    """

    def __init__(
        self,
        model: keras.Model,
        size: Sequence[int] | None = None,
        data_format: str | None = None,
    ) -> None:
        graph = calls.graph_of(model)
        self._layout = data_format or layout(graph)
        sizes = input_sizes(graph, self._layout)
        self._clip = _checked(sizes, sizes if size is None else size)
        self._by_path: dict[str, list[State]] = {}
        self._by_tensor: dict[int, State] = {}
        tensor = graph.inputs[0]
        state = self._start(tensor)
        self._keep(tensor._keras_history.operation.name, tensor, state)
        calls.run(graph, [state], self._apply)

    @property
    def clip_size(self) -> tuple[int, int, int]:
        """Frames, height and width of the input; 1 where it has no such."""
        rank = len(self._clip)
        frames, height, width = {
            1: (*self._clip, 1, 1),
            2: (1, *self._clip),
            3: self._clip,
        }[rank]
        return frames, height, width

    def of(self, layer: str | Any, call: int = 0) -> ReceptiveField:
        """That of a layer's output, or of a tensor.

        Args:
            layer: As of `receptive_field`. A tensor of a nested model that is
                called several times is that of the last call.
            call: Which of the layer's calls, if it is a name.
        """
        return _field(self._grid(layer, call).axes, self.clip_size)

    def channel_axis(self, layer: str | Any, call: int = 0) -> int:
        """Which axis of a layer's output, or of a tensor, has the channels.

        Args:
            layer: As of `of`.
            call: As of `of`.
        """
        dims = self._grid(layer, call).dims
        return next(axis for axis in range(1, 5) if axis not in dims)

    def _grid(self, layer: str | Any, call: int) -> Grid:
        if isinstance(layer, str):
            found = self._by_path.get(layer, ())
            state = found[call] if call < len(found) else None
        else:
            state = self._by_tensor.get(id(layer))
        if state is None:
            raise ValueError(
                "`layer` must be the name of a layer of the model, or one of "
                f"its tensors. Received: {layer!r}; the layers are "
                f"{', '.join(self._by_path)}"
            )
        if isinstance(state.grid, str):
            raise ValueError(
                f"The receptive field of {layer!r} is not known: {state.grid}"
            )
        dims = [dim for dim in state.grid.dims if dim is not None]
        if dims != sorted(dims):
            raise ValueError(
                "`layer` must have time, rows and columns in the order of the "
                f"clip. Received: {layer!r}, which has them as its axes {dims}"
            )
        return state.grid

    def _start(self, tensor: Any) -> State:
        """The input: each position sees itself."""
        first = 2 if self._layout == "channels_first" else 1
        rank = len(self._clip)
        found = range(first, first + rank)
        dims = {
            1: (first, None, None),
            2: (None, *found),
            3: tuple(found),
        }[rank]
        axes = tuple(Axis.identity(size) for size in self.clip_size)
        shape = [1, *tensor.shape[1:]]
        shape[first : first + rank] = self._clip
        return State(tuple(shape), Grid(axes, dims))

    def _keep(self, path: str, tensor: Any, state: State) -> None:
        self._by_path.setdefault(path, []).append(state)
        self._by_tensor[id(tensor)] = state

    def _apply(self, path: str, node: Any, given: list[State]) -> list[State]:
        found = states(path, node, given)
        for tensor, state in zip(node.outputs, found, strict=True):
            self._by_tensor[id(tensor)] = state
        self._by_path.setdefault(path, []).append(found[0])
        return found


def layout(model: keras.Model) -> str:
    """The data format of a model's input, by its first layer that has one.

    A `Permute` before that layer may have moved the channels.
    """
    graph = calls.graph_of(model)
    found: list[int] = []

    # What stands for a tensor: the axes of the input that its axes were.
    def apply(path: str, node: Any, given: list[Any]) -> list[Any]:
        axes, operation = given[0], node.operation
        if isinstance(operation, layers.Permute):
            axes = (0, *(axes[dim] for dim in operation.dims))
        data_format = getattr(operation, "data_format", None)
        known = data_format in ("channels_first", "channels_last")
        if known and len(axes) > 2:
            found.append(axes[1 if data_format == "channels_first" else -1])
        return [
            axes if len(output.shape) == len(axes) else range(len(output.shape))
            for output in node.outputs
        ]

    calls.run(graph, [range(len(one.shape)) for one in graph.inputs], apply)
    is_first = found[:1] == [1]
    return "channels_first" if is_first else "channels_last"


def input_sizes(model: keras.Model, data_format: str) -> tuple[int | None, ...]:
    """Sizes of a model's input, without batch and channels.

    Raises:
        ValueError: If it has not one input of rank 3 to 5.
    """
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) not in (3, 4, 5):
        raise ValueError(
            "`model` must have one input, of clips, images or sequences. "
            f"Received: inputs of shapes {shapes}"
        )
    shape = shapes[0]
    return shape[2:] if data_format == "channels_first" else shape[1:-1]


def _field(
    axes: Sequence[Axis], clip_size: tuple[int, int, int]
) -> ReceptiveField:
    """That of positions along the axes of a clip."""
    t, y, x = axes
    return ReceptiveField(
        t.centres(),
        y.centres(),
        x.centres(),
        (t.size(), y.size(), x.size()),
        (t.stride, y.stride, x.stride),
        clip_size,
    )


def _nearest(centres: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which centre is nearest to each place."""
    return np.abs(places[..., None] - centres).argmin(axis=-1)


def _interpolation(
    centres: np.ndarray, end: int, count: int, seen: np.ndarray | None
) -> np.ndarray:
    """`(count, positions)`: what each position gives to each pixel."""
    pixels = (np.arange(count) + 0.5) * end / count - 0.5
    if seen is None:
        seen = np.ones(len(centres), bool)
    given = np.zeros((count, len(centres)), "float32")
    for one in np.flatnonzero(seen):
        peak = np.arange(len(centres))[seen] == one
        given[:, one] = np.interp(pixels, centres[seen], peak)
    given[~seen[_nearest(centres, pixels)]] = 0
    return given


def _checked(
    known: tuple[int | None, ...], size: Sequence[int | None]
) -> tuple[int, ...]:
    """Sizes of the input, all of them known."""
    found = tuple(int(count) for count in size if count is not None)
    fits = len(found) == len(known) and min(found) > 0
    if not fits or any(
        one not in (None, other)
        for one, other in zip(known, found, strict=True)
    ):
        raise ValueError(
            "`size` must give the positions of the input, which is of "
            f"{known}. Received: size={tuple(size)}"
        )
    return found
