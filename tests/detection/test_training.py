"""Training and detection against torchvision, number by number.

`make_golden.py` made the numbers.
"""

import dataclasses
import gzip
import json
import pathlib
import pickle

import keras
import numpy as np
import pytest

from keras_nonlocal.detection.mask_rcnn import LOSSES
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.detection.masks import mask_targets
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.weights import load
from tests.checks import numpy
from tests.detection import golden_case
from tests.detection.golden_case import NETWORK
from tests.detection.peer_weights import make_tensor

_GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
ANCHORS = 3 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2)
THEIR_NAMES = {
    "rpn_class_loss": "loss_objectness",
    "rpn_box_loss": "loss_rpn_box_reg",
    "class_loss": "loss_classifier",
    "box_loss": "loss_box_reg",
    "mask_loss": "loss_mask",
}


def kernel(gradient):
    return np.moveaxis(gradient, (0, 1), (3, 2))


# Ours, and how their layout becomes it.
GRADIENTS = {
    "backbone.body.layer2.0.conv1.weight": ("res3_0_branch2a/kernel", kernel),
    "backbone.body.layer3.1.conv1.weight": ("res4_1_branch2a/kernel", kernel),
    "backbone.fpn.inner_blocks.2.0.bias": ("fpn_inner_res4/bias", np.array),
    "backbone.fpn.layer_blocks.0.0.weight": ("fpn_layer_res2/kernel", kernel),
    "rpn.head.conv.0.0.weight": ("rpn_conv/kernel", kernel),
    "rpn.head.bbox_pred.weight": ("rpn_deltas/kernel", kernel),
    "roi_heads.box_head.fc6.bias": ("box_fc1/bias", np.array),
    # Their background is the first class, ours the last.
    "roi_heads.box_predictor.cls_score.weight": (
        "box_classes/kernel",
        lambda gradient: np.roll(gradient, -1, axis=0).T,
    ),
    # They have boxes and masks of the background as well.
    "roi_heads.box_predictor.bbox_pred.weight": (
        "box_deltas/kernel",
        lambda gradient: gradient[4:].T,
    ),
    "roi_heads.mask_head.0.0.weight": ("mask_fcn1/kernel", kernel),
    "roi_heads.mask_predictor.mask_fcn_logits.weight": (
        "mask_logits/kernel",
        lambda gradient: kernel(gradient[1:]),
    ),
}


@pytest.fixture(scope="module")
def golden():
    path = _GOLDEN / "detector_torchvision.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture(scope="module")
def detector(golden, tmp_path_factory):
    """Samples all anchors and regions, as `make_golden` lets torchvision."""
    base = DETECTOR_VARIANTS["mask_rcnn_r50_torchvision"]
    most = max(map(len, golden_case.BOXES))
    variant = dataclasses.replace(
        base,
        trunk=dataclasses.replace(base.trunk, depth=26, width=NETWORK["width"]),
        classes=NETWORK["classes"],
        pyramid_channels=NETWORK["channels"],
        box_units=NETWORK["units"],
        mask_channels=NETWORK["mask_channels"],
        pre_nms=(NETWORK["pre_nms"],) * 2,
        post_nms=(NETWORK["post_nms"],) * 2,
        max_detections=NETWORK["detections"],
        rpn_samples=ANCHORS,
        rpn_positive_share=1.0,
        region_samples=NETWORK["post_nms"] + most,
        region_positive_share=1.0,
    )
    path = tmp_path_factory.mktemp("peer") / "weights.pkl"
    tensors = {
        name: make_tensor(name, tuple(shape))
        for name, shape in golden["tensors"]
    }
    path.write_bytes(pickle.dumps(tensors))
    return MaskRCNN(variant, weights=str(path))


