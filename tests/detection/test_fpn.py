"""The trunk of a detector: residual network and feature pyramid."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal.detection.fpn import freeze_stages
from keras_nonlocal.detection.fpn import make_trunk
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from tests.checks import numpy
from tests.checks import outputs
from tests.checks import randomize
from tests.detection.detectors import tiny_variant


@pytest.fixture(scope="module")
def trunk():
    return make_trunk(tiny_variant())


def layer_outputs(model, names, inputs):
    layers = [model.get_layer(name).output for name in names]
    return outputs(keras.Model(model.input, layers), inputs)


def test_pyramid(trunk, rng):
    """Sums of 1x1 convolutions from the top down, repeated twice a side."""
    randomize(trunk, scale=0.1)
    images = rng.normal(size=(2, 64, 96, 3)).astype("float32")
    levels = outputs(trunk, images)
    sides = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert [x.shape for x in levels] == [(2, *side, 16) for side in sides]
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])
    names = [f"fpn_inner_res{n}" for n in (5, 4, 3, 2)]
    names += [f"fpn_add_res{n}" for n in (4, 3, 2)]
    expected, *rest = layer_outputs(trunk, names, images)
    inner, sums = rest[:3], rest[3:]
    for lateral, added in zip(inner, sums, strict=True):
        expected = lateral + expected.repeat(2, axis=1).repeat(2, axis=2)
        np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-5)
    last = trunk.get_layer("fpn_layer_res2")
    np.testing.assert_allclose(
        numpy(last(sums[-1])), levels[0], rtol=1e-4, atol=1e-4
    )


def test_frozen_stages():
    """torchvision's counts of frozen kernels for 0 to 5 trained stages."""
    trunk = make_trunk(
        dataclasses.replace(
            tiny_variant(name="mask_rcnn_r50"),
            trunk=dataclasses.replace(
                DETECTOR_VARIANTS["mask_rcnn_r50"].trunk, width=4
            ),
        )
    )
    counts = []
    for trained in range(6):
        freeze_stages(trunk, 5 - trained)
        # Scales and shifts are frozen in any case.
        counts.append(
            sum(
                weight.path.endswith("kernel")
                for weight in trunk.non_trainable_weights
            )
        )
    assert counts == [53, 43, 24, 11, 1, 0]
    affine = [
        weight.path
        for weight in trunk.non_trainable_weights
        if "_bn" in weight.path
    ]
    assert len(affine) == 2 * 53


def test_the_block_is_trained_in_a_frozen_stage():
    trunk = make_trunk(tiny_variant(frozen_stages=5))
    trained = {layer.name for layer in trunk.layers if layer.trainable_weights}
    pyramid = {
        f"fpn_{k}_res{n}" for k in ("inner", "layer") for n in range(2, 6)
    }
    assert trained == {"nonlocal_res4_0"} | pyramid


def test_initial_weights_of_the_pyramid():
    """Xavier's uniform rule by the inputs of a layer."""
    trunk = make_trunk(tiny_variant(pyramid_channels=64))
    kernel = np.asarray(trunk.get_layer("fpn_layer_res3").kernel)
    limit = np.sqrt(3 / (9 * 64))
    assert limit * 0.99 < np.max(np.abs(kernel)) <= limit
    assert not np.any(np.asarray(trunk.get_layer("fpn_layer_res3").bias))
