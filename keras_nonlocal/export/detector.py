"""SavedModels of detectors."""

import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.data.images import resize_tensor
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.detection.masks import paste_masks
from keras_nonlocal.export.saved_model import writing

_TOLERANCE = 1e-4
# Height and width of the two images on which what was written is tried.
_TRIED = (97, 150)


def export_detector(
    model: MaskRCNN,
    path: str | os.PathLike[str],
    about: dict | None = None,
    *,
    short_side: int = 800,
    max_side: int = 1333,
    overwrite: bool = False,
) -> None:
    """Writes a SavedModel that finds objects in uint8 RGB images.

    `serve`, the serving signature, takes `images`, uint8 of shape
    `(batch, height, width, 3)` with any batch, height and width, and resizes
    them itself. It gives, in pixels of those images, a dict of `boxes`
    float32 `(batch, D, 4)` as x1, y1, x2, y2, `scores` float32 `(batch, D)`,
    `classes` int32 `(batch, D)`, -1 where there are fewer objects, `masks`
    float32 `(batch, D, M, M)`, each the probability of the object in its own
    box, and `num_detections` int32 `(batch,)`. D and M are fixed: 100 and 28.

    `paste` takes the masks and boxes of one image, float32 `(N, M, M)` and
    `(N, 4)`, and its height and width, int32, and gives bool
    `(N, height, width)`.

    It computes in float32 whatever the dtype policy of the model: in half
    precision the least difference may put another object first. What was
    written is loaded again and compared with the model before it is moved to
    `path`.

    Args:
        model: A detector.
        path: Folder to write.
        about: What to write beside the graph, JSON: the names of the classes
            and the like; `read_about` gives it back.
        short_side: Short side of the image that the network sees, in pixels.
        max_side: Its longest long side, in pixels.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        FileExistsError: If the folder exists and `overwrite` is not set.
        ValueError: If `model` is no detector, if the sides are not positive,
            or if what was written differs from the model.
    """
    if not isinstance(model, MaskRCNN):
        raise ValueError(
            "`model` must be a MaskRCNN; export_saved_model writes networks "
            f"that take clips. Received: {type(model).__name__}"
        )
    if not 0 < short_side <= max_side:
        raise ValueError(
            "`short_side` must be positive and at most `max_side`. Received: "
            f"short_side={short_side!r}, max_side={max_side!r}"
        )
    model = _in_float32(model)
    about = {"short_side": short_side, "max_side": max_side, **(about or {})}
    with writing(path, about, overwrite) as written:
        serve = _serving(model, short_side, max_side)
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            name="serve",
            fn=serve,
            input_signature=[
                tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
            ],
        )
        archive.add_endpoint(
            name="paste", fn=paste_masks, input_signature=_paste_signature()
        )
        archive.write_out(os.fspath(written), verbose=False)
        _verify(serve, written)


def _in_float32(model: MaskRCNN) -> MaskRCNN:
    if model.dtype_policy.name == "float32":
        return model
    copy = MaskRCNN(model.variant, name=model.name, dtype="float32")
    copy.set_weights(model.get_weights())
    return copy


def _serving(
    model: MaskRCNN, short_side: int, max_side: int
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """From whole images to detections in their own pixels."""

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        batch, original = tf.shape(images)[0], tf.shape(images)[1:3]
        size = _resized(original, short_side, max_side)
        rows = (batch, 1)
        return model(
            {
                "images": resize_tensor(images, size),
                "sizes": tf.tile(size[tf.newaxis], rows),
                "original_sizes": tf.tile(original[tf.newaxis], rows),
            },
            training=False,
        )

    return serve


def _resized(size: tf.Tensor, short_side: int, max_side: int) -> tf.Tensor:
    """`keras_nonlocal.data.images.resized`, in a graph."""
    sides = tf.cast(size, tf.float64)
    scale = short_side / tf.reduce_min(sides)
    longer = tf.reduce_max(sides) * scale
    scale = tf.where(longer > max_side, scale * (max_side / longer), scale)
    return tf.maximum(tf.cast(sides * scale + 0.5, tf.int32), 1)


def _paste_signature() -> list[tf.TensorSpec]:
    shapes = {"masks": (None, None, None), "boxes": (None, 4)}
    return [
        *(tf.TensorSpec(shapes[x], tf.float32, name=x) for x in shapes),
        *(tf.TensorSpec((), tf.int32, name=x) for x in ("height", "width")),
    ]


def _verify(
    serve: Callable[[tf.Tensor], dict[str, tf.Tensor]], path: pathlib.Path
) -> None:
    """Compares the written graph with the model on two random images."""
    images = np.random.default_rng(0).integers(0, 256, (2, *_TRIED, 3), "uint8")
    # As a graph, like the export: rounding decides between equal candidates.
    expected = tf.function(serve, autograph=False)(images)
    loaded = tf.saved_model.load(os.fspath(path))
    found = loaded.serve(images)
    for name, value in expected.items():
        limit = _TOLERANCE * max(1.0, float(np.max(np.abs(value))))
        error = np.max(np.abs(np.asarray(found[name]) - np.asarray(value)))
        if not error <= limit:
            raise ValueError(
                f"The exported model differs from the given one in `{name}` "
                f"by {error:.2g}, more than {limit:.2g}; nothing was written."
            )
