"""Detections against a plain loop in numpy, and what must not break them."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_nonlocal.detection.detections import detect
from keras_nonlocal.detection.detections import select_masks
from keras_nonlocal.detection.proposals import Proposals
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests.checks import numpy
from tests.detection.test_proposals import moved
from tests.detection.test_proposals import overlap

CLASSES = 3
VARIANT = dataclasses.replace(
    DETECTOR_VARIANTS["mask_rcnn_r50"],
    classes=CLASSES,
    score_threshold=0.1,
    max_detections=25,
    min_detection_size=1.0,
)
SIZES = np.array([[60, 80], [64, 48]], "int32")


@pytest.fixture
def outputs(rng):
    """Logits and deltas of 30 proposals, of which some are not valid."""
    corner = rng.uniform(0, 50, (2, 30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (2, 30, 2))], 2)
    valid = rng.uniform(size=(2, 30)) > 0.2
    proposals = Proposals(
        ops.convert_to_tensor(boxes.astype("float32")),
        ops.convert_to_tensor(valid),
        ops.zeros((2, 30)),
    )
    logits = rng.normal(scale=1.5, size=(2, 30, CLASSES + 1))
    deltas = rng.normal(size=(2, 30, 4 * CLASSES))
    return logits.astype("float32"), deltas.astype("float32"), proposals


def plain(logits, deltas, boxes, valid, size, offset=0.0):
    """Boxes, scores and classes of one image, by loops."""
    scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = []
    for k in range(CLASSES):
        moves = deltas[:, 4 * k : 4 * k + 4] / [10, 10, 5, 5]
        of_class = moved(boxes, moves, size, offset)
        chosen = []
        for i in np.argsort(-scores[:, k], kind="stable"):
            box = of_class[i]
            is_small = np.any(box[2:] - box[:2] + offset <= 1.0)
            if not valid[i] or scores[i, k] <= 0.1 or is_small:
                continue
            if all(overlap(box, one, offset) <= 0.5 for one, *_ in chosen):
                chosen.append((box, scores[i, k], k))
        found += chosen
    found.sort(key=lambda one: -one[1])
    return [np.array(x) for x in zip(*found[:25], strict=True)]


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_are_those_of_a_loop(outputs, offset):
    variant = dataclasses.replace(VARIANT, box_offset=offset)
    found = detect(*outputs, SIZES, variant)
    logits, deltas, proposals = outputs
    numbers = numpy(found["num_detections"])
    for i, number in enumerate(numbers):
        boxes, scores, classes = plain(
            logits[i],
            deltas[i],
            numpy(proposals.boxes)[i],
            numpy(proposals.valid)[i],
            SIZES[i],
            offset,
        )
        assert number == len(boxes)
        np.testing.assert_allclose(found["boxes"][i][:number], boxes, atol=1e-4)
        np.testing.assert_allclose(
            found["scores"][i][:number], scores, rtol=1e-5
        )
        np.testing.assert_array_equal(found["classes"][i][:number], classes)
        assert not numpy(found["boxes"])[i][number:].any()
        assert not numpy(found["scores"])[i][number:].any()
        assert (numpy(found["classes"])[i][number:] == -1).all()
    # Both cases: all slots used, and some left over.
    assert max(numbers) == 25 and min(numbers) > 15


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="graphs of TensorFlow"
)
@pytest.mark.parametrize("jit", [False, True])
def test_graphs_of_any_batch(outputs, jit):
    import tensorflow as tf

    def run(logits, deltas, boxes, valid, sizes):
        proposals = Proposals(boxes, valid, valid)
        return detect(logits, deltas, proposals, sizes, VARIANT)

    logits, deltas, proposals = outputs
    inputs = (logits, deltas, proposals.boxes, proposals.valid, SIZES)
    signature = [
        tf.TensorSpec([None, *x.shape[1:]], tf.as_dtype(x.dtype))
        for x in inputs
    ]
    graph = tf.function(run, input_signature=signature, jit_compile=jit)
    expected = run(*inputs)
    # XLA compiles each size anew.
    for number in (2,) if jit else (1, 2):
        found = graph(*(x[:number] for x in inputs))
        for name, values in expected.items():
            np.testing.assert_allclose(
                found[name], values[:number], atol=1e-5, err_msg=name
            )


def test_nothing_to_find(outputs):
    """Background alone, no proposals, and what is no number."""
    logits, deltas, proposals = outputs
    nothing = proposals._replace(valid=ops.zeros_like(proposals.valid))
    background = np.zeros_like(logits)
    background[..., -1] = 20.0
    strange = np.full_like(deltas, np.nan)
    for inputs in (
        (background, deltas, proposals),
        (logits, deltas, nothing),
        (np.full_like(logits, np.nan), deltas, proposals),
        (logits, strange, proposals),
        (logits, np.full_like(deltas, np.inf), proposals),
    ):
        found = detect(*inputs, SIZES, VARIANT)
        np.testing.assert_array_equal(found["num_detections"], [0, 0])
        np.testing.assert_array_equal(found["classes"], np.full((2, 25), -1))
        assert not numpy(found["boxes"]).any()
        assert not numpy(found["scores"]).any()


def test_candidates(outputs):
    """Only as many pairs of a proposal and a class as wanted are looked at."""
    variant = dataclasses.replace(
        VARIANT, max_candidates=4, score_threshold=0.0
    )
    found = detect(*outputs, SIZES, variant)
    every = detect(*outputs, SIZES, VARIANT)
    numbers = numpy(found["num_detections"])
    assert tuple(found["boxes"].shape) == (2, 25, 4)
    for i, number in enumerate(numbers):
        assert 1 <= number <= 4
        np.testing.assert_array_equal(
            found["boxes"][i][:number], every["boxes"][i][:number]
        )


def test_equal_scores_stay_in_order():
    boxes = [[[20 * i, 0, 20 * i + 10, 10] for i in (2, 0, 1)]]
    proposals = Proposals(
        ops.convert_to_tensor(boxes, "float32"),
        ops.ones((1, 3), "bool"),
        ops.zeros((1, 3)),
    )
    logits, deltas = np.zeros((1, 3, 4), "float32"), np.zeros((1, 3, 12))
    found = detect(logits, deltas, proposals, SIZES[:1], VARIANT)
    np.testing.assert_array_equal(
        found["boxes"][0][:9], np.repeat(boxes[0], 3, axis=0)
    )
    np.testing.assert_array_equal(found["classes"][0][:9], [0, 1, 2] * 3)
    # All are as probable as the threshold, which they have to exceed.
    variant = dataclasses.replace(VARIANT, score_threshold=0.25)
    found = detect(logits, deltas, proposals, SIZES[:1], variant)
    np.testing.assert_array_equal(found["num_detections"], [0])


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_suppression_counts_pixels(offset):
    """IoU of .44 or, in Detectron's boxes, .5."""
    variant = dataclasses.replace(VARIANT, nms=0.47, box_offset=offset)
    proposals = Proposals(
        ops.convert_to_tensor([[[0, 0, 9, 9], [0, 0, 4, 9]]], "float32"),
        ops.ones((1, 2), "bool"),
        ops.zeros((1, 2)),
    )
    logits = np.array([[[2, -9, -9, 0], [1, -9, -9, 0]]], "float32")
    deltas = np.zeros((1, 2, 12), "float32")
    found = detect(logits, deltas, proposals, SIZES[:1], variant)
    np.testing.assert_array_equal(found["num_detections"], [2 - offset])


def test_masks(rng):
    logits = rng.normal(size=(1, 3, 2, 2, CLASSES)).astype("float32")
    classes = np.array([[2, 0, -1]], "int32")
    masks = numpy(select_masks(logits, classes))
    for slot, k in ((0, 2), (1, 0)):
        expected = 1 / (1 + np.exp(-logits[0, slot, ..., k]))
        np.testing.assert_allclose(masks[0, slot], expected, rtol=1e-5)
    assert not masks[0, 2].any()
