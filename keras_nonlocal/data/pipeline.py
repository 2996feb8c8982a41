"""Batches of clips with `tf.data`."""

import dataclasses
import itertools
import os
import threading

import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data import decode
from keras_nonlocal.data import sampling
from keras_nonlocal.data import transforms
from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList

# Random numbers of one clip: place in the epoch's order, start, short side,
# row and column of the crop, flip.
_NUM_UNITS = 6


class SkipLog:
    """Counts the clips that could not be read, and says why.

    Safe to use from several threads. The first failure of each file is also
    logged as a warning.

    >>> skips = SkipLog()
    >>> skips.add("broken.mp4", ValueError("broken.mp4: no video stream"))
    >>> skips.count, skips.reasons
    (1, {'broken.mp4': 'broken.mp4: no video stream'})
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._reasons: dict[str, str] = {}

    def add(self, path: str, error: Exception) -> None:
        """Notes that a clip of `path` could not be read because of `error`."""
        with self._lock:
            self._count += 1
            is_new = path not in self._reasons
            self._reasons[path] = str(error)
        if is_new:
            logging.warning("Skipped a video. %s", error)

    @property
    def count(self) -> int:
        """Clips that could not be read, over all epochs."""
        with self._lock:
            return self._count

    @property
    def reasons(self) -> dict[str, str]:
        """The last message for every file that failed."""
        with self._lock:
            return dict(self._reasons)


@dataclasses.dataclass(frozen=True)
class _ClipReader:
    """What the graph calls back for: a video's number to a clip."""

    videos: VideoList
    clip: ClipSpec
    crop_size: int
    short_side: tuple[int, int]
    flip: bool
    skips: SkipLog

    def training(
        self, number: np.int32, units: np.ndarray
    ) -> tuple[np.ndarray, np.int32]:
        """A random clip of video `number`, or of the next that can be read."""
        for step in range(len(self.videos)):
            current = (number + step) % len(self.videos)
            frames = self._read(current, units)
            if frames is not None:
                return frames, self.videos.labels[current]
        raise ValueError(_nothing_readable(self.skips, len(self.videos)))

    def evaluation(self, number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        """The middle clip of video `number`, or none, with its label."""
        frames = self._read(number, None)
        if frames is None:
            return np.empty((0, *self.shape), "uint8"), np.empty(0, "int32")
        return frames[None], self.videos.labels[number][None]

    def count(
        self, number: np.int64, num_read: np.int64, total: np.int64
    ) -> np.int64:
        """Adds to the `total` read so far; at the end there must be some."""
        total = np.int64(total + num_read)
        if number == len(self.videos) - 1 and not total:
            raise ValueError(_nothing_readable(self.skips, len(self.videos)))
        return total

    @property
    def shape(self) -> tuple[int, int, int, int]:
        size = self.crop_size
        return self.clip.num_frames, size, size, 3

    def _read(
        self, number: int | np.integer, units: np.ndarray | None
    ) -> np.ndarray | None:
        path = self.videos.paths[number]
        try:
            index = decode.scan(path)
            start, transform = self._choose(index, units)
            return decode.read_frames(
                path,
                sampling.frame_indices(start, self.clip, index.num_frames),
                transform.short_side,
                transform,
            )
        except decode.VideoError as error:
            self.skips.add(path, error)
            return None

    def _choose(
        self, index: decode.VideoIndex, units: np.ndarray | None
    ) -> tuple[int, transforms.ClipTransform]:
        """Start and transform of the clip; those of the middle for `None`."""
        total, height, width = index.num_frames, index.height, index.width
        if units is None:
            start = sampling.middle_start(self.clip, total)
            return start, transforms.center_transform(
                height, width, self.crop_size, self.short_side[0]
            )
        start = sampling.random_start(float(units[1]), self.clip, total)
        return start, transforms.random_transform(
            units[2:].astype("float64"),
            height,
            width,
            self.crop_size,
            self.short_side,
            self.flip,
        )


def clip_dataset(
    videos: VideoList,
    clip: ClipSpec,
    *,
    batch_size: int,
    training: bool,
    crop_size: int = 224,
    short_side: tuple[int, int] = (256, 320),
    flip: bool = True,
    repeat: bool = False,
    seed: int = 0,
    num_parallel_calls: int = tf.data.AUTOTUNE,
    skips: SkipLog | None = None,
) -> tf.data.Dataset:
    """Batches of one clip per video.

    In training the videos come in a new order each epoch, with random starts,
    short sides, crops and flips. All of them are functions of the seed, the
    epoch and the video: two data sets with the same arguments give the same
    batches. In evaluation the videos come in the order of the list: the middle
    clip, the smallest short side, the centre crop.

    A video that cannot be read is counted in `skips`. In training the next one
    of the list that can be read takes its place, so that the number of steps
    stays the same; in evaluation it is left out.

    Args:
        videos: The videos.
        clip: Frames of a clip.
        batch_size: Clips of a batch. In training the last, smaller batch is
            left out.
        training: Whether to shuffle and augment.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of the rescaled video,
            both included, in pixels; at least `crop_size`.
        flip: Whether training mirrors half of the clips.
        repeat: Whether one iteration of a training set goes on for ever,
            through the epochs 0, 1, 2 and so on, each of
            `len(videos) // batch_size` batches. Pass that number to `fit` as
            `steps_per_epoch`. If not, every iteration is one epoch, the k-th
            one that is begun being epoch k. Under a `MirroredStrategy`, `fit`
            begins iterations that it does not use: there only `repeat` gives
            the batches that one device gets.
        seed: Seed of everything random.
        num_parallel_calls: Clips to read at a time.
        skips: Where to count what cannot be read; a new one if `None`.

    Returns:
        A data set of uint8 clips of shape
        `(batch, num_frames, crop_size, crop_size, 3)` and int32 labels of shape
        `(batch,)`. Iterating over it fails with
        `tf.errors.InvalidArgumentError` if none of the videos can be read.

    Raises:
        ValueError: If an argument is out of range or there are too few videos.
    """
    _check_arguments(videos, batch_size, training, crop_size, short_side)
    skips = SkipLog() if skips is None else skips
    reader = _ClipReader(videos, clip, crop_size, short_side, flip, skips)
    if training:
        steps = len(videos) // batch_size
        epochs = tf.data.Dataset.counter() if repeat else _one_more_epoch()
        dataset = _training_clips(
            reader, epochs, steps * batch_size, seed, num_parallel_calls
        ).batch(batch_size, drop_remainder=True)
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(
                tf.data.INFINITE_CARDINALITY if repeat else steps
            )
        )
    else:
        dataset = _evaluation_clips(reader, num_parallel_calls)
        dataset = dataset.batch(batch_size)
    options = tf.data.Options()
    # There are no input files that `MirroredStrategy` could deal out.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def video_dataset_from_directory(
    directory: str | os.PathLike[str],
    *,
    num_frames: int = 32,
    sampling_rate: int = 2,
    batch_size: int = 8,
    crop_size: int = 224,
    short_side: tuple[int, int] = (256, 320),
    validation_split: float | None = None,
    subset: str | None = None,
    shuffle: bool = True,
    flip: bool = True,
    seed: int = 0,
) -> tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]:
    """Makes clips from `directory/CLASS/*.mp4`.

    The counterpart for videos of `keras.utils.image_dataset_from_directory`:

    ```python
    train, validation = video_dataset_from_directory(
        "videos", validation_split=0.2, subset="both"
    )
    model.fit(train, validation_data=validation)
    ```

    Args:
        directory: Folder with one folder of videos per class.
        num_frames: Frames of a clip.
        sampling_rate: Step between them, in frames of the video.
        batch_size: Clips of a batch.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of the rescaled video.
        validation_split: Share of every class to keep for validation.
        subset: With `validation_split`, one of "training", "validation" and
            "both".
        shuffle: Whether to shuffle and augment, as in training. The
            validation subset never is.
        flip: Whether training mirrors half of the clips.
        seed: Seed of the split and of everything random.

    Returns:
        A data set as of `clip_dataset`, or for "both" two of them. Each has
        the attributes `class_names`, in the order of the labels, and `skips`,
        a `SkipLog`.

    Raises:
        ValueError: If an argument is out of range, or the folder is not as
            expected.
    """
    _check_subset(validation_split, subset)
    videos = read_folder(directory)
    clip = ClipSpec(num_frames, sampling_rate)

    def make(part: VideoList, training: bool) -> tf.data.Dataset:
        skips = SkipLog()
        dataset = clip_dataset(
            part,
            clip,
            batch_size=batch_size,
            training=training,
            crop_size=crop_size,
            short_side=short_side,
            flip=flip,
            seed=seed,
            skips=skips,
        )
        dataset.class_names = list(videos.class_names)
        dataset.skips = skips
        return dataset

    if validation_split is None:
        return make(videos, shuffle)
    train, validation = videos.split(validation_split, seed)
    if subset == "training":
        return make(train, shuffle)
    if subset == "validation":
        return make(validation, False)
    return make(train, shuffle), make(validation, False)


