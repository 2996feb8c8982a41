"""Strictness of loading, on small checkpoints in the formats of others."""

import dataclasses
import pickle
import re

import numpy as np
import pytest

from keras_nonlocal import ImageVariant
from keras_nonlocal import ResNet2D
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal.weights import flags
from keras_nonlocal.weights import load
from keras_nonlocal.weights.files import open_checkpoint
from tests import checks
from tests import parity
from tests.weights import checkpoints

replace = dataclasses.replace
NETWORK = Variant(
    depth=26, width=4, inflation="3x1x1", num_nonlocal=2, stem="stride1"
)


@pytest.fixture(scope="module")
def model():
    model = ResNet3D(NETWORK, classes=5)
    checks.randomize(model, scale=0.1)
    return model


@pytest.fixture
def blobs(model):
    return checkpoints.tensors_of(model, checkpoints.caffe2_name)


def write(folder, blobs):
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, 2))
    return path


def build(path, variant=NETWORK, **kwargs):
    return ResNet3D(variant, **{"classes": 5, "weights": path} | kwargs)


def assert_equal_weights(one, other):
    for ours, theirs in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(checks.numpy(ours), checks.numpy(theirs))


def test_every_variable_is_filled(model, blobs, tmp_path):
    blobs["conv1_w_momentum"] = np.zeros(3, "float32")
    blobs["model_iter"] = 400_000
    assert_equal_weights(build(write(tmp_path, blobs)), model)


def test_the_report(blobs, tmp_path):
    blobs["lr"] = 0.1
    path = write(tmp_path, blobs)
    report = load.fill(
        ResNet3D(NETWORK, include_top=False), open_checkpoint(path), NETWORK
    )
    assert report.family == "caffe2"
    assert report.ignored == ["lr"]
    assert sorted(report.left_out) == ["pred_b", "pred_w"]
    assert report.filled == len(blobs) - 3
    assert report.inflated == report.folded == report.duplicates == []


def test_pytorchvideo(tmp_path, shared):
    variant = replace(NETWORK, num_nonlocal=0, pool1_padding=1, head="logit")
    model = ResNet3D(variant, classes=5)
    checks.randomize(model, scale=0.1)
    state = checkpoints.tensors_of(model, checkpoints.pytorchvideo_name)
    module = parity.weights_module(shared / "parity")
    for prefix in ("", "model."):
        path = tmp_path / "model.pyth"
        module.write_pth(
            path, {prefix + name: v for name, v in state.items()}, "slowfast"
        )
        assert_equal_weights(build(path, variant), model)


def test_nothing_changes_where_something_is_missing(model, blobs, tmp_path):
    del blobs["res3_0_branch2a_w"]
    path = write(tmp_path, blobs)
    fresh = ResNet3D(NETWORK, classes=5)
    before = [checks.numpy(weight).copy() for weight in fresh.weights]
    with pytest.raises(ValueError, match="Missing: res3_0_branch2a/kernel"):
        load.fill(fresh, open_checkpoint(path), NETWORK)
    for weight, value in zip(fresh.weights, before, strict=True):
        np.testing.assert_array_equal(checks.numpy(weight), value)


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"num_nonlocal": 1}, "nonlocal blocks after: .*res3.*res4"),
        ({"num_nonlocal": 0}, "nonlocal blocks after"),
        ({"depth": 50, "num_nonlocal": 5}, "depth: 26 in the file, 50 here"),
        ({"inflation": None}, "inflated kernels"),
        ({"inflation": "3x3x3"}, "inflated kernels"),
        ({"inflated": "all"}, "inflated kernels"),
        ({"mode": "gaussian"}, "mode: 'embedded_gaussian' or 'dot_product'"),
        ({"mode": "concatenation"}, "mode"),
        ({"nonlocal_norm": None}, "nonlocal_norm: 'batch'"),
        ({"nonlocal_bias": False}, "nonlocal_bias: True in the file"),
        ({"sub_sample": "projection"}, "sub_sample: 'input' in the file"),
        ({"sub_sample": None}, "sub_sample: 'input' in the file"),
        ({"stride_in_1x1": True}, "stride_in_1x1: False in the file"),
        ({"attention_axes": "time"}, "attention_axes: 'spacetime' in the"),
    ],
)
def test_the_flag_to_change_is_named(changes, flag, blobs, tmp_path):
    path = write(tmp_path, blobs)
    with pytest.raises(ValueError, match=f"(?s)to change:.*{flag}"):
        build(path, replace(NETWORK, **changes))


