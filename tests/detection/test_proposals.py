"""Proposals against a plain loop in numpy, and what must not break them."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_nonlocal.detection.anchors import make_anchors
from keras_nonlocal.detection.gather import best
from keras_nonlocal.detection.proposals import decode_in_images
from keras_nonlocal.detection.proposals import propose
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests.checks import numpy

VARIANT = dataclasses.replace(
    DETECTOR_VARIANTS["mask_rcnn_r50"],
    pre_nms=(40, 30),
    post_nms=(100, 12),
    rpn_min_size=5.0,
)
SIZES = np.array([[60, 80], [64, 48]], "int32")
ANCHORS = [
    numpy(make_anchors(8, 10, 8, 16)),
    numpy(make_anchors(4, 5, 16, 32)),
    numpy(make_anchors(1, 1, 64, 64)),
]


@pytest.fixture
def outputs(rng):
    logits = [
        rng.normal(size=(2, len(level))).astype("float32") for level in ANCHORS
    ]
    deltas = [
        rng.normal(scale=0.3, size=(2, len(level), 4)).astype("float32")
        for level in ANCHORS
    ]
    return logits, deltas


def plain(logits, deltas, anchors, size, number, slots, offset):
    """Boxes and scores of one image, by loops."""
    kept = []
    for scores, moves, boxes in zip(logits, deltas, anchors, strict=True):
        order = np.argsort(-scores, kind="stable")[:number]
        boxes = moved(boxes[order], moves[order], size, offset)
        chosen = []
        for box, score in zip(boxes, scores[order], strict=True):
            if np.any(box[2:] - box[:2] + offset <= 5.0):
                continue
            if all(overlap(box, one, offset) <= 0.7 for one, _ in chosen):
                chosen.append((box, score))
        kept += chosen
    kept.sort(key=lambda pair: -pair[1])
    return [np.array(x) for x in zip(*kept[:slots], strict=True)]


def moved(boxes, moves, size, offset):
    side = boxes[:, 2:] - boxes[:, :2] + offset
    centre = boxes[:, :2] + side / 2 + moves[:, :2] * side
    half = side * np.exp(moves[:, 2:]) / 2
    boxes = np.concatenate([centre - half, centre + half - offset], axis=1)
    return boxes.clip(0, np.array([*size[::-1], *size[::-1]]) - offset)


def overlap(a, b, offset):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + offset
    shared = np.prod(sides.clip(0))
    areas = [np.prod(x[2:] - x[:2] + offset) for x in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize(("training", "offset"), [(True, 0.0), (False, 1.0)])
def test_are_those_of_a_loop(outputs, training, offset):
    variant = dataclasses.replace(VARIANT, box_offset=offset)
    found = propose(*outputs, ANCHORS, SIZES, variant, training)
    mode = 0 if training else 1
    slots = variant.post_nms[mode]
    assert tuple(found.boxes.shape) == (2, slots, 4)
    for image in range(2):
        boxes, scores = plain(
            *([level[image] for level in values] for values in outputs),
            ANCHORS,
            SIZES[image],
            variant.pre_nms[mode],
            slots,
            offset,
        )
        valid = numpy(found.valid)[image]
        assert valid.sum() == len(boxes) and valid[: len(boxes)].all()
        got = numpy(found.boxes)[image]
        np.testing.assert_allclose(got[valid], boxes, atol=1e-4)
        np.testing.assert_array_equal(numpy(found.scores)[image][valid], scores)
        assert not got[~valid].any()


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_suppression_counts_pixels(offset):
    """IoU of .44 or, in Detectron's boxes, .5."""
    variant = dataclasses.replace(
        VARIANT, rpn_nms=0.47, rpn_min_size=0.0, box_offset=offset
    )
    anchors = np.array([[0, 0, 9, 9], [0, 0, 4, 9]], "float32")
    logits, deltas = np.array([[2.0, 1.0]]), np.zeros((1, 2, 4))
    found = propose([logits], [deltas], [anchors], SIZES[:1], variant, True)
    assert numpy(found.valid).sum() == 2 - offset


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="graphs of TensorFlow"
)
@pytest.mark.parametrize("jit", [False, True])
def test_graphs_of_unknown_sizes(outputs, jit):
    import tensorflow as tf

    def run(logits, deltas, anchors, sizes):
        return propose(logits, deltas, anchors, sizes, VARIANT, True)

    signature = [
        [tf.TensorSpec([None, None])] * 3,
        [tf.TensorSpec([None, None, 4])] * 3,
        [tf.TensorSpec([None, 4])] * 3,
        tf.TensorSpec([None, 2], "int32"),
    ]
    graph = tf.function(run, input_signature=signature, jit_compile=jit)
    found = graph(*outputs, ANCHORS, SIZES)
    expected = run(*outputs, ANCHORS, SIZES)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_is_not_finite_is_not_proposed(outputs):
    logits, deltas = outputs
    expected = propose(logits, deltas, ANCHORS, SIZES, VARIANT, True)
    # The last of all: room for it, but never chosen.
    worst = np.argmin(logits[0][0])
    logits[0][0, worst] = np.nan
    strange = np.argsort(-logits[0][1])[35:40]
    deltas[0][1, strange] = [
        [np.nan] * 4,
        [np.inf, 0, 0, 0],
        [0, 0, -np.inf, 0],
        [0, np.nan, 0, 0],
        [-np.inf, 0, np.inf, 0],
    ]
    found = propose(logits, deltas, ANCHORS, SIZES, VARIANT, True)
    np.testing.assert_array_equal(found.boxes[0], expected.boxes[0])
    boxes = numpy(found.boxes[1])
    assert np.isfinite(boxes).all()
    for odd in (np.nan, np.inf):
        everything = [np.full_like(x, odd) for x in logits]
        nothing = propose(everything, deltas, ANCHORS, SIZES, VARIANT, True)
        assert not numpy(nothing.valid).any()
        assert not numpy(nothing.boxes).any()


