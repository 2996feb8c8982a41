"""Which part of a clip each position of a feature map is computed from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import PositionAverage
from keras_nonlocal.layers.pooling import PositionPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.visualization import calls

_AXES = ("times", "rows", "columns")
_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_POOLINGS = (
    MaxPooling,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
)
_GLOBAL_POOLINGS = (
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
_PADDINGS = (
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_CROPPINGS = (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
_UP_SAMPLINGS = (
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
)
# They may keep all sizes and yet move what is at a position.
_REFUSED = (
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "Flip",
    "Moveaxis",
    "Roll",
    "Rot90",
    "Swapaxes",
    "Transpose",
)


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
        places = np.asarray(places, "float64")
        axes = (self.times, self.rows, self.columns)
        found = [
            np.abs(places[..., axis, None] - axes[axis]).argmin(axis=-1)
            for axis in range(3)
        ]
        return np.stack(found, axis=-1)

    def on_clip(
        self, values: np.ndarray, size: Sequence[int] | None = None
    ) -> np.ndarray:
        """Values of the positions at every pixel of the clip.

        Between centres they are interpolated linearly along each axis; beyond
        the outermost ones they stay the same.

        Args:
            values: `(..., T', H', W')`, of the positions.
            size: Frames, height and width of the result, which covers the
                whole clip. Default: those of the clip.

        Returns:
            float32 `(..., T, H, W)`.
        """
        if values.shape[-3:] != self.shape:
            raise ValueError(
                f"`values` must have the positions {self.shape} as its last "
                f"axes. Received: shape {values.shape}"
            )
        t, y, x = (
            _interpolation(centres, end, end if count is None else count)
            for centres, end, count in zip(
                (self.times, self.rows, self.columns),
                self.clip_size,
                (None,) * 3 if size is None else size,
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
        grid = _Grid.of_field(self)
        axes = tuple(
            axis.slide(len(axis) // factor, factor, factor, 0)
            for axis, factor in zip(grid.axes, pool_size, strict=True)
        )
        return dataclasses.replace(grid, axes=axes).field(self.clip_size)


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
        data_format: Layout of the input. Default: that of the first layer that
            has one, or `"channels_last"`.

    Returns:
        A `ReceptiveField`. An axis that was averaged away has one position,
        which sees all of it.

    Raises:
        ValueError: If the model has no such layer; if sizes are not known; or
            if the layer comes after one that is not known and changes sizes.

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
        self._by_path: dict[str, list[_State]] = {}
        self._by_tensor: dict[int, _State] = {}
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
            layer: As of `receptive_field`.
            call: Which of the layer's calls.
        """
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
        return state.grid.field(self.clip_size)

    def _start(self, tensor: Any) -> "_State":
        """The input: each position sees itself."""
        first = 2 if self._layout == "channels_first" else 1
        rank = len(self._clip)
        found = range(first, first + rank)
        dims = {
            1: (first, None, None),
            2: (None, *found),
            3: tuple(found),
        }[rank]
        axes = tuple(_Axis.identity(size) for size in self.clip_size)
        shape = [1, *tensor.shape[1:]]
        shape[first : first + rank] = self._clip
        return _State(tuple(shape), _Grid(axes, dims))

    def _keep(self, path: str, tensor: Any, state: "_State") -> None:
        self._by_path.setdefault(path, []).append(state)
        self._by_tensor.setdefault(id(tensor), state)

    def _apply(
        self, path: str, node: Any, given: list["_State"]
    ) -> list["_State"]:
        states = _states(path, node, given)
        for tensor, state in zip(node.outputs, states, strict=True):
            self._by_tensor.setdefault(id(tensor), state)
        self._by_path.setdefault(path, []).append(states[0])
        return states


def layout(model: keras.Model) -> str:
    """The data format of a model's input, by its first layer that has one."""
    for operation in calls.operations(model):
        layer = getattr(operation, "layer", operation)  # In a TimeDistributed.
        found = getattr(layer, "data_format", None)
        if found in ("channels_first", "channels_last"):
            return found
    return "channels_last"


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


