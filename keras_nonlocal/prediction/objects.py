"""Detecting objects in images of one's own."""

import dataclasses
import functools
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Self
from typing import cast

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.data.images import read_image
from keras_nonlocal.data.images import resize_image
from keras_nonlocal.data.images import resized
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.detection.masks import paste_masks

Image = str | os.PathLike[str] | np.ndarray

# Heights and widths of batches are multiples of it: the largest stride of the
# features that are added up.
_MULTIPLE = 32
# Batches whose images are read at a time, to put those of like shape together.
_LOOKAHEAD = 8
# Pixels of masks that are pasted at a time.
_MAX_PIXELS = 2**25


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects that were found in one image, the surest first.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the image as it was given, float32
            `(n, 4)`; pixel i covers [i, i + 1].
        scores: Probabilities, float32 `(n,)`.
        classes: Indices, int32 `(n,)`.
        small_masks: Probabilities in the boxes, float32 `(n, M, M)`.
        height: Of the image.
        width: Of the image.
        path: Of the image, `None` for an array.

    >>> found = Detections(
    ...     boxes=np.array([[2.0, 3.0, 6.0, 8.0]], "float32"),
    ...     scores=np.array([0.9], "float32"),
    ...     classes=np.array([17], "int32"),
    ...     small_masks=np.ones((1, 28, 28), "float32"),
    ...     height=10,
    ...     width=10,
    ... )
    >>> found.masks.shape, int(found.masks.sum()), len(found.above(0.95))
    ((1, 10, 10), 20, 0)
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    small_masks: np.ndarray
    height: int
    width: int
    path: str | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def masks(self) -> np.ndarray:
        """Which pixels of the image objects cover, bool `(n, H, W)`.

        Made anew by every access: those of an image of 12 megapixels with 100
        objects take 1.2 GB. `mask_chunks` gives a few at a time.
        """
        chunks = list(self.mask_chunks())
        empty = np.zeros((0, self.height, self.width), bool)
        return np.concatenate(chunks) if chunks else empty

    def mask_chunks(self) -> Iterator[np.ndarray]:
        """`masks`, a few at a time."""
        step = max(1, _MAX_PIXELS // (self.height * self.width))
        for first in range(0, len(self), step):
            some = slice(first, first + step)
            paste = _paster(self.small_masks.shape[-1])
            pasted = paste(
                self.small_masks[some],
                self.boxes[some],
                self.height,
                self.width,
            )
            yield keras.ops.convert_to_numpy(pasted)

    def above(self, score: float) -> Self:
        """Those with at least a score."""
        keep = self.scores >= score
        return dataclasses.replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            classes=self.classes[keep],
            small_masks=self.small_masks[keep],
        )

    @classmethod
    def of_batch(
        cls,
        outputs: Mapping[str, np.ndarray],
        sizes: Sequence[tuple[int, int]],
        paths: Sequence[str | None],
    ) -> list[Self]:
        """Takes apart what `MaskRCNN` gives for a batch.

        Args:
            outputs: Its detections, in the frames of `sizes`.
            sizes: Height and width of the images as they were given.
            paths: Of the images.
        """
        counts = np.asarray(outputs["num_detections"]).tolist()
        return [
            cls(
                boxes=np.asarray(outputs["boxes"][row, :count]),
                scores=np.asarray(outputs["scores"][row, :count]),
                classes=np.asarray(outputs["classes"][row, :count]),
                small_masks=np.asarray(outputs["masks"][row, :count]),
                height=height,
                width=width,
                path=path,
            )
            for row, (count, (height, width), path) in enumerate(
                zip(counts, sizes, paths, strict=True)
            )
        ]


def detect_objects(
    model: keras.Model, images: Image | Iterable[Image], **arguments: Any
) -> list[Detections]:
    """Finds the objects in images, with their boxes, masks and scores.

    Args:
        model: A `MaskRCNN`.
        images: A path, a uint8 RGB array `(H, W, 3)`, or several of them.
        **arguments: Of `iterate_objects`.

    Returns:
        Those of each image, in order. Images that were skipped are missing.

    Raises:
        ValueError: As of `iterate_objects`.
    """
    return list(iterate_objects(model, images, **arguments))


