"""Every stage of the detector against torchvision's, from its own file.

The golden numbers are part of the shared material; `test_training.py` has
losses and gradients.
"""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_nonlocal.detection.boxes import decode
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.detection.proposals import propose
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests import parity

NAME = "torchvision_maskrcnn_resnet50_fpn"
STAGES = {"res2": 2, "res3": 3, "res4": 5, "res5": 2}


@pytest.fixture(scope="module")
def golden(shared):
    return parity.fixture(shared, NAME)


@pytest.fixture(scope="module")
def detector(shared, golden, tmp_path_factory):
    """With all of torchvision's 90 classes, for images normalised already."""
    path = parity.write(shared, golden, tmp_path_factory.mktemp("weights"))
    variant = DETECTOR_VARIANTS["mask_rcnn_r50_torchvision"]
    trunk = dataclasses.replace(
        variant.trunk, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    variant = dataclasses.replace(variant, trunk=trunk, classes=90)
    return MaskRCNN(variant, weights=path)


@pytest.fixture(scope="module")
def levels(detector, golden):
    """Maps of the stages and of the pyramid."""
    stages = [
        detector.trunk.get_layer(f"{stage}_{last}").output
        for stage, last in STAGES.items()
    ]
    model = keras.Model(
        detector.trunk.input, [*stages, *detector.trunk.outputs]
    )
    maps = model(golden["inputs"])
    return maps[: len(STAGES)], list(maps[len(STAGES) :])


@pytest.fixture(scope="module")
def compare(shared, golden):
    """Asserts that a value is as a probe says, in its deviations."""
    module = parity.weights_module(shared / "parity")

    def check(name, value, keep=None):
        probe = golden["probes"][name]
        value = np.asarray(value)
        is_whole = keep is None
        keep = np.ones(value.shape, bool) if is_whole else keep
        assert list(value.shape) == probe["shape"], name
        ours = module.summary(value)
        for key in ("first16", "sample64"):
            wrong = np.abs(np.subtract(ours[key], probe[key]))
            index = np.arange(len(wrong))
            if key == "sample64":
                index = index * value.size // 64
            wrong = wrong[keep.ravel()[index]]
            assert np.max(wrong, initial=0) / probe["std"] < 5e-4, name
        if is_whole:
            assert abs(ours["std"] / probe["std"] - 1) < 1e-4, name

    return check


def first(maps):
    """The maps as torchvision has them, channels first."""
    return np.moveaxis(np.asarray(maps), -1, 1)


def test_trunk(levels, compare):
    for name, value in zip(STAGES, levels[0], strict=True):
        compare(name, first(value))
    names = [f"fpn_{key}" for key in (0, 1, 2, 3, "pool")]
    for name, value in zip(names, levels[1], strict=True):
        compare(name, first(value))


def test_proposals(detector, levels, compare):
    for key, level in zip((0, 1, 2, 3, "pool"), levels[1], strict=True):
        logits, deltas = detector.rpn_head(level)
        compare(f"rpn_objectness_{key}", first(logits))
        compare(f"rpn_deltas_{key}", first(deltas))
    logits, deltas = detector._rpn(levels[1])
    anchors = detector._anchors(levels[1])
    every = ops.concatenate(anchors, axis=0)
    compare("anchors", every)
    compare("rpn_decoded", decode(ops.concatenate(deltas, axis=1), every[None]))
    found = propose(
        logits,
        deltas,
        anchors,
        np.array([[256, 320]], "int32"),
        detector.variant,
        training=False,
    )
    compare("proposals_top50", found.boxes[0, :50])
    compare("proposal_scores_top50", ops.sigmoid(found.scores[0, :50]))


def test_heads(detector, levels, golden, compare):
    boxes = np.array(golden["arch"]["boxes"], "float32")[None]
    regions = detector._pool(levels[1], boxes, 7)[0]
    compare("box_roi_align", first(regions))
    hidden = keras.Model(
        detector.box_head.input, detector.box_head.get_layer("box_fc2").output
    )
    compare("box_features", hidden(regions))
    logits, deltas = detector._box_outputs(levels[1], boxes)
    # Their background is the first class, ours the last.
    logits = np.roll(np.asarray(logits)[0], 1, axis=-1)
    compare("logits", logits)
    expected = np.reshape(golden["output"]["values"], logits.shape)
    assert parity.distance(logits, expected) < 1e-4
    # Boxes and masks of the background are theirs alone.
    deltas = np.pad(np.asarray(deltas)[0], ((0, 0), (4, 0)))
    compare("box_deltas", deltas, np.indices(deltas.shape)[1] >= 4)
    compare("mask_roi_align", first(detector._pool(levels[1], boxes, 14)[0]))
    masks = first(detector._mask_outputs(levels[1], boxes)[0])
    masks = np.pad(masks, ((0, 0), (1, 0), (0, 0), (0, 0)))
    compare("mask_logits", masks, np.indices(masks.shape)[1] > 0)


def test_detections(detector, golden, compare):
    found = detector(golden["inputs"])
    assert int(found["num_detections"][0]) == 100
    compare("det_boxes", found["boxes"][0])
    compare("det_scores", found["scores"][0])
    compare("det_labels", found["classes"][0] + 1)
    compare("det_masks", np.asarray(found["masks"])[0][:, None])
