"""Testing a detector on images with annotations in COCO's format."""

import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.coco_annotations import CocoAnnotations
from keras_nonlocal.data.coco_annotations import CocoImage
from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.coco_dataset import coco_dataset
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.skips import TooManySkipsError
from keras_nonlocal.evaluation.coco import DetectorResult
from keras_nonlocal.evaluation.coco import as_results
from keras_nonlocal.evaluation.coco import coco_metrics
from keras_nonlocal.evaluation.coco import require_pycocotools
from keras_nonlocal.evaluation.coco_page import write_page
from keras_nonlocal.prediction.objects import Detections
from keras_nonlocal.training.environment import environment
from keras_nonlocal.visualization.figures import require_matplotlib


def evaluate_detector(
    model: keras.Model,
    annotations: str | os.PathLike[str] | CocoAnnotations,
    images: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    short_side: int = 800,
    max_side: int = 1333,
    batch_size: int = 1,
    pad_to: tuple[int, int] | None = None,
    limit: int | None = None,
    name: str | None = None,
    verbose: int = 1,
) -> DetectorResult:
    """Tests a detector on images with annotations in COCO's format.

    Images that cannot be read are named in the result. Their objects count as
    not found, as they would for COCO's own server.

    Args:
        model: A `MaskRCNN`.
        annotations: The json file, or what `read_coco` has read.
        images: The folder of the images, for a file.
        out: A folder for `detections.json` (in COCO's format of results),
            `metrics.json` and `index.html`, a page with pictures. Default: no
            files.
        short_side: To which images are resized.
        max_side: What the other side may be at most.
        batch_size: Images of a forward pass.
        pad_to: Height and width to which all batches are padded, of a model
            that is compiled anew for each.
        limit: How many images to test, from the first on. Default: all.
        name: Of the model, in files. Default: the model's.
        verbose: Whether to show a progress bar.

    Returns:
        The figures, and what they were made from.

    Raises:
        ImportError: If pycocotools, or for `out` matplotlib, is missing.
        ValueError: If an argument is not as described, or no image can be
            read.
    """
    require_pycocotools()
    if out is not None:
        require_matplotlib()
    annotations = _annotations(annotations, images, limit)
    _check_classes(model, annotations)
    skips = SkipLog(unit="image")
    batches = coco_dataset(
        annotations,
        None,
        batch_size=batch_size,
        training=False,
        short_side=short_side,
        max_side=max_side,
        pad_to=pad_to,
        skips=skips,
    )
    start = time.monotonic()
    bar = keras.utils.Progbar(
        len(annotations), verbose=verbose, unit_name="image"
    )
    results, seen = [], set()
    try:
        for image, found in _detected(model, annotations, batches):
            number = image.image_id
            results += as_results(found, number, annotations.category_ids)
            seen.add(number)
            bar.add(1)
    except tf.errors.InvalidArgumentError:
        if skips.failure is None:
            raise
        raise TooManySkipsError(skips.failure) from None
    skipped = {
        image.path: skips.reasons.get(image.path, "not read")
        for image in annotations.images
        if image.image_id not in seen
    }
    bar.add(len(skipped))
    result = DetectorResult(
        **vars(coco_metrics(annotations, results)),
        name=name or model.name,
        annotations=annotations,
        results=results,
        skipped=skipped,
        about={
            "short_side": short_side,
            "max_side": max_side,
            "batch_size": batch_size,
            "pad_to": pad_to,
            **environment(),
            "seconds": round(time.monotonic() - start, 1),
        },
    )
    if out is not None:
        write_result(result, out)
    return result


def write_result(result: DetectorResult, out: str | os.PathLike[str]) -> None:
    """Writes the files of `evaluate_detector`, each complete or not at all.

    Args:
        result: What was measured.
        out: The folder; made if it is not there.

    Raises:
        ImportError: If matplotlib is missing.
        OSError: If a file cannot be written.
    """
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "detections.json", json.dumps(result.results))
    write_json(folder / "metrics.json", result.summary())
    write_page(result, folder / "index.html")


def _annotations(
    annotations: str | os.PathLike[str] | CocoAnnotations,
    images: str | os.PathLike[str] | None,
    limit: int | None,
) -> CocoAnnotations:
    if not isinstance(annotations, CocoAnnotations):
        if images is None:
            raise ValueError(
                "`images` must be the folder of the images of "
                f"{annotations}. Received: images=None"
            )
        annotations = read_coco(annotations, images)
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1. Received: limit={limit}")
    if limit is not None and limit < len(annotations):
        annotations = annotations.subset(range(limit))
    return annotations


def _check_classes(model: keras.Model, annotations: CocoAnnotations) -> None:
    classes, names = model.variant.classes, annotations.class_names
    if classes != len(names):
        raise ValueError(
            f"`annotations` must have the model's {classes} classes. "
            f"Received: {len(names)} in {annotations.path}"
        )


def _detected(
    model: keras.Model, annotations: CocoAnnotations, batches: Any
) -> Iterator[tuple[CocoImage, Detections]]:
    """The images that can be read, with what is found in them."""
    by_id = {image.image_id: image for image in annotations.images}
    inputs = ("images", "sizes", "original_sizes")
    for batch in batches.as_numpy_iterator():
        outputs = model.predict_on_batch({key: batch[key] for key in inputs})
        images = [by_id[int(number)] for number in batch["image_ids"]]
        found = Detections.of_batch(
            outputs,
            [(image.height, image.width) for image in images],
            [image.path for image in images],
        )
        yield from zip(images, found, strict=True)
