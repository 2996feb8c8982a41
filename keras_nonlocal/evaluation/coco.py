"""Average precision of detections, by COCO's own code."""

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from keras_nonlocal.data.coco_annotations import CocoAnnotations
from keras_nonlocal.data.coco_annotations import coco_json
from keras_nonlocal.data.coco_masks import SegmentationError
from keras_nonlocal.data.coco_masks import checked_segmentation
from keras_nonlocal.data.coco_masks import encode_masks
from keras_nonlocal.prediction.objects import Detections

# What COCOeval.stats begins with.
MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# In `precision` of COCOeval: all areas, 100 detections an image.
_ALL_AREAS, _MOST_DETECTIONS = 0, -1
# Digits of boxes in files of results, as in COCO's annotations.
_DIGITS = 2

Figures = dict[str, float | None]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageMatches:
    """Which detections of an image are right, for boxes at an IoU of 0.5.

    Attributes:
        image_id: Of the image.
        results: Indices of its detections in the list of results, `(n,)`.
        scores: Of these, `(n,)`.
        is_right: Whether they have an object of their class, bool `(n,)`.
        is_ignored: Whether they count neither as right nor as wrong, as in a
            crowd, bool `(n,)`.
        objects: Indices of the objects of the image that count, `(m,)`.
        found_at: The score of the detection that has found each, -1 if none
            has, `(m,)`.
    """

    image_id: int
    results: np.ndarray
    scores: np.ndarray
    is_right: np.ndarray
    is_ignored: np.ndarray
    objects: np.ndarray
    found_at: np.ndarray

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """Right and wrong detections of at least a score, and misses."""
        shown = self.scores >= threshold
        right = int(np.sum(shown & self.is_right))
        wrong = int(np.sum(shown & ~self.is_right & ~self.is_ignored))
        return right, wrong, int(np.sum(self.found_at < threshold))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CocoMetrics:
    """Average precision as COCO defines it, in 0..1.

    `None` stands for what cannot be measured, such as that of small objects
    where there are none.

    Attributes:
        box: By `MEASURES`: `AP` over IoUs of 0.5 to 0.95, `AP50` and `AP75` at
            one, `APs`, `APm` and `APl` of objects below 32 x 32, up to 96 x 96
            and above.
        mask: The same by the IoU of masks.
        box_per_class: `AP` by the class's name.
        mask_per_class: The same by the IoU of masks.
        matches: Of all images, in the order of their ids.
    """

    box: Figures
    mask: Figures
    box_per_class: Figures
    mask_per_class: Figures
    matches: tuple[ImageMatches, ...]

    def best_threshold(self) -> tuple[float, float]:
        """The score from which on detections are best kept, and their F1.

        F1 is the harmonic mean of the shares of detections that are right and
        of objects that are found, over all images, at an IoU of 0.5. Without
        detections the score is 0.5.
        """
        counted = [~match.is_ignored for match in self.matches]
        scores = _joined(
            m.scores[c] for m, c in zip(self.matches, counted, strict=True)
        )
        right = _joined(
            m.is_right[c] for m, c in zip(self.matches, counted, strict=True)
        )
        objects = sum(len(match.objects) for match in self.matches)
        if not len(scores):
            return 0.5, 0.0
        order = np.argsort(-scores, kind="stable")
        shown = np.arange(1, len(order) + 1)
        f1 = 2 * np.cumsum(right[order]) / (shown + objects)
        # Of equal scores all are kept, or none.
        last = np.append(np.diff(scores[order]) != 0, True)
        best = np.flatnonzero(last)[f1[last].argmax()]
        return float(scores[order][best]), float(f1[best])


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DetectorResult(CocoMetrics):
    """What `evaluate_detector` has measured.

    Attributes:
        name: Of the model.
        annotations: The truth.
        results: Detections in COCO's format of results.
        skipped: Images that could not be read, by path, with the reason. Their
            objects count as not found.
        about: Settings, versions and seconds.
    """

    name: str
    annotations: CocoAnnotations
    results: list[dict]
    skipped: dict[str, str]
    about: dict[str, Any]

    @property
    def objects_per_class(self) -> dict[str, int]:
        """Objects of the truth that count, by the class's name."""
        counts = np.zeros(len(self.annotations.class_names), int)
        for image in self.annotations.images:
            np.add.at(counts, image.classes[~image.is_crowd], 1)
        names = self.annotations.class_names
        return dict(zip(names, counts.tolist(), strict=True))

    def summary(self) -> dict[str, Any]:
        """All figures, for a file."""
        threshold, f1 = self.best_threshold()
        return {
            "name": self.name,
            "annotations": os.fspath(self.annotations.path),
            "box": self.box,
            "mask": self.mask,
            "images": len(self.annotations),
            "images_skipped": len(self.skipped),
            "objects": sum(self.objects_per_class.values()),
            "detections": len(self.results),
            "best_threshold": {"score": threshold, "f1": f1},
            "box_per_class": self.box_per_class,
            "mask_per_class": self.mask_per_class,
            "objects_per_class": self.objects_per_class,
            "skipped": self.skipped,
            "problems": self.annotations.problem_counts(),
            "about": self.about,
        }


