"""Whole networks against golden outputs, through files as published."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import ImageVariant
from keras_nonlocal import ResNet2D
from keras_nonlocal import ResNet3D
from tests import parity

NETWORKS = (
    "caffe2_c2d_baseline_8x8_r50",
    "caffe2_c2d_nonlocal_8x8_r50",
    "caffe2_i3d_baseline_32x4_r50",
    "caffe2_i3d_nonlocal_32x2_r50",
    "caffe2_i3d_nonlocal_32x4_r50",
    "caffe2_i3d_nonlocal_8x8_r50",
    "gluoncv_i3d_nl5_resnet50_v1_kinetics400",
    "mmaction2_c2d_r50_8x8",
    "mmaction2_i3d_r50_32x2",
    "mmaction2_i3d_r50_3x3x3_32x2",
    "mmaction2_i3d_r50_nl_embedded_32x2",
    "slowfast_c2d_nln1_res3_8x8_r50",
    "slowfast_c2d_nln_8x8_r50",
    "slowfast_i3d_nln_8x8_r50",
    "slowfast_i3d_nln_8x8_r50_charades",
    "slowfast_i3d_nln_8x8_r50_dot",
    "slowfast_i3d_nln_8x8_r50_fc256",
    "slowfast_i3d_nln_8x8_r101",
    "torchvision_resnet50",
    "torchvision_resnext101_32x8d",
)
_ACTIVATIONS = {"probabilities": "softmax", "sigmoid": "sigmoid"}


def build(data, path, activation):
    variant = parity.variant(data)
    constructor = ResNet3D
    if isinstance(variant, ImageVariant):
        constructor = ResNet2D
    shapes = dict(data["params"])
    biases = ("pred_b", "head.projection.bias", "cls_head.fc_cls.bias")
    (classes,) = next(
        shapes[name] for name in (*biases, "fc.bias") if name in shapes
    )
    model = constructor(
        variant,
        weights=path,
        classes=classes,
        classifier_activation=activation,
        include_preprocessing=False,
    )
    return model, variant


def probe_layers(names, variant):
    """Our layer for each probe of a fixture."""
    after = ()
    if not isinstance(variant, ImageVariant):
        after = variant.nonlocal_blocks()
    ours = {"conv1": "conv1_relu", "stem": "pool1", "pooled": "pool5"}
    for probe in names:
        if probe.startswith("nl_"):
            yield probe, f"nonlocal_{probe[3:]}"
        elif probe in ("res2", "res3", "res4", "res5"):
            last = variant.blocks[probe] - 1
            prefix = "nonlocal_" if (probe, last) in after else ""
            yield probe, f"{prefix}{probe}_{last}"
        else:
            yield probe, ours.get(probe, probe)


def error_at(probe, value, golden, module):
    """Largest difference from the golden values kept, in their deviations."""
    if value.ndim == 5 and len(golden["shape"]) == 4:
        # Image networks see the frames as a batch.
        value = value.reshape(-1, *value.shape[2:])
    if probe in ("pooled", "logits"):
        value = value.reshape(value.shape[0], -1)
    ours = module.summary(np.moveaxis(value, -1, 1))
    assert abs(ours["std"] / golden["std"] - 1) < 1e-4, probe
    return max(
        np.max(np.abs(np.subtract(ours[key], golden[key]))) / golden["std"]
        for key in ("first16", "sample64")
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_network(shared, name, tmp_path):
    data = parity.fixture(shared, name)
    path = parity.write(shared, data, tmp_path)
    activation = _ACTIVATIONS.get(data["output"]["kind"])
    model, variant = build(data, path, activation)
    layers = dict(probe_layers(data["probes"], variant))
    outputs = [model.get_layer(layer).output for layer in layers.values()]
    *probes, scores = keras.Model(model.input, [*outputs, model.output])(
        data["inputs"]
    )
    module = parity.weights_module(shared / "parity")
    for probe, value in zip(layers, probes, strict=True):
        # The pooled features of several positions have other axes.
        if probe == "pooled" and "fc256" in name:
            continue
        value = np.asarray(value)
        error = error_at(probe, value, data["probes"][probe], module)
        assert error < (1e-4 if probe == "logits" else 5e-4), probe
    golden = np.reshape(data["output"]["values"], scores.shape)
    # A softmax that is nearly one-hot multiplies the error of its logits,
    # which have been compared.
    is_softmax = data["output"]["kind"] == "probabilities" and "logits" in data
    tolerance = 1e-3 if is_softmax else 1e-4
    assert parity.distance(scores, golden) < tolerance


def test_a_wrong_flag_would_show(shared, tmp_path):
    """The bounds tell networks apart that differ in one padding only."""
    data = parity.fixture(shared, "mmaction2_c2d_r50_8x8")
    path = parity.write(shared, data, tmp_path)
    variant = dataclasses.replace(parity.variant(data), pool1_padding=1)
    model = ResNet3D(
        variant,
        weights=path,
        classifier_activation=None,
        include_preprocessing=False,
    )
    logits = model(data["inputs"])[0]
    assert parity.distance(logits, data["logits"]) > 1e-2
