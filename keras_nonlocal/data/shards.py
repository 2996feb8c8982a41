"""Clips from shards, in a graph of TensorFlow's operations alone.

`write_shards` writes them. As no Python runs in the graph, `tf.data` service
can run it on other machines.
"""

import dataclasses
import math
import os
import socket
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.experimental import numpy as tnp

from keras_nonlocal.data import sampling
from keras_nonlocal.data.decode import MAX_PIXELS
from keras_nonlocal.data.labels import class_pairs
from keras_nonlocal.data.labels import partners
from keras_nonlocal.data.pipeline import check_arguments
from keras_nonlocal.data.pipeline import check_enough
from keras_nonlocal.data.pipeline import check_first_step
from keras_nonlocal.data.pipeline import evaluation_batches
from keras_nonlocal.data.pipeline import training_batches
from keras_nonlocal.data.pipeline import training_order
from keras_nonlocal.data.pipeline import with_options
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.shard_index import ShardIndex
from keras_nonlocal.data.shard_index import ShardVideo
from keras_nonlocal.data.transforms import check_jitter
from keras_nonlocal.data.transforms import rescaled_size
from keras_nonlocal.data.videos import VideoList

# Seconds for a dispatcher to answer.
_DISPATCHER_LIMIT = 10.0
_FEATURES = {
    "frames": tf.io.FixedLenSequenceFeature([], tf.string, True),
    "timeline": tf.io.FixedLenSequenceFeature([], tf.int64, True),
    "times": tf.io.FixedLenFeature([], tf.string),
    "path": tf.io.FixedLenFeature([], tf.string),
    "labels": tf.io.FixedLenSequenceFeature([], tf.int64, True),
    "actions": tf.io.FixedLenFeature([], tf.string),
}


def read_shards(
    directory: str | os.PathLike[str],
    clip: ClipSpec,
    *,
    batch_size: int,
    training: bool,
    crop_size: int = 224,
    short_side: tuple[int, int] = (256, 320),
    jitter: str = "uniform",
    flip: bool = True,
    flip_pairs: Sequence[tuple[str, str]] = (),
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    mix: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None,
    repeat: bool = False,
    first_step: int = 0,
    seed: int = 0,
    process: tuple[int, int] = (0, 1),
    num_parallel_calls: int = tf.data.AUTOTUNE,
    verify: bool = False,
) -> tf.data.Dataset:
    """Batches of one clip per video, from what `write_shards` has written.

    The clips are those of `clip_dataset` for the list that was written and the
    same arguments: the same videos in the same order, frames, crops, flips and
    labels. Their pixels differ by what JPEG loses, and by having been rescaled
    twice if the shards' short side is not that of the clips. Of damaged
    videos, from which `clip_dataset` may take another clip, there is none: the
    next video takes their place, and in evaluation they are left out.

    Any clip is read from its place in the files, so that there is no buffer to
    shuffle in. TensorFlow compares the checksum of every record that it reads.

    Args:
        directory: Folder with an `index.json`. For `tf.data` service, its
            path on all machines.
        clip: Frames of a clip. Its `fps` is `None` or that of the shards.
        batch_size: Clips of a batch of this process.
        training: Whether to shuffle and augment.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of the rescaled video,
            both included, in pixels; at least `crop_size`.
        jitter: As in `clip_dataset`.
        flip: Whether training mirrors half of the clips.
        flip_pairs: Names of classes that a mirrored clip swaps.
        augment: As in `clip_dataset`.
        mix: As in `clip_dataset`.
        repeat: As in `clip_dataset`; has to be true where `tf.data` service
            is to serve training.
        first_step: As in `clip_dataset`.
        seed: Seed of everything random.
        process: Number of this process and how many there are, as in
            `clip_dataset`.
        num_parallel_calls: Clips to read at a time.
        verify: Whether to compare the checksums of all files first, which
            reads them. Their sizes always are.

    Returns:
        A data set as of `clip_dataset`. Iterating over it fails with
        `tf.errors.InvalidArgumentError` at a record that is damaged or gone.

    Raises:
        ValueError: If an argument is out of range, there are too few videos
            for a step, or the shards are not as they were written.
    """
    check_arguments(batch_size, crop_size, short_side, process)
    check_first_step(first_step, training and repeat)
    check_jitter(jitter)
    index = ShardIndex.load(directory)
    index.check(checksums=verify)
    videos = index.videos()
    reader = _ShardReader(
        index,
        videos,
        _checked_clip(clip, index),
        crop_size,
        short_side,
        flip,
        class_pairs(flip_pairs, videos.class_names),
        jitter,
    )
    if training:
        order = training_order(
            videos, batch_size, seed, process, repeat, first_step
        )
        dataset = training_batches(
            order,
            reader.training,
            videos,
            batch_size,
            num_parallel_calls,
            augment,
            mix,
        )
        steps = len(videos) // (batch_size * process[1])
        return with_options(
            dataset, tf.data.INFINITE_CARDINALITY if repeat else steps
        )
    check_enough(videos, process[1])
    numbers = np.arange(process[0], len(videos), process[1])
    clips = tf.data.Dataset.from_tensor_slices(
        numbers[reader.readable[numbers]]
    ).map(
        reader.evaluation,
        num_parallel_calls=num_parallel_calls,
        deterministic=True,
    )
    return with_options(
        evaluation_batches(clips, videos, batch_size, mix is not None)
    )


