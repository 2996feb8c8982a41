"""Masks of COCO: outlines and run lengths, checked, drawn, packed.

The outline (`segmentation`) of an object is one of these:

- a tuple of polygons, each a float64 array of x1, y1, x2, y2 ... in pixels of
  the image; the mask is their union;
- compressed run lengths, `{"size": [height, width], "counts": text}`;
- `None` where nothing usable is known: the mask is the whole box.

pycocotools draws them. It trusts its input, reads uninitialised memory where
run lengths are too short, and takes memory by the length of an outline: what
comes from files goes through `checked_segmentation` first.
"""

import types
from collections.abc import Sequence
from typing import Any

import numpy as np

Outline = tuple[np.ndarray, ...] | dict[str, Any]
Segmentation = Outline | None

# Length of all outlines of an object, in pixels; 80 bytes each when drawn.
_MAX_LENGTH = 10**6
# The same for the small mask of an object; larger ones are drawn at the size
# of the image.
_MAX_SMALL_LENGTH = 10**5
_BITS = 5  # Of a character of compressed run lengths.
_MAX_CHARACTERS = 7  # Of one run: more than 32 bits.


class SegmentationError(ValueError):
    """An outline that cannot be used."""


def checked_segmentation(value: Any, height: int, width: int) -> Outline:
    """An outline of an annotation file in one of this module's forms.

    Polygons of less than three points are left out. Points are moved to at
    most one image size outside of the image.

    Args:
        value: Polygons, compressed or plain run lengths, as JSON has them.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        The outline, safe to draw.

    Raises:
        SegmentationError: If it cannot be used.

    >>> checked_segmentation([[0, 0, 4, 0, 4, 2]], 5, 5)
    (array([0., 0., 4., 0., 4., 2.]),)
    >>> checked_segmentation({"size": [2, 3], "counts": [1, 5]}, 2, 3)
    {'size': [2, 3], 'counts': '15'}
    """
    if isinstance(value, dict):
        return _checked_run_lengths(value, height, width)
    if not isinstance(value, list) or not value:
        raise SegmentationError("neither polygons nor run lengths")
    polygons = [_checked_polygon(points, height, width) for points in value]
    kept = tuple(points for points in polygons if points is not None)
    if not kept:
        raise SegmentationError("no polygon of three points or more")
    if not _are_short(kept, _MAX_LENGTH):
        raise SegmentationError(f"outlines of over {_MAX_LENGTH} pixels")
    return kept


def touches(segmentation: Outline, box: Sequence[float]) -> bool:
    """Whether the bounds of an outline and a box have a part in common.

    >>> touches((np.array([0.0, 0, 4, 0, 4, 2]),), (3, 1, 9, 9))
    True
    """
    if isinstance(segmentation, dict):
        left, top, width, height = (
            pycocotools_mask().toBbox(segmentation).tolist()
        )
        right, bottom = left + width, top + height
    else:
        points = np.concatenate(segmentation)
        left, right = points[::2].min(), points[::2].max()
        top, bottom = points[1::2].min(), points[1::2].max()
    x1, y1, x2, y2 = box
    return bool(
        max(left, x1) < min(right, x2) and max(top, y1) < min(bottom, y2)
    )


def area(segmentation: Outline, height: int, width: int) -> float:
    """Pixels of an image that are in the mask.

    >>> area((np.array([0.0, 0, 4, 0, 4, 2, 0, 2]),), 5, 5)
    8.0
    """
    return float(pycocotools_mask().area(_packed(segmentation, height, width)))