@pytest.mark.parametrize(
    ("without", "changes", "flag"),
    [
        (r"nonlocal.*_bn_", {}, "nonlocal_norm: None in the file"),
        (r"nonlocal.*_bn_r", {}, "nonlocal_norm: 'affine' in the file"),
        (r"_(rm|riv)$", {}, "norm: 'affine' in the file, 'batch' here"),
        (r"_out_b$", {}, "nonlocal_bias: False in the file"),
        (r"_(theta|phi)_", {}, "mode: 'gaussian' in the file"),
    ],
)
def test_what_a_file_lacks_tells_the_flag(
    without, changes, flag, blobs, tmp_path
):
    blobs = {k: v for k, v in blobs.items() if not re.search(without, k)}
    with pytest.raises(ValueError, match=f"(?s)Missing.*{flag}"):
        build(write(tmp_path, blobs))


def test_three_tails(blobs, tmp_path):
    """BN, affine and nothing after W_z, each in the network it is of."""
    build(write(tmp_path, blobs))
    affine = {k: v for k, v in blobs.items() if not k.endswith(("_rm", "_riv"))}
    frozen = replace(NETWORK, norm="affine", nonlocal_norm="affine")
    build(write(tmp_path, affine), frozen)
    bare = {k: v for k, v in affine.items() if not k.startswith("nonlocal")}
    bare |= {k: v for k, v in affine.items() if "_bn_" not in k}
    build(write(tmp_path, bare), replace(frozen, nonlocal_norm=None))


def test_batch_norms_are_folded_where_asked(model, blobs, tmp_path, rng):
    path = write(tmp_path, blobs)
    frozen = build(
        path, replace(NETWORK, norm="affine", nonlocal_norm="affine")
    )
    clip = rng.integers(0, 256, (1, 8, 40, 40, 3)).astype("uint8")
    np.testing.assert_allclose(
        checks.numpy(frozen(clip)), checks.numpy(model(clip)), rtol=1e-4
    )
    assert not any("bn" in w.path for w in frozen.trainable_weights)


def test_what_is_left_over(blobs, tmp_path):
    more = blobs | {"res5_7_branch2a_w": np.zeros((2, 2, 1, 1, 1), "float32")}
    with pytest.raises(ValueError, match="Left over: res5_7_branch2a_w"):
        build(write(tmp_path, more))
    strange = blobs | {"conv1_weights": np.zeros(3, "float32")}
    with pytest.raises(ValueError, match="no network here has: conv1_weights"):
        build(write(tmp_path, strange))


def test_shapes(blobs, tmp_path):
    wrong = blobs | {"res2_0_branch2c_bn_s": np.zeros(3, "float32")}
    with pytest.raises(ValueError, match=r"Of another shape.*\(3,\) in the"):
        build(write(tmp_path, wrong))
    # As many values, but another layout.
    kernel = blobs["res3_1_branch2b_w"]
    wrong = blobs | {"res3_1_branch2b_w": np.moveaxis(kernel, 2, -1)}
    with pytest.raises(ValueError, match="Of another shape.*res3_1_branch2b"):
        build(write(tmp_path, wrong))


def test_classes(blobs, tmp_path):
    with pytest.raises(ValueError, match="holds 5 classes but classes=7"):
        build(write(tmp_path, blobs), classes=7)


def test_the_classifier_of_a_convolution(model, blobs, tmp_path):
    blobs["pred_w"] = blobs["pred_w"][..., None, None, None]
    assert_equal_weights(build(write(tmp_path, blobs)), model)


def test_flat_files(model, blobs, tmp_path):
    path = tmp_path / "flat.pkl"
    path.write_bytes(pickle.dumps(blobs, 2))
    assert_equal_weights(build(path), model)


def test_image_kernels_are_inflated(blobs, tmp_path):
    image = {
        name: value[:, :, 0] if value.ndim == 5 else value
        for name, value in blobs.items()
    }
    model = build(write(tmp_path, image))
    kernel = checks.numpy(model.get_layer("conv1").kernel)
    assert kernel.shape[0] == 5
    expected = np.moveaxis(image["conv1_w"], (0, 1), (-1, -2))
    for frame in kernel:
        np.testing.assert_allclose(frame, expected / 5, rtol=1e-6)


def test_unknown_families(tmp_path):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"w": np.zeros(3)}))
    with pytest.raises(ValueError, match="none of the families.*holds: w"):
        build(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="no tensors"):
        build(path)


