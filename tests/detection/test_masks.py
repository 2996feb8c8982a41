import functools

import keras
import numpy as np
import pytest

from keras_nonlocal.data.coco_masks import mini_masks
from keras_nonlocal.detection.masks import mask_targets
from keras_nonlocal.detection.masks import paste_masks
from keras_nonlocal.detection.roi_align import roi_align
from tests.checks import numpy
from tests.detection import runs


def rows_and_columns(mask):
    """Of a mask that is a filled rectangle: first and last of both."""
    rows, columns = np.nonzero(mask)
    found = [rows.min(), rows.max(), columns.min(), columns.max()]
    assert len(rows) == (found[1] - found[0] + 1) * (found[3] - found[2] + 1)
    return found


@pytest.mark.parametrize(
    "box, expected",
    [([2, 3, 6, 8], [3, 7, 2, 5]), ([2.4, 3.6, 6.4, 8.6], [4, 8, 2, 5])],
)
def test_full_mask_fills_its_box(box, expected):
    pasted = numpy(paste_masks(np.ones((1, 28, 28)), [box], 10, 10))
    assert pasted.dtype == bool
    assert rows_and_columns(pasted[0]) == expected


def test_quarter_of_a_mask_is_a_quarter_of_its_box():
    mask = [[[1.0, 0.0], [0.0, 0.0]]]
    pasted = numpy(paste_masks(mask, [[0, 0, 4, 4]], 6, 6))[0]
    assert rows_and_columns(pasted) == [0, 1, 0, 1]


def sample(mask, box, height, width):
    """`torch.nn.functional.grid_sample`, zeros outside, one pixel at a time."""
    side = len(mask)
    padded = np.pad(mask, 1)
    x1, y1, x2, y2 = box
    values = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = (i + 0.5 - y1) / (y2 - y1) * side + 0.5
            x = (j + 0.5 - x1) / (x2 - x1) * side + 0.5
            if not (0 <= y < side + 1 and 0 <= x < side + 1):
                continue
            top, left = int(y), int(x)
            down, across = y - top, x - left
            corners = padded[top : top + 2, left : left + 2]
            values[i, j] = (
                np.array([1 - down, down]) @ corners @ [1 - across, across]
            )
    return values


def test_paste_is_grid_sample_in_every_way(rng):
    masks = rng.uniform(size=(4, 7, 7)).astype("float32")
    # Inside, over the border, smaller than a pixel, and larger than the image.
    boxes = [[3, 2, 17, 9], [-6, 5, 8, 22], [4, 4, 4.6, 9], [-20, -9, 50, 60]]
    boxes = np.array(boxes, "float32")
    expected = np.stack(
        [sample(*each, 15, 24) for each in zip(masks, boxes, strict=True)]
    )
    assert np.abs(expected - 0.4).min() > 1e-4  # Nothing to round.
    paste = functools.partial(paste_masks, height=15, width=24, threshold=0.4)
    for way, pasted in runs.results(paste, masks, boxes).items():
        np.testing.assert_array_equal(pasted, expected >= 0.4, err_msg=way)


def test_empty_boxes_and_no_masks():
    boxes = [[3, 3, 3, 8], [0, 0, 0, 0], [5, 5, 2, 2]]
    assert not numpy(paste_masks(np.ones((3, 28, 28)), boxes, 9, 9)).any()
    nothing = paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), 9, 8)
    assert tuple(nothing.shape) == (0, 9, 8)


def test_targets_are_roi_align_of_the_padded_mask(rng):
    masks = (rng.uniform(size=(2, 3, 6, 6)) < 0.5).astype("uint8")
    start = rng.uniform(0, 40, (2, 3, 2))
    truth = np.concatenate([start, start + rng.uniform(9, 40, (2, 3, 2))], -1)
    matched = np.array([[2, 0, 1, 1, 0], [0, 0, 2, 1, 2]])
    own = np.take_along_axis(truth, matched[..., None], axis=1)
    regions = (own + rng.normal(scale=4, size=own.shape)).astype("float32")
    # The region in cells of the mask, which has got one more on every side.
    size = np.tile(own[..., 2:] - own[..., :2], 2)
    relative = (regions - np.tile(own[..., :2], 2)) / size * 6 + 1
    padded = np.pad(masks, [(0, 0), (0, 0), (1, 1), (1, 1)])
    padded = np.take_along_axis(padded, matched[..., None, None], axis=1)
    aligned = roi_align(
        [padded.reshape(10, 8, 8, 1).astype("float32")],
        [1],
        relative.reshape(10, 1, 4).astype("float32"),
        14,
    )
    expected = numpy(aligned).reshape(2, 5, 14, 14) >= 0.499
    function = functools.partial(mask_targets, size=14)
    arrays = masks, truth.astype("float32"), regions, matched
    for way, targets in runs.results(function, *arrays).items():
        np.testing.assert_array_equal(targets, expected, err_msg=way)