def distribute(
    dataset: tf.data.Dataset, service: str, compression: str | None = None
) -> tf.data.Dataset:
    """Has the workers of `tf.data` service make the batches of a data set.

    On one machine a dispatcher, on any number of them workers, for example:

    ```python
    service = tf.data.experimental.service
    service.DispatchServer(service.DispatcherConfig(port=5050)).join()
    ```
    ```python
    service.WorkerServer(
        service.WorkerConfig("dispatcher:5050", worker_address="this:5051")
    ).join()
    ```

    Workers need TensorFlow and the shards at the same path, nothing else. Every
    batch is made by one worker, as it would be here, but they come in the order
    in which they are ready: around the end of an epoch batches of the next one
    may be earlier.

    No batch comes twice. When a worker dies, the few batches are lost that it
    had begun, and the others go on. Only a data set that has an end waits there
    for the worker to be started again, at the same address.

    Args:
        dataset: From `read_shards`; in training with `repeat=True`.
        service: The dispatcher, "grpc://HOST:PORT".
        compression: "AUTO" packs the batches, for networks slower than that.

    Returns:
        A data set of the same batches. Pass `steps_per_epoch` to `fit`.

    Raises:
        ValueError: If the data set cannot be made in another process, or there
            is no dispatcher.
    """
    operations = graph_operations(dataset)
    python = sorted(name for name in operations if "PyFunc" in name)
    if python or "LookupTableInsertV2" in operations:
        raise ValueError(
            "`dataset` must be from `read_shards`, with `repeat=True` in "
            "training and an `augment` of TensorFlow's operations alone. "
            "Received: one whose graph "
            + (f"calls Python ({python[0]})" if python else "counts epochs")
        )
    _check_dispatcher(service)
    service_module = tf.data.experimental.service
    cardinality = dataset.cardinality()
    dataset = dataset.apply(
        service_module.distribute(
            service_module.ShardingPolicy.DYNAMIC,
            service,
            compression=compression,
        )
    )
    return with_options(
        dataset,
        tf.data.INFINITE_CARDINALITY
        if cardinality == tf.data.INFINITE_CARDINALITY
        else None,
    )


def _check_dispatcher(service: str) -> None:
    # TensorFlow would try for an hour.
    host, _, port = service.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), _DISPATCHER_LIMIT).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            "`service` must be a dispatcher that runs, 'grpc://HOST:PORT'. "
            f"Received: {service!r}: {error}"
        ) from error


def graph_operations(dataset: tf.data.Dataset) -> set[str]:
    """Types of all operations in a data set's graph and its functions.

    >>> sorted(graph_operations(tf.data.Dataset.range(3)))
    ['Const', 'RangeDataset', '_Retval']
    """
    serialized = tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(dataset),
        external_state_policy=1,  # Tables, for example, are fine.
    )
    graph = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    nodes = [*graph.node]
    for function in graph.library.function:
        nodes += function.node_def
    return {node.op for node in nodes}


