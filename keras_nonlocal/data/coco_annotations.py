"""`read_coco`: the objects of COCO and of data sets in its format, checked."""

import collections
import dataclasses
import json
import os
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from keras_nonlocal.data import coco_masks
from keras_nonlocal.data.coco_masks import Segmentation
from keras_nonlocal.data.coco_masks import SegmentationError
from keras_nonlocal.data.decode import MAX_PIXELS
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import lies_in
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.videos import Problem

# The largest official file, that of train2017, has 450 MB.
MAX_BYTES = 2**31
_MAX_SHOWN = 200
_LISTS = ("images", "annotations", "categories")
Box = tuple[float, float, float, float]  # x1, y1, x2, y2.
# Official boxes leave their image by rounding.
_TOLERANCE = 1.0
# No JPEG has a longer one; what is drawn takes memory by it.
_MAX_SIDE = 2**16 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class CocoImage:
    """A picture and its objects; arrays are read-only.

    Attributes:
        image_id: Its number in the annotation file.
        path: Its file.
        height: In pixels.
        width: In pixels.
        boxes: float32 of shape `(objects, 4)`: x1, y1, x2, y2 in pixels of
            the image. They may leave it by up to one pixel.
        classes: int32 of shape `(objects,)`, places in `class_names`.
        segmentations: Outlines, as `keras_nonlocal.data.coco_masks` has them.
        is_crowd: bool of shape `(objects,)`: whether it is many objects.
        areas: float32 of shape `(objects,)`, pixels in the mask.
    """

    image_id: int
    path: str
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray
    segmentations: tuple[Segmentation, ...]
    is_crowd: np.ndarray
    areas: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """The pictures of a data set in COCO's format.

    Attributes:
        images: In the order of the file.
        class_names: Those of the categories, in the order of their numbers in
            the file.
        category_ids: Those numbers, which may have gaps.
        path: The annotation file.
        problems: What was left out or mended, and why.
    """

    images: tuple[CocoImage, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    path: str
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def trainable(self) -> np.ndarray:
        """Places of the images with an object that is no crowd, int64."""
        return np.flatnonzero(
            [not image.is_crowd.all() for image in self.images]
        )

    def subset(self, numbers: Sequence[int] | np.ndarray) -> "CocoAnnotations":
        """Some of the images.

        Args:
            numbers: Their places, in the wanted order, or a boolean for each.

        Returns:
            Annotations with the same classes and problems.

        Raises:
            IndexError: If there is no such place, or it is no integer.
        """
        places = np.arange(len(self))[[*numbers]]
        images = tuple(self.images[place] for place in places)
        return dataclasses.replace(self, images=images)

    def problem_counts(self) -> dict[str, int]:
        """Number of problems of each kind."""
        return dict(collections.Counter(x.kind for x in self.problems))


def read_coco(annotations: Path, images: Path) -> CocoAnnotations:
    """Reads an annotation file in COCO's format.

    Classes are the categories in the order of their numbers. What is wrong in
    the file is left out or mended, and is in `problems`; a warning has the
    first of each kind:

    - Left out are images that are not in the folder, whose name leads out of
      it, without a usable number or size, or with the number of one before;
      objects of unknown images or categories, that are malformed, that have
      the number, class and box of one before, whose box is no four finite
      numbers or empty, also after what is outside of the image is cut off.
    - Boxes that leave the image by more than a pixel are cut off.
    - An object whose `segmentation` is missing or cannot be used keeps its
      box, and its mask is the whole of it; one whose `area` is missing or
      larger than the image has that of its mask. `iscrowd` is 0 where it is
      missing.

    Args:
        annotations: The JSON file, with lists `images`, `annotations` and
            `categories`.
        images: The folder that the names of the files begin in.

    Returns:
        The images that are there, also those without objects.

    Raises:
        ValueError: If the file is not of the format, or none of the images
            is in the folder.
        ImportError: If there are run lengths, or areas to find out, and
            pycocotools is missing.
    """
    path = os.fspath(annotations)
    reader = _Reader(os.fspath(images))
    # In a function: what JSON makes of the text takes more than the result.
    found = reader.result(path, _read_json(path))
    if found.problems:
        firsts = {x.kind: str(x) for x in reversed(found.problems)}
        logging.warning(
            "%s: left out or mended %d, of each kind the first: %s",
            path,
            len(found.problems),
            "; ".join(reversed(firsts.values())),
        )
    return found


def coco_json(annotations: CocoAnnotations) -> dict[str, Any]:
    """What `read_coco` has kept, back in COCO's format.

    Objects are counted from 1; those without outlines get that of their box.
    `file_name` is the whole path, and not relative to the folder.

    Args:
        annotations: What to write.

    Returns:
        Lists `images`, `annotations` and `categories` of plain values, for
        JSON or pycocotools.
    """
    objects: list[dict[str, Any]] = []
    for image in annotations.images:
        objects += _json_objects(image, annotations.category_ids)
    for number, values in enumerate(objects, 1):
        values["id"] = number
    names = zip(annotations.category_ids, annotations.class_names, strict=True)
    return {
        "images": [
            {
                "id": image.image_id,
                "file_name": image.path,
                "height": image.height,
                "width": image.width,
            }
            for image in annotations.images
        ],
        "annotations": objects,
        "categories": [{"id": key, "name": name} for key, name in names],
    }


def _json_objects(
    image: CocoImage, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    objects = []
    for number, outline in enumerate(image.segmentations):
        box = image.boxes[number].astype("float64")
        objects.append(
            {
                "image_id": image.image_id,
                "category_id": category_ids[image.classes[number]],
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "area": float(image.areas[number]),
                "iscrowd": int(image.is_crowd[number]),
                "segmentation": _json_outline(outline, box),
            }
        )
    return objects


def _json_outline(outline: Segmentation, box: np.ndarray) -> dict | list:
    if isinstance(outline, dict):
        return outline
    polygons = coco_masks.box_polygon(box) if outline is None else outline
    return [points.tolist() for points in polygons]


@dataclasses.dataclass(frozen=True, eq=False)
class _Object:
    """What an annotation says, before it is put into the arrays."""

    box: Box
    label: int
    segmentation: Segmentation
    is_crowd: bool
    area: float


class _Reader:
    """Makes `CocoAnnotations` of JSON and gathers what is wrong with it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._problems: list[Problem] = []
        self._without: collections.Counter[str] = collections.Counter()

    def result(self, path: str, content: dict[str, list]) -> CocoAnnotations:
        names = self._categories(content["categories"])
        images = self._images(content["images"])
        if not names or not images:
            raise self._nothing(path, "images" if names else "categories")
        numbers = {key: place for place, key in enumerate(names)}
        objects = self._objects(content["annotations"], images, numbers)
        self._note_missing(path, len(content["annotations"]))
        return CocoAnnotations(
            tuple(
                _with_objects(image, objects.get(key, []))
                for key, image in images.items()
            ),
            tuple(_different(names)),
            tuple(names),
            path,
            tuple(self._problems),
        )

    def _categories(self, rows: list) -> dict[int, str]:
        names: dict[int, str] = {}
        for where, row in _numbered("categories", rows):
            try:
                key, name = _category(row)
            except RowError as error:
                self._note(error, where)
                continue
            if key in names:
                self._note(RowError("duplicate category", f"id {key}"), where)
            names.setdefault(key, name)
        return dict(sorted(names.items()))

    def _images(self, rows: list) -> dict[int, CocoImage]:
        images: dict[int, CocoImage] = {}
        for where, row in _numbered("images", rows):
            try:
                image = self._image(row)
                if image.image_id in images:
                    raise RowError("duplicate image", f"id {image.image_id}")
            except RowError as error:
                self._note(error, where)
            else:
                images[image.image_id] = image
        return images

    def _image(self, row: Any) -> CocoImage:
        key, name = _number(row, "id"), _text(row, "file_name")
        height, width = _number(row, "height"), _number(row, "width")
        fits = max(height, width) <= _MAX_SIDE and height * width <= MAX_PIXELS
        if min(height, width) < 1 or not fits:
            raise RowError("unusable size", f"{name}: {width}x{height} pixels")
        path = os.path.join(self._folder, name)
        if not lies_in(path, self._folder):
            raise RowError("path outside the folder", name)
        if not os.path.isfile(path):
            raise RowError("missing file", path)
        return CocoImage(key, path, height, width, *_NOTHING)

    def _objects(
        self,
        rows: list,
        images: dict[int, CocoImage],
        numbers: dict[int, int],
    ) -> dict[int, list[_Object]]:
        objects: dict[int, list[_Object]] = collections.defaultdict(list)
        seen = set()
        for where, row in _numbered("annotations", rows):
            try:
                key = _number(row, "image_id")
                if key not in images:
                    raise RowError("object of no image", f"image_id {key}")
                found = self._object(row, images[key], numbers, where)
                said = (key, str(row.get("id")), found.label, found.box)
                if "id" in row and said in seen:
                    raise RowError("duplicate object", images[key].path)
            except RowError as error:
                self._note(error, where)
            else:
                seen.add(said)
                objects[key].append(found)
        return objects

    def _object(
        self,
        row: dict,
        image: CocoImage,
        numbers: dict[int, int],
        where: str,
    ) -> _Object:
        category = _number(row, "category_id")
        if category not in numbers:
            raise RowError("unknown category", f"category_id {category}")
        is_crowd = row.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise RowError("malformed row", f"iscrowd {is_crowd!r}")
        box = self._box(row.get("bbox"), image, where)
        outline = self._segmentation(row, image, box, where)
        return _Object(
            box,
            numbers[category],
            outline,
            bool(is_crowd),
            self._area(row, image, box, outline),
        )

    def _box(self, value: Any, image: CocoImage, where: str) -> Box:
        values = coco_masks.numbers(value)
        if values is None or len(values) != 4:
            raise RowError("malformed box", f"{image.path}: {value!r}")
        x, y, width, height = values.tolist()
        box = (x, y, x + width, y + height)
        limits = (image.width, image.height) * 2
        inside = tuple(
            min(max(edge, 0.0), float(limit))
            for edge, limit in zip(box, limits, strict=True)
        )
        # As it will be kept: the smallest differences are lost.
        x1, y1, x2, y2 = np.array(inside, "float32").tolist()
        if x1 >= x2 or y1 >= y2:
            raise RowError("empty box", f"{image.path}: {value!r}")
        beyond = max(abs(a - b) for a, b in zip(box, inside, strict=True))
        if beyond <= _TOLERANCE:
            return box
        error = RowError("box leaves the image", f"{image.path}: {value!r}")
        self._note(error, where)
        return x1, y1, x2, y2

    def _segmentation(
        self, row: dict, image: CocoImage, box: Box, where: str
    ) -> Segmentation:
        value = row.get("segmentation")
        if value is None:
            self._without["segmentation"] += 1
            return None
        height, width = image.height, image.width
        try:
            outline = coco_masks.checked_segmentation(value, height, width)
            if not coco_masks.touches(outline, box):
                raise SegmentationError("no part of it is in the box")
        except SegmentationError as error:
            detail = f"{image.path}: {error}"
            self._note(RowError("unusable segmentation", detail), where)
            return None
        return outline

    def _area(
        self, row: dict, image: CocoImage, box: Box, outline: Segmentation
    ) -> float:
        area = coco_masks.numbers([row.get("area")])
        if area is not None and 0 <= area[0] <= image.height * image.width:
            return float(area[0])
        self._without["usable area"] += 1
        if outline is None:
            return (box[2] - box[0]) * (box[3] - box[1])
        return coco_masks.area(outline, image.height, image.width)

    def _note(self, error: RowError, where: str) -> None:
        detail = error.detail[:_MAX_SHOWN]
        self._problems.append(Problem(error.kind, where, detail))

    def _note_missing(self, path: str, count: int) -> None:
        # One for the file: a data set of boxes has none at all.
        for name, missing in self._without.items():
            detail = f"{missing} of {count} objects"
            self._problems.append(Problem(f"no {name}", path, detail))

    def _nothing(self, path: str, what: str) -> ValueError:
        reason = f", for example {self._problems[0]}" if self._problems else ""
        return ValueError(
            f"At least one of the {what} of {path} must be usable, with files "
            f"in `images`. Received: images={self._folder!r}, and none "
            f"is{reason}"
        )


# The objects of an image that has none yet.
_NOTHING: tuple[Any, ...] = (None, None, (), None, None)


def _with_objects(image: CocoImage, objects: list[_Object]) -> CocoImage:
    return dataclasses.replace(
        image,
        boxes=_read_only([x.box for x in objects], "float32", 4),
        classes=_read_only([x.label for x in objects], "int32"),
        segmentations=tuple(x.segmentation for x in objects),
        is_crowd=_read_only([x.is_crowd for x in objects], "bool"),
        areas=_read_only([x.area for x in objects], "float32"),
    )


def _read_only(values: list, dtype: str, *columns: int) -> np.ndarray:
    array = np.array(values, dtype).reshape(-1, *columns)
    array.setflags(write=False)
    return array


def _read_json(path: str) -> dict[str, list]:
    text = read_text(path, MAX_BYTES)
    try:
        content = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} must be JSON. Received: {error}") from error
    wrong = [
        name
        for name in _LISTS
        if not isinstance(content, dict)
        or not isinstance(content.get(name), list)
    ]
    if wrong:
        found = sorted(content) if isinstance(content, dict) else content
        raise ValueError(
            f"{path} must have the lists {', '.join(_LISTS)} of COCO "
            f"annotations. Received: {type(content).__name__} "
            f"{str(found)[:_MAX_SHOWN]}, without {', '.join(wrong)}"
        )
    return content


def _numbered(name: str, rows: list) -> Iterable[tuple[str, Any]]:
    return ((f"{name}[{place}]", row) for place, row in enumerate(rows))


def _category(row: Any) -> tuple[int, str]:
    key = _number(row, "id")
    return key, _text(row, "name") if "name" in row else str(key)


def _number(row: Any, name: str) -> int:
    """An integer that fits 64 bits; raises `RowError`."""
    if not isinstance(row, dict):
        raise RowError("malformed row", f"{row!r:.{_MAX_SHOWN}}")
    value = row.get(name)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise RowError("malformed row", f"{name}: {value!r:.{_MAX_SHOWN}}")
    return value


def _text(row: dict, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise RowError("malformed row", f"{name}: {value!r:.{_MAX_SHOWN}}")
    return value


def _different(names: dict[int, str]) -> list[str]:
    """Names of the classes; equal ones get their number."""
    counts = collections.Counter(names.values())
    return [
        name if counts[name] == 1 else f"{name} ({key})"
        for key, name in names.items()
    ]