@pytest.mark.parametrize("bad", ["nan", "negative", "complex", "integer"])
def test_numbers_that_cannot_be(bad, blobs, tmp_path):
    variance = blobs["res2_0_branch2a_bn_riv"]
    blobs["res2_0_branch2a_bn_riv"] = {
        "nan": variance * np.nan,
        "negative": -variance,
        "complex": variance.astype("complex64"),
        "integer": variance.astype("int32"),
    }[bad]
    with pytest.raises(ValueError, match="Not to be used.*\n.*res2_0_branch2a"):
        build(write(tmp_path, blobs))


def test_incomplete_norms_are_told_before_they_are_folded(blobs, tmp_path):
    frozen = replace(NETWORK, norm="affine", nonlocal_norm="affine")
    for name, value in (
        ("res2_0_branch2a_bn_s", None),
        ("res2_0_branch2a_bn_riv", np.ones(1, "float32")),
    ):
        changed = blobs | {name: value}
        if value is None:
            del changed[name]
        with pytest.raises(ValueError, match="res2_0_branch2a_bn"):
            build(write(tmp_path, changed), frozen)


def test_what_stands_beside_the_weights_is_reported(blobs, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs, "extra": {"a": 1}}, 2))
    assert open_checkpoint(path).ignored == ["extra"]
    # A flat file with a dict beside its tensors.
    path.write_bytes(pickle.dumps({**blobs, "model": {"epoch": 1}}, 2))
    with pytest.raises(ValueError, match="no network here has: model/epoch"):
        open_checkpoint(path)


def test_video_checkpoints_are_not_of_image_networks(tmp_path, shared):
    variant = replace(NETWORK, num_nonlocal=0, inflation=None)
    state = checkpoints.tensors_of(
        ResNet3D(variant, classes=5), checkpoints.caffe2_name
    )
    image = ResNet2D("resnet50", classes=5)
    with pytest.raises(ValueError, match="of a video network"):
        load.fill(
            image, open_checkpoint(write(tmp_path, state)), ImageVariant()
        )


def test_facts_of_a_code_base(blobs, tmp_path):
    """SlowFast always pads pool1: a network that does not is refused."""
    path = write(tmp_path, blobs)
    file = replace(open_checkpoint(path), family="slowfast")
    lines = flags.contradictions(file, NETWORK, reads_pixels=True)
    assert lines == ["pool1_padding: 1 in the file, 0 here"]
    padded = replace(NETWORK, pool1_padding=1, mean=0.0)
    assert flags.contradictions(file, padded, reads_pixels=False) == []
    (line,) = flags.contradictions(file, padded, reads_pixels=True)
    assert line.startswith("mean: 114.75")


@pytest.mark.parametrize(
    ("family", "config", "shown"),
    [
        ("slowfast", "  INSTANTIATION: dot_product\n", "dot_product"),
        ("slowfast", "  INSTANTIATION: softmax\n", "embedded_gaussian"),
        (
            "mmaction2",
            "non_local_cfg=dict(\n norm_cfg=dict(type='BN3d'),\n "
            "use_scale=True, mode='gaussian')",
            "gaussian",
        ),
    ],
)
def test_the_configuration_in_a_file_tells(
    family, config, shown, blobs, tmp_path
):
    """Dot product and softmax have the same names and shapes."""
    path = write(tmp_path, blobs)
    file = replace(open_checkpoint(path), family=family, config=config)
    assert flags.shown(file)["mode"] == (shown,)
    if family == "mmaction2":
        assert flags.shown(file)["use_scale"] == (True,)


def test_the_configuration_is_read(tmp_path, shared, monkeypatch):
    module = parity.weights_module(shared / "parity")
    state = {"s1.pathway0_stem.conv.weight": np.ones((2, 3, 1, 1, 1), "f4")}
    for wrapper in (
        lambda state: {"model_state": state, "cfg": "A: b"},
        lambda state: {"meta": {"cfg": "A: b"}, "state_dict": state},
    ):
        monkeypatch.setitem(module.WRAPPERS, "configured", wrapper)
        module.write_pth(tmp_path / "a.pyth", state, "configured")
        assert open_checkpoint(tmp_path / "a.pyth").config == "A: b"


def test_tensors_held_twice_must_be_equal(model, tmp_path, shared):
    module = parity.weights_module(shared / "parity")
    one = np.ones((2, 3), "float32")
    state = {
        "first_stage.0.weight": np.ones((2, 3, 1, 1, 1), "float32"),
        "fc.weight": one,
        "head.1.weight": one,
    }
    path = tmp_path / "gluon.pth"
    module.write_pth(path, state)
    assert open_checkpoint(path).sources["logits/kernel"] == [
        "fc.weight",
        "head.1.weight",
    ]
    module.write_pth(path, state | {"fc.weight": one + 1})
    with pytest.raises(ValueError, match="one tensor.*under two names"):
        open_checkpoint(path)