def _interpolation(centres: np.ndarray, end: int, count: int) -> np.ndarray:
    """`(count, positions)`: what each position gives to each pixel."""
    pixels = (np.arange(count) + 0.5) * end / count - 0.5
    return np.stack(
        [
            np.interp(pixels, centres, one)
            for one in np.eye(len(centres), dtype="float32")
        ],
        axis=-1,
    ).astype("float32")


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


class _Unknown(str):
    """Why the receptive field of an output is not known."""


@dataclasses.dataclass(frozen=True)
class _Axis:
    """What positions along an axis see of the clip, from first to last."""

    first: np.ndarray
    last: np.ndarray
    stride: float

    @classmethod
    def identity(cls, size: int) -> "_Axis":
        places = np.arange(size, dtype="float64")
        return cls(places, places, 1.0)

    def __len__(self) -> int:
        return len(self.first)

    def slide(
        self, count: int, extent: int, stride: float, before: int
    ) -> "_Axis":
        """A window that slides along the axis."""
        begin = np.arange(count) * stride - before
        return _Axis(
            self._at(self.first, begin),
            self._at(self.last, begin + extent - 1),
            self.stride * stride,
        )

    def blend(self, count: int, factor: int, linear: bool) -> "_Axis":
        """Up-sampling, by the nearest position or two of them."""
        places = (np.arange(count) + 0.5) / factor - 0.5
        low = high = np.arange(count) // factor
        if linear:
            low, high = np.floor(places), np.ceil(places)
            low, high = np.maximum(low, 0), np.minimum(high, len(self) - 1)
        return _Axis(
            self.first[low.astype(int)],
            self.last[high.astype(int)],
            self.stride / factor,
        )

    def whole(self) -> "_Axis":
        return _Axis(
            self.first.min(keepdims=True),
            self.last.max(keepdims=True),
            self.stride * len(self),
        )

    def union(self, other: "_Axis") -> "_Axis":
        return _Axis(
            np.minimum(self.first, other.first),
            np.maximum(self.last, other.last),
            max(self.stride, other.stride),
        )

    def centres(self) -> np.ndarray:
        return (self.first + self.last) / 2

    def size(self) -> int:
        return int(np.max(self.last - self.first)) + 1

    def _at(self, ends: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values at places that may lie in the padding around the axis."""
        inside = np.clip(index, 0, len(ends) - 1)
        return ends[inside] + (index - inside) * self.stride


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Positions of a tensor.

    Attributes:
        axes: Time, rows and columns.
        dims: The axis of the tensor that each of them is, or `None`.
    """

    axes: tuple[_Axis, ...]
    dims: tuple[int | None, ...]

    @classmethod
    def of_field(cls, field: ReceptiveField) -> "_Grid":
        axes = []
        for name, size, stride in zip(
            _AXES, field.size, field.stride, strict=True
        ):
            centres = getattr(field, name)
            reach = (size - 1) / 2
            axes.append(_Axis(centres - reach, centres + reach, stride))
        return cls(tuple(axes), (1, 2, 3))

    def field(self, clip_size: tuple[int, int, int]) -> ReceptiveField:
        t, y, x = self.axes
        return ReceptiveField(
            t.centres(),
            y.centres(),
            x.centres(),
            (t.size(), y.size(), x.size()),
            (t.stride, y.stride, x.stride),
            clip_size,
        )

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape may have these positions."""
        return all(
            dim is None or (dim < len(shape) and shape[dim] == len(axis))
            for axis, dim in zip(self.axes, self.dims, strict=True)
        )

    def is_context(self, shape: Sequence[int]) -> bool:
        """Whether there is one value for all positions of a shape."""
        return all(
            dim is None or (len(axis) == 1 and shape[dim] > 1)
            for axis, dim in zip(self.axes, self.dims, strict=True)
        )

    def change(self, dims: Sequence[int], how: Any) -> "_Grid":
        """Other axes: `how` gives one from the old and its place in `dims`."""
        places: dict[int | None, int] = {
            dim: place for place, dim in enumerate(dims)
        }
        axes = tuple(
            how(axis, places[dim]) if dim in places else axis
            for axis, dim in zip(self.axes, self.dims, strict=True)
        )
        return dataclasses.replace(self, axes=axes)

    def move(self, where: Any) -> "_Grid":
        """The same positions in other axes of a tensor."""
        return dataclasses.replace(
            self,
            dims=tuple(
                None if dim is None else where(dim) for dim in self.dims
            ),
        )


@dataclasses.dataclass(frozen=True)
class _State:
    """What is known of a tensor: its shape, its positions or why not."""

    shape: tuple[int, ...]
    grid: _Grid | str


def _states(path: str, node: Any, given: list[_State]) -> list[_State]:
    """What is known of the outputs of a call."""
    shapes = _output_shapes(node, given)
    grid = _follow(node.operation, given, shapes[0])
    if isinstance(grid, _Unknown):
        grid = f"{path!r} ({type(node.operation).__name__}) {grid}"
    return [_State(shape, grid) for shape in shapes]


def _output_shapes(node: Any, given: list[_State]) -> list[tuple[int, ...]]:
    """Shapes of a call's outputs, for this clip."""
    shapes = [(1, *tensor.shape[1:]) for tensor in node.outputs]
    if not any(None in shape for shape in shapes):
        return shapes
    tensors = [
        keras.KerasTensor(state.shape, tensor.dtype)
        for state, tensor in zip(given, node.input_tensors, strict=True)
    ]
    args, kwargs = calls.arguments(node, tensors)
    specs = node.operation.compute_output_spec(*args, **kwargs)
    return [tuple(spec.shape) for spec in keras.tree.flatten(specs)]


def _follow(
    operation: Any, given: list[_State], shape: tuple[int, ...]
) -> _Grid | str:
    """Positions of an operation's output."""
    for state in given:
        if isinstance(state.grid, str):
            return state.grid
    grids = [state.grid for state in given if isinstance(state.grid, _Grid)]
    if len(grids) != 1:
        return _join(grids, shape)
    grid, source = grids[0], given[0].shape
    if isinstance(operation, layers.TimeDistributed):
        return _each_frame(operation.layer, grid, source, shape)
    if isinstance(operation, layers.Permute):
        return grid.move(lambda dim: operation.dims.index(dim) + 1)
    if isinstance(operation, PositionAverage):
        grid = grid.change((1, 2), lambda axis, _: axis.whole())
        return grid.move(lambda dim: _without(dim, (1, 2)))
    if isinstance(operation, PositionPooling):
        return _position_pooling(operation, grid, source, shape)
    dims = _spatial_dims(operation, len(source))
    if isinstance(operation, _GLOBAL_POOLINGS):
        grid = grid.change(dims, lambda axis, _: axis.whole())
        if operation.keepdims:
            return grid
        return grid.move(lambda dim: _without(dim, dims))
    if isinstance(operation, _UP_SAMPLINGS):
        return _up_sampling(operation, grid, dims, shape)
    windows = _windows(operation, [source[dim] for dim in dims])
    if windows is not None:
        return grid.change(
            dims, lambda axis, i: axis.slide(shape[dims[i]], *windows[i])
        )
    if type(operation).__name__ in _REFUSED or not grid.fits(shape):
        return _Unknown(
            "is not known, and its output has other positions than its input"
        )
    return grid


def _join(grids: list[_Grid], shape: tuple[int, ...]) -> _Grid | str:
    """Positions where branches meet."""
    local = [grid for grid in grids if not grid.is_context(shape)]
    local = local or grids[:1]
    if not local:
        return _Unknown("has no input that depends on the clip")
    first, *others = local
    for grid in local:
        if grid.dims != first.dims or not grid.fits(shape):
            return _Unknown("joins inputs of other positions than its output")
    axes = first.axes
    for grid in others:
        axes = tuple(
            one.union(other) for one, other in zip(axes, grid.axes, strict=True)
        )
    return dataclasses.replace(first, axes=axes)


def _spatial_dims(operation: Any, rank: int) -> list[int]:
    """Axes of the input, of that rank, over which a layer works."""
    is_first = getattr(operation, "data_format", "") == "channels_first"
    return list(range(2, rank)) if is_first else list(range(1, rank - 1))


def _windows(
    operation: Any, sizes: list[int]
) -> list[tuple[int, int, int]] | None:
    """Extent, stride and padding before, for each size; `None` if unknown."""
    if hasattr(operation, "receptive_windows"):
        return operation.receptive_windows(sizes)
    if isinstance(operation, _CONVOLUTIONS):
        extents = [
            (size - 1) * step + 1
            for size, step in zip(
                operation.kernel_size, operation.dilation_rate, strict=True
            )
        ]
        return _padded(operation, extents, sizes)
    if isinstance(operation, _POOLINGS):
        return _padded(operation, operation.pool_size, sizes)
    if isinstance(operation, WindowAverage):
        return [
            (min(extent, size), 1, 0)
            for extent, size in zip(operation.window, sizes, strict=True)
        ]
    if isinstance(operation, _PADDINGS):
        return [(1, 1, before) for before in _before(operation.padding)]
    if isinstance(operation, _CROPPINGS):
        return [(1, 1, -before) for before in _before(operation.cropping)]
    return None


def _padded(
    operation: Any, extents: Sequence[int], sizes: list[int]
) -> list[tuple[int, int, int]]:
    """Windows with the padding that a layer asks for."""
    return [
        (extent, stride, _padding(operation.padding, extent, stride, size))
        for extent, stride, size in zip(
            extents, operation.strides, sizes, strict=True
        )
    ]


def _padding(padding: str, extent: int, stride: int, size: int) -> int:
    if padding == "causal":
        return extent - 1
    if padding == "valid":
        return 0
    # TensorFlow's rule: where it is odd, one more behind than before.
    return max((-(-size // stride) - 1) * stride + extent - size, 0) // 2


def _before(amounts: Any) -> list[int]:
    """What is added before each axis; of one axis Keras has no outer tuple."""
    if isinstance(amounts[0], int):
        return [amounts[0]]
    return [before for before, _ in amounts]


def _up_sampling(
    operation: Any, grid: _Grid, dims: list[int], shape: tuple[int, ...]
) -> _Grid | str:
    interpolation = getattr(operation, "interpolation", "nearest")
    if interpolation not in ("nearest", "bilinear"):
        return _Unknown(f"has interpolation={interpolation!r}")
    factors = np.broadcast_to(operation.size, (len(dims),))
    return grid.change(
        dims,
        lambda axis, i: axis.blend(
            shape[dims[i]], int(factors[i]), interpolation == "bilinear"
        ),
    )


def _position_pooling(
    operation: PositionPooling,
    grid: _Grid,
    source: tuple[int, ...],
    shape: tuple[int, ...],
) -> _Grid:
    """All frames, and in space a window or everything."""

    def pool(axis: _Axis, place: int) -> _Axis:
        if place == 0 or operation.window is None:
            return axis.whole()
        return axis.slide(
            shape[place], min(operation.window, source[place + 1]), 1, 0
        )

    return grid.change((1, 2, 3), pool).move(lambda dim: _without(dim, [1]))


def _each_frame(
    layer: Any, grid: _Grid, source: tuple[int, ...], shape: tuple[int, ...]
) -> _Grid | str:
    """A `TimeDistributed`: the layer sees tensors without the axis of time."""
    inside = grid.move(lambda dim: None if dim == 1 else dim - 1)
    state = _State((source[0], *source[2:]), inside)
    try:
        calls.graph_of(layer)
    except ValueError:
        result = _follow(layer, [state], (shape[0], *shape[2:]))
    else:
        result = _of_model(layer, state)
    if isinstance(result, str):
        return result
    dims = tuple(
        1 if before == 1 else None if after is None else after + 1
        for before, after in zip(grid.dims, result.dims, strict=True)
    )
    return dataclasses.replace(result, dims=dims)


def _of_model(model: Any, state: _State) -> _Grid | str:
    """Positions of the output of a model."""
    return calls.run(model, [state], _states, f"{model.name}/")[0].grid


def _without(dim: int, gone: Sequence[int]) -> int | None:
    """Where an axis is once others have gone."""
    if dim in gone:
        return None
    return dim - sum(other < dim for other in gone)