def test_equal_scores_stay_in_order():
    scores, index = best(np.array([[1, 2, 1, 2, np.nan, 1]], "float32"), 6)
    np.testing.assert_array_equal(index, [[1, 3, 0, 2, 5, 4]])
    assert numpy(scores)[0, -1] == -np.inf


def test_decoded_boxes_that_are_none():
    """Too small after clipping, or not finite before."""
    source = [[0, 0, 2, 4], [0, 0, 4, 4], [5, 5, 5, 9], [-9, 0, -3, 4]]
    source = np.array([*source, *[[0, 0, 4, 4]] * 3], "float32")
    deltas = np.zeros((7, 4), "float32")
    deltas[4:, 0] = np.nan, np.inf, -np.inf
    arguments = (deltas, source, np.array([20, 20]))
    boxes, valid = decode_in_images(*arguments, smallest=2.0)
    np.testing.assert_array_equal(valid, [0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(boxes[1], source[1])
    assert not numpy(boxes)[~numpy(valid)].any()
    # In Detectron's boxes a pixel is left, as there, on the border.
    _, valid = decode_in_images(*arguments, smallest=0.0, offset=1.0)
    np.testing.assert_array_equal(valid, [1, 1, 1, 1, 0, 0, 0])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a tape of TensorFlow"
)
def test_pass_no_gradient(outputs):
    import tensorflow as tf

    logits, deltas = (constants(x) for x in outputs)
    with tf.GradientTape() as tape:
        tape.watch([*logits, *deltas])
        found = propose(logits, deltas, ANCHORS, SIZES, VARIANT, True)
        total = ops.sum(found.boxes)
    assert set(map(type, tape.gradient(total, [*logits, *deltas]))) == {
        type(None)
    }


def constants(arrays):
    return [ops.convert_to_tensor(x) for x in arrays]
