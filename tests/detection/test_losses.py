"""The five losses against numpy, and on two replicas."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_nonlocal.detection.losses import maps_of_class
from keras_nonlocal.detection.losses import smooth_l1
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests.checks import numpy
from tests.detection import loss_case
from tests.gradients import gradients

VARIANT = dataclasses.replace(
    DETECTOR_VARIANTS["mask_rcnn_r50"],
    classes=loss_case.CLASSES,
    rpn_samples=8,
    rpn_beta=1 / 9,
    box_beta=1.0,
)


def losses(heads, *targets):
    found = loss_case.losses(heads.values(), *targets, VARIANT)
    return [float(x) for x in found]


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def plain_smooth_l1(errors, beta):
    errors = np.abs(errors)
    return np.where(errors < beta, errors**2 / 2 / beta, errors - beta / 2)


def test_rpn():
    heads, targets, regions, masks = loss_case.make()
    of_class = of_box = 0.0
    for i in range(loss_case.IMAGES):
        for slot, anchor in enumerate(targets.index[i]):
            if not targets.is_live[i, slot]:
                continue
            sign = -1 if targets.is_positive[i, slot] else 1
            of_class += softplus(sign * heads["rpn_logits"][i, anchor])
            if sign < 0:
                errors = (
                    heads["rpn_deltas"][i, anchor] - targets.deltas[i, slot]
                )
                of_box += plain_smooth_l1(errors, 1 / 9).sum()
    # 8 slots an image, though not all are live.
    found = losses(heads, targets, regions, masks)[:2]
    np.testing.assert_allclose(
        found,
        np.array([of_class, of_box]) / (8 * loss_case.IMAGES),
        rtol=1e-5,
    )


def test_boxes():
    heads, targets, regions, masks = loss_case.make()
    of_class = of_box = 0.0
    for i, slot in zip(*np.nonzero(regions.is_live), strict=True):
        logits = heads["logits"][i, slot].astype("float64")
        k = regions.classes[i, slot]
        of_class += np.log(np.exp(logits).sum()) - logits[k]
        if regions.is_positive[i, slot]:
            deltas = heads["deltas"][i, slot, 4 * k : 4 * k + 4]
            errors = deltas - regions.deltas[i, slot]
            of_box += plain_smooth_l1(errors, 1.0).sum()
    found = losses(heads, targets, regions, masks)[2:4]
    np.testing.assert_allclose(
        found,
        np.array([of_class, of_box]) / regions.is_live.sum(),
        rtol=1e-5,
    )


def test_masks():
    heads, targets, regions, masks = loss_case.make()
    pixels = []
    for i, slot in zip(*np.nonzero(regions.is_positive), strict=True):
        logits = heads["masks"][i, slot, ..., regions.classes[i, slot]]
        pixels.append(softplus(np.where(masks[i, slot] > 0, -logits, logits)))
    found = losses(heads, targets, regions, masks)[4]
    np.testing.assert_allclose(found, np.mean(pixels), rtol=1e-5)


def test_nothing_sampled_gives_nothing():
    """And no gradient either, not one that is no number."""
    heads, targets, regions, masks = loss_case.make()
    nobody = np.zeros_like(targets.is_live)
    targets = targets._replace(is_live=nobody, is_positive=nobody)
    nobody = np.zeros_like(regions.is_live)
    regions = regions._replace(is_live=nobody, is_positive=nobody)

    def total(*inputs):
        return loss_case.total(inputs, targets, regions, masks, VARIANT)

    value, of_heads = gradients(total, list(heads.values()), np.float32(1.0))
    assert value == 0.0
    for gradient in of_heads:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_gradients_by_differences(rng):
    heads, targets, regions, masks = loss_case.make()

    def total(*inputs):
        return loss_case.total(inputs, targets, regions, masks, VARIANT)

    inputs = list(heads.values())
    _, of_heads = gradients(total, inputs, np.float32(1.0))
    for number, gradient in enumerate(of_heads):
        direction = rng.normal(size=gradient.shape).astype("float32")
        ends = []
        for step in (-1e-2, 1e-2):
            moved = list(inputs)
            moved[number] = inputs[number] + np.float32(step) * direction
            ends.append(float(total(*moved)))
        slope = (ends[1] - ends[0]) / 2e-2
        np.testing.assert_allclose(
            np.sum(gradient * direction), slope, rtol=2e-2, atol=1e-4
        )


def test_half_precision_and_large_logits():
    heads, targets, regions, masks = loss_case.make()
    half = [ops.cast(x * 100, "float16") for x in heads.values()]
    whole = [ops.cast(x, "float32") for x in half]
    values = [
        float(loss_case.total(x, targets, regions, masks, VARIANT))
        for x in (half, whole)
    ]
    assert np.isfinite(values[0]) and values[0] == values[1]


def test_smooth_l1_without_a_bend():
    errors = np.array([0.0, -2.0, 1e-3], "float32")
    np.testing.assert_array_equal(smooth_l1(errors, 0.0), np.abs(errors))


def test_maps_of_class(rng):
    maps = rng.normal(size=(2, 3, 4, 4, 5)).astype("float32")
    classes = np.array([[0, 4, -1], [2, 2, 5]], "int32")
    found = numpy(maps_of_class(maps, classes))
    np.testing.assert_array_equal(found[0, 1], maps[0, 1, ..., 4])
    np.testing.assert_array_equal(found[0, 2], maps[0, 2, ..., 0])
    np.testing.assert_array_equal(found[1, 0], maps[1, 0, ..., 2])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="replicas of TensorFlow"
)
def test_two_replicas_lose_what_one_does():
    """With 3 images on one of them and 1 on the other."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.detection.mirrored"],
        cwd=pathlib.Path(__file__).parents[2],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout)
    np.testing.assert_allclose(found["two"], found["one"], rtol=1e-5)
    np.testing.assert_allclose(
        found["gradients_of_two"], found["gradients_of_one"], atol=1e-6
    )
    assert np.min(np.abs(found["one"])) > 1e-2
