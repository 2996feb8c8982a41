"""Which anchors and regions are drawn, and what they are to learn."""

import dataclasses

import numpy as np
from keras import ops

from keras_nonlocal.detection.boxes import decode
from keras_nonlocal.detection.proposals import Proposals
from keras_nonlocal.detection.targets import BOX_WEIGHTS
from keras_nonlocal.detection.targets import mask_slots
from keras_nonlocal.detection.targets import region_targets
from keras_nonlocal.detection.targets import rpn_targets
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests.checks import numpy

VARIANT = dataclasses.replace(
    DETECTOR_VARIANTS["mask_rcnn_r50"],
    rpn_samples=12,
    region_samples=16,
    classes=3,
)
SIZES = np.array([[50, 50], [50, 50]], "int32")
ANCHORS = np.array(
    [
        [0, 0, 10, 10],
        [0, 0, 10, 12],  # IoU .83 with the first object
        [0, 0, 10, 20],  # .5: neither
        [30, 30, 40, 40],
        [36, 36, 46, 46],  # .22 with the second, no anchor has more
        [-5, -5, 5, 5],  # crosses the border
    ],
    "float32",
)
TRUTH = np.array(
    [
        [[0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 0, 0]],
        [[7, 7, 7, 7], [0, 0, 50, 50], [0, 0, 10, 10]],
    ],
    "float32",
)
CLASSES = np.array([[2, 0, -1], [-1, -1, -1]], "int32")


def picked(targets, values, image):
    """Values in the live slots of an image, positive and negative ones."""
    live = numpy(targets.is_live)[image]
    positive = numpy(targets.is_positive)[image]
    values = numpy(values)[image]
    return values[positive], values[live & ~positive]


def test_anchors():
    targets = rpn_targets(ANCHORS, TRUTH, CLASSES >= 0, SIZES, VARIANT, seed=0)
    positive, negative = picked(targets, targets.index, 0)
    assert set(positive) == {0, 1, 4} and set(negative) == {3, 5}
    deltas, others = picked(targets, targets.deltas, 0)
    moved = decode(deltas, ANCHORS[positive])
    objects = TRUTH[0][(positive == 4).astype(int)]
    np.testing.assert_allclose(moved, objects, atol=1e-4)
    assert not others.any()
    # An image without objects is all background.
    positive, negative = picked(targets, targets.index, 1)
    assert len(positive) == 0 and set(negative) == set(range(6))
    assert np.isfinite(numpy(targets.deltas)).all()


def test_anchors_that_cross_the_border():
    variant = dataclasses.replace(VARIANT, inside_only=True)
    # The first one crosses the bottom, so the object's best is the second one.
    anchors = np.array([[20, 45, 30, 55], [20, 35, 30, 45], ANCHORS[5]])
    truth = np.array([[[20, 44, 30, 54]]], "float32")
    arguments = (truth, np.array([[True]]), SIZES[:1])
    for some, expected in ((VARIANT, {0}), (variant, {1})):
        targets = rpn_targets(anchors, *arguments, some, seed=0)
        positive, negative = picked(targets, targets.index, 0)
        assert set(positive) == expected
        assert set(negative) == ({1, 2} if some is VARIANT else set())
    # A pixel less in Detectron's boxes.
    offset = dataclasses.replace(variant, box_offset=1.0)
    edge = [[40, 40, 50, 49], [40, 40, 49, 49], [40, 40, 49, 50], [9, -1, 9, 9]]
    edge = np.array(edge, "float32")
    for some, expected in ((variant, {0, 1, 2}), (offset, {1})):
        targets = rpn_targets(edge, *arguments, some, seed=0)
        assert set(np.concatenate(picked(targets, targets.index, 0))) == (
            expected
        )


def proposals(boxes, valid):
    valid = np.array(valid)
    return Proposals(
        ops.convert_to_tensor(np.array(boxes, "float32")),
        ops.convert_to_tensor(valid),
        ops.zeros(valid.shape),
    )


