"""Features of whole videos, from any layer of a network."""

import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
import weakref
from collections.abc import Iterator
from collections.abc import Sequence
from typing import IO
from typing import Any

import h5py
import keras
import numpy as np

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.frame_stream import TIME_LIMIT
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation import scoring
from keras_nonlocal.evaluation.models import ClipInput
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import as_opened
from keras_nonlocal.evaluation.models import clip_input
from keras_nonlocal.models import graph
from keras_nonlocal.prediction.predict import describe_input
from keras_nonlocal.prediction.predict import with_progress
from keras_nonlocal.prediction.windows import OpenedVideo
from keras_nonlocal.prediction.windows import open_windows

# Rows that are stored together in an HDF5 file: at most so many, and no more
# than fit into so many bytes. A part of them takes as much space as all.
_ROWS, _CHUNK_BYTES = 16, 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Features of the windows of a video.

    Attributes:
        values: float32 `(windows, channels)`, or with the places of the layer
            `(windows, T, H, W, channels)`.
        seconds: Start and end of every row's window from the video's first
            frame on, float64 `(windows, 2)`.
        layer: Whose output they are.
        stride: Seconds from the start of one window to that of the next;
            `None` if they follow each other.
        about: Video, model, clip, sizes and problems, as JSON has them.
        problems: What could not be read of the video, in words.
    """

    values: np.ndarray
    seconds: np.ndarray
    layer: str
    stride: float | None
    about: dict[str, Any]
    problems: tuple[str, ...] = ()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a file as `write_features` does."""
        with _writer(path) as writer:
            writer.add(self.values, self.seconds)
            writer.close(self.about)


def extract_features(
    model: Any,
    video: Any,
    layer: str | None = None,
    window: ClipSpec | None = None,
    stride: float | None = None,
    *,
    pool: bool = True,
    batch_size: int = 4,
    crop_size: int | None = None,
    short_side: int | None = None,
    fps: float = 0.0,
    time_limit: float = TIME_LIMIT,
    progress: bool = True,
) -> Features:
    """Features of a video, window by window.

    For videos whose features do not fit into memory there is `write_features`.

    Args:
        model: A functional `keras.Model` that takes RGB in 0..255, an
            `OpenedModel` of one, or a path or name that `open_model` takes.
        video: As of `predict_video`.
        layer: Name of a layer that has one output and that the model calls
            once; `[x.name for x in model.layers]` lists them. Default: what
            the classifier takes, or the output of a model without one.
        window: Frames of a window. Default: the model's clips.
        stride: Seconds from the start of one window to that of the next, as of
            `predict_video`. Default: windows follow each other. The times
            of every row are in `Features.seconds`.
        pool: Whether to average over the layer's frames, rows and columns, or
            to keep them.
        batch_size: Windows of a forward pass.
        crop_size: Height and width of the crop, in pixels. Default: the
            model's.
        short_side: Short side of the rescaled video, in pixels. Default: the
            model's, or 256/224 of the crop.
        fps: Frames per second where the video does not say.
        time_limit: Seconds that may pass until the next frame of a file.
        progress: Whether to show a progress bar, in seconds of the video.

    Returns:
        The `Features`.

    Raises:
        VideoError: As `predict_video`.
        ValueError: If an argument is not as described, or the model has no such
            layer.

    >>> from keras_nonlocal import ResNet3D
    >>> model = ResNet3D("small_c2d", classes=2)
    >>> frames = np.zeros((8, 64, 64, 3), "uint8")
    >>> features = extract_features(
    ...     model, frames, window=ClipSpec(4), crop_size=56, fps=2,
    ...     progress=False)
    >>> features.layer, features.values.shape, features.seconds.tolist()
    ('pool5', (2, 512), [[0.0, 2.0], [2.0, 4.0]])
    """
    values, seconds = [], []
    with _open(
        model,
        video,
        layer,
        window,
        stride,
        pool=pool,
        batch_size=batch_size,
        crop_size=crop_size,
        short_side=short_side,
        fps=fps,
        time_limit=time_limit,
        progress=progress,
    ) as source:
        for rows, times in source.rows():
            values.append(rows)
            seconds.append(times)
        return Features(
            np.concatenate(values),
            np.concatenate(seconds),
            source.layer,
            source.video.stride,
            source.about,
            source.problems,
        )