def as_results(
    found: Detections, image_id: int, category_ids: Sequence[int]
) -> list[dict]:
    """Detections in COCO's format of results.

    Args:
        found: Of one image.
        image_id: Of the image.
        category_ids: COCO's number of each class.

    Returns:
        For each object `image_id`, `category_id`, `bbox` (x, y, width and
        height, to hundredths of a pixel as in COCO's annotations), `score` and
        `segmentation`, a run-length code.
    """
    codes = [x for some in found.mask_chunks() for x in encode_masks(some)]
    boxes = found.boxes.astype("float64")
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[int(number)],
            "bbox": [round(x, _DIGITS) for x in box.tolist()],
            # The shortest number that is this float32: order is kept.
            "score": float(str(score)),
            "segmentation": code,
        }
        for box, score, number, code in zip(
            boxes, found.scores, found.classes, codes, strict=True
        )
    ]


def coco_metrics(
    annotations: CocoAnnotations,
    results: Sequence[Mapping] | str | os.PathLike[str],
) -> CocoMetrics:
    """Average precision of detections of any origin, by pycocotools.

    Args:
        annotations: The truth. Images without results count as images in which
            nothing was found. Where no object has a mask, boxes are measured
            alone.
        results: In COCO's format: `image_id`, `category_id`, `score` and
            `bbox`, `segmentation` (a run-length code) or both; or a json file
            of them. All of them must have the same of both.

    Returns:
        The figures.

    Raises:
        ImportError: If pycocotools is missing.
        ValueError: If `results` are not in that format, or of other images or
            categories.
    """
    require_pycocotools()
    if not isinstance(results, Sequence) or isinstance(results, str):
        results = _read_results(results)
    kinds = _check_results(results, annotations)
    truth = _coco(coco_json(annotations))
    has_masks = any(
        segmentation is not None
        for image in annotations.images
        for segmentation in image.segmentations
    )
    measured = {}
    for kind, field, is_there in (
        ("bbox", "bbox", True),
        ("segm", "segmentation", has_masks),
    ):
        if is_there and (field in kinds or not results):
            measured[kind] = _measure(truth, results, kind)
    box, mask = measured.get("bbox"), measured.get("segm")
    matched = box if box is not None else mask
    return CocoMetrics(
        box=_figures(box),
        mask=_figures(mask),
        box_per_class=_per_class(box, annotations),
        mask_per_class=_per_class(mask, annotations),
        matches=() if matched is None else _matches(matched, annotations),
    )


def _read_results(path: str | os.PathLike[str]) -> list[dict]:
    try:
        found = json.loads(pathlib.Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`results` must be a json file. Received: {path}: {error}"
        ) from error
    if not isinstance(found, list):
        raise ValueError(
            "`results` must be a list of detections. "
            f"Received: {path}, of {type(found).__name__}"
        )
    return found


def _check_results(
    results: Sequence[Mapping], annotations: CocoAnnotations
) -> set[str]:
    """Which of boxes and masks they have."""
    sizes = {x.image_id: (x.height, x.width) for x in annotations.images}
    categories = annotations.category_ids
    kinds = {"bbox", "segmentation"}
    if results and isinstance(results[0], Mapping):
        kinds &= results[0].keys()
    for number, result in enumerate(results):
        wanted = _complaint(result, kinds, sizes, categories)
        if wanted:
            raise ValueError(
                f"`results` must be in COCO's format of results: {wanted}. "
                f"Received: results[{number}]={str(result)[:300]}"
            )
    return kinds


def _complaint(
    result: Any,
    kinds: set[str],
    sizes: Mapping[int, tuple[int, int]],
    categories: Collection[int],
) -> str:
    """What a result should be and is not; empty if it is all right."""
    if not isinstance(result, Mapping) or not kinds <= result.keys():
        return "each with `bbox`, `segmentation`, or both, as the first one"
    if not kinds:
        return "each with `bbox`, `segmentation`, or both"
    for field, known in (("image_id", sizes), ("category_id", categories)):
        if not isinstance(result.get(field), int) or result[field] not in known:
            return f"`{field}` one of the annotations"
    if not _are_finite([result.get("score")], 1):
        return "`score` a number"
    if "bbox" in kinds:
        box = result["bbox"]
        if not _are_finite(box, 4) or min(box[2:]) < 0:
            return "`bbox` x, y, width and height"
    if "segmentation" in kinds:
        code, size = result["segmentation"], sizes[result["image_id"]]
        try:
            checked_segmentation(code, *size)
        except SegmentationError as error:
            return f"`segmentation` one that can be drawn ({error})"
        if not isinstance(code, dict) or not isinstance(code["counts"], str):
            return "`segmentation` compressed run lengths"
    return ""


