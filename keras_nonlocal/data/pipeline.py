"""Batches of clips with `tf.data`."""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_nonlocal.data.clip_reader import ClipReader
from keras_nonlocal.data.clip_reader import make_pool
from keras_nonlocal.data.clips import NUM_UNITS
from keras_nonlocal.data.decoders import check_decoder
from keras_nonlocal.data.labels import class_pairs
from keras_nonlocal.data.python_function import python_function
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.transforms import check_jitter
from keras_nonlocal.data.videos import VideoList

# Seconds that a clip may take: a hundred times what it takes on a busy core.
TIME_LIMIT = 60.0
# Added to the seed of the order, for what is drawn beside it.
_AUGMENTATION = 1


def clip_dataset(
    videos: VideoList,
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
    decoder: str = "auto",
    num_workers: int = 0,
    time_limit: float = TIME_LIMIT,
    process: tuple[int, int] = (0, 1),
    num_parallel_calls: int = tf.data.AUTOTUNE,
    skips: SkipLog | None = None,
) -> tf.data.Dataset:
    """Batches of one clip per video.

    In training the videos come in a new order each epoch, with random starts,
    short sides, crops and flips. All of them are functions of the seed, the
    epoch and the video: two data sets with the same arguments give the same
    batches. In evaluation the videos come in the order of the list: the middle
    clip, the smallest short side, the centre crop.

    A video that cannot be read, or not in time, is counted in `skips`. In
    training an earlier clip of it is tried, then the next video of the list
    that can be read takes its place, so that the number of steps stays the
    same; in evaluation it is left out.

    Args:
        videos: The videos.
        clip: Frames of a clip.
        batch_size: Clips of a batch of this process. In training the last,
            smaller batch is left out.
        training: Whether to shuffle and augment.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of the rescaled video,
            both included, in pixels; at least `crop_size`.
        jitter: How training draws the short side: `"uniform"`, or `"inverse"`
            to draw its inverse evenly, as SlowFast does.
        flip: Whether training mirrors half of the clips.
        flip_pairs: Names of classes that a mirrored clip swaps, as
            `[("swiping left", "swiping right")]`.
        augment: Applied to every training clip, from the uint8 clip and an
            int64 seed of shape `(2,)` to a clip: `ColorJitter()`, for example.
        mix: Applied to every training batch, from clips, labels and a seed to
            clips and float labels of shape `(batch, classes)`: `MixUp(...)`.
            In evaluation it makes the labels such, and leaves the clips.
        repeat: Whether one iteration of a training set goes on for ever,
            through the epochs 0, 1, 2 and so on, each of
            `len(videos) // batch_size` batches. Pass that number to `fit` as
            `steps_per_epoch`. If not, every iteration is one epoch, the k-th
            one that is begun being epoch k. Under a `MirroredStrategy` and
            on JAX, `fit` begins iterations that it does not use: there only
            `repeat` gives the batches that one device gets on TensorFlow.
        first_step: With `repeat`, the batch to begin with instead of 0: the
            data set is what is left of the endless one after that many.
        seed: Seed of everything random.
        decoder: What reads the videos: a name of
            `keras_nonlocal.data.decoders.DECODERS`, or `"auto"`.
        num_workers: Processes that read. 0 reads in threads, which is faster;
            there a file that stops inside one call of the decoder cannot be
            abandoned. A process is killed when time is up, and ends when it
            is not used for some seconds.
        time_limit: Seconds that reading one clip may take.
        process: Number of this process and how many there are, where several
            train together: each reads its share of every step, and together
            they read what one process with the sum of their batches would.
            (`mix` mixes the clips of each process among themselves.)
        num_parallel_calls: Clips to read at a time.
        skips: Where to count what cannot be read; a new one if `None`.

    Returns:
        A data set of uint8 clips of shape
        `(batch, num_frames, crop_size, crop_size, 3)` and int32 labels of shape
        `(batch,)`, or float32 of `(batch, classes)` where videos may have
        several classes. Those of a training clip are what happens in it, if
        the list says when; those in evaluation, what happens in the video.
        Iterating over it fails with `tf.errors.InvalidArgumentError` if none of
        the videos can be read, or more than `skips` allows.

    Raises:
        ValueError: If an argument is out of range or there are too few videos.
    """
    check_arguments(batch_size, crop_size, short_side, process)
    check_first_step(first_step, training and repeat)
    check_jitter(jitter)
    _check_workers(num_workers, time_limit)
    check_decoder(decoder)
    reader = ClipReader(
        videos,
        clip,
        crop_size,
        short_side,
        flip,
        class_pairs(flip_pairs, videos.class_names),
        decoder,
        time_limit,
        SkipLog() if skips is None else skips,
        make_pool(num_workers, time_limit),
        jitter,
    )
    if training:
        order = training_order(
            videos, batch_size, seed, process, repeat, first_step
        )
        dataset = training_batches(
            order,
            _training_reader(reader),
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
    dataset = _evaluation_clips(reader, process, num_parallel_calls)
    return with_options(
        evaluation_batches(dataset, videos, batch_size, mix is not None)
    )


def training_order(
    videos: VideoList,
    batch_size: int,
    seed: int,
    process: tuple[int, int],
    repeat: bool,
    first_step: int = 0,
) -> tf.data.Dataset:
    """What training reads, and with which random numbers.

    Args:
        videos: The videos.
        batch_size: Clips of a batch of this process.
        seed: Seed of everything random.
        process: Number of this process and how many there are.
        repeat: Whether to go on for ever, or for one epoch: the k-th iteration
            is epoch k.
        first_step: With `repeat`, the batch to begin with.

    Returns:
        A data set of the numbers of videos, int32, their random numbers,
        float32 of shape `(NUM_UNITS,)`, and a seed for each, int64 of shape
        `(2,)`. It is made of whole batches, any of which `tf.data` service may
        give to another machine.
    """
    steps = _steps_per_epoch(videos, batch_size, process)
    clips = steps * batch_size

    def order(epoch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        numbers, units = _shuffle(videos, clips, seed, epoch, process)
        seeds = tf.random.stateless_uniform(
            [len(videos), 2],
            seed=[seed + _AUGMENTATION, epoch],
            minval=None,
            maxval=None,
            dtype=tf.int64,
        )
        units = tf.gather(units, numbers)
        return numbers, units, tf.gather(seeds, numbers)

    def batch(
        state: tuple[tf.Tensor, ...], step: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
        epoch, place = step // steps, step % steps
        # Order whole epochs, and each of them once.
        state = tf.cond(
            tf.equal(state[0], epoch),
            lambda: state,
            lambda: (epoch, *order(epoch)),
        )
        start = place * batch_size
        return state, tuple(x[start : start + batch_size] for x in state[1:])

    nothing = (
        np.int64(-1),
        np.zeros(clips, "int32"),
        np.zeros((clips, NUM_UNITS), "float32"),
        np.zeros((clips, 2), "int64"),
    )
    # Not a `counter`, which `tf.data` service cannot deal out.
    numbers = tf.data.Dataset.range(first_step, tf.int64.max)
    if not repeat:
        numbers = _one_more_epoch().flat_map(
            lambda epoch: tf.data.Dataset.range(
                epoch * steps, (epoch + 1) * steps
            )
        )
    return numbers.scan(nothing, batch).unbatch()


def step_videos(
    videos: VideoList,
    batch_size: int,
    seed: int,
    step: int,
    process: tuple[int, int] = (0, 1),
) -> np.ndarray:
    """Which videos a step of training reads.

    Args:
        videos: As of `clip_dataset`, like the other arguments.
        batch_size: Clips of a batch of this process.
        seed: Seed of everything random.
        step: Number of the batch from the beginning of the training, over the
            epochs, from 0.
        process: Number of this process and how many there are.

    Returns:
        Their numbers in the list, int32 of shape `(batch_size,)`, in the order
        of the batch. The clip of a video that cannot be read is of another one.

    Raises:
        ValueError: If there are too few videos for a step.

    >>> videos = VideoList("abcdef", [0] * 6, ("x",))
    >>> [step_videos(videos, 3, 5, step).tolist() for step in range(4)]
    [[0, 5, 4], [1, 2, 3], [5, 4, 0], [1, 3, 2]]
    """
    steps = _steps_per_epoch(videos, batch_size, process)
    epoch, place = divmod(step, steps)
    # The data set's order is that of a processor; equal numbers could be
    # sorted otherwise elsewhere.
    with tf.device("CPU:0"):
        numbers, _ = _shuffle(videos, steps * batch_size, seed, epoch, process)
    return numbers.numpy()[place * batch_size :][:batch_size]


def _steps_per_epoch(
    videos: VideoList, batch_size: int, process: tuple[int, int]
) -> int:
    together = batch_size * process[1]
    check_enough(videos, together)
    return len(videos) // together


def _shuffle(
    videos: VideoList,
    clips: int,
    seed: int,
    epoch: int | tf.Tensor,
    process: tuple[int, int],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Videos of a process in an epoch, and random numbers of all videos."""
    index, count = process
    units = tf.random.stateless_uniform(
        [len(videos), 1 + NUM_UNITS], seed=[seed, epoch]
    )
    numbers = tf.argsort(units[:, 0])[: clips * count][index::count]
    return numbers, units[:, 1:]


def _one_more_epoch() -> tf.data.Dataset:
    """The number of iterations begun before this one."""
    # Not a variable, of which there would be one for each device; nor a queue,
    # which an iteration that is broken off here would leave empty.
    begun = tf.lookup.experimental.MutableHashTable(
        tf.int64, tf.int64, default_value=0
    )
    key = np.int64(0)

    def count(_: tf.Tensor) -> tf.Tensor:
        epoch = begun.lookup(key)
        with tf.control_dependencies([begun.insert(key, epoch + 1)]):
            return tf.identity(epoch)

    return tf.data.Dataset.range(1).map(count)


def _training_reader(
    reader: ClipReader,
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    labels = reader.videos.labels
    read_clip = python_function(reader.training, [tf.uint8, labels.dtype])

    def read(
        number: tf.Tensor, units: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        frames, label = read_clip(number, units)
        frames = tf.ensure_shape(frames, reader.shape)
        return frames, tf.ensure_shape(label, labels.shape[1:])

    return read


def training_batches(
    order: tf.data.Dataset,
    read: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    videos: VideoList,
    batch_size: int,
    num_parallel_calls: int,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None,
    mix: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None,
) -> tf.data.Dataset:
    """Reads, augments and mixes what `training_order` gives.

    Args:
        order: Numbers of videos, random numbers and seeds.
        read: Makes a clip and its label of the first two.
        videos: The videos.
        batch_size: Clips of a batch.
        num_parallel_calls: Clips to read at a time.
        augment: As in `clip_dataset`.
        mix: As in `clip_dataset`.
    """

    def example(
        number: tf.Tensor, units: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        frames, label = read(number, units)
        if augment is not None:
            frames = augment(frames, seed)
        return frames, label, seed

    def finish(
        frames: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if mix is None:
            return frames, labels
        # The clips' own seeds were used: the next one.
        return mix(frames, _many_hot(labels, videos), seeds[0] + 1)

    dataset = order.map(
        example, num_parallel_calls=num_parallel_calls, deterministic=True
    )
    return dataset.batch(batch_size, drop_remainder=True).map(finish)


def evaluation_batches(
    clips: tf.data.Dataset, videos: VideoList, batch_size: int, mixed: bool
) -> tf.data.Dataset:
    """Batches of clips, with labels like those of mixed ones if `mixed`."""
    dataset = clips.batch(batch_size)
    if not mixed:
        return dataset
    return dataset.map(lambda x, y: (x, _many_hot(y, videos)))


def with_options(
    dataset: tf.data.Dataset, num_batches: int | None = None
) -> tf.data.Dataset:
    """The end of every data set: how long it is, and what may be done to it."""
    if num_batches is not None:
        dataset = dataset.apply(
            tf.data.experimental.assert_cardinality(num_batches)
        )
    options = tf.data.Options()
    # There are no input files that `MirroredStrategy` could deal out.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _evaluation_clips(
    reader: ClipReader, process: tuple[int, int], num_parallel_calls: int
) -> tf.data.Dataset:
    index, count = process
    num_videos = len(reader.videos)
    label_shape = reader.videos.labels.shape[1:]
    label_type = reader.videos.labels.dtype
    read_clip = python_function(reader.evaluation, [tf.uint8, label_type])
    count_clips = python_function(reader.count, [tf.int64])

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        clips, labels = read_clip(number)
        return number, clips, labels

    def add_up(
        total: tf.Tensor, example: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        number, clips, labels = example
        (total,) = count_clips(
            number + count >= num_videos,
            tf.shape(labels, out_type=tf.int64)[0],
            total,
        )
        return tf.ensure_shape(total, []), (clips, labels)

    def one_or_none(
        clips: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # One clip or, where it could not be read, none. As "none" stays out of
        # the static shape, `unbatch` and so Keras know the number of clips
        # there should be; after a filter they would not.
        clips.set_shape([1, *reader.shape])
        labels.set_shape([1, *label_shape])
        return clips, labels

    dataset = tf.data.Dataset.range(index, num_videos, count).map(
        read, num_parallel_calls=num_parallel_calls, deterministic=True
    )
    return dataset.scan(np.int64(0), add_up).map(one_or_none).unbatch()


def _many_hot(labels: tf.Tensor, videos: VideoList) -> tf.Tensor:
    """Float labels of shape `(batch, classes)`."""
    if videos.multi_label:
        return labels
    return tf.one_hot(labels, len(videos.class_names))


def check_arguments(
    batch_size: int,
    crop_size: int,
    short_side: tuple[int, int],
    process: tuple[int, int],
) -> None:
    """Raises `ValueError` for what `clip_dataset` and others do not take."""
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
    index, count = process
    if not 0 <= index < count:
        raise ValueError(
            "`process` must be the number of this process, from 0, and how "
            f"many there are. Received: process={process}"
        )


def check_first_step(first_step: int, is_endless: bool) -> None:
    """Raises `ValueError` for a step that no data set can begin with."""
    if first_step < 0 or (first_step and not is_endless):
        raise ValueError(
            "`first_step` must be 0, or positive with training=True and "
            f"repeat=True. Received: first_step={first_step}"
        )


def check_enough(videos: VideoList, least: int) -> None:
    """Raises `ValueError` if there are less than `least` videos."""
    if len(videos) < least:
        raise ValueError(
            f"`videos` must have at least {least} videos, one for each clip "
            f"of a step. Received: {len(videos)}"
        )


def _check_workers(num_workers: int, time_limit: float) -> None:
    if num_workers < 0:
        raise ValueError(
            "`num_workers` must be 0 or more. "
            f"Received: num_workers={num_workers}"
        )
    if not time_limit > 0:
        raise ValueError(
            f"`time_limit` must be positive. Received: time_limit={time_limit}"
        )