def mini_masks(
    segmentations: Sequence[Segmentation],
    boxes: np.ndarray,
    height: int,
    width: int,
    size: int,
) -> np.ndarray:
    """The masks of objects, each as a small picture of its own box.

    They stay the same when the image is resized, and are mirrored with it.
    Polygons are drawn at the small size. Of run lengths, a small pixel is in
    the mask if half of what it covers is.

    Args:
        segmentations: Outlines of the objects, checked.
        boxes: float of shape `(objects, 4)`: x1, y1, x2, y2 in pixels, inside
            the image and not empty.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        size: Height and width of the masks.

    Returns:
        Zeros and ones, uint8 of shape `(objects, size, size)`.

    >>> triangle = (np.array([10.0, 10, 14, 10, 10, 14]),)
    >>> mini_masks([triangle], np.array([[10, 10, 14, 14]]), 20, 20, 4)[0]
    array([[1, 1, 1, 0],
           [1, 1, 0, 0],
           [1, 0, 0, 0],
           [0, 0, 0, 0]], dtype=uint8)
    """
    masks = np.ones((len(segmentations), size, size), "uint8")
    for number, segmentation in enumerate(segmentations):
        if segmentation is not None:
            box = np.asarray(boxes[number], "float64")
            masks[number] = _mini_mask(segmentation, box, height, width, size)
    return masks


