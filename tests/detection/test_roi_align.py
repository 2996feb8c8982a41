import functools
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_nonlocal.detection.roi_align import assign_levels
from keras_nonlocal.detection.roi_align import roi_align
from tests import gradients
from tests.checks import numpy
from tests.detection import roi_align_case as case
from tests.detection import runs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/roi_align_torchvision.npz"


def align(x, box, *args, **kwargs):
    """Of one region on one map `(height, width)`, `(size, size)`."""
    x = ops.convert_to_tensor(np.asarray(x, "float32")[None, ..., None])
    boxes = np.array([[box]], "float32")
    return numpy(roi_align([x], [1], boxes, *args, **kwargs))[0, 0, ..., 0]


def pull(maps, strides, boxes, dy, *args, **kwargs):
    """The result, and the gradients by the maps."""

    def function(*maps):
        return roi_align(maps, strides, boxes, *args, **kwargs)

    return gradients.gradients(function, maps, dy)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as values:
        return dict(values)


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("aligned, first", [(True, 4.5), (False, 7.5)])
def test_plane_of_detectron2(ratio, aligned, first):
    plane = np.arange(25).reshape(5, 5)
    expected = first + np.add.outer(2.5 * np.arange(4), 0.5 * np.arange(4))
    found = align(plane, [1, 1, 3, 3], 4, ratio, aligned)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


BLOCK = ((0.47265625, 0.4296875, 0.4296875, 0.04296875),)
BLOCK += ((0.4296875, 0.390625, 0.390625, 0.0390625),) * 2
BLOCK += ((0.04296875, 0.0390625, 0.0390625, 0.00390625),)


@pytest.mark.parametrize(
    "x, box, expected, gradient",
    [
        (
            [[1, 2], [3, 4]],
            [0, 0, 1, 1],
            [[1, 1.25], [1.5, 1.75]],
            [[3.0625, 0.4375], [0.4375, 0.0625]],
        ),
        (
            [[4, 3], [2, 1]],
            [0, 0, 1, 1],
            [[4, 3.75], [3.5, 3.25]],
            [[3.0625, 0.4375], [0.4375, 0.0625]],
        ),
        (
            [[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]],
            [0, 0, 3, 3],
            [[1.9375, 4.75], [7.5625, 10.375]],
            BLOCK,
        ),
    ],
)
def test_numbers_of_mmcv(x, box, expected, gradient):
    x = np.array(x, "float32")[None, ..., None]
    dy = np.ones((1, 1, 2, 2, 1), "float32")
    y, (dx,) = pull([x], [1], np.array([[box]], "float32"), dy, 2)
    np.testing.assert_array_equal(y[0, 0, ..., 0], expected)
    np.testing.assert_array_equal(dx[0, ..., 0], gradient)


def test_region_without_an_area(rng):
    x = rng.normal(size=(1, 5, 5, 1)).astype("float32")
    boxes = np.array([[[3, 4, 5, 4]]], "float32")
    dy = np.ones((1, 1, 7, 7, 1), "float32")
    # Without samples nothing is found, and nobody is told.
    y, (dx,) = pull([x], [1], boxes, dy, 7, 0)
    assert not y.any() and not dx.any()
    # A fixed number of samples is taken, all in one row of cells.
    y, (dx,) = pull([x], [1], boxes, dy, 7, 2)
    assert y.any() and dx.any()
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))


def test_half_the_map_is_half_the_region(rng):
    x = 100 * rng.uniform(size=(30, 30))
    half = x.reshape(15, 2, 15, 2).mean((1, 3))
    np.testing.assert_allclose(
        align(x, [10, 10, 20, 20], 5, 0),
        align(half, [5, 5, 10, 10], 5, 0),
        atol=1e-4,
    )


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_constant_map_stays_constant(ratio):
    for box in ([1, 2, 9, 6.5], [-0.4, 0, 12, 9], [3, 3, 3.1, 3.2]):
        found = align(np.full((9, 12), 7.0), box, 7, ratio, False)
        np.testing.assert_allclose(found, 7.0, rtol=1e-6)


