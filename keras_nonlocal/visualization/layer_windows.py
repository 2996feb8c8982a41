"""How layers move windows over a clip: what each position is computed from."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import PositionAverage
from keras_nonlocal.layers.pooling import PositionPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.visualization import calls

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
GLOBAL_POOLINGS = (
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
# They have no windows, but know which axes are positions.
_OF_POSITIONS = (NonLocal, layers.Dense, *GLOBAL_POOLINGS, *_UP_SAMPLINGS)
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


class _Unknown(str):
    """Why the receptive field of an output is not known."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """What positions along an axis see of the clip.

    Attributes:
        first: Where what each of them sees begins, float64; whole numbers are
            centres of frames or pixels.
        last: Where it ends.
        stride: From one position to the next; where it differs, on average.
    """

    first: np.ndarray
    last: np.ndarray
    stride: float

    @classmethod
    def identity(cls, size: int) -> "Axis":
        """Each position sees itself."""
        places = np.arange(size, dtype="float64")
        return cls(places, places, 1.0)

    def __len__(self) -> int:
        return len(self.first)

    def slide(
        self, count: int, extent: int, stride: float, before: int
    ) -> "Axis":
        """A window that slides along the axis."""
        begin = np.arange(count) * stride - before
        return Axis(
            self._at(self.first, begin),
            self._at(self.last, begin + extent - 1),
            self.stride * stride,
        )

    def blend(self, count: int, factor: int, linear: bool) -> "Axis":
        """Up-sampling, by the nearest position or two of them."""
        places = (np.arange(count) + 0.5) / factor - 0.5
        low = high = np.arange(count) // factor
        if linear:
            low, high = np.floor(places), np.ceil(places)
            low, high = np.maximum(low, 0), np.minimum(high, len(self) - 1)
        return Axis(
            self.first[low.astype(int)],
            self.last[high.astype(int)],
            self.stride / factor,
        )

    def whole(self) -> "Axis":
        """One position that sees what all of them see."""
        return Axis(
            self.first.min(keepdims=True),
            self.last.max(keepdims=True),
            self.stride * len(self),
        )

    def union(self, other: "Axis") -> "Axis":
        """Positions that see what either of two sees."""
        first = np.minimum(self.first, other.first)
        last = np.maximum(self.last, other.last)
        stride = max(self.stride, other.stride)
        if self.stride != other.stride and len(self) > 1:
            stride = float(np.diff(first + last).mean()) / 2
        return Axis(first, last, stride)

    def centres(self) -> np.ndarray:
        """The middle of what each position sees."""
        return (self.first + self.last) / 2

    def size(self) -> int:
        """How much the position sees that sees most."""
        return int(np.max(self.last - self.first)) + 1

    def _at(self, ends: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values at places that may lie in the padding around the axis."""
        inside = np.clip(index, 0, len(ends) - 1)
        return ends[inside] + (index - inside) * self.stride


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions of a tensor.

    Attributes:
        axes: Time, rows and columns.
        dims: The axis of the tensor that each of them is, or `None`.
    """

    axes: tuple[Axis, ...]
    dims: tuple[int | None, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape may have these positions."""
        return all(
            dim is None or (dim < len(shape) and shape[dim] == len(axis))
            for axis, dim in zip(self.axes, self.dims, strict=True)
        )

    def is_context(self, shape: Sequence[int]) -> bool:
        """Whether there is one value for all positions of a shape."""
        known = [
            (len(axis), shape[dim])
            for axis, dim in zip(self.axes, self.dims, strict=True)
            if dim is not None
        ]
        return all(size == 1 for size, _ in known) and (
            not known or any(size > 1 for _, size in known)
        )

    def is_within(self, dims: Sequence[int]) -> bool:
        """Whether all axes are among some of the tensor's."""
        return all(dim is None or dim in dims for dim in self.dims)

    def change(self, dims: Sequence[int], how: Any) -> "Grid":
        """Other axes: `how` gives one from the old and its place in `dims`."""
        places: dict[int | None, int] = {
            dim: place for place, dim in enumerate(dims)
        }
        axes = tuple(
            how(axis, places[dim]) if dim in places else axis
            for axis, dim in zip(self.axes, self.dims, strict=True)
        )
        return dataclasses.replace(self, axes=axes)

    def move(self, where: Any) -> "Grid":
        """The same positions in other axes of a tensor."""
        return dataclasses.replace(
            self,
            dims=tuple(
                None if dim is None else where(dim) for dim in self.dims
            ),
        )


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a tensor: its shape, its positions or why not."""

    shape: tuple[int, ...]
    grid: Grid | str


def states(path: str, node: Any, given: list[State]) -> list[State]:
    """What is known of the outputs of a call.

    Args:
        path: Of the layer.
        node: The call, as `calls.run` names it.
        given: What is known of its inputs.
    """
    shapes = _output_shapes(node, given)
    grid = _follow(node.operation, given, shapes[0])
    if (
        isinstance(grid, Grid)
        and type(node.operation).__name__ == "GetItem"
        and not _takes_all(node.arguments.args[1], given[0].shape, grid.dims)
    ):
        grid = _Unknown("takes some of the positions, or in another order")
    if isinstance(grid, _Unknown):
        grid = f"{path!r} ({type(node.operation).__name__}) {grid}"
    return [State(shape, grid) for shape in shapes]


def _output_shapes(node: Any, given: list[State]) -> list[tuple[int, ...]]:
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
    operation: Any, given: list[State], shape: tuple[int, ...]
) -> Grid | str:
    """Positions of an operation's output."""
    for state in given:
        if isinstance(state.grid, str):
            return state.grid
    grids = [state.grid for state in given if isinstance(state.grid, Grid)]
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
    windows = _windows(operation, [source[dim] for dim in dims])
    is_of_positions = isinstance(operation, _OF_POSITIONS) or windows
    if is_of_positions and not grid.is_within(dims):
        return _Unknown("takes axes of the clip for channels")
    if isinstance(operation, GLOBAL_POOLINGS):
        grid = grid.change(dims, lambda axis, _: axis.whole())
        if operation.keepdims:
            return grid
        return grid.move(lambda dim: _without(dim, dims))
    if isinstance(operation, _UP_SAMPLINGS):
        return _up_sampling(operation, grid, dims, shape)
    if windows is not None:
        return grid.change(
            dims, lambda axis, i: axis.slide(shape[dims[i]], *windows[i])
        )
    if type(operation).__name__ in _REFUSED or not grid.fits(shape):
        return _Unknown(
            "is not known, and its output has other positions than its input"
        )
    return grid


