"""The heads: shapes, initial weights, dtypes."""

import keras
import numpy as np
import pytest

from keras_nonlocal.detection import heads
from tests.checks import numpy
from tests.detection.detectors import tiny_variant

VARIANT = tiny_variant(
    pyramid_channels=64, box_units=128, mask_channels=64, classes=10
)


def make_heads(variant=VARIANT):
    return (
        heads.make_rpn_head(variant),
        heads.make_box_head(variant),
        heads.make_mask_head(variant),
    )


def call(head, rng, *shape):
    result = head(rng.normal(size=(2, *shape, 64)).astype("float32"))
    return keras.tree.flatten(result)


def test_shapes(rng):
    rpn, box, mask = make_heads()
    assert [tuple(x.shape) for x in call(rpn, rng, 5, 7)] == [
        (2, 5, 7, 3),
        (2, 5, 7, 12),
    ]
    assert [tuple(x.shape) for x in call(box, rng, 7, 7)] == [(2, 11), (2, 40)]
    assert [tuple(x.shape) for x in call(mask, rng, 14, 14)] == [
        (2, 28, 28, 10)
    ]


@pytest.mark.parametrize(
    ("layer", "deviation"),
    [
        ("rpn_conv", 0.01),
        ("rpn_objectness", 0.01),
        ("rpn_deltas", 0.01),
        ("box_fc1", (7 * 7 * 64) ** -0.5),
        ("box_fc2", 128**-0.5),
        ("box_classes", 0.01),
        ("box_deltas", 0.001),
        ("mask_fcn4", (2 / (9 * 64)) ** 0.5),
        # A transposed convolution counts its inputs.
        ("mask_deconv", (2 / (4 * 64)) ** 0.5),
        ("mask_logits", 0.001),
    ],
)
def test_initial_weights(layer, deviation):
    index = ("rpn", "box", "mask").index(layer.partition("_")[0])
    layer = make_heads()[index].get_layer(layer)
    kernel = numpy(layer.kernel)
    # Of n numbers the deviation is known to 1 / sqrt(2 n).
    tolerance = 4 / np.sqrt(2 * kernel.size)
    np.testing.assert_allclose(np.std(kernel), deviation, rtol=tolerance)
    assert not np.any(numpy(layer.bias))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_outputs_are_float32(policy, rng):
    keras.config.set_dtype_policy(policy)
    sides = (5, 7), (7, 7), (14, 14)
    for head, side in zip(make_heads(), sides, strict=True):
        for x in call(head, rng, *side):
            assert keras.backend.standardize_dtype(x.dtype) == "float32"
    assert make_heads()[1].get_layer("box_fc1").compute_dtype == policy[6:]
