import functools

import numpy as np
import pytest

from keras_nonlocal.detection import boxes as module
from tests.checks import numpy
from tests.detection import runs
from tests.gradients import gradients

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def some(rng, *shape):
    first = rng.uniform(0, 50, (*shape, 2))
    size = rng.uniform(10, 40, (*shape, 2))
    return np.concatenate([first, first + size], -1).astype("float32")


def plain_iou(a, b, offset=0.0):
    """Of two boxes, number by number."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    if min(width, height) <= 0:
        return 0.0
    both = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return width * height / (sum(both) - width * height)


def test_iou_of_detectron2():
    others = [
        [0, 0, 1, 1],
        [0, 0, 0.5, 1],
        [0, 0, 1, 0.5],
        [0, 0, 0.5, 0.5],
        [0.5, 0.5, 1, 1],
        [0.5, 0.5, 1.5, 1.5],
    ]
    iou = numpy(module.pairwise_iou([[0, 0, 1, 1], [0, 0, 1, 1]], others))
    expected = [1, 0.5, 0.5, 0.25, 0.25, 0.25 / 1.75]
    np.testing.assert_allclose(iou, [expected, expected], rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_iou_of_batches_in_every_way(offset, rng):
    boxes, others = some(rng, 7), some(rng, 2, 3)
    function = functools.partial(module.pairwise_iou, offset=offset)
    expected = [
        [[plain_iou(a, b, offset) for b in row] for a in boxes]
        for row in others
    ]
    assert np.count_nonzero(expected) > 10
    for way, iou in runs.results(function, boxes, others).items():
        np.testing.assert_allclose(iou, expected, rtol=1e-5, err_msg=way)


def test_area():
    boxes = [[1, 2, 4, 4], [1, 1, 1, 5], [3, 3, 1, 1]]
    np.testing.assert_array_equal(numpy(module.area(boxes)), [6, 0, 0])
    # An inverted box of two negative sides has no area either.
    np.testing.assert_array_equal(numpy(module.area(boxes, 1.0)), [12, 5, 0])


def test_boxes_that_are_none_overlap_nothing():
    nan, inf = np.nan, np.inf
    odd = [
        [nan, 0, 4, 4],
        [0, 0, inf, inf],
        [-inf, -inf, inf, inf],
        [0, 0, 3e38, 3e38],
        [2, 2, 2, 9],
        [4, 4, 0, 0],
    ]
    sound = [[0, 0, 4, 4], [1, 1, 2, 2]]
    results = runs.results(
        module.pairwise_iou, *(np.float32(x) for x in (odd + sound, odd))
    )
    for way, iou in results.items():
        np.testing.assert_array_equal(iou, np.zeros((8, 6)), err_msg=way)


def test_targets_of_detectron2():
    source = np.array([[0.8, 1.1, 3.2, 2.8], [2.3, 2.5, 7, 8]], "float32")
    target = np.array([[1, 1, 3, 3], [2, 2, 6, 6]], "float32")
    deltas = numpy(module.encode(source, target, WEIGHTS))
    expected = [
        [0, 0.294118, -0.911608, 0.812595],
        [-1.382979, -2.272727, -0.806341, -1.592269],
    ]
    np.testing.assert_allclose(deltas, expected, atol=1e-5)
    assert np.abs(deltas).sum() / 2 == pytest.approx(4.036318, abs=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_decoding_undoes_encoding_in_every_way(offset, rng):
    source, target = some(rng, 2, 5), some(rng, 2, 5)

    def there_and_back(source, target):
        deltas = module.encode(source, target, WEIGHTS, offset)
        return module.decode(deltas, source, WEIGHTS, offset)

    for way, boxes in runs.results(there_and_back, source, target).items():
        np.testing.assert_allclose(boxes, target, atol=1e-4, err_msg=way)


def test_deltas_of_detectron():
    # Of its bbox_transform_inv: sides count pixels, x2 is the last of them.
    deltas = module.encode([10, 10, 19, 29], [15, 10, 34, 29], offset=1.0)
    # 10 and 20 pixels wide, from the centre 15 to the centre 25.
    np.testing.assert_allclose(
        numpy(deltas), [1.0, 0.0, np.log(2.0), 0.0], atol=1e-6
    )
    boxes = numpy(module.decode([1.0, 0, 0, 0], [10, 10, 19, 29], offset=1.0))
    np.testing.assert_allclose(boxes, [20, 10, 29, 29])


def test_decoding_of_mmdetection():
    source = [[0, 0, 1, 1]] * 3 + [[5, 5, 5, 5]]
    deltas = [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 2, -1], [0.7, -1.9, -0.5, 0.3]]
    boxes = module.clip(module.decode(deltas, source), (32, 32))
    expected = [
        [0, 0, 1, 1],
        [0.1409, 0.1409, 2.8591, 2.8591],
        [0, 0.3161, 4.1945, 0.6839],
        [5, 5, 5, 5],
    ]
    np.testing.assert_allclose(numpy(boxes), expected, atol=1e-4)


def test_sides_grow_up_to_a_limit():
    huge = [0.0, 0.0, 10.0, np.inf]
    boxes = numpy(module.decode(huge, [0, 0, 16, 32]))
    np.testing.assert_allclose(boxes[2:] - boxes[:2], [1000, 2000], rtol=1e-5)
    # With weights, the limit is on what they are divided by.
    weighted = numpy(module.decode([0, 0, 20, 20.0], [0, 0, 16, 32], WEIGHTS))
    np.testing.assert_allclose(weighted[2] - weighted[0], 16 * np.exp(4.0))


def test_deltas_of_classes_move_one_box(rng):
    source, deltas = some(rng, 5), rng.normal(size=(2, 5, 3, 4))
    boxes = numpy(module.decode(deltas, source[:, None]))
    assert boxes.shape == (2, 5, 3, 4)
    alone = numpy(module.decode(deltas[1, 4, 2], source[4]))
    np.testing.assert_array_equal(boxes[1, 4, 2], alone)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_clips_each_image_by_its_size(offset):
    boxes = np.array([[[-5, 3, 50, 60], [90, -9, 99, -1]]] * 2, "float32")
    sizes = np.array([[20, 40], [100, 95]], "int32")
    function = functools.partial(module.clip, offset=offset)
    expected = np.array(
        [
            [[0, 3, 40, 20], [40, 0, 40, 0]],
            [[0, 3, 50, 60], [90, 0, 95, 0]],
        ]
    )
    ends = np.array([[40, 20], [95, 100]])[:, None]
    for corner in (slice(0, 2), slice(2, 4)):
        part = expected[..., corner]
        expected[..., corner] = np.minimum(part, ends - offset)
    for way, clipped in runs.results(function, boxes, sizes).items():
        np.testing.assert_array_equal(clipped, expected, err_msg=way)


def test_gradient_of_encoding(rng):
    source, target = some(rng, 4), some(rng, 4)
    upstream = rng.normal(size=(4, 4)).astype("float32")
    encode = functools.partial(module.encode, weights=WEIGHTS)
    _, (of_source, of_target) = gradients(encode, [source, target], upstream)

    side, target_side = (x[:, 2:] - x[:, :2] for x in (source, target))
    centre, target_centre = (
        (x[:, 2:] + x[:, :2]) / 2 for x in (source, target)
    )
    shift, scale = upstream[:, :2] * 10, upstream[:, 2:] * 5
    of_centre = -shift / side
    way = target_centre - centre
    of_side = -shift * way / side**2 - scale / side
    np.testing.assert_allclose(
        of_source, corners(of_centre, of_side), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        of_target, corners(shift / side, scale / target_side), rtol=1e-3
    )


def test_gradient_of_decoding(rng):
    source = some(rng, 4)
    deltas = rng.normal(scale=0.3, size=(4, 4)).astype("float32")
    deltas[3, 2:] = 5.0  # Beyond the limit.
    upstream = rng.normal(size=(4, 4)).astype("float32")
    _, (of_deltas, of_source) = gradients(
        module.decode, [deltas, source], upstream
    )

    side = source[:, 2:] - source[:, :2]
    grown = np.exp(np.minimum(deltas[:, 2:], np.log(1000 / 16)))
    of_centre = upstream[:, :2] + upstream[:, 2:]
    of_half = upstream[:, 2:] - upstream[:, :2]
    of_scale = of_half * side * grown / 2
    of_scale[3] = 0.0
    np.testing.assert_allclose(
        of_deltas,
        np.concatenate([of_centre * side, of_scale], -1),
        rtol=1e-4,
        atol=1e-4,
    )
    of_side = of_centre * deltas[:, :2] + of_half * grown / 2
    np.testing.assert_allclose(
        of_source, corners(of_centre, of_side), rtol=1e-4, atol=1e-4
    )


def test_gradient_of_iou(rng):
    # Corners in one order: the overlap is x2 - u1 wide and y2 - v1 high.
    boxes = np.array([[0, 0, 10, 8], [1, 2, 9, 7]], "float32")
    others = np.array([[4, 3, 15, 12], [70, 70, 80, 80]], "float32")
    upstream = np.array([[2.0, 1.0], [-1.0, 1.0]], "float32")
    iou, (of_boxes, of_others) = gradients(
        module.pairwise_iou, [boxes, others], upstream
    )
    step = 1e-4
    for slot, expected in ((0, of_boxes), (1, of_others)):
        for place in np.ndindex(2, 4):
            totals = []
            for sign in (1, -1):
                moved = [boxes.astype("float64"), others.astype("float64")]
                moved[slot][place] += sign * step
                values = [[plain_iou(a, b) for b in moved[1]] for a in moved[0]]
                totals.append(np.sum(upstream * values))
            difference = (totals[0] - totals[1]) / (2 * step)
            assert expected[place] == pytest.approx(difference, abs=1e-5)
    assert np.count_nonzero(of_boxes) == 8
    assert not of_others[1].any()


def test_boxes_that_fill_up_have_finite_gradients(rng):
    nothing = np.zeros((3, 4), "float32")
    upstream = np.ones((3, 4), "float32")
    boxes = some(rng, 3)
    for source, target in (
        (nothing, boxes),
        (boxes, nothing),
        (nothing, nothing),
    ):
        for function in (module.encode, module.decode):
            value, of_inputs = gradients(function, [source, target], upstream)
            assert np.isfinite([value, *of_inputs]).all()
        value, of_inputs = gradients(
            module.pairwise_iou, [source, target], upstream[:, :3]
        )
        assert not np.any([*of_inputs])
        assert not value.any()


def test_float32_of_any_dtype():
    for dtype in ("float16", "float64", "int32"):
        boxes = np.array([[0, 0, 500, 500]], dtype)
        area = numpy(module.area(boxes))
        assert area.dtype == "float32"
        # More than a float16 can hold.
        np.testing.assert_array_equal(area, [250000])


def test_boxes_have_four_numbers():
    four, five = np.zeros((2, 4)), np.zeros((2, 5))
    for name, call in (
        ("boxes", lambda: module.area(five)),
        ("others", lambda: module.pairwise_iou(four, five)),
        ("target", lambda: module.encode(four, five)),
        ("deltas", lambda: module.decode(five, four)),
    ):
        with pytest.raises(
            ValueError, match=rf"`{name}` must be .*4\)\..*shape \(2, 5\)"
        ):
            call()
    with pytest.raises(ValueError, match=r"\(..., N, 4\).*shape \(4,\)"):
        module.pairwise_iou(four, four[0])


def corners(of_centre, of_side):
    """The gradient by corners, of that by centre and side."""
    return np.concatenate(
        [of_centre / 2 - of_side, of_centre / 2 + of_side], -1
    )
