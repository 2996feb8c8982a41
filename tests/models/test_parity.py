"""Whole networks against golden outputs of the code bases they come from."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ResNet3D
from tests import parity

replace = dataclasses.replace

NETWORKS = {
    "caffe2_c2d_nonlocal_8x8_r50": VARIANTS["nl_c2d_r50_8x8"],
    "caffe2_i3d_nonlocal_32x2_r50": VARIANTS["nl_i3d_r50"],
    "caffe2_i3d_nonlocal_32x4_r50": VARIANTS["nl_i3d_r50_32x4"],
    "slowfast_i3d_nln_8x8_r50": replace(
        VARIANTS["nl_i3d_r50_8x8"], pool1_padding=1
    ),
    "slowfast_i3d_nln_8x8_r50_dot": replace(
        VARIANTS["nl_i3d_r50_8x8"], pool1_padding=1, mode="dot_product"
    ),
    "slowfast_c2d_nln1_res3_8x8_r50": replace(
        VARIANTS["c2d_r50_8x8"],
        pool1_padding=1,
        num_nonlocal=1,
        nonlocal_stage="res3",
    ),
    "slowfast_i3d_nln_8x8_r101": replace(
        VARIANTS["nl_i3d_r101_8x8"], pool1_padding=1
    ),
    "mmaction2_i3d_r50_3x3x3_32x2": replace(
        VARIANTS["i3d_3x3x3_r50"],
        stem="stride4_skip",
        pool1_padding=1,
        head="feature",
    ),
    "mmaction2_i3d_r50_nl_embedded_32x2": replace(
        VARIANTS["nl_i3d_r50"],
        stem="stride4_skip",
        pool1_padding=1,
        head="feature",
        sub_sample="projection",
        use_scale=False,
        nonlocal_bias=False,
    ),
}


def build(variant, data, **kwargs):
    model = ResNet3D(
        variant,
        classes=data["arch"]["num_classes"],
        include_preprocessing=False,
        **kwargs,
    )
    parity.load_into(model, data)
    return model


def probe_layers(names, variant):
    """Our layer for each probe of a fixture that has one of the same name."""
    after = dict.fromkeys(variant.nonlocal_blocks())
    for probe in names:
        if probe.startswith("nl_"):
            yield probe, f"nonlocal_{probe[3:]}"
        elif probe in ("res2", "res3", "res4", "res5"):
            last = variant.blocks[probe] - 1
            prefix = "nonlocal_" if (probe, last) in after else ""
            yield probe, f"{prefix}{probe}_{last}"
        elif probe.startswith("res"):
            yield probe, probe
        else:
            ours = {"conv1": "conv1_relu", "stem": "pool1", "pooled": "pool5"}
            yield probe, ours.get(probe, probe)


@pytest.mark.parametrize("name", NETWORKS)
def test_probes_and_logits(shared, name):
    data = parity.fixture(shared, name)
    variant = NETWORKS[name]
    model = build(variant, data, classifier_activation=None)
    layers = dict(probe_layers(data["probes"], variant))
    outputs = [model.get_layer(layer).output for layer in layers.values()]
    *probes, logits = keras.Model(model.input, [*outputs, model.output])(
        data["clip"]
    )
    module = parity.weights_module(shared / "parity")
    for (probe, layer), value in zip(layers.items(), probes, strict=True):
        value = np.asarray(value)
        if probe in ("pooled", "logits"):
            value = value.reshape(value.shape[0], -1)
        ours = module.summary(np.moveaxis(value, -1, 1))
        golden = data["probes"][probe]
        for key in ("first16", "sample64"):
            error = np.max(np.abs(np.subtract(ours[key], golden[key])))
            assert error / golden["std"] < 5e-4, (probe, layer, key)
        assert abs(ours["std"] / golden["std"] - 1) < 1e-4, probe
    assert parity.distance(logits[0], data["logits"]) < 1e-4


def test_fully_convolutional_scores_average_probabilities(shared):
    data = parity.fixture(shared, "slowfast_i3d_nln_8x8_r50_fc256")
    model = build(NETWORKS["slowfast_i3d_nln_8x8_r50"], data)
    assert data["output"]["kind"] == "probabilities"
    scores = np.asarray(model(data["clip"]))
    golden = np.reshape(data["output"]["values"], scores.shape)
    assert parity.distance(scores, golden) < 1e-4


def test_sigmoid_head(shared):
    data = parity.fixture(shared, "slowfast_i3d_nln_8x8_r50_charades")
    model = build(
        NETWORKS["slowfast_i3d_nln_8x8_r50"],
        data,
        classifier_activation="sigmoid",
    )
    assert data["output"]["kind"] == "sigmoid"
    scores = np.asarray(model(data["clip"]))
    golden = np.reshape(data["output"]["values"], scores.shape)
    assert parity.distance(scores, golden) < 1e-4