@pytest.mark.parametrize("size, ratio, aligned, has_gradient", case.CASES)
def test_agrees_with_torchvision(golden, size, ratio, aligned, has_gradient):
    boxes, levels = case.regions()
    y, dx = pull(
        case.maps(),
        case.STRIDES,
        boxes,
        case.cotangent(size),
        size,
        ratio,
        aligned,
        levels,
    )
    name = case.key(size, ratio, aligned)
    np.testing.assert_allclose(y, golden[name], atol=1e-5)
    for level, gradient in enumerate(dx if has_gradient else []):
        expected = golden[f"{name}_gradient_{level}"]
        np.testing.assert_allclose(gradient, expected, atol=3e-5)


@pytest.mark.parametrize("ratio", [1, 0])
def test_gradient_is_that_of_finite_differences(rng, ratio):
    x = rng.normal(size=(1, 5, 5, 1)).astype("float32")
    # Those of torchvision's check, and two partly outside.
    boxes = [[0, 0, 4, 4], [0, 2, 3, 4], [2, 2, 4, 4]]
    boxes = np.array([[*boxes, [-3, -2, 2, 9], [-1, 4, 6, 6]]], "float32")
    dy = rng.normal(size=(1, 5, 2, 2, 1)).astype("float32")
    _, (dx,) = pull([x], [1], boxes, dy, 2, ratio, False)
    # The result is linear in the map: a step of one is as good as any.
    steps = np.eye(25, dtype="float32").reshape(25, 5, 5, 1)
    moved = roi_align(
        [np.concatenate([x + steps, x - steps])],
        [1],
        np.repeat(boxes, 50, axis=0),
        2,
        ratio,
        False,
    )
    change = (numpy(moved)[:25] - numpy(moved)[25:]) / 2
    expected = (change * dy).sum((1, 2, 3, 4)).reshape(dx.shape)
    np.testing.assert_allclose(dx, expected, atol=1e-5)


