import functools

import keras
import numpy as np
import pytest

from keras_nonlocal.detection import nms as module
from keras_nonlocal.detection.boxes import pairwise_iou
from tests.checks import numpy
from tests.detection import runs


def clusters(rng, *shape, spread=8.0):
    """Boxes in crowds, as a network proposes them."""
    centres = rng.uniform(0, 200, (12, 2))[rng.integers(0, 12, shape)]
    centres += rng.normal(scale=spread, size=(*shape, 2))
    half = 20 * np.exp(rng.normal(scale=0.3, size=(*shape, 2)))
    return np.concatenate([centres - half, centres + half], -1).astype(
        "float32"
    )


def greedy(iou, threshold, valid=None, groups=None):
    """The loop as everyone writes it, over one list."""
    pairs = iou > np.float32(threshold)
    if groups is not None:
        pairs &= groups[:, None] == groups
    left = np.ones(len(iou), bool) if valid is None else valid.copy()
    for i in range(len(iou)):
        if left[i]:
            left[i + 1 :] &= ~pairs[i, i + 1 :]
    return left


def test_boxes_of_mmcv():
    boxes = np.array(
        [[3, 6, 9, 11], [3, 7, 10, 12], [6, 3, 8, 7], [1, 4, 13, 7]]
    )
    # In the order of their scores .9, .7, .6, .2; in theirs it keeps 1, 0, 3.
    np.testing.assert_array_equal(
        numpy(module.nms(boxes, 0.3)), [True, False, True, True]
    )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_is_the_greedy_loop(threshold, rng):
    boxes = clusters(rng, 1000)
    # The test of torchvision: the last box overlaps the first, which is kept,
    # by a little more than the threshold.
    x1, y1, x2, y2 = boxes[0]
    cut = (x2 - x1) * (1 - threshold - 1e-5)
    boxes[-1] = x1, y1, x2 - cut, y2
    iou = numpy(pairwise_iou(boxes, boxes))
    assert threshold < iou[0, -1] < threshold + 2e-5
    expected = greedy(iou, threshold)
    assert not expected[-1]
    assert 10 < expected.sum() < 990
    keep = runs.result(lambda x: module.nms(x, threshold), boxes)
    np.testing.assert_array_equal(keep, expected)


def test_lists_with_groups_and_boxes_that_do_not_count_in_every_way(rng):
    boxes = clusters(rng, 2, 2, 600)
    boxes[1, 1, :50:7, 2] = np.nan
    boxes[0, 1, :50:9, 3] = np.inf
    valid = rng.uniform(size=boxes.shape[:-1]) < 0.8
    valid[0, 0] = False
    groups = rng.integers(0, 3, boxes.shape[:-1]).astype("int32")
    is_sound = np.isfinite(boxes).all(-1)
    iou = numpy(pairwise_iou(boxes, boxes))
    expected = np.zeros(valid.shape, bool)
    for place in np.ndindex(2, 2):
        expected[place] = greedy(
            iou[place], 0.5, valid[place] & is_sound[place], groups[place]
        )
    results = runs.results(
        lambda boxes, valid, groups: module.nms(boxes, 0.5, valid, groups),
        boxes,
        valid,
        groups,
    )
    for way, keep in results.items():
        np.testing.assert_array_equal(keep, expected, err_msg=way)


def test_a_chain_in_which_each_drops_the_next():
    # As deep as the list is long, across blocks: 1, 3, 5, ... are left.
    first = np.arange(600, dtype="float32")
    boxes = np.stack([first, 0 * first, first + 2, 0 * first + 1], -1)
    keep = runs.result(lambda x: module.nms(x, 0.3), boxes)
    np.testing.assert_array_equal(keep, np.arange(600) % 2 == 0)


def test_drops_above_the_threshold_not_at_it():
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], "float32")
    assert numpy(module.nms(boxes, 0.5)).all()
    assert not numpy(module.nms(boxes, 0.4999)).all()


def test_sides_that_count_pixels():
    # 10 by 10 pixels, and 5 of its columns.
    boxes = np.array([[0, 0, 9, 9], [0, 0, 4, 9]], "float32")
    assert numpy(module.nms(boxes, 0.4999)).all()
    assert not numpy(module.nms(boxes, 0.4999, offset=1.0)).all()
    # The pixel in the corner.
    assert numpy(module.nms([[0, 0, 0, 0]], 0.5, offset=1.0)).all()


def test_odd_boxes_are_dropped_and_drop_none():
    nan, inf = np.nan, np.inf
    boxes = np.array(
        [
            [nan, nan, nan, nan],
            [0, 0, inf, inf],
            [-inf, -inf, inf, inf],
            [0, 0, 10, 10],
            [0, 0, 10, nan],
            [0, 0, 10, 9],
            [0, 0, 0, 0],
            [0, 0, 3e38, 3e38],
        ],
        "float32",
    )
    expected = [False] * 3 + [True, False, False, True, True]
    keep = runs.result(lambda x: module.nms(x, 0.5), boxes)
    np.testing.assert_array_equal(keep, expected)


def test_a_block_without_boxes_between_others():
    boxes = np.tile(np.array([0, 0, 1, 1], "float32"), (700, 1))
    boxes[:, [0, 2]] += np.arange(700)[:, None]
    valid = (np.arange(700) < 100) | (np.arange(700) >= 600)
    keep = runs.result(lambda x, valid: module.nms(x, 0.5, valid), boxes, valid)
    np.testing.assert_array_equal(keep, valid)


def test_refuses_what_does_not_go_with_the_boxes():
    boxes = np.zeros((2, 3, 4))
    message = r"must have one value for each box, shape \(2, 3\).*shape \("
    with pytest.raises(ValueError, match=f"`valid` {message}3,"):
        module.nms(boxes, 0.5, valid=[True] * 3)
    with pytest.raises(ValueError, match=f"`groups` {message}2, 2"):
        module.nms(boxes, 0.5, groups=np.zeros((2, 2), "int32"))
    with pytest.raises(ValueError, match=r"\(..., N, 4\).*shape \(4,\)"):
        module.nms(np.zeros(4), 0.5)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (1,)])
def test_few_boxes(shape):
    boxes = np.zeros((*shape, 4), "float32")
    keep = runs.result(lambda x: module.nms(x, 0.5), boxes)
    np.testing.assert_array_equal(keep, np.ones(shape, bool))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other sizes are known"
)
def test_what_is_known_of_a_shape_stays_known():
    import tensorflow as tf

    shape = []

    @functools.partial(
        tf.function,
        autograph=False,
        input_signature=[tf.TensorSpec((None, 5, 300, 4))],
    )
    def nms(boxes):
        keep = module.nms(boxes, 0.5)
        shape.extend(keep.shape)
        return keep

    assert numpy(nms(np.zeros((0, 5, 300, 4), "float32"))).shape == (0, 5, 300)
    assert shape == [None, 5, 300]