class _Crop(NamedTuple):
    """Size of the rescaled frames, corner of the crop, whether to mirror it."""

    height: tf.Tensor
    width: tf.Tensor
    top: tf.Tensor
    left: tf.Tensor
    flip: tf.Tensor


class _Row(NamedTuple):
    """What the index says of one video, or, as a table, of every video."""

    file: tf.Tensor
    offset: tf.Tensor
    num_frames: tf.Tensor
    fps: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    stored_height: tf.Tensor
    stored_width: tf.Tensor
    path_hash: tf.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class _ShardReader:
    """Reads clips of shards, in a graph.

    Attributes:
        index: Where the videos are.
        videos: The videos.
        clip: Frames of a clip, with the `fps` of the shards.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side, in pixels.
        flip: Whether half of the random clips are mirrored.
        flip_pairs: Pairs of class numbers that a mirrored clip swaps.
        jitter: How the short side is drawn.
    """

    index: ShardIndex
    videos: VideoList
    clip: ClipSpec
    crop_size: int
    short_side: tuple[int, int]
    flip: bool
    flip_pairs: Sequence[tuple[int, int]]
    jitter: str
    readable: np.ndarray = dataclasses.field(init=False)
    _table: _Row = dataclasses.field(init=False)
    _substitutes: tf.Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        rows = list(self.index.rows())
        readable = np.array([self._is_readable(row) for row in rows])
        if not readable.any():
            raise ValueError(
                f"`clip` must fit into one of the {len(rows)} videos. "
                f"Received: {self.clip}, of `short` 'error', and videos of at "
                f"most {max(row.num_frames for row in rows)} frames"
            )
        # Of every video the next that can be read.
        numbers = np.flatnonzero(readable)
        places = np.searchsorted(numbers, np.arange(len(rows)))
        fields = {
            "readable": readable,
            "_table": self._make_table(rows),
            "_substitutes": tf.constant(numbers[places % len(numbers)]),
        }
        for name, value in fields.items():
            # The one way to set a field of a frozen dataclass.
            object.__setattr__(self, name, value)

    def _is_readable(self, row: ShardVideo) -> bool:
        if row.problem is not None:
            return False
        least = sampling.needed_frames(self.clip, row.fps)
        # A rescaled frame is as large as the decoder would let it be.
        size = rescaled_size(row.height, row.width, self.short_side[1])
        return row.num_frames >= least and math.prod(size) <= MAX_PIXELS

    def _make_table(self, rows: Sequence[ShardVideo]) -> _Row:
        files = np.repeat(
            np.arange(len(self.index.shards)),
            [len(shard.videos) for shard in self.index.shards],
        )
        stored = [
            self.index.settings.stored_size(row.height, row.width)
            if row.problem is None
            else (0, 0)
            for row in rows
        ]
        stored_height, stored_width = np.array(stored).T
        return _Row(
            tf.constant(files),
            tf.constant([row.offset for row in rows], tf.int64),
            tf.constant([row.num_frames for row in rows], tf.int64),
            tf.constant([row.fps for row in rows], tf.float64),
            tf.constant([row.height for row in rows], tf.int64),
            tf.constant([row.width for row in rows], tf.int64),
            tf.constant(stored_height),
            tf.constant(stored_width),
            _path_hash([os.fsencode(row.path) for row in rows]),
        )

    def training(
        self, number: tf.Tensor, units: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A random clip of video `number`, or of the next that there is."""
        row = self._row(self._substitutes[number])
        units = tf.unstack(tf.cast(units, tf.float64))
        start = sampling.random_start(
            units[0], self.clip, row.num_frames, row.fps, tnp
        )
        crop = _random_crop(
            units[1:],
            row,
            self.crop_size,
            self.short_side,
            self.flip,
            self.jitter,
        )
        frames, example, numbers = self._read(row, start, crop)
        classes = tf.cast(example["labels"], tf.int32)
        if self.videos.actions is not None:
            classes = _classes_during(example, numbers)
        table = tf.constant(
            partners(self.flip_pairs, len(self.videos.class_names))
        )
        classes = tf.where(crop.flip, tf.gather(table, classes), classes)
        return frames, self._label(classes)

    def evaluation(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The middle clip of video `number`, with all that the video has."""
        row = self._row(number)
        start = sampling.middle_start(self.clip, row.num_frames, row.fps, tnp)
        crop = _center_crop(row, self.crop_size, self.short_side[0])
        frames, example, _ = self._read(row, start, crop)
        return frames, self._label(tf.cast(example["labels"], tf.int32))

    def _row(self, number: tf.Tensor) -> _Row:
        return _Row(*(column[number] for column in self._table))

    def _read(
        self, row: _Row, start: tf.Tensor, crop: _Crop
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """Frames of a clip, their record, and their numbers in that."""
        path = tf.constant(self.index.paths())[row.file]
        record = _read_record(path, row.offset)
        example = _parse(record, row)
        places = sampling.frame_indices(
            start, self.clip, row.num_frames, row.fps, tnp
        )
        numbers = tf.gather(example["timeline"], places)
        frames = _decode(
            tf.gather(example["frames"], numbers), row, crop, self.crop_size
        )
        frames = tf.ensure_shape(
            frames,
            (self.clip.num_frames, self.crop_size, self.crop_size, 3),
        )
        return frames, example, numbers

    def _label(self, classes: tf.Tensor) -> tf.Tensor:
        if not self.videos.multi_label:
            return classes[0]
        label = tf.one_hot(classes, len(self.videos.class_names))
        return tf.minimum(tf.reduce_sum(label, axis=0), 1.0)


def _checked_clip(clip: ClipSpec, index: ShardIndex) -> ClipSpec:
    fps = index.settings.fps
    if clip.fps not in (None, fps):
        raise ValueError(
            f"`clip.fps` must be None or {fps}, that of the shards. "
            f"Received: clip.fps={clip.fps}"
        )
    return dataclasses.replace(clip, fps=fps)


def _read_record(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """The record at a place in a file, its checksum being right."""

    def read(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=[path],
            compression_type="",
            buffer_size=0,
            byte_offsets=[offset],
        )
        return (
            tf.data.experimental.from_variant(
                records, tf.TensorSpec([], tf.string)
            )
            .take(1)
            .get_single_element()
        )

    # An element that fails is passed over. A file that cannot be opened never
    # is: `ignore_errors` right behind it would try for ever.
    record = (
        tf.data.Dataset.from_tensors((path, offset))
        .map(read)
        .ignore_errors(log_warning=True)
        .concatenate(tf.data.Dataset.from_tensors(""))
        .take(1)
        .get_single_element()
    )
    # The error itself, which is in the log, does not name the file.
    message = (
        "The shards must be as `write_shards` has left them; with the arguments"
        " of then it mends them. Received: a missing or damaged record at byte"
    )
    check = tf.debugging.Assert(
        tf.strings.length(record) > 0, [message, offset, path]
    )
    with tf.control_dependencies([check]):
        return tf.identity(record)


def _parse(record: tf.Tensor, row: _Row) -> dict[str, tf.Tensor]:
    """The features of a record, which is that of the video."""
    example = tf.io.parse_single_example(record, _FEATURES)
    num_frames = tf.size(example["timeline"], tf.int64)
    message = "A record must be of the video that the index says. Received: "
    check = tf.debugging.Assert(
        tf.logical_and(
            tf.equal(_path_hash(example["path"]), row.path_hash),
            tf.equal(num_frames, row.num_frames),
        ),
        [message, example["path"], num_frames],
    )
    with tf.control_dependencies([check]):
        return {key: tf.identity(value) for key, value in example.items()}


def _path_hash(paths: tf.Tensor | Sequence[bytes]) -> tf.Tensor:
    """Of paths, which take more room in a graph."""
    return tf.strings.to_hash_bucket_fast(paths, np.iinfo("int64").max)


def _random_crop(
    units: Sequence[tf.Tensor],
    row: _Row,
    crop_size: int,
    short_side: tuple[int, int],
    flip: bool,
    jitter: str,
) -> _Crop:
    """`transforms.random_transform` in a graph."""
    side = _random_side(units[0], short_side, jitter)
    height, width = _rescaled_size(row, side)
    return _Crop(
        height,
        width,
        _product(units[1], height - crop_size + 1),
        _product(units[2], width - crop_size + 1),
        tf.logical_and(flip, units[3] < 0.5),
    )


def _random_side(
    unit: tf.Tensor, short_side: tuple[int, int], jitter: str
) -> tf.Tensor:
    smallest, largest = short_side
    if jitter == "inverse":
        inverse = 1 / smallest - unit * (1 / smallest - 1 / largest)
        return tf.cast(tf.round(1 / inverse), tf.int64)
    return smallest + _product(unit, largest - smallest + 1)


def _center_crop(row: _Row, crop_size: int, short_side: int) -> _Crop:
    """`transforms.center_transform` in a graph."""
    height, width = _rescaled_size(row, short_side)
    return _Crop(
        height,
        width,
        (height - crop_size) // 2,
        (width - crop_size) // 2,
        tf.constant(False),
    )


def _rescaled_size(
    row: _Row, short_side: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    shorter = tf.minimum(row.height, row.width)
    return row.height * short_side // shorter, row.width * short_side // shorter


def _product(unit: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    return tf.cast(unit * tf.cast(count, tf.float64), tf.int64)


def _decode(
    files: tf.Tensor, row: _Row, crop: _Crop, crop_size: int
) -> tf.Tensor:
    """The crop of the rescaled frames: uint8."""
    stored = tf.cast(tf.stack([row.stored_height, row.stored_width]), tf.int32)
    rescaled = tf.cast(tf.stack([crop.height, crop.width]), tf.int32)
    corner = tf.cast(tf.stack([crop.top, crop.left]), tf.int32)

    def enlarged(frame: tf.Tensor) -> tf.Tensor:
        frame = tf.image.resize(frame, rescaled)
        return tf.slice(frame, [*tf.unstack(corner), 0], size)

    def shrunk(frame: tf.Tensor) -> tf.Tensor:
        # `tf.image.resize(antialias=True)`, of the crop alone. It would do in
        # the other case, too, but takes twice as long.
        return tf.raw_ops.ScaleAndTranslate(
            images=frame[tf.newaxis],
            size=size[:2],
            scale=tf.cast(rescaled / stored, tf.float32),
            translation=-tf.cast(corner, tf.float32),
            kernel_type="triangle",
            antialias=True,
        )[0]

    def decode(file: tf.Tensor) -> tf.Tensor:
        found = tf.io.extract_jpeg_shape(file)[:2]
        message = "A frame in the shards must have the size that the index says"
        check = tf.debugging.assert_equal(found, stored, message)
        with tf.control_dependencies([check]):
            # The default method is faster and makes colours greener.
            frame = tf.io.decode_jpeg(
                file, channels=3, dct_method="INTEGER_ACCURATE"
            )
        frame = tf.cond(
            tf.reduce_all(rescaled >= stored),
            lambda: enlarged(frame),
            lambda: shrunk(frame),
        )
        return tf.cast(frame + 0.5, tf.uint8)

    size = [crop_size, crop_size, 3]
    frames = tf.map_fn(decode, files, fn_output_signature=tf.uint8)
    return tf.cond(crop.flip, lambda: tf.reverse(frames, [2]), lambda: frames)


def _classes_during(
    example: dict[str, tf.Tensor], numbers: tf.Tensor
) -> tf.Tensor:
    """Classes of what happens in the clip."""
    times = tf.gather(tf.io.decode_raw(example["times"], tf.float64), numbers)
    actions = tf.reshape(
        tf.io.decode_raw(example["actions"], tf.float64), [-1, 3]
    )
    classes, start, end = tf.unstack(actions, axis=1)
    first, last = tf.reduce_min(times), tf.reduce_max(times)
    during = tf.logical_and(start <= last, end >= first)
    return tf.cast(tf.boolean_mask(classes, during), tf.int32)