def _are_finite(values: Any, count: int) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == count
        and all(isinstance(x, int | float) for x in values)
        and all(math.isfinite(x) for x in values)
    )


def _coco(dataset: Mapping) -> Any:
    """What pycocotools makes of annotations, without what it prints."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"info": {}, "licenses": [], **dataset}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _measure(truth: Any, results: Sequence[Mapping], kind: str) -> Any:
    """COCOeval after its work, whose prints are dropped."""
    from pycocotools.cocoeval import COCOeval

    # With boxes beside masks, loadRes takes the areas of boxes for those of
    # masks, by which objects are small or large.
    dropped = "bbox" if kind == "segm" else "segmentation"
    own = [{k: v for k, v in x.items() if k != dropped} for x in results]
    with contextlib.redirect_stdout(io.StringIO()):
        if own:
            found = truth.loadRes(own)
        else:
            found = _coco({**truth.dataset, "annotations": []})
        test = COCOeval(truth, found, kind)
        test.evaluate()
        test.accumulate()
        test.summarize()
    return test


def _figures(test: Any) -> Figures:
    if test is None:
        return dict.fromkeys(MEASURES)
    return {
        name: _share(value)
        for name, value in zip(MEASURES, test.stats, strict=False)
    }


def _per_class(test: Any, annotations: CocoAnnotations) -> Figures:
    names = annotations.class_names
    if test is None:
        return dict.fromkeys(names)
    # IoU, recall, class, area and number of detections are its axes.
    precision = test.eval["precision"][..., _ALL_AREAS, _MOST_DETECTIONS]
    by_category = dict(
        zip(test.params.catIds, np.moveaxis(precision, 2, 0), strict=True)
    )
    values = [by_category[number] for number in annotations.category_ids]
    return {
        name: _share(value.mean())
        for name, value in zip(names, values, strict=True)
    }


def _share(value: float) -> float | None:
    """COCOeval says -1 where there is nothing to measure."""
    return None if value < 0 else float(value)


def _matches(
    test: Any, annotations: CocoAnnotations
) -> tuple[ImageMatches, ...]:
    """What COCOeval has matched at its first IoU, put together by images."""
    first = {}
    total = 1
    for image in annotations.images:
        first[image.image_id] = total
        total += len(image.boxes)
    every_area = test.params.areaRng[_ALL_AREAS]
    by_image: dict[int, list[dict]] = {number: [] for number in first}
    for part in test.evalImgs:
        if part is not None and part["aRng"] == every_area:
            by_image[part["image_id"]].append(part)
    return tuple(
        _image_matches(number, parts, first[number])
        for number, parts in sorted(by_image.items())
    )


def _image_matches(
    image_id: int, parts: Sequence[dict], first: int
) -> ImageMatches:
    results = _joined(np.array(x["dtIds"], int) - 1 for x in parts)
    scores = _joined(np.array(x["dtScores"], float) for x in parts)
    matched = _joined(x["dtMatches"][0] > 0 for x in parts).astype(bool)
    ignored = _joined(x["dtIgnore"][0] for x in parts).astype(bool)
    score_of = dict(zip((results + 1).tolist(), scores.tolist(), strict=True))
    score_of[0] = -1.0
    objects, found_at = [], []
    for part in parts:
        for number, is_ignored, found in zip(
            part["gtIds"], part["gtIgnore"], part["gtMatches"][0], strict=True
        ):
            if not is_ignored:
                objects.append(number - first)
                found_at.append(score_of[int(found)])
    order = np.argsort(-scores, kind="stable")
    return ImageMatches(
        image_id=image_id,
        results=results.astype(int)[order],
        scores=scores[order],
        is_right=(matched & ~ignored)[order],
        is_ignored=ignored[order],
        objects=np.array(objects, int),
        found_at=np.array(found_at, float),
    )


def _joined(arrays: Iterator[np.ndarray]) -> np.ndarray:
    found = list(arrays)
    return np.concatenate(found) if found else np.zeros(0)


def require_pycocotools() -> ModuleType:
    try:
        import pycocotools
    except ImportError as error:
        raise ImportError(
            "Average precision needs pycocotools: "
            "pip install 'keras-nonlocal[coco]'"
        ) from error
    return pycocotools