def make_inputs(with_targets):
    """A batch of both images, zeros where there is nothing."""
    sizes = np.array(golden_case.SIZES, "int32")
    images = np.zeros((2, *sizes.max(axis=0), 3), "uint8")
    for canvas, image in zip(images, golden_case.images(), strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    inputs = {"images": images, "sizes": sizes}
    if not with_targets:
        return inputs
    most, side = max(map(len, golden_case.BOXES)), golden_case.SIDE
    boxes = np.zeros((2, most, 4), "float32")
    classes = np.full((2, most), -1, "int32")
    masks = np.zeros((2, most, side, side), "uint8")
    for i, objects in enumerate(golden_case.BOXES):
        boxes[i, : len(objects)] = objects
        classes[i, : len(objects)] = golden_case.CLASSES[i]
        masks[i, : len(objects)] = golden_case.masks(i)
    return {**inputs, "boxes": boxes, "classes": classes, "masks": masks}


def found_losses(detector, golden):
    """The losses of both images, divided by what torchvision divides by."""
    losses = dict(detector(make_inputs(with_targets=True), training=True))
    # All anchors of theirs are sampled, but for those that are ignored.
    factor = 2 * ANCHORS / golden["sampled_anchors"]
    for name in ("rpn_class_loss", "rpn_box_loss"):
        losses[name] = losses[name] * factor
    return losses


def test_losses(detector, golden):
    losses = found_losses(detector, golden)
    for name in LOSSES:
        theirs = golden["losses"][THEIR_NAMES[name]]
        np.testing.assert_allclose(
            numpy(losses[name]), theirs, rtol=2e-5, err_msg=name
        )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a tape of TensorFlow"
)
def test_gradients(detector, golden):
    import tensorflow as tf

    variables = load.variables(detector)
    chosen = [variables[path].value for path, _ in GRADIENTS.values()]
    with tf.GradientTape() as tape:
        total = sum(found_losses(detector, golden).values())
    ours = dict(zip(GRADIENTS, tape.gradient(total, chosen), strict=True))
    shapes = dict(map(tuple, golden["tensors"]))
    for name, values in golden["gradients"].items():
        theirs = np.reshape(values, shapes[name])
        theirs = GRADIENTS[name][1](theirs)
        error = np.max(np.abs(numpy(ours[name]) - theirs))
        assert error < 5e-4 * np.max(np.abs(theirs)), name
    assert set(ours) == set(golden["gradients"])


def test_detections(detector, golden):
    found = detector(make_inputs(with_targets=False), training=False)
    found = {name: numpy(values) for name, values in found.items()}
    for i, theirs in enumerate(golden["detections"]):
        number = len(theirs["scores"])
        assert found["num_detections"][i] == number == NETWORK["detections"]
        np.testing.assert_array_equal(found["classes"][i], theirs["classes"])
        for name, atol in (("scores", 1e-5), ("boxes", 1e-3), ("masks", 1e-5)):
            ours = found[name][i]
            ours = ours[:, ::9, ::9] if name == "masks" else ours
            expected = np.reshape(theirs[name], ours.shape)
            np.testing.assert_allclose(ours, expected, atol=atol, err_msg=name)


def test_bins_that_an_edge_halves_are_inside(rng):
    """From one half on, rounding would leave out a third of them."""
    number, size, bins = 300, 28, 9
    corner = rng.uniform(0, 500, (number, 2))
    sides = rng.uniform(20, 300, (number, 2))
    truth = np.concatenate([corner, corner + sides], axis=-1)
    regions = truth.copy()
    # The right edge of the object is the middle of one of the bins.
    width = rng.uniform(0.7, 1.3, number) * sides[:, 0]
    regions[:, 0] = truth[:, 2] - (bins + 0.5) / size * width
    regions[:, 2] = regions[:, 0] + width
    found = mask_targets(
        np.ones((1, number, 14, 14), "uint8"),
        truth[None].astype("float32"),
        regions[None].astype("float32"),
        np.arange(number)[None],
        size,
    )
    row = numpy(found)[0, :, size // 2]
    np.testing.assert_array_equal(row.sum(axis=-1), np.full(number, bins + 1))