def _takes_all(
    index: Any, shape: tuple[int, ...], dims: Sequence[int | None]
) -> bool:
    """Whether `x[index]` keeps the batch and these axes of `x` as they are."""
    index = index if isinstance(index, (tuple, list)) else (index,)
    if any(entry is None for entry in index):
        return False
    given = sum(entry is not Ellipsis for entry in index)
    rest = [slice(None)] * (len(shape) - given)
    full: list[Any] = []
    for entry in (*index, Ellipsis):
        if entry is Ellipsis:
            full += rest
            rest = []
        else:
            full.append(entry)
    return all(
        isinstance(full[dim], slice)
        and full[dim].indices(shape[dim]) == (0, shape[dim], 1)
        for dim in (0, *dims)
        if dim is not None
    )


def _join(grids: list[Grid], shape: tuple[int, ...]) -> Grid | str:
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
    operation: Any, grid: Grid, dims: list[int], shape: tuple[int, ...]
) -> Grid | str:
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
    grid: Grid,
    source: tuple[int, ...],
    shape: tuple[int, ...],
) -> Grid:
    """All frames, and in space a window or everything."""

    def pool(axis: Axis, place: int) -> Axis:
        if place == 0 or operation.window is None:
            return axis.whole()
        return axis.slide(
            shape[place], min(operation.window, source[place + 1]), 1, 0
        )

    return grid.change((1, 2, 3), pool).move(lambda dim: _without(dim, [1]))


def _each_frame(
    layer: Any, grid: Grid, source: tuple[int, ...], shape: tuple[int, ...]
) -> Grid | str:
    """A `TimeDistributed`: the layer sees tensors without the axis of time."""
    inside = grid.move(lambda dim: None if dim == 1 else dim - 1)
    state = State((source[0], *source[2:]), inside)
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


def _of_model(model: Any, state: State) -> Grid | str:
    """Positions of the output of a model."""
    return calls.run(model, [state], states, f"{model.name}/")[0].grid


def _without(dim: int, gone: Sequence[int]) -> int | None:
    """Where an axis is once others have gone."""
    if dim in gone:
        return None
    return dim - sum(other < dim for other in gone)