def decode_masks(
    segmentations: Sequence[Segmentation],
    boxes: np.ndarray,
    height: int,
    width: int,
) -> np.ndarray:
    """The masks of objects at the size of the image.

    Args:
        segmentations: Outlines of the objects, checked.
        boxes: float of shape `(objects, 4)`, for objects without outlines.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        bool of shape `(objects, height, width)`.

    >>> decode_masks([None], np.array([[1, 0, 3, 1]]), 2, 4).astype(int)
    array([[[0, 1, 1, 0],
            [0, 0, 0, 0]]])
    """
    outlines = [
        box_polygon(box) if outline is None else outline
        for outline, box in zip(segmentations, boxes, strict=True)
    ]
    masks = [_drawn(outline, height, width) for outline in outlines]
    return np.array(masks, bool).reshape(-1, height, width)


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Masks as compressed run lengths, ready for JSON.

    Args:
        masks: bool or uint8 of shape `(objects, height, width)`.

    Returns:
        `{"size": [height, width], "counts": text}` for each.

    >>> encode_masks(np.array([[[False, True], [False, True]]]))
    [{'size': [2, 2], 'counts': '22'}]
    """
    columns = np.asfortranarray(np.moveaxis(masks, 0, -1).astype("uint8"))
    return [
        {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
        for code in pycocotools_mask().encode(columns)
    ]


def box_polygon(box: np.ndarray) -> tuple[np.ndarray]:
    """The four corners of a box as an outline."""
    x1, y1, x2, y2 = np.asarray(box, "float64")
    return (np.array([x1, y1, x2, y1, x2, y2, x1, y2]),)


def _checked_polygon(points: Any, height: int, width: int) -> np.ndarray | None:
    """One polygon; `None` if it has less than three points."""
    values = numbers(points)
    if values is None or len(values) % 2:
        raise SegmentationError("a polygon that is no list of x, y numbers")
    if len(values) < 6:
        return None
    places = values.reshape(-1, 2)
    size = np.array([width, height])
    return np.minimum(np.maximum(places, -size), 2 * size).reshape(-1)


def numbers(values: Any) -> np.ndarray | None:
    """A JSON list of finite numbers as float64; `None` of anything else.

    >>> numbers([1, 2.5]), numbers([1, "2"]), numbers([True]), numbers(None)
    (array([1. , 2.5]), None, None, None)
    """
    if not isinstance(values, list):
        return None
    # Not `isinstance`: a boolean is an integer.
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        array = np.array(values, "float64")
    except OverflowError:  # JSON has integers of any size.
        return None
    return array if np.isfinite(array).all() else None


def _are_short(polygons: tuple[np.ndarray, ...], limit: float) -> bool:
    """Whether drawing closed polygons takes `limit` steps at most."""
    points = np.concatenate(polygons)
    # None is longer than this: mostly it saves the sum.
    if (2 * np.abs(points).max() + 1) * len(points) <= limit:
        return True
    return sum(map(_length, polygons)) <= limit


def _length(points: np.ndarray) -> float:
    """Steps in pixels that drawing a closed polygon takes."""
    places = points.reshape(-1, 2)
    steps = np.abs(places - np.roll(places, 1, axis=0)).max(axis=1) + 1
    return float(steps.sum())


def _checked_run_lengths(
    value: dict, height: int, width: int
) -> dict[str, Any]:
    if value.get("size") != [height, width]:
        raise SegmentationError(
            f"run lengths of size {value.get('size')!r:.40} for an image of "
            f"{[height, width]}"
        )
    counts = value.get("counts")
    runs = _runs(counts) if isinstance(counts, str) else numbers(counts)
    if runs is None or (runs != np.floor(runs)).any():
        raise SegmentationError("run lengths that are no whole numbers")
    if (runs < 0).any() or runs.sum() != height * width:
        raise SegmentationError("run lengths that do not fill the image")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    plain = {"size": [height, width], "counts": runs.astype("uint32").tolist()}
    code = pycocotools_mask().frPyObjects(plain, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def _runs(text: str) -> np.ndarray:
    """The numbers in compressed run lengths, as float64.

    A character has 5 bits of a number, the lowest ones first, and one that
    says whether the number goes on. From the fourth on a number is the
    difference to the one before the last.
    """
    values: list[int] = []
    value, place = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or place >= _MAX_CHARACTERS:
            raise SegmentationError("run lengths that are no such text")
        value |= (bits & 31) << _BITS * place
        place += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << _BITS * place
        values.append(value + values[-2] if len(values) > 2 else value)
        value, place = 0, 0
    if place:
        raise SegmentationError("run lengths that break off")
    return np.array(values, "float64")


def _mini_mask(
    segmentation: Outline,
    box: np.ndarray,
    height: int,
    width: int,
    size: int,
) -> np.ndarray:
    if not isinstance(segmentation, dict):
        scale = size / (box[2:] - box[:2])
        small = tuple(
            ((points.reshape(-1, 2) - box[:2]) * scale).reshape(-1)
            for points in segmentation
        )
        if _is_near(small):
            return _drawn(small, size, size)
    mask = _drawn(segmentation, height, width)
    rows = _cells(box[1], box[3], height, size)
    columns = _cells(box[0], box[2], width, size)
    (top, bottom), (left, right) = _used(rows), _used(columns)
    part = mask[top:bottom, left:right]
    share = rows[:, top:bottom] @ part @ columns[:, left:right].T
    # Half may be rounded down.
    return (share >= 0.5 - 1e-6).astype("uint8")


def _is_near(polygons: tuple[np.ndarray, ...]) -> bool:
    """Whether outlines are not far larger than the box they are drawn in."""
    far = max(np.abs(points).max() for points in polygons)
    return far <= _MAX_SMALL_LENGTH and _are_short(polygons, _MAX_SMALL_LENGTH)


def _cells(start: float, end: float, length: int, size: int) -> np.ndarray:
    """The share of every pixel in each of `size` equal cells of a line."""
    edges = np.linspace(start, end, size + 1)[:, None]
    pixels = np.arange(length)
    low = np.maximum(edges[:-1], pixels)
    high = np.minimum(edges[1:], pixels + 1)
    return np.maximum(high - low, 0) * (size / (end - start))


def _used(shares: np.ndarray) -> tuple[int, int]:
    """First pixel that is in any cell, and the one after the last."""
    places = np.flatnonzero(shares.any(axis=0))
    return int(places[0]), int(places[-1]) + 1


def _drawn(segmentation: Outline, height: int, width: int) -> np.ndarray:
    """Zeros and ones, uint8 of shape `(height, width)`."""
    return pycocotools_mask().decode(_packed(segmentation, height, width))


def _packed(segmentation: Outline, height: int, width: int) -> dict[str, Any]:
    """Run lengths, as pycocotools has them."""
    if isinstance(segmentation, dict):
        return segmentation
    api = pycocotools_mask()
    return api.merge(api.frPyObjects(list(segmentation), height, width))


def pycocotools_mask() -> types.ModuleType:
    """The module that draws and packs; raises `ImportError` without it."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError(
            "Masks of COCO need the package pycocotools: "
            "pip install 'keras-nonlocal[coco]'"
        ) from error
    return mask
