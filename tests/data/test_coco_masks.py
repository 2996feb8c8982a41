import json
import time

import numpy as np
import pytest

from keras_nonlocal.data import coco_masks
from keras_nonlocal.data.coco_masks import SegmentationError
from keras_nonlocal.data.coco_masks import checked_segmentation
from keras_nonlocal.data.coco_masks import decode_masks
from keras_nonlocal.data.coco_masks import encode_masks
from keras_nonlocal.data.coco_masks import mini_masks


def ellipse(x1, y1, x2, y2, points=200):
    """An outline that fills its box."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    x = (x1 + x2) / 2 + (x2 - x1) / 2 * np.cos(angle)
    y = (y1 + y2) / 2 + (y2 - y1) / 2 * np.sin(angle)
    return np.stack([x, y], axis=1).reshape(-1)


def disc(size):
    place = (np.arange(size) + 0.5) / size * 2 - 1
    return place[:, None] ** 2 + place**2 <= 1


def share_different(mask, other):
    return np.mean(mask.astype(bool) != other.astype(bool))


@pytest.mark.parametrize(
    "box", [(3, 4, 43, 24), (100.5, 7.25, 107.75, 90), (0, 0, 200, 100)]
)
def test_small_masks_of_polygons_fill_their_box(box):
    box = np.array(box, "float32")
    (mask,) = mini_masks([(ellipse(*box),)], box[None], 100, 200, 56)
    assert mask.dtype == np.uint8
    assert share_different(mask, disc(56)) < 0.02


def test_small_masks_of_run_lengths_agree_with_those_of_polygons():
    box = np.array([[30.4, 20.7, 130.2, 81.9]])
    outline = (ellipse(*box[0]),)
    (code,) = encode_masks(decode_masks([outline], box, 100, 200))
    masks = mini_masks([outline, code], box.repeat(2, 0), 100, 200, 28)
    assert share_different(*masks) < 0.02


def test_small_masks_take_what_covers_half(rng):
    mask = rng.integers(2, size=(1, 12, 8)).astype(bool)
    box = np.array([[2, 4, 6, 12]])
    (mini,) = mini_masks(encode_masks(mask), box, 12, 8, 2)
    expected = mask[0, 4:12, 2:6].reshape(2, 4, 2, 2).mean(axis=(1, 3)) >= 0.5
    np.testing.assert_array_equal(mini, expected)
    # Small pixels that are smaller than the large ones.
    (mini,) = mini_masks(encode_masks(mask), box, 12, 8, 16)
    expected = mask[0, 4:12, 2:6].repeat(2, 0).repeat(4, 1)
    np.testing.assert_array_equal(mini, expected)


def test_parts_are_one_mask():
    left, right = ellipse(0, 0, 10, 20), ellipse(10, 0, 20, 20)
    box = np.array([[0, 0, 20, 20]])
    (mask,) = mini_masks([(left, right)], box, 20, 20, 56)
    assert share_different(mask, np.tile(disc(56)[:, ::2], 2)) < 0.03


def test_without_outline_the_box_is_the_mask():
    box = np.array([[1.0, 2, 5, 4]])
    assert mini_masks([None], box, 10, 10, 7).all()
    (mask,) = decode_masks([None], box, 10, 10)
    assert mask.sum() == 8 and mask[2:4, 1:5].all()
    assert mini_masks([], np.zeros((0, 4)), 10, 10, 7).shape == (0, 7, 7)
    assert decode_masks([], np.zeros((0, 4)), 3, 4).shape == (0, 3, 4)


@pytest.mark.parametrize("place", [0, 1e-4])
def test_outlines_far_larger_than_their_box_take_no_memory(place):
    zigzag = np.array([[0, 0], [9000, 9000], [9000, 0]] * 15, "float64")
    box = np.array([[3000, 1000, 3000.001 + place, 1000.001]])
    start = time.process_time()
    outline = checked_segmentation([zigzag.reshape(-1).tolist()], 2000, 2000)
    assert mini_masks([outline], box, 5000, 5000, 56).all()
    assert time.process_time() - start < 5


@pytest.mark.parametrize("plain", [False, True])
def test_run_lengths_keep_their_mask(rng, plain):
    mask = np.repeat(rng.integers(2, size=(13, 9)), 5, 0).astype(bool)
    mask[0, 0] = False  # The first run is not 0.
    (code,) = encode_masks(mask[None])
    value = {"size": [65, 9], "counts": code["counts"]}
    if plain:
        columns = mask.T.reshape(-1)
        edges = np.flatnonzero(np.diff(columns.astype(int), prepend=0))
        runs = np.diff(edges, prepend=0, append=columns.size)
        value["counts"] = runs.tolist()
    checked = checked_segmentation(value, 65, 9)
    assert checked == code
    assert json.loads(json.dumps(code)) == code
    found = decode_masks([checked], np.zeros((1, 4)), 65, 9)
    np.testing.assert_array_equal(found[0], mask)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("polygon", "neither"),
        ([], "neither"),
        (7, "neither"),
        ([[1, 2, 3, 4]], "three points"),
        ([[]], "three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "no list of x, y"),
        ([[1, 2, 3, 4, 5, "6"]], "no list of x, y"),
        ([[1, 2, 3, 4, 5, float("nan")]], "no list of x, y"),
        ([[1, 2, 3, 4, 5, float("inf")]], "no list of x, y"),
        ([[1, 2, 3, 4, 5, 10**400]], "no list of x, y"),
        ([1, 2, 3, 4, 5, 6], "no list of x, y"),
        ([[0, 0, 1e9, 1e9] * 100_000], "over 1000000 pixels"),
        ({"counts": "15"}, "of size None"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "of size"),
        ({"size": [3, 2], "counts": "15"}, "of size"),
        ({"size": [2, 3]}, "no whole numbers"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "no whole numbers"),
        ({"size": [2, 3], "counts": [1, 4]}, "do not fill"),
        ({"size": [2, 3], "counts": [-1, 7]}, "do not fill"),
        ({"size": [2, 3], "counts": [2**40]}, "do not fill"),
        ({"size": [2, 3], "counts": []}, "do not fill"),
        ({"size": [2, 3], "counts": "16"}, "do not fill"),
        ({"size": [2, 3], "counts": "O7"}, "do not fill"),
        ({"size": [2, 3], "counts": "1oo"}, "break off"),
        ({"size": [2, 3], "counts": "ooooooooo1"}, "no such text"),
        ({"size": [2, 3], "counts": "1\u00e9"}, "no such text"),
    ],
)
def test_refuses_outlines_that_cannot_be_drawn(value, reason):
    with pytest.raises(SegmentationError, match=reason):
        checked_segmentation(value, 2, 3)


def test_mends_polygons():
    outline = [[0, 0, 1, 1], [0, 0, 1e300, 0, 5, -1e300]]
    (points,) = checked_segmentation(outline, 20, 30)
    assert points.tolist() == [0, 0, 60, 0, 5, -20]


def test_area_is_that_of_the_mask():
    outline = (ellipse(3, 4, 43, 24), ellipse(30, 10, 60, 90))
    masks = decode_masks([outline], np.zeros((1, 4)), 50, 45)
    (code,) = encode_masks(masks)
    for segmentation in (outline, code):
        assert coco_masks.area(segmentation, 50, 45) == masks.sum()


def test_touches():
    code = encode_masks(
        np.pad(np.ones((1, 2, 3), bool), [(0, 0), (4, 4), (5, 5)])
    )
    for outline in (code[0], (np.array([5.0, 4, 8, 4, 8, 6, 5, 6]),)):
        assert coco_masks.touches(outline, (7, 5, 20, 20))
        assert coco_masks.touches(outline, (0, 0, 6, 5))
        assert not coco_masks.touches(outline, (8, 4, 20, 20))
        assert not coco_masks.touches(outline, (0, 0, 20, 4))
    (nothing,) = encode_masks(np.zeros((1, 4, 4), bool))
    assert not coco_masks.touches(nothing, (0, 0, 4, 4))