def write_features(
    model: Any,
    video: Any,
    path: str | os.PathLike[str],
    layer: str | None = None,
    window: ClipSpec | None = None,
    stride: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes features of a video while it is read, however long it is.

    A `.npy` file is the array alone; beside a file `x.npy`, `x.npy.json` has
    `seconds`, the start and end of every row's window, and how the features
    were made. An `.h5` file has `features`, `seconds` and, as the
    JSON attribute `about`, the rest. Rows are in the order of their starts;
    how far these are apart is `stride`, in seconds, or without one the span of
    a window, but for the last row, whose window ends with the video.

    Args:
        model: As of `extract_features`.
        video: As of `predict_video`.
        path: Ends with `.npy` or `.h5`; what is there is replaced, once all of
            the new file is written.
        layer: As of `extract_features`, and so the others.
        window: Frames of a window.
        stride: Seconds from one window to the next.
        **options: The keyword arguments of `extract_features`.

    Returns:
        What was written of how they were made, with `shape` and `problems`.

    Raises:
        VideoError: As `predict_video`; nothing is written then.
        ValueError: As `extract_features`, or if `path` has another ending.
        OSError: If the file cannot be written.
    """
    check_ending(path)
    with (
        _open(model, video, layer, window, stride, **options) as source,
        _writer(path) as writer,
    ):
        for rows, times in source.rows():
            writer.add(rows, times)
        return writer.close(source.about)


def check_ending(path: str | os.PathLike[str]) -> str:
    """The ending of a file of features, or `ValueError` if it has another.

    >>> check_ending("a.npy")
    '.npy'
    """
    ending = pathlib.Path(path).suffix.lower()
    if ending not in _WRITERS:
        raise ValueError(
            "A file of features must end with .npy or .h5. "
            f"Received: {os.fspath(path)}"
        )
    return ending


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """Features that are yet to be computed."""

    opened: OpenedModel
    network: keras.Model
    video: OpenedVideo
    settings: ClipInput
    layer: str
    pool: bool
    batch_size: int
    progress: bool

    @property
    def problems(self) -> tuple[str, ...]:
        return self.video.stream.problems

    @property
    def about(self) -> dict[str, Any]:
        return {
            **describe_input(self.opened, self.video, self.settings),
            "layer": self.layer,
            "pooled": self.pool,
            "problems": list(self.problems),
        }

    def rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of a batch of windows, and their times."""
        predict = scoring.prediction(self.network)
        for batch in with_progress(self.video, self.batch_size, self.progress):
            clips = np.stack([window.frames for window in batch])
            found = keras.ops.convert_to_numpy(predict(clips))
            if len(found) != len(batch):
                raise ValueError(
                    f"The layer {self.layer!r} must give a row for each clip. "
                    f"Received: shape {found.shape} for {len(batch)} clips"
                )
            found = found.astype("float32")
            if self.pool and found.ndim > 2:
                found = found.mean(axis=tuple(range(1, found.ndim - 1)))
            times = [(window.start, window.end) for window in batch]
            yield found, np.array(times, "float64")


@contextlib.contextmanager
def _open(
    model: Any,
    video: Any,
    layer: str | None,
    window: ClipSpec | None,
    stride: float | None,
    *,
    pool: bool = True,
    batch_size: int = 4,
    crop_size: int | None = None,
    short_side: int | None = None,
    fps: float = 0.0,
    time_limit: float = TIME_LIMIT,
    progress: bool = True,
) -> Iterator[_Source]:
    opened = as_opened(model)
    network, layer = _up_to(opened.model, layer)
    settings = clip_input(opened, window, crop_size, short_side)
    with open_windows(
        video,
        settings,
        stride,
        fps=fps,
        time_limit=time_limit,
        progress=progress,
    ) as source:
        yield _Source(
            opened,
            network,
            source,
            settings,
            layer,
            pool,
            batch_size,
            progress,
        )


def plain_network(model: Any) -> keras.Model:
    """The functional model whose layers have features.

    Raises:
        ValueError: If it is no model that has a graph of layers.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras model, as of a .keras file: functions and "
            f"exported models have no layers. Received: {model!r}"
        )
    scoring.check_takes_pixels(model)
    plain = graph.functional_graph(model)
    if plain is None:
        raise ValueError(
            "`model` must be a functional or sequential Keras model. "
            f"Received: {type(model).__name__} {model.name!r}"
        )
    return plain


# One part of a model after the other video, of the same layer: what calls it is
# compiled once. A part holds layers of the model and not the model.
_parts: weakref.WeakKeyDictionary[
    keras.Model, dict[str | None, tuple[keras.Model, str]]
] = weakref.WeakKeyDictionary()


def _up_to(model: Any, layer: str | None) -> tuple[keras.Model, str]:
    """The part of a network up to a layer, and the layer's name."""
    plain = plain_network(model)
    parts = _parts.setdefault(model, {})
    if layer not in parts:
        last = (
            _before_classifier(plain) if layer is None else _layer(plain, layer)
        )
        outputs = _outputs_of(plain, last)
        if len(outputs) != 1:
            raise ValueError(
                "`layer` must be called once and have one output. Received: "
                f"layer={last.name!r}, which gives {len(outputs)}"
            )
        parts[layer] = keras.Model(plain.inputs, outputs[0]), last.name
    return parts[layer]


def _outputs_of(model: keras.Model, layer: keras.layers.Layer) -> list[Any]:
    """What a layer gives in a model, whatever it gives in others."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    pending = list(model.outputs)
    while pending:
        tensor = pending.pop()
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if history.operation is layer:
            found |= {id(output): output for output in node.output_tensors}
        if id(node) not in seen:
            seen.add(id(node))
            pending += node.input_tensors
    return list(found.values())


def _layer(model: keras.Model, name: str) -> keras.layers.Layer:
    names = [layer.name for layer in model.layers]
    if name not in names:
        close = difflib.get_close_matches(name, names, 5) or names[-5:]
        raise ValueError(
            f"`layer` must be the name of one of the model's {len(names)} "
            f"layers, as {', '.join(close)}. Received: layer={name!r}"
        )
    return model.get_layer(name)


def _before_classifier(model: keras.Model) -> keras.layers.Layer:
    """The layer whose output the classifier takes, or the last one."""
    if len(model.outputs) != 1:
        raise ValueError(
            "`layer` must be given for a model of several outputs. Received: "
            f"layer=None, for the {len(model.outputs)} of {model.name!r}"
        )
    last = model.outputs[0]._keras_history.operation
    weighted = [layer for layer in model.layers if layer.weights]
    if not weighted or not _is_classifier(weighted[-1], model.outputs[0].shape):
        return last
    before = weighted[-1].input._keras_history.operation
    while isinstance(before, keras.layers.Dropout):
        before = before.input._keras_history.operation
    return before


def _is_classifier(layer: keras.layers.Layer, output: Sequence[Any]) -> bool:
    """Whether each position of a layer's output is of that input's alone."""
    config = layer.get_config()
    kernel = config.get("kernel_size", ())
    if not isinstance(layer, keras.layers.Dense) and set(kernel) != {1}:
        return False
    return len(output) == 2 and output[1] in (
        config.get("units"),
        config.get("filters"),
    )


class _NpyWriter:
    """An array that grows row by row in its file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._notes: dict[str, Any] = {}
        self._seconds: list[np.ndarray] = []
        self._count = 0
        self._shape: tuple[int, ...] = ()

    def add(self, values: np.ndarray, seconds: np.ndarray) -> None:
        if not self._seconds:
            self._shape = values.shape[1:]
            self._write_header()
        self._file.write(np.ascontiguousarray(values, "<f4").tobytes())
        self._seconds.append(seconds)
        self._count += len(values)

    def close(self, about: dict[str, Any]) -> dict[str, Any]:
        # As long as the first one: numpy leaves space for the rows to grow.
        self._file.seek(0)
        self._write_header()
        about = {**about, "shape": [self._count, *self._shape]}
        seconds = np.concatenate(self._seconds).round(6).tolist()
        self._notes = {**about, "seconds": seconds}
        return about

    def release(self) -> None:
        """Nothing is left open."""

    def write_beside(self, path: pathlib.Path) -> None:
        write_json(path.with_name(f"{path.name}.json"), self._notes)

    def _write_header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": "<f4",
                "fortran_order": False,
                "shape": (self._count, *self._shape),
            },
        )