def test_half_of_a_bin_is_inside(rng):
    # An edge along the middle of the bins, wherever the boxes are: rounding
    # would leave about one of 16 of these bins out at a threshold of a half.
    masks = np.zeros((1, 1, 8, 8), "uint8")
    masks[..., :5] = 1
    start = rng.uniform(0, 600, (500, 2))
    size = rng.uniform(20, 300, (500, 2))
    truth = np.concatenate([start, start + size], -1).astype("float32")[None]
    targets = numpy(
        mask_targets(
            np.repeat(masks, 500, axis=1),
            truth,
            truth,
            np.arange(500)[None],
            size=4,
        )
    )
    expected = np.broadcast_to([1, 1, 1, 0], targets.shape)
    np.testing.assert_array_equal(targets, expected)


def test_targets_outside_of_the_object_and_of_empty_objects():
    masks = np.ones((1, 2, 4, 4), "uint8")
    truth = [[[0, 0, 4, 4], [5, 5, 5, 5]]]
    regions = [[[2, 0, 6, 8], [10, 10, 20, 20], [0, 0, 9, 9], [3, 3, 3, 3]]]
    found = numpy(mask_targets(masks, truth, regions, [[0, 0, 1, 0]], size=4))
    assert rows_and_columns(found[0, 0]) == [0, 1, 0, 1]
    assert not found[0, 1:3].any()
    assert np.isfinite(found).all()


def stars(rng, number):
    """Star-shaped polygons of 24 to 400 pixels, `(points, 2)`."""
    for _ in range(number):
        points = rng.integers(5, 14)
        angles = np.sort(rng.uniform(0, 2 * np.pi, points))
        radii = rng.uniform(0.4, 1, points)[:, None]
        radii = radii * np.exp(rng.uniform(np.log(12), np.log(200), 2))
        arms = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii
        yield arms + rng.uniform(300, 600, 2)


def draw(polygon, box, size):
    """A polygon in a box, drawn at size x size as detectron2 does it."""
    coco = pytest.importorskip("pycocotools.mask")
    scale = size / (box[2:] - box[:2])
    points = ((polygon - box[:2]) * scale).ravel().tolist()
    return coco.decode(coco.merge(coco.frPyObjects([points], size, size)))


@pytest.fixture(scope="module")
def objects():
    """Polygons, their boxes, and regions beside them."""
    rng = np.random.default_rng(0)
    polygons = list(stars(rng, 100))
    boxes = np.array([[*p.min(0), *p.max(0)] for p in polygons])
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    regions = boxes + 0.075 * rng.normal(size=boxes.shape) * sides
    return polygons, boxes, regions


def test_targets_are_nearly_those_drawn_from_polygons(objects):
    polygons, boxes, regions = objects
    expected = [draw(*each, 28) for each in zip(polygons, regions, strict=True)]
    outlines = [(p.ravel(),) for p in polygons]
    masks = mini_masks(outlines, boxes, 1000, 1000, 56)
    targets = numpy(
        mask_targets(masks[None], boxes[None], regions[None], [range(100)])
    )[0]
    assert 0.4 < np.mean(expected) < 0.6
    assert (targets != expected).mean() < 0.013
    # Nor larger or smaller as a whole.
    assert abs((targets - expected).mean()) < 0.004


def test_polygon_through_the_mask_head_and_back(objects):
    polygons, boxes, _ = objects
    few = range(0, 100, 10)
    masks = np.stack([draw(polygons[i], boxes[i], 28) for i in few])
    pasted = numpy(paste_masks(masks, boxes[list(few)], 820, 820))
    image = np.array([0, 0, 820, 820])
    drawn = np.stack([draw(polygons[i], image, 820) for i in few]) > 0
    both = (pasted & drawn).sum((1, 2))
    assert np.mean(both / (pasted | drawn).sum((1, 2))) > 0.94


def test_loss_is_told_nothing_by_the_targets():
    targets = mask_targets(
        np.ones((1, 1, 4, 4), "uint8"),
        np.array([[[0, 0, 4, 4]]], "float64"),
        [[[0, 0, 4, 4]]],
        np.array([[0]], "int64"),
    )
    assert tuple(targets.shape) == (1, 1, 28, 28)
    assert keras.backend.standardize_dtype(targets.dtype) == "float32"