def _one_more_epoch() -> tf.data.Dataset:
    """The number of iterations begun before this one."""
    counter = itertools.count()
    # One element that Python makes anew whenever an iteration begins.
    return tf.data.Dataset.range(1).map(
        lambda _: tf.ensure_shape(
            tf.numpy_function(lambda: np.int64(next(counter)), [], tf.int64),
            [],
        )
    )


def _training_clips(
    reader: _ClipReader,
    epochs: tf.data.Dataset,
    clips_per_epoch: int,
    seed: int,
    num_parallel_calls: int,
) -> tf.data.Dataset:
    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        units = tf.random.stateless_uniform(
            [len(reader.videos), _NUM_UNITS], seed=[seed, epoch]
        )
        numbers = tf.argsort(units[:, 0])[:clips_per_epoch]
        return tf.data.Dataset.from_tensor_slices(
            (numbers, tf.gather(units, numbers))
        )

    def read(number: tf.Tensor, units: tf.Tensor) -> tuple[tf.Tensor, ...]:
        frames, label = tf.numpy_function(
            reader.training, [number, units], [tf.uint8, tf.int32]
        )
        return tf.ensure_shape(frames, reader.shape), tf.ensure_shape(label, [])

    return epochs.flat_map(order).map(
        read, num_parallel_calls=num_parallel_calls, deterministic=True
    )


