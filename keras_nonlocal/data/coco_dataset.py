"""Batches of pictures and their objects with `tf.data`, for detectors."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NoReturn

import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data import coco_masks
from keras_nonlocal.data.coco_annotations import CocoAnnotations
from keras_nonlocal.data.coco_annotations import CocoImage
from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.images import ImageError
from keras_nonlocal.data.images import read_image
from keras_nonlocal.data.images import resize_tensor
from keras_nonlocal.data.images import resized
from keras_nonlocal.data.pipeline import check_arguments
from keras_nonlocal.data.pipeline import check_first_step
from keras_nonlocal.data.pipeline import with_options
from keras_nonlocal.data.python_function import python_function
from keras_nonlocal.data.skips import SkipLog

# So many pictures one after the other that cannot be read are no accident.
_MAX_IN_A_ROW = 100
_TYPES = {
    "images": tf.uint8,
    "sizes": tf.int32,
    "original_sizes": tf.int32,
    "image_ids": tf.int64,
    "boxes": tf.float32,
    "classes": tf.int32,
    "masks": tf.uint8,
}
_TARGETS = ("boxes", "classes", "masks")
_NO_UNITS = np.zeros(2)


def coco_dataset(
    annotations: str | os.PathLike[str] | CocoAnnotations,
    images: str | os.PathLike[str] | None = None,
    *,
    batch_size: int,
    training: bool,
    targets: bool = False,
    short_side: int | Sequence[int] = 800,
    max_side: int = 1333,
    flip: bool = True,
    max_objects: int = 100,
    mask_size: int = 56,
    multiple: int = 32,
    pad_to: tuple[int, int] | None = None,
    repeat: bool = False,
    first_step: int = 0,
    seed: int = 0,
    process: tuple[int, int] = (0, 1),
    num_parallel_calls: int = tf.data.AUTOTUNE,
    skips: SkipLog | None = None,
) -> tf.data.Dataset:
    """Batches of resized pictures and their objects.

    Pictures are resized by `resized` and smoothed where they get smaller, and
    filled up with zeros at the bottom and to the right. Those that are higher
    than wide are in batches of their own.

    In training, pictures without an object and objects that are crowds are
    left out, and batches come in a new order each epoch, with random sizes and
    flips. All of them are functions of the seed, the epoch and the picture:
    two data sets with the same arguments give the same batches. Every picture
    is in each epoch; the last batch of the wide ones, and that of the high
    ones, is filled up with pictures that the epoch has had.

    In evaluation the wide pictures come first, then the high ones, each in the
    order of the list: go by `image_ids`.

    A file that cannot be read, or is not of the annotated size, is counted in
    `skips`. In training the next picture of the same orientation that can be
    read takes its place, or one of the other if there is none; in evaluation
    it is left out.

    Args:
        annotations: A JSON file, or what `read_coco` gives.
        images: The folder of the pictures, if `annotations` is a file.
        batch_size: Pictures of a batch of this process.
        training: Whether to shuffle and augment.
        targets: Whether evaluation has boxes, classes and masks too.
        short_side: Shorter side of the resized pictures, in pixels; training
            draws one of several, evaluation takes the largest.
        max_side: Largest longer side, in pixels.
        flip: Whether training mirrors half of the pictures.
        max_objects: Objects of a picture; later ones are left out.
        mask_size: Height and width of the masks.
        multiple: Heights and widths of batches are multiples of this.
        pad_to: Height and width of all batches; `None` for what the largest
            picture of a batch needs.
        repeat: Whether one iteration of a training set goes on for ever,
            through the epochs 0, 1, 2 and so on, each of `coco_steps` batches.
            If not, every iteration is one epoch, the k-th one that is begun
            being epoch k.
        first_step: With `repeat`, the batch to begin with instead of 0: the
            data set is what is left of the endless one after that many.
        seed: Seed of everything random, 0 or more.
        process: Number of this process and how many there are, where several
            train together: each reads its share of every step, and together
            they read what one process with the sum of their batches would.
        num_parallel_calls: Pictures to read at a time.
        skips: Where to count what cannot be read; a new one if `None`.

    Returns:
        A data set of dictionaries: `images`, RGB, uint8 of shape
        `(batch, height, width, 3)`; `sizes`, their heights and widths without
        the zeros, and `original_sizes`, those in the file, int32 of shape
        `(batch, 2)`; `image_ids`, int64 of shape `(batch,)`; in training or
        with `targets` also `boxes`, x1, y1, x2, y2 in pixels of `images`,
        float32 of shape `(batch, max_objects, 4)`, `classes`, int32 of shape
        `(batch, max_objects)`, -1 where there is no object, and `masks`, each
        in its own box, zeros and ones, uint8 of shape
        `(batch, max_objects, mask_size, mask_size)`.
        Iterating over it fails with `tf.errors.InvalidArgumentError` if no
        picture can be read, 100 in a row cannot be in training, or more cannot
        be than `skips` allows.

    Raises:
        ValueError: If an argument is out of range, or there is nothing to
            train on.
        ImportError: If pycocotools, which draws masks, is missing.
    """
    annotations = _annotations(annotations, images)
    # There are no crops.
    check_arguments(batch_size, 1, (1, 1), process)
    check_first_step(first_step, training and repeat)
    sides = _checked_sides(short_side, max_side)
    _check_positive(
        max_objects=max_objects, mask_size=mask_size, multiple=multiple
    )
    reader = _Reader(
        annotations,
        _groups(annotations, training),
        sides if training else sides[-1:],
        max_side,
        flip and training,
        max_objects if training or targets else 0,
        mask_size,
        SkipLog(unit="image") if skips is None else skips,
    )
    if reader.max_objects:
        coco_masks.pycocotools_mask()
        _warn_of_many(annotations, max_objects)
    if pad_to is not None:
        _check_pad_to(pad_to, multiple, reader)
    batches = _Batches(
        reader, batch_size, training, multiple, pad_to, num_parallel_calls
    )
    if not training:
        return with_options(_evaluation(batches, process))
    order = _Order(reader.groups, batch_size, seed, process)
    _check_training(order, annotations, seed)
    dataset = batches(
        _training_numbers(order, repeat, first_step), reader.training
    )
    return with_options(
        dataset, tf.data.INFINITE_CARDINALITY if repeat else order.steps
    )


def coco_steps(
    annotations: CocoAnnotations,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
) -> int:
    """Batches of an epoch of `coco_dataset` in training.

    Args:
        annotations: As of `coco_dataset`, like the other arguments.
        batch_size: Pictures of a batch of this process.
        process: Number of this process and how many there are.

    Returns:
        How many there are, 0 if no picture has an object.
    """
    check_arguments(batch_size, 1, (1, 1), process)
    groups = _groups(annotations, training=True)
    return _Order(groups, batch_size, 0, process).steps


class _Order:
    """Which pictures each step of training reads, and how."""

    def __init__(
        self,
        groups: Sequence[np.ndarray],
        batch_size: int,
        seed: int,
        process: tuple[int, int],
    ) -> None:
        self._groups = groups
        self._seed = seed
        self._process = process
        self._together = batch_size * process[1]
        # Only rounded up: every picture is in every epoch.
        self.steps = sum(-(-len(x) // self._together) for x in groups)
        self._last_epoch = functools.lru_cache(maxsize=1)(self._epoch)

    def batch(self, step: np.int64) -> tuple[np.ndarray, np.ndarray]:
        """Places of a batch in the annotations, and their random numbers."""
        epoch, place = divmod(int(step), self.steps)
        numbers, units = self._last_epoch(epoch)
        return numbers[place], units[numbers[place]]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of shape `(steps, batch)`, and numbers of all pictures."""
        rng = np.random.default_rng([self._seed, epoch])
        # By picture, so that these stay when the batches are other ones.
        count = 1 + max(int(group[-1]) for group in self._groups if len(group))
        units = rng.random((count, 1 + len(_NO_UNITS)))
        batches = np.concatenate([self._deal(x, units) for x in self._groups])
        batches = batches[rng.permutation(len(batches))]
        index, processes = self._process
        return batches[:, index::processes], units[:, 1:]

    def _deal(self, group: np.ndarray, units: np.ndarray) -> np.ndarray:
        order = group[np.argsort(units[group, 0], kind="stable")]
        steps = -(-len(group) // self._together)
        # `resize` begins again where there are not enough.
        return np.resize(order, (steps, self._together))


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """From the place of a picture to an example, whatever its file is like.

    Attributes:
        annotations: The pictures.
        groups: Places, in order, of the wide and of the high ones.
        sides: Shorter sides to choose from, the largest last.
        max_side: Largest longer side.
        flip: Whether half of the pictures are mirrored.
        max_objects: Slots for objects, 0 for examples without targets.
        mask_size: Height and width of masks.
        skips: Where to count what cannot be read.
        failed: Places of what could not be read.
    """

    annotations: CocoAnnotations
    groups: Sequence[np.ndarray]
    sides: Sequence[int]
    max_side: int
    flip: bool
    max_objects: int
    mask_size: int
    skips: SkipLog
    failed: set[int] = dataclasses.field(default_factory=set)

    def training(self, number: np.int64, units: np.ndarray) -> tuple:
        """An example of picture `number`, or of the next that can be read."""
        image = self.annotations.images[number]
        group, other = self.groups[:: -1 if image.height > image.width else 1]
        start = int(np.searchsorted(group, number))
        order = itertools.chain(group[start:], group[:start], other)
        for current in itertools.islice(order, _MAX_IN_A_ROW):
            pixels = self._read(current)
            if pixels is not None:
                return True, *self._example(current, pixels, units)
        self._fail(min(len(group) + len(other), _MAX_IN_A_ROW))

    def evaluation(self, number: np.int64, units: np.ndarray) -> tuple:
        """Whether picture `number` could be read, and an example of it."""
        pixels = self._read(number)
        if pixels is not None:
            return True, *self._example(number, pixels, units)
        count = sum(map(len, self.groups))
        if len(self.failed) == count:
            self._fail(count)
        nothing = np.zeros((1, 1, 3), "uint8")
        return False, *self._example(number, nothing, units)

    def _read(self, number: np.int64) -> np.ndarray | None:
        image = self.annotations.images[number]
        try:
            pixels = read_image(image.path, (image.height, image.width))
        except ImageError as error:
            self.failed.add(int(number))
            self.skips.add(image.path, error)
            return None
        self.skips.add_read(image.path)
        return pixels

    def _example(
        self, number: np.int64, pixels: np.ndarray, units: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        image = self.annotations.images[number]
        side = self.sides[int(units[0] * len(self.sides))]
        flipped = bool(self.flip and units[1] < 0.5)
        size = resized(image.height, image.width, side, self.max_side)
        return (
            pixels[:, ::-1] if flipped else pixels,
            np.array(size, "int32"),
            np.array([image.height, image.width], "int32"),
            np.array(image.image_id, "int64"),
            *self._targets(image, size, flipped),
        )

    def _targets(
        self, image: CocoImage, size: tuple[int, int], flipped: bool
    ) -> tuple[np.ndarray, ...]:
        count = self.max_objects
        kept = np.flatnonzero(~image.is_crowd)[:count]
        limit = np.array([image.width, image.height] * 2, "float32")
        edges = np.clip(image.boxes[kept], 0, limit)
        minis = coco_masks.mini_masks(
            [image.segmentations[i] for i in kept],
            edges,
            image.height,
            image.width,
            self.mask_size,
        )
        if flipped:
            edges[:, ::2] = image.width - edges[:, 2::-2]
            minis = minis[:, :, ::-1]
        boxes = np.zeros((count, 4), "float32")
        boxes[: len(kept)] = edges * (np.tile(size[::-1], 2) / limit)
        classes = np.full(count, -1, "int32")
        classes[: len(kept)] = image.classes[kept]
        masks = np.zeros((count, *minis.shape[1:]), "uint8")
        masks[: len(kept)] = minis
        return boxes, classes, masks

    def _fail(self, tried: int) -> NoReturn:
        reason = next(iter(self.skips.reasons.values()))
        self.skips.fail(
            f"At least one of {tried} pictures must be readable. Received "
            f"none, for example {reason}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """Reads, resizes and collects pictures; arguments of `coco_dataset`."""

    reader: _Reader
    batch_size: int
    training: bool
    multiple: int
    pad_to: tuple[int, int] | None
    num_parallel_calls: int

    def __call__(
        self, numbers: tf.data.Dataset, read: Callable[..., tuple]
    ) -> tf.data.Dataset:
        """Batches of examples.

        Args:
            numbers: Places of pictures and random numbers.
            read: What makes an example of them, after whether it is one.
        """
        operation = python_function(read, [tf.bool, *_TYPES.values()])

        def example(number: tf.Tensor, units: tf.Tensor) -> tuple:
            is_read, *values = operation(number, units)
            named = dict(zip(_TYPES, values, strict=True))
            return tf.ensure_shape(is_read, []), self._finish(named)

        dataset = numbers.map(
            example,
            num_parallel_calls=self.num_parallel_calls,
            deterministic=True,
        )
        return (
            dataset.map(_one_or_none)
            .unbatch()
            .padded_batch(
                self.batch_size, self._shapes(), drop_remainder=self.training
            )
        )

    def _finish(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        size = tf.ensure_shape(example["sizes"], [2])
        pixels = tf.ensure_shape(example["images"], [None, None, 3])
        below, beside = tf.unstack(-size % self.multiple)
        pixels = tf.pad(
            resize_tensor(pixels, size), [[0, below], [0, beside], [0, 0]]
        )
        # Of the ranks only: `padded_batch` makes shapes of them.
        return {
            name: tf.ensure_shape(
                pixels if name == "images" else example[name], shape
            )
            for name, shape in self._shapes(any_size=True).items()
        }

    def _shapes(self, any_size: bool = False) -> dict[str, list[int | None]]:
        count, size = self.reader.max_objects, self.reader.mask_size
        padded = None if any_size else self.pad_to
        shapes: dict[str, list[int | None]] = {
            "images": [*(padded or (None, None)), 3],
            "sizes": [2],
            "original_sizes": [2],
            "image_ids": [],
            "boxes": [count, 4],
            "classes": [count],
            "masks": [count, size, size],
        }
        left_out = () if count else _TARGETS
        return {x: y for x, y in shapes.items() if x not in left_out}


def _one_or_none(
    is_read: tf.Tensor, example: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    # As "none" stays out of the static shape, `unbatch` and so Keras know the
    # number of examples there should be; after a filter they would not.
    count = tf.cast(is_read, tf.int32)
    kept = {name: values[None][:count] for name, values in example.items()}
    for values in kept.values():
        values.set_shape([1, *values.shape[1:]])
    return kept


def _evaluation(batches: _Batches, process: tuple[int, int]) -> tf.data.Dataset:
    index, count = process
    share = [group[index::count] for group in batches.reader.groups]
    reader = dataclasses.replace(batches.reader, groups=share)
    wide, high = (
        batches(
            tf.data.Dataset.from_tensor_slices(group).map(
                lambda number: (number, _NO_UNITS)
            ),
            reader.evaluation,
        )
        for group in share
    )
    return wide.concatenate(high)


def _training_numbers(
    order: _Order, repeat: bool, first_step: int
) -> tf.data.Dataset:
    """Places of pictures and random numbers, one after the other."""
    batch = python_function(order.batch, [tf.int64, tf.float64])
    begin = python_function(_counter(), [tf.int64])

    def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        numbers, units = batch(step)
        return (
            tf.ensure_shape(numbers, [None]),
            tf.ensure_shape(units, [None, len(_NO_UNITS)]),
        )

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch = tf.ensure_shape(epoch, [])
        return tf.data.Dataset.range(
            epoch * order.steps, (epoch + 1) * order.steps
        )

    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    if not repeat:
        epochs = tf.data.Dataset.range(1).map(lambda _: begin(_)[0])
        steps = epochs.flat_map(one_epoch)
    return steps.map(read).unbatch()


def _counter() -> Callable[[np.int64], np.int64]:
    """A function that gives the number of its earlier calls."""
    numbers = itertools.count()
    return lambda _: np.int64(next(numbers))


def _annotations(
    annotations: str | os.PathLike[str] | CocoAnnotations,
    images: str | os.PathLike[str] | None,
) -> CocoAnnotations:
    if isinstance(annotations, CocoAnnotations):
        if images is None:
            return annotations
    elif images is not None:
        return read_coco(annotations, images)
    raise ValueError(
        "`images` must be the folder of the pictures if `annotations` is a "
        "file, and `None` if it is what `read_coco` gives. Received: "
        f"images={images!r}"
    )


def _groups(
    annotations: CocoAnnotations, training: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the wide pictures and of the high ones, int64."""
    sizes = np.array([[x.height, x.width] for x in annotations.images], "int64")
    numbers = annotations.trainable if training else np.arange(len(sizes))
    is_high = np.greater(*sizes.reshape(-1, 2)[numbers].T)
    return numbers[~is_high], numbers[is_high]


def _checked_sides(
    short_side: int | Sequence[int], max_side: int
) -> tuple[int, ...]:
    """The sides in growing order."""
    sides = tuple(np.atleast_1d(np.asarray(short_side)).tolist())
    if not sides or not all(type(x) is int for x in sides) or min(sides) < 1:
        raise ValueError(
            "`short_side` must be a positive integer or several. "
            f"Received: short_side={short_side!r}"
        )
    _check_positive(max_side=max_side)
    return tuple(sorted(sides))


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(
                f"`{name}` must be a positive integer. "
                f"Received: {name}={value!r}"
            )


def _check_pad_to(
    pad_to: tuple[int, int], multiple: int, reader: _Reader
) -> None:
    sides = np.asarray(pad_to)
    is_pair = sides.shape == (2,) and sides.dtype.kind == "i"
    if not is_pair or (sides < 1).any() or (sides % multiple).any():
        raise ValueError(
            f"`pad_to` must be two multiples of `multiple`, {multiple}. "
            f"Received: pad_to={pad_to}"
        )
    for number in np.concatenate(reader.groups):
        image = reader.annotations.images[number]
        size = resized(
            image.height, image.width, reader.sides[-1], reader.max_side
        )
        if size[0] > pad_to[0] or size[1] > pad_to[1]:
            raise ValueError(
                "`pad_to` must be at least the size of every resized picture. "
                f"Received: pad_to={pad_to}, and {image.path} becomes {size}"
            )


def _check_training(
    order: _Order, annotations: CocoAnnotations, seed: int
) -> None:
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more. Received: seed={seed}")
    if not order.steps:
        raise ValueError(
            "`annotations` must have a picture with an object that is no crowd "
            f"to train on. Received: {len(annotations)} pictures without"
        )


def _warn_of_many(annotations: CocoAnnotations, most: int) -> None:
    crowded = [x for x in annotations.images if (~x.is_crowd).sum() > most]
    if crowded:
        logging.warning(
            "%d pictures have more than `max_objects`, %d, objects; the first "
            "ones are kept. One is %s",
            len(crowded),
            most,
            crowded[0].path,
        )