def test_every_way_gives_the_same(rng):
    maps = [
        rng.normal(size=(2, 24 // k, 32 // k, 4)).astype("float32")
        for k in (1, 2)
    ]
    corners = rng.uniform(-20, 120, (2, 9, 2, 2)).astype("float32")
    boxes = np.sort(corners, axis=2).reshape(2, 9, 4)
    levels = rng.integers(0, 2, (2, 9)).astype("int32")

    def function(fine, coarse, boxes, levels):
        align = functools.partial(
            roi_align,
            strides=(4, 8),
            boxes=boxes,
            size=3,
            sampling_ratio=0,
            levels=levels,
        )
        if keras.backend.backend() != "tensorflow":
            return align([fine, coarse])
        return _with_gradient(align, [fine, coarse])

    results = runs.results(function, *maps, boxes, levels)
    first, *others = results.values()
    for way in others:
        keras.tree.map_structure(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
            first,
            way,
        )


def _with_gradient(function, maps):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(maps)
        y = function(maps)
        loss = tf.reduce_sum(y**2)
    return y, tape.gradient(loss, maps)


def test_border_reaches_one_cell_out():
    for place, expected in (
        [-0.51, 0.0],
        [-0.49, 7.0],
        [4.49, 7.0],
        [4.51, 0.0],
    ):
        # Of one bin the only sample: half a cell before its middle.
        box = [1, place - 1, 3, place + 1]
        for some in (box, [*box[1::-1], *box[:1:-1]]):
            assert align(np.full((4, 4), 7.0), some, 1, 1) == expected


def test_reversed_region_is_seen_in_the_mirror(rng):
    x = rng.normal(size=(8, 8))
    reversed_region = align(x, [6, 7, 1, 2], 3)
    expected = align(x, [1, 2, 6, 7], 3)[::-1, ::-1]
    np.testing.assert_allclose(reversed_region, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_of_the_features_alone(rng, dtype):
    # On a map this wide, positions of half precision are off by whole cells.
    x = ops.cast(rng.normal(size=(1, 4, 1500, 2)), dtype)
    boxes = np.array([[[5600.3, 1, 5877.7, 13], [0, 0, 900, 16]]], "float32")
    y = roi_align([x], [4], boxes, 7)
    expected = roi_align([ops.cast(x, "float32")], [4], boxes, 7)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    difference = numpy(ops.cast(y, "float32")) - numpy(expected)
    limit = {"float16": 2e-3, "bfloat16": 2e-2}[dtype]
    assert np.abs(difference).max() < limit


@pytest.mark.parametrize("ratio", [0, 2])
def test_absurd_regions_do_not_spoil_others(rng, ratio):
    x = rng.normal(size=(1, 8, 8, 2)).astype("float32")
    good = [1, 2, 6, 7]
    absurd = [[np.nan] * 4, [0, 0, np.inf, 4], [6, 6, 2, 2], [-1e9, 0, 1e9, 9]]
    boxes = np.array([[good, *absurd, [500, 500, 600, 600]]], "float32")
    dy = np.ones((1, 6, 7, 7, 2), "float32")
    y, (dx,) = pull([x], [1], boxes, dy, 7, ratio, max_ratio=3)
    assert np.isfinite(y).all() and np.isfinite(dx).all()
    assert not y[0, 5].any()
    alone = numpy(roi_align([x], [1], boxes[:, :1], 7, ratio))
    np.testing.assert_allclose(y[:, :1], alone, atol=1e-6)


def test_samples_are_as_many_as_cells_up_to_a_bound(rng):
    x = rng.normal(size=(9, 21))
    box = [0, 1, 20, 7]  # 10 cells a bin across, 3 down.
    # The mean over other numbers of samples is another one.
    few, many = (align(x, box, 2, 0, max_ratio=most) for most in (3, 10))
    np.testing.assert_allclose(few, align(x, box, 2, 3), atol=1e-6)
    assert np.abs(many - few).max() > 0.01
    np.testing.assert_array_equal(many, align(x, box, 2, 0, max_ratio=12))


def test_boxes_get_no_gradient(rng):
    x = rng.normal(size=(1, 8, 8, 1)).astype("float32")
    boxes = np.array([[[1, 2, 6, 7]]], "float32")
    dy = rng.normal(size=(1, 1, 3, 3, 1)).astype("float32")

    def function(x):
        return roi_align([x], [1], ops.add(ops.mean(x), boxes), 3)

    _, (dx,) = gradients.gradients(function, [x], dy)
    _, (expected,) = pull([x], [1], boxes + x.mean(), dy, 3)
    np.testing.assert_allclose(dx, expected, atol=1e-5)


def test_no_regions():
    x = np.ones((2, 6, 6, 3), "float32")
    empty = roi_align([x], [1], np.zeros((2, 0, 4), "float32"), 7, 0)
    assert tuple(empty.shape) == (2, 0, 7, 7, 3)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
def test_levels_by_the_side(epsilon):
    sides = [28, 111.99, 112, 223.99, 224, 447.9, 448, 2000]
    boxes = np.array([[0, 0, side, side] for side in sides], "float32")
    found = numpy(assign_levels(boxes, epsilon=epsilon))
    np.testing.assert_array_equal(found, [2, 2, 3, 3, 4, 4, 5, 5])
    mmdet = [587.8285, 52.1405, 886.2484, 341.5644]
    assert numpy(assign_levels(mmdet)) == 4


def test_levels_of_torchvision(golden):
    boxes = np.array([[0, 0, s, s] for s in case.sides()], "float32")
    found = numpy(assign_levels(boxes, epsilon=1e-6, rule="level"))
    np.testing.assert_array_equal(found, golden["levels"])


def test_levels_of_empty_and_of_detectron_boxes():
    assert numpy(assign_levels([5, 5, 5, 5])) == 2
    assert numpy(assign_levels([0, 0, 111, 111])) == 2
    assert numpy(assign_levels([0, 0, 111, 111], offset=1.0)) == 3
    assert numpy(assign_levels([0, 0, 2000, 2000], 3, 4)) == 4
    with pytest.raises(ValueError, match="`rule` must be one of"):
        assign_levels([0, 0, 1, 1], rule="area")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"strides": [4]}, "`strides` a number for each"),
        ({"levels": None}, "`levels` must tell"),
        ({"size": 0}, "`size` must be"),
        ({"size": 7.0}, "`size` must be"),
        ({"sampling_ratio": -1}, "`sampling_ratio` must be"),
        ({"max_ratio": 0}, "`max_ratio` must be"),
    ],
)
def test_bad_arguments_are_named(change, message):
    x = np.zeros((1, 4, 4, 1), "float32")
    arguments = {
        "features": [x, x],
        "strides": [4, 8],
        "boxes": np.zeros((1, 1, 4), "float32"),
        "size": 7,
        "levels": [[0]],
    }
    with pytest.raises(ValueError, match=message):
        roi_align(**{**arguments, **change})