def _evaluation_clips(
    reader: _ClipReader, num_parallel_calls: int
) -> tf.data.Dataset:
    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        clips, labels = tf.numpy_function(
            reader.evaluation, [number], [tf.uint8, tf.int32]
        )
        return number, clips, labels

    def count(
        total: tf.Tensor, example: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        number, clips, labels = example
        num_read = tf.size(labels, out_type=tf.int64)
        total = tf.numpy_function(
            reader.count, [number, num_read, total], tf.int64
        )
        return tf.ensure_shape(total, []), (clips, labels)

    def one_or_none(
        clips: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # One clip or, where it could not be read, none. As "none" stays out of
        # the static shape, `unbatch` and so Keras know the number of clips
        # there should be; after a filter they would not.
        clips.set_shape([1, *reader.shape])
        labels.set_shape([1])
        return clips, labels

    dataset = tf.data.Dataset.range(len(reader.videos)).map(
        read, num_parallel_calls=num_parallel_calls, deterministic=True
    )
    return dataset.scan(np.int64(0), count).map(one_or_none).unbatch()


def _check_arguments(
    videos: VideoList,
    batch_size: int,
    training: bool,
    crop_size: int,
    short_side: tuple[int, int],
) -> None:
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be positive. Received: batch_size={batch_size}"
        )
    if not 1 <= crop_size <= short_side[0] <= short_side[1]:
        raise ValueError(
            "`crop_size` and `short_side` must be in the order 1 <= crop_size "
            "<= short_side[0] <= short_side[1]. Received: "
            f"crop_size={crop_size}, short_side={short_side}"
        )
    least = batch_size if training else 1
    if len(videos) < least:
        raise ValueError(
            f"`videos` must have at least {least} videos with batch_size="
            f"{batch_size} and training={training}. Received: {len(videos)}"
        )


def _check_subset(validation_split: float | None, subset: str | None) -> None:
    subsets = ("training", "validation", "both")
    if validation_split is None and subset is not None:
        raise ValueError(
            "`subset` needs `validation_split`. "
            f"Received: subset={subset!r}, validation_split=None"
        )
    if validation_split is not None and subset not in subsets:
        raise ValueError(
            f"`subset` must be one of {subsets} with `validation_split`. "
            f"Received: subset={subset!r}"
        )


def _nothing_readable(skips: SkipLog, num_videos: int) -> str:
    reason = next(iter(skips.reasons.values()))
    return (
        f"At least one of the {num_videos} videos must be readable. "
        f"Received none, for example {reason}"
    )