class _HdfWriter:
    """An HDF5 file that grows row by row."""

    def __init__(self, file: IO[bytes]) -> None:
        # Written by name: what is open as `file` is the same file.
        self._file = h5py.File(file.name, "w")

    def add(self, values: np.ndarray, seconds: np.ndarray) -> None:
        for name, rows in (("features", values), ("seconds", seconds)):
            if name not in self._file:
                fitting = _CHUNK_BYTES // max(rows[:1].nbytes, 1)
                self._file.create_dataset(
                    name,
                    (0, *rows.shape[1:]),
                    rows.dtype,
                    maxshape=(None, *rows.shape[1:]),
                    chunks=(max(1, min(_ROWS, fitting)), *rows.shape[1:]),
                )
            stored = self._file[name]
            stored.resize(len(stored) + len(rows), axis=0)
            stored[-len(rows) :] = rows

    def close(self, about: dict[str, Any]) -> dict[str, Any]:
        about = {**about, "shape": list(self._file["features"].shape)}
        self._file.attrs["about"] = json.dumps(about)
        self._file.close()
        return about

    def release(self) -> None:
        """Closes the file, also one that is not complete."""
        self._file.close()

    def write_beside(self, path: pathlib.Path) -> None:
        """Everything is in the file."""


_WRITERS: dict[str, type[_NpyWriter] | type[_HdfWriter]] = {
    ".npy": _NpyWriter,
    ".h5": _HdfWriter,
}


@contextlib.contextmanager
def _writer(
    path: str | os.PathLike[str],
) -> Iterator[_NpyWriter | _HdfWriter]:
    kind = _WRITERS[check_ending(path)]
    with replacing(path) as file:
        writer = kind(file)
        try:
            yield writer
        finally:
            writer.release()
    writer.write_beside(pathlib.Path(path))