def iterate_objects(
    model: keras.Model,
    images: Image | Iterable[Image],
    *,
    short_side: int = 800,
    max_side: int = 1333,
    batch_size: int = 1,
    score_threshold: float | None = None,
    skips: SkipLog | None = None,
) -> Iterator[Detections]:
    """As `detect_objects`, one image after the other.

    Images are read while their turn comes: there may be any number. Each is
    resized as for training and testing, and padded to the largest of its batch,
    rounded up to a multiple of 32. In batches, images of like shape are put
    together, of as many as eight batches hold.

    Args:
        model: A `MaskRCNN`.
        images: A path, a uint8 RGB array `(H, W, 3)`, or several of them.
        short_side: To which images are resized.
        max_side: What the other side may be at most; else the short one is
            made smaller.
        batch_size: Images of a forward pass.
        score_threshold: Leaves out objects with lower scores. Default: the
            model's own (0.05 of published ones) decides alone.
        skips: Where to count files that cannot be read, which are then left
            out; `path` of `Detections` tells which are there. Without it they
            are an error.

    Yields:
        Those of each image, in order.

    Raises:
        ValueError: If an argument is not as described, or a file cannot be
            read and `skips` is not given.
    """
    for name, value in (
        ("short_side", short_side),
        ("max_side", max_side),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise ValueError(
                f"`{name}` must be at least 1. Received: {name}={value}"
            )
    is_one = isinstance(images, str | os.PathLike | np.ndarray)
    several = cast("Iterable[Image]", [images] if is_one else images)
    pictures = _pictures(several, short_side, max_side, skips)
    for group in _groups(pictures, batch_size):
        found: dict[int, Detections] = {}
        # Those of like shape together: less is padded.
        shapes = [x.resized.shape[0] / x.resized.shape[1] for x in group]
        order = np.argsort(shapes, kind="stable").tolist()
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            batch = _detect(model, [group[number] for number in numbers])
            found |= zip(numbers, batch, strict=True)
        for number in range(len(group)):
            detections = found[number]
            if score_threshold is not None:
                detections = detections.above(score_threshold)
            yield detections


@dataclasses.dataclass(frozen=True, eq=False)
class _Picture:
    """An image as the network takes it."""

    resized: np.ndarray
    size: tuple[int, int]
    path: str | None


def _pictures(
    images: Iterable[Image],
    short_side: int,
    max_side: int,
    skips: SkipLog | None,
) -> Iterator[_Picture]:
    for image in images:
        path = None
        if not isinstance(image, np.ndarray):
            path = os.fspath(image)
            try:
                image = read_image(path)
            except (OSError, ValueError) as error:
                if skips is None:
                    raise
                skips.add(path, error)
                continue
            if skips is not None:
                skips.add_read(path)
        _check_image(image)
        height, width = image.shape[:2]
        target = resized(height, width, short_side, max_side)
        yield _Picture(resize_image(image, *target), (height, width), path)


def _groups(
    pictures: Iterator[_Picture], batch_size: int
) -> Iterator[list[_Picture]]:
    """As many as are read at a time."""
    count = 1 if batch_size == 1 else _LOOKAHEAD * batch_size
    group: list[_Picture] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def _detect(model: keras.Model, batch: Sequence[_Picture]) -> list[Detections]:
    shapes = np.array([picture.resized.shape[:2] for picture in batch], "int32")
    height, width = -(-shapes.max(axis=0) // _MULTIPLE) * _MULTIPLE
    padded = np.zeros((len(batch), height, width, 3), "uint8")
    for row, picture in enumerate(batch):
        image = picture.resized
        padded[row, : image.shape[0], : image.shape[1]] = image
    sizes = [picture.size for picture in batch]
    outputs = model.predict_on_batch(
        {
            "images": padded,
            "sizes": shapes,
            "original_sizes": np.array(sizes, "int32"),
        }
    )
    return Detections.of_batch(outputs, sizes, [x.path for x in batch])


@functools.cache
def _paster(side: int) -> Callable[..., Any]:
    """`paste_masks` of a side; with TensorFlow 20 times as fast as it is.

    One trace serves for any number of masks and images of any size.
    """
    if keras.backend.backend() != "tensorflow":
        return paste_masks
    masks = tf.TensorSpec((None, side, side), "float32")
    boxes, size = (
        tf.TensorSpec((None, 4), "float32"),
        tf.TensorSpec((), "int32"),
    )
    return tf.function(paste_masks, [masks, boxes, size, size], autograph=False)


def _check_image(image: np.ndarray) -> None:
    is_picture = image.ndim == 3 and image.shape[-1] == 3 and image.size
    if not is_picture or image.dtype != np.uint8:
        raise ValueError(
            "`images` must be paths, or uint8 arrays of shape (H, W, 3), none "
            f"of them 0. Received: {image.dtype} of shape {image.shape}"
        )