SOME = proposals(
    [
        [[0, 0, 10, 14], [40, 40, 50, 45], [0, 0, 10, 10], [9, 9, 19, 19]],
        [[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    [[True, True, False, True], [True, True, False, False]],
)


def test_regions():
    """IoU of .71 and .5 are enough; the objects are regions themselves."""
    variant = dataclasses.replace(VARIANT, region_positive_share=0.5)
    found = region_targets(SOME, TRUTH, CLASSES, variant, seed=0)
    assert tuple(found.boxes.shape) == (2, 16, 4)
    boxes, background = picked(found, found.boxes, 0)
    expected = [*SOME.boxes[0][:2], *TRUTH[0][:2]]
    assert sorted(map(tuple, boxes)) == sorted(
        tuple(numpy(box)) for box in expected
    )
    np.testing.assert_array_equal(background, [[9, 9, 19, 19]])
    objects = numpy(found.matched)[0][:4]
    np.testing.assert_array_equal(found.classes[0][:4], CLASSES[0][objects])
    deltas, others = picked(found, found.deltas, 0)
    assert not others.any()
    moved = decode(deltas, boxes, BOX_WEIGHTS)
    np.testing.assert_allclose(moved, TRUTH[0][objects], atol=1e-4)
    assert (numpy(found.classes)[0][4:] == 3).all()
    # Without objects all valid proposals are background.
    positive, background = picked(found, found.boxes, 1)
    assert len(positive) == 0 and len(background) == 2
    for values in found:
        assert np.isfinite(numpy(values)).all()


def test_sides_that_count_pixels():
    """IoU of .5 in Detectron's boxes, of .44 in others."""
    variant = dataclasses.replace(
        VARIANT, rpn_high=0.47, region_threshold=0.47, box_offset=1.0
    )
    square, half = [0, 0, 9, 9], [0, 0, 4, 9]
    truth = np.array([[half]], "float32")
    move = np.array([-0.25, 0, np.log(0.5), 0])
    # The object's best anchor is another one.
    anchors = np.array([square, half], "float32")
    targets = rpn_targets(anchors, truth, [[True]], SIZES[:1], variant, 0)
    assert numpy(targets.is_positive)[0].sum() == 2
    deltas = numpy(targets.deltas)[0][numpy(targets.index)[0] == 0][0]
    np.testing.assert_allclose(deltas, move, atol=1e-6)
    found = region_targets(
        proposals([[square]], [[True]]), truth, np.array([[1]]), variant, 0
    )
    boxes, _ = picked(found, found.boxes, 0)
    deltas, _ = picked(found, found.deltas, 0)
    deltas = deltas[boxes[:, 2] == 9][0]
    np.testing.assert_allclose(deltas, move * BOX_WEIGHTS, atol=1e-5)


def test_more_objects_than_slots(rng):
    """Positive regions never take more than their share."""
    corner = rng.uniform(0, 40, (1, 100, 2)).astype("float32")
    truth = np.concatenate([corner, corner + 9], axis=-1)
    classes = np.zeros((1, 100), "int32")
    one = Proposals(SOME.boxes[:1], SOME.valid[:1], SOME.scores[:1])
    found = region_targets(one, truth, classes, VARIANT, seed=0)
    assert numpy(found.is_positive)[0].sum() == mask_slots(VARIANT) == 4
    assert numpy(found.is_positive)[0][:4].all()
    targets = rpn_targets(ANCHORS, truth, classes >= 0, SIZES[:1], VARIANT, 0)
    assert numpy(targets.is_live).any()


def test_no_proposals_and_no_objects():
    nothing = proposals(np.zeros((1, 4, 4)), np.zeros((1, 4), bool))
    found = region_targets(nothing, TRUTH[1:], CLASSES[1:], VARIANT, seed=0)
    assert not numpy(found.is_live).any() and not numpy(found.boxes).any()
    assert (numpy(found.classes) == 3).all()
