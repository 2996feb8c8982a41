"""Checkpoints of detectors, in the file formats of every code base."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import pickle
import re

import h5py
import numpy as np
import pytest

from keras_nonlocal import ResNet2D
from keras_nonlocal.detection import mask_rcnn
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.models import pretrained
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.weights import catalogue
from keras_nonlocal.weights import layouts
from keras_nonlocal.weights import load
from keras_nonlocal.weights import lookup
from keras_nonlocal.weights import names
from keras_nonlocal.weights.files import open_checkpoint
from tests import checks
from tests import parity

replace = dataclasses.replace
CLASSES = 3
PRESETS = {
    "detectron2": "mask_rcnn_r50",
    "detectron": "mask_rcnn_r50_detectron",
    "torchvision_detection": "mask_rcnn_r50_torchvision",
}
# Of each family: trunk, pyramid, RPN and heads, in the order of `_OURS`.
_OURS = (
    "fpn_inner_res2 fpn_inner_res3 fpn_inner_res4 fpn_inner_res5 "
    "fpn_layer_res2 fpn_layer_res3 fpn_layer_res4 fpn_layer_res5 "
    "rpn_conv rpn_objectness rpn_deltas box_fc1 box_fc2 box_classes box_deltas "
    "mask_fcn1 mask_fcn2 mask_fcn3 mask_fcn4 mask_deconv mask_logits"
).split()
_THEIRS = {
    "detectron2": (
        "backbone.fpn_lateral2 backbone.fpn_lateral3 backbone.fpn_lateral4 "
        "backbone.fpn_lateral5 backbone.fpn_output2 backbone.fpn_output3 "
        "backbone.fpn_output4 backbone.fpn_output5 "
        "proposal_generator.rpn_head.conv "
        "proposal_generator.rpn_head.objectness_logits "
        "proposal_generator.rpn_head.anchor_deltas roi_heads.box_head.fc1 "
        "roi_heads.box_head.fc2 roi_heads.box_predictor.cls_score "
        "roi_heads.box_predictor.bbox_pred roi_heads.mask_head.mask_fcn1 "
        "roi_heads.mask_head.mask_fcn2 roi_heads.mask_head.mask_fcn3 "
        "roi_heads.mask_head.mask_fcn4 roi_heads.mask_head.deconv "
        "roi_heads.mask_head.predictor"
    ),
    "detectron": (
        "fpn_inner_res2_1_sum_lateral fpn_inner_res3_1_sum_lateral "
        "fpn_inner_res4_1_sum_lateral fpn_inner_res5_1_sum fpn_res2_1_sum "
        "fpn_res3_1_sum fpn_res4_1_sum fpn_res5_1_sum conv_rpn_fpn2 "
        "rpn_cls_logits_fpn2 rpn_bbox_pred_fpn2 fc6 fc7 cls_score bbox_pred "
        "_[mask]_fcn1 _[mask]_fcn2 _[mask]_fcn3 _[mask]_fcn4 conv5_mask "
        "mask_fcn_logits"
    ),
    "torchvision_detection": (
        "backbone.fpn.inner_blocks.0.0 backbone.fpn.inner_blocks.1.0 "
        "backbone.fpn.inner_blocks.2.0 backbone.fpn.inner_blocks.3.0 "
        "backbone.fpn.layer_blocks.0.0 backbone.fpn.layer_blocks.1.0 "
        "backbone.fpn.layer_blocks.2.0 backbone.fpn.layer_blocks.3.0 "
        "rpn.head.conv.0.0 rpn.head.cls_logits rpn.head.bbox_pred "
        "roi_heads.box_head.fc6 roi_heads.box_head.fc7 "
        "roi_heads.box_predictor.cls_score roi_heads.box_predictor.bbox_pred "
        "roi_heads.mask_head.0.0 roi_heads.mask_head.1.0 "
        "roi_heads.mask_head.2.0 roi_heads.mask_head.3.0 "
        "roi_heads.mask_predictor.conv5_mask "
        "roi_heads.mask_predictor.mask_fcn_logits"
    ),
}
# As files of before torchvision 0.13, the published ones, have it.
_OLD_NAMES = (
    (r"(_blocks\.\d)\.0", r"\1"),
    (r"head\.conv\.0\.0", "head.conv"),
    (r"mask_head\.0\.0", "mask_head.mask_fcn1"),
    (r"mask_head\.1\.0", "mask_head.mask_fcn2"),
    (r"mask_head\.2\.0", "mask_head.mask_fcn3"),
    (r"mask_head\.3\.0", "mask_head.mask_fcn4"),
)


def tiny(family, classes=CLASSES, nonlocal_blocks=0, **fields):
    variant = DETECTOR_VARIANTS[PRESETS[family]]
    trunk = replace(
        variant.trunk, depth=26, width=4, num_nonlocal=nonlocal_blocks
    )
    return replace(
        variant,
        **{
            "trunk": trunk,
            "classes": classes,
            "pyramid_channels": 6,
            "box_units": 5,
            "mask_channels": 4,
            "box_size": 3,
            "mask_size": 4,
            "pre_nms": (20, 20),
            "post_nms": (10, 10),
            "max_detections": 4,
        }
        | fields,
    )


@pytest.fixture(scope="module")
def model():
    return MaskRCNN(tiny("detectron2"))


@pytest.fixture(scope="module")
def with_block():
    return MaskRCNN(tiny("detectron2", nonlocal_blocks=1))


@pytest.fixture
def blank(model):
    """The model with weights that no file has."""
    for weight in model.weights:
        if "seed" not in weight.path:
            weight.assign(np.full(weight.shape, -9.0))
    return model


def trunk_name(family, layer):
    """What a convolution or norm of the trunk is called there."""
    is_norm = layer.endswith("_bn")
    layer = layer.removesuffix("_bn")
    if family == "detectron":
        return f"res_{layer}" * (layer == "conv1" and is_norm) or layer
    start = {"detectron2": "backbone.bottom_up."}.get(family, "backbone.body.")
    if layer == "conv1":
        if family == "detectron2":
            return f"{start}stem.conv1" + ".norm" * is_norm
        return start + ("bn1" if is_norm else "conv1")
    stage, block, branch = re.match(r"res(\d)_(\d)_branch(.+)", layer).groups()
    number = " abc".index(branch[-1]) if branch != "1" else None
    if family == "detectron2":
        part = f"conv{number}" if number else "shortcut"
        return f"{start}res{stage}.{block}.{part}" + ".norm" * is_norm
    part = f"{'bn' if is_norm else 'conv'}{number}"
    if number is None:
        part = f"downsample.{int(is_norm)}"
    return f"{start}layer{int(stage) - 1}.{block}.{part}"


def make(model, family, seed=0, epsilon=1e-5):
    """A file's tensors, and what our variables should become of them.

    Both are drawn and laid out here, without the package's own rules.
    """
    rng = np.random.default_rng(seed)
    heads = dict(zip(_OURS, _THEIRS[family].split(), strict=True))
    is_caffe2 = family == "detectron"
    leaves = {"kernel": "weight", "bias": "bias"}
    if is_caffe2:
        leaves = {"kernel": "w", "bias": "b"}
    theirs, ours = {}, {}
    for path, variable in load.variables(model).items():
        layer, leaf = path.split("/")
        shape = tuple(variable.shape)
        name = heads.get(layer) or trunk_name(family, layer)
        join = f"{name}_{{}}" if is_caffe2 else f"{name}.{{}}"
        if leaf in ("gamma", "beta"):
            if leaf == "gamma":
                write_norm(
                    rng, join, layer, shape, is_caffe2, epsilon, theirs, ours
                )
            continue
        value = rng.normal(size=shape).astype("float32")
        ours[path] = value
        theirs[join.format(leaves[leaf])] = their_layout(
            family, layer, leaf, value
        )
    return theirs, ours


def write_norm(rng, join, layer, shape, is_caffe2, epsilon, theirs, ours):
    scale, shift, mean = rng.normal(size=(3, *shape)).astype("float32")
    variance = np.exp(rng.normal(size=shape)).astype("float32")
    if is_caffe2:
        theirs[join.format("bn_s")], theirs[join.format("bn_b")] = scale, shift
    else:
        for leaf, value in (
            ("weight", scale),
            ("bias", shift),
            ("running_mean", mean),
            ("running_var", variance),
        ):
            theirs[join.format(leaf)] = value
        factor = scale / np.sqrt(variance.astype("float64") + epsilon)
        scale, shift = factor, shift - mean * factor
    ours[f"{layer}/gamma"], ours[f"{layer}/beta"] = scale, shift


def their_layout(family, layer, leaf, value):
    """Our array as the code base stores it."""
    background = family != "detectron2"
    if layer == "conv1" and family != "torchvision_detection":
        value = value[:, :, ::-1]
    if layer == "box_fc1" and leaf == "kernel":
        channels = value.reshape(3, 3, 6, -1).transpose(2, 0, 1, 3)
        value = channels.reshape(value.shape)
    if layer == "box_classes" and background:
        value = np.roll(value, 1, axis=-1)
    if layer in ("box_deltas", "mask_logits") and background:
        rows = 4 if layer == "box_deltas" else 1
        none = np.full((*value.shape[:-1], rows), 99, "float32")
        value = np.concatenate([none, value], axis=-1)
    if layer == "mask_deconv" and leaf == "kernel":
        # Ours is (h, w, out, in), theirs (in, out, h, w).
        return np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(value.T)


def write(folder, family, tensors, shared=None):
    """The file as the code base writes it."""
    if family == "torchvision_detection":
        path = folder / "model.pth"
        parity.weights_module(shared / "parity").write_pth(path, tensors)
        return str(path)
    path = folder / "model.pkl"
    if family == "detectron" and shared is not None:
        # As Python 2 wrote it.
        parity.weights_module(shared / "parity").write_caffe2_pkl(
            path, tensors, model_iter=90_000, momentum=True
        )
        return str(path)
    content = {"model": tensors, "__author__": "the test"}
    if family == "detectron":
        momenta = {f"{name}_momentum": v for name, v in tensors.items()}
        content = {"blobs": tensors | momenta, "cfg": "MODEL: {}"}
    path.write_bytes(pickle.dumps(content, 2))
    return str(path)


def assert_filled(model, ours):
    variables = load.variables(model)
    assert variables.keys() == ours.keys()
    for path, variable in variables.items():
        np.testing.assert_allclose(
            checks.numpy(variable), ours[path], 1e-6, 1e-6, err_msg=path
        )


@pytest.mark.parametrize("family", PRESETS)
def test_every_family_fills_every_variable(family, blank, tmp_path, shared):
    theirs, ours = make(blank, family)
    path = write(tmp_path, family, theirs, shared)
    checkpoint = open_checkpoint(path)
    assert checkpoint.family == family
    report = load.fill(blank, checkpoint, tiny(family))
    assert_filled(blank, ours)
    assert report.filled == len(ours)
    assert report.fresh == []
    # Of eight blocks, four shortcuts and conv1.
    assert len(report.folded) == (0 if family == "detectron" else 29)


def test_layers_do_what_the_file_says(blank, tmp_path, rng):
    """The two layouts that shapes do not show, by what comes out."""
    theirs, _ = make(blank, "detectron2")
    path = write(tmp_path, "detectron2", theirs)
    load.fill(blank, open_checkpoint(path), tiny("detectron2"))
    region = rng.normal(size=(3, 3, 6)).astype("float32")
    flat = region.transpose(2, 0, 1).ravel()  # Channel by channel.
    expected = theirs["roi_heads.box_head.fc1.weight"] @ flat
    expected += theirs["roi_heads.box_head.fc1.bias"]
    found = blank.box_head.get_layer("box_fc1")(region.reshape(1, -1))
    np.testing.assert_allclose(
        checks.numpy(found)[0], np.maximum(expected, 0), 1e-4, 1e-4
    )
    maps = rng.normal(size=(4, 2, 3)).astype("float32")
    kernel = theirs["roi_heads.mask_head.deconv.weight"]
    expected = np.einsum("chw,coyx->ohywx", maps, kernel).reshape(4, 4, 6)
    expected += theirs["roi_heads.mask_head.deconv.bias"][:, None, None]
    found = blank.mask_head.get_layer("mask_deconv")(
        maps.transpose(1, 2, 0)[None]
    )
    np.testing.assert_allclose(
        checks.numpy(found)[0].transpose(2, 0, 1),
        np.maximum(expected, 0),
        1e-4,
        1e-4,
    )


def test_names_of_published_torchvision_files(blank, tmp_path, shared):
    theirs, ours = make(blank, "torchvision_detection", epsilon=0.0)
    for pattern, old in _OLD_NAMES:
        theirs = {re.sub(pattern, old, name): v for name, v in theirs.items()}
    assert "rpn.head.conv.weight" in theirs
    path = write(tmp_path, "torchvision_detection", theirs, shared)
    # The published file has no epsilon, as its entry says.
    entry = catalogue.CATALOGUE["torchvision_maskrcnn_resnet50_fpn_coco"]
    checkpoint = lookup.open_published(path, entry)
    load.fill(blank, checkpoint, tiny("torchvision_detection"))
    assert_filled(blank, ours)


def test_91_classes_become_80():
    """The rows of torchvision's detector, by the numbers of COCO."""
    rows = np.arange(91, dtype="float32")
    checkpoint = dataclasses.make_dataclass(
        "File", ["family", "tensors", "is_bgr", "epsilon"]
    )(
        "torchvision_detection",
        {
            "box_classes/bias": rows,
            "box_deltas/bias": np.repeat(rows, 4),
            "mask_logits/kernel": rows[:, None, None, None],
        },
        False,
        1e-5,
    )
    found = layouts.reordered(checkpoint, {"box_classes/bias": np.zeros(81)})
    classes = found["box_classes/bias"]
    # Person, ..., traffic light, fire hydrant, stop sign; background last.
    assert list(classes[[0, 9, 10, 11, 79, 80]]) == [1, 10, 11, 13, 90, 0]
    assert np.array_equal(found["box_deltas/bias"][::4], classes[:80])
    assert np.array_equal(found["mask_logits/kernel"].ravel(), classes[:80])
    kept = layouts.reordered(checkpoint, {"box_classes/bias": np.zeros(91)})
    assert list(kept["box_classes/bias"][[0, 11, 90]]) == [1, 12, 0]


def _changed(change, match):
    return pytest.param(change, match, id=match[:30])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        _changed(
            lambda t: t.pop("roi_heads.mask_head.deconv.bias"),
            "Missing: mask_deconv/bias",
        ),
        _changed(
            lambda t: t.update({"roi_heads.mask_head.mask_fcn5.bias": t.pop(
                "roi_heads.mask_head.mask_fcn4.bias"
            )}),
            r"(?s)Missing: mask_fcn4/bias.*Left over: .*mask_fcn5.bias",
        ),
        _changed(
            lambda t: t.update({"proposal_generator.rpn_head.conv.bias":
                np.zeros(7, "float32")}),
            r"Of another shape: rpn_conv/bias \(7,\) in the file, \(6,\) here",
        ),
        _changed(
            lambda t: t["roi_heads.box_head.fc2.bias"].fill(np.nan),
            "box_fc2/bias has numbers that are not finite",
        ),
        _changed(
            lambda t: t.update({"roi_heads.keypoint_head.conv_fcn1.bias":
                np.zeros(7, "float32")}),
            "holds what no network here has: roi_heads.keypoint_head",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(change, match, blank, tmp_path):
    theirs, _ = make(blank, "detectron2")
    change(theirs)
    path = write(tmp_path, "detectron2", theirs)
    with pytest.raises(ValueError, match=match):
        load.fill(blank, open_checkpoint(path), tiny("detectron2"))
    # Nothing was changed.
    assert all(
        np.all(checks.numpy(v) == -9) for v in load.variables(blank).values()
    )


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (
            tiny("detectron"),
            "anchor_style: 'exact' in the file, 'detectron'.*detectron2'",
        ),
        (tiny("torchvision_detection"), "level_rule: 'scale' in the file"),
        (
            replace(
                tiny("detectron2"),
                trunk=replace(tiny("detectron2").trunk, depth=50),
            ),
            "trunk.depth: 26 in the file, 50 here",
        ),
    ],
)
def test_the_flag_to_change_is_named(network, match, blank, tmp_path):
    theirs, _ = make(blank, "detectron2")
    path = write(tmp_path, "detectron2", theirs)
    with pytest.raises(ValueError, match=f"(?s)to change:.*{match}"):
        load.fill(blank, open_checkpoint(path), network)


def test_a_wrong_number_of_classes(model, tmp_path):
    theirs, _ = make(model, "detectron")
    path = write(tmp_path, "detectron", theirs)
    with pytest.raises(ValueError, match="holds 3 classes but classes=2 was"):
        MaskRCNN(tiny("detectron", classes=2), weights=path)
    with pytest.raises(ValueError, match="80 classes; asked for were 3. Take"):
        MaskRCNN(
            replace(DETECTOR_VARIANTS["mask_rcnn_r50"], classes=3),
            weights="coco",
        )


_OF_CLASSES = ("box_classes", "box_deltas", "mask_logits")


@pytest.mark.parametrize("family", PRESETS)
def test_other_classes_where_asked_for(family, model, tmp_path, shared, caplog):
    """All but the layers of the classes are filled."""
    theirs, ours = make(model, family)
    path = write(tmp_path, family, theirs, shared)
    variant = tiny(family, classes=2, nonlocal_blocks=1)
    with caplog.at_level("INFO", logger="absl"):
        loaded = MaskRCNN(variant, pretrained.find_for_classes(path, variant))
    assert f"nothing for nonlocal_res4_0, {', '.join(_OF_CLASSES)}" in (
        caplog.text
    )
    for name, variable in load.variables(loaded).items():
        layer = name.split("/")[0]
        if layer in _OF_CLASSES:
            assert variable.shape != ours[name].shape
        elif layer != "nonlocal_res4_0":
            np.testing.assert_allclose(
                checks.numpy(variable), ours[name], 1e-6, 1e-6, err_msg=name
            )
    # As many classes: nothing is left out.
    same = tiny(family)
    report = pretrained.find_for_classes(path, same).fill(model, same)
    assert report.fresh == []
    assert_filled(model, ours)


def test_constructors_take_other_classes(model, tmp_path, monkeypatch):
    path = str(tmp_path / "own.weights.h5")
    model.save_weights(path)
    table = {"mask_rcnn_r50": tiny("detectron2", classes=80)}
    monkeypatch.setattr(mask_rcnn, "DETECTOR_VARIANTS", table)
    build = functools.partial(mask_rcnn.MaskRCNN50, 0, path)
    expected = {n: checks.numpy(v) for n, v in load.variables(model).items()}
    own = build()
    assert own.variant.classes == CLASSES
    assert_filled(own, expected)
    for preset in (None, "detectron2"):
        other = build(classes=2, preset=preset)
        assert other.variant == replace(model.variant, classes=2)
        np.testing.assert_array_equal(
            checks.numpy(other.box_head.get_layer("box_fc1").kernel),
            expected["box_fc1/kernel"],
        )
    table["mask_rcnn_r50"] = replace(table["mask_rcnn_r50"], aligned=False)
    with pytest.raises(ValueError, match="network.\naligned: True there"):
        build(classes=2, preset="detectron2")
    found = pretrained.find_for_classes(
        "coco", replace(DETECTOR_VARIANTS["nl_mask_rcnn_r101"], classes=3)
    )
    assert found.entry.name == "detectron2_mask_rcnn_R_101_FPN_3x"
    with pytest.raises(ValueError, match="backbone_weights"):
        pretrained.find_for_classes(
            "torchvision_resnet50", DETECTOR_VARIANTS["mask_rcnn_r50"]
        )


@pytest.mark.parametrize("key", ["detectron", "detectron2"])
def test_files_of_one_name_are_told_apart(key, tmp_path):
    """Detectron's ResNeXt is folded and needs no deviations."""
    name = "X-101-32x8d"
    variant = ImageVariant(depth=26, width=4, norm="affine")
    path, _ = caffe2_trunk(variant, tmp_path)
    if key == "detectron2":
        statistics = {
            f"res_conv1_bn_{leaf}": np.ones(4, "float32")
            for leaf in ("running_mean", "running_var")
        }
        path, _ = caffe2_trunk(variant, tmp_path, **statistics)
    path = pathlib.Path(path).rename(tmp_path / f"{name}.pkl")
    found = lookup.find(str(path))
    assert found.entry is catalogue.CATALOGUE[f"{key}_{name}"]
    assert (found.network.std == (1.0, 1.0, 1.0)) == (key == "detectron")


def test_a_hostile_file(tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, ("1 + 1",)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": Evil()}}))
    with pytest.raises(ValueError, match="evil.pkl: cannot be read"):
        MaskRCNN(tiny("detectron2"), weights=str(path))


def test_a_baseline_and_a_fresh_block(model, with_block, tmp_path, caplog, rng):
    """The rest is strict, and the block stays the identity."""
    theirs, ours = make(model, "detectron2")
    path = write(tmp_path, "detectron2", theirs)
    found = pretrained.find(path, with_block.variant)
    with caplog.at_level("INFO", logger="absl"):
        report = found.fill(with_block, with_block.variant)
    assert report.fresh == ["nonlocal_res4_0"]
    assert "has nothing for nonlocal_res4_0" in caplog.text
    filled = load.variables(with_block)
    for name in [name for name in filled if name.startswith("nonlocal_")]:
        del filled[name]
    assert filled.keys() == ours.keys()
    block = with_block.trunk.get_layer("nonlocal_res4_0")
    maps = rng.normal(size=(1, 4, 4, 64)).astype("float32")
    np.testing.assert_array_equal(checks.numpy(block(maps)), maps)
    del theirs["backbone.bottom_up.res4.1.conv1.weight"]
    path = write(tmp_path, "detectron2", theirs)
    with pytest.raises(ValueError, match="Missing: res4_1_branch2a/kernel \\("):
        pretrained.find(path, with_block.variant).fill(
            with_block, with_block.variant
        )


def test_a_block_is_not_dropped(model, with_block, tmp_path, shared):
    """Names of a port: the block around which the residual one is wrapped."""
    theirs, _ = make(model, "torchvision_detection")
    block = with_block.trunk.get_layer("nonlocal_res4_0")
    checks.randomize(block, seed=3)
    values = {}
    for part in ("theta", "phi", "g", "out"):
        kernel, bias = (checks.numpy(w) for w in getattr(block, part).weights)
        name = f"backbone.body.layer3.0.nl.{'W' if part == 'out' else part}"
        values[f"{name}.weight"] = kernel.reshape(kernel.shape[-2:]).T[
            :, :, None, None
        ]
        values[f"{name}.bias"] = bias
    theirs = {
        name.replace("body.layer3.0.", "body.layer3.0.block."): value
        for name, value in theirs.items()
    } | values
    path = write(tmp_path, "torchvision_detection", theirs, shared)
    variant = tiny("torchvision_detection", nonlocal_blocks=1)
    expected = [checks.numpy(weight) for weight in block.weights]
    checks.randomize(block, seed=4)
    report = load.fill(
        with_block, open_checkpoint(path), variant, ("nonlocal_",)
    )
    assert report.fresh == []
    for weight, value in zip(block.weights, expected, strict=True):
        np.testing.assert_array_equal(checks.numpy(weight), value)
    with pytest.raises(ValueError, match="num_nonlocal: 1 in the file, 0 here"):
        load.fill(model, open_checkpoint(path), tiny("torchvision_detection"))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_own_files_know_their_detector(suffix, model, tmp_path):
    checks.randomize(model.trunk, seed=5, scale=0.1)
    checks.randomize(model.box_head, seed=6, scale=0.1)
    path = str(tmp_path / f"own{suffix}")
    if suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    assert lookup.find(path).network == model.variant
    loaded = MaskRCNN(None, weights=path)
    assert loaded.variant == model.variant
    assert_filled(
        loaded,
        {p: checks.numpy(v) for p, v in load.variables(model).items()},
    )
    other = replace(model.variant, aligned=False, score_threshold=0.5)
    with pytest.raises(ValueError, match="network.\naligned: True there"):
        lookup.find(path, other)
    # What the weights do not depend on may be chosen anew.
    lookup.find(path, replace(model.variant, score_threshold=0.5))
    blocks = model.variant.with_nonlocal(1)
    assert lookup.pinned_network(blocks, path)[0] == blocks


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": 10**9},
        {"mask_convs": 10**9},
        {"box_size": 10**5},
        {"mask_channels": -1},
        {"trunk": 5},
        {"trunk": {"width": 10**7}},
        {"trunk": {"groups": 10**7}},
    ],
)
def test_a_description_is_not_believed(fields, model, tmp_path):
    """A network as large as it says would be built."""
    path = str(tmp_path / "bad.weights.h5")
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        own = file["vars"]
        described = json.loads(own["network"][()].tobytes())
        if isinstance(fields.get("trunk"), dict):
            fields = {"trunk": described["trunk"] | fields["trunk"]}
        text = json.dumps(described | fields).encode()
        del own["network"]
        own["network"] = np.frombuffer(text, "uint8")
    with pytest.raises(ValueError, match="bad.weights.h5"):
        MaskRCNN(None, weights=path)


def caffe2_trunk(variant, folder, **beside):
    """An image network as Detectron publishes it, and what it should give."""
    network = ResNet2D(variant, include_top=False)
    rng = np.random.default_rng(7)
    blobs, ours = {}, {}
    for path, variable in load.variables(network).items():
        layer, leaf = path.split("/")
        value = rng.normal(size=variable.shape).astype("float32")
        ours[path] = value
        if leaf == "kernel":
            theirs = value[:, :, ::-1] if layer == "conv1" else value
            blobs[f"{layer}_w"] = theirs.transpose(3, 2, 0, 1)
            blobs[f"{layer}_b"] = np.zeros(value.shape[-1], "float32")
        else:
            name = layer if layer != "conv1_bn" else "res_conv1_bn"
            blobs[f"{name}_{'s' if leaf == 'gamma' else 'b'}"] = value
    blobs["fc1000_w"] = np.zeros((1000, 128), "float32")
    blobs["fc1000_b"] = np.zeros(1000, "float32")
    path = folder / f"trunk{len(beside)}.pkl"
    path.write_bytes(pickle.dumps(blobs | beside, 2))
    return str(path), ours


def test_a_backbone(with_block, tmp_path):
    trunk = replace(with_block.variant.trunk, num_nonlocal=0)
    path, ours = caffe2_trunk(trunk, tmp_path)
    checks.randomize(with_block.trunk, seed=8)
    before = {
        name: checks.numpy(variable).copy()
        for name, variable in load.variables(with_block).items()
    }
    found = pretrained.find_backbone(path, with_block.variant)
    report = found.fill(with_block, with_block.variant)
    after = load.variables(with_block)
    for name, value in after.items():
        np.testing.assert_array_equal(
            checks.numpy(value), ours.get(name, before[name]), err_msg=name
        )
    assert report.left_out == ["fc1000_w", "fc1000_b"]
    assert {name[:7] for name in report.fresh} == {
        "nonloca",
        "fpn_inn",
        "fpn_lay",
    }
    # The other way round, and where the argument is another.
    with pytest.raises(ValueError, match="takes an image network as `backbone"):
        load.fill(with_block, open_checkpoint(path), with_block.variant)


def test_constructors_take_the_details_of_a_backbone(monkeypatch):
    asked = DETECTOR_VARIANTS["nl_mask_rcnn_r50"]
    pinned, found = pretrained.pin_backbone(asked, "torchvision_resnet50")
    assert found.entry.name == "torchvision_resnet50"
    assert pinned.trunk == replace(
        catalogue.CATALOGUE["torchvision_resnet50"].network,
        norm="affine",
        num_nonlocal=1,
    )
    assert replace(pinned, trunk=asked.trunk) == asked
    _, found = pretrained.pin_backbone(asked, "imagenet")
    assert found.entry.name == "detectron2_R-50"
    with pytest.raises(ValueError, match="trunk.depth: 101 there, 50 here"):
        pretrained.pin_backbone(asked, "detectron2_R-101")
    with pytest.raises(ValueError, match="stride_in_1x1: False there, True"):
        pretrained.find_backbone("torchvision_resnet50", asked)
    with pytest.raises(ValueError, match="must be of an image network"):
        pretrained.find_backbone("detectron2_mask_rcnn_R_50_FPN_3x", asked)
    assert pretrained.pin_backbone(asked, None) == (asked, None)


def test_constructors_take_the_pinned_detector():
    asked = DETECTOR_VARIANTS["nl_mask_rcnn_r50"]
    pinned, _ = pretrained.pin(asked, "detectron_mask_rcnn_R-50-FPN_1x")
    assert pinned == DETECTOR_VARIANTS["nl_mask_rcnn_r50_detectron"]
    pinned, found = pretrained.pin(asked, "coco")
    assert (pinned, found.entry.scores["box AP"]) == (asked, 41.0)
    large = DETECTOR_VARIANTS["mask_rcnn_x152"]
    pinned, _ = pretrained.pin(large, "coco")
    assert pinned == DETECTOR_VARIANTS["mask_rcnn_x152_detectron"]
    with pytest.raises(ValueError, match="trunk.depth: 50 there, 101 here"):
        pretrained.pin(
            DETECTOR_VARIANTS["mask_rcnn_r101"],
            "detectron2_mask_rcnn_R_50_FPN_1x",
        )
    with pytest.raises(ValueError, match="takes them as `backbone_weights`"):
        pretrained.pin(asked, "torchvision_resnet50")
    with pytest.raises(ValueError, match="sampling_ratio: 0 there, 2 here"):
        pretrained.find(
            "detectron2_mask_rcnn_R_50_FPN_1x",
            DETECTOR_VARIANTS["mask_rcnn_r50_paper"],
        )


def test_a_published_detector_is_converted(model, tmp_path, monkeypatch):
    """From its file by the cache to a file of our own."""
    theirs, ours = make(model, "detectron2")
    path = write(tmp_path, "detectron2", theirs)
    content = pathlib.Path(path).read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()[:6]
    entry = catalogue.WeightsEntry(
        "tiny_detector",
        model.variant,
        f"https://localhost:9/model_final_{digest}.pkl",
        "CC-BY-SA-3.0",
        dataset="coco",
        classes=CLASSES,
        digest=f"md5:{digest}",
    )
    monkeypatch.setitem(catalogue.CATALOGUE, entry.name, entry)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    assert catalogue.identify(path) is entry
    downloads = tmp_path / "home" / "keras_nonlocal" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / entry.file_name).write_bytes(content)
    loaded = MaskRCNN(None, weights=entry.name)
    assert_filled(loaded, ours)
    (converted,) = downloads.parent.glob("*.weights.h5")
    assert lookup.find(str(converted)).network == model.variant


def test_colours_of_image_networks(tmp_path):
    """Detectron's are in blue, green, red; other networks' are not."""
    variant = ImageVariant(depth=26, width=4, norm="affine")
    path, _ = caffe2_trunk(variant, tmp_path)
    assert open_checkpoint(path).is_bgr
    statistics = {
        f"res_conv1_bn_{name}": np.ones(4, "float32") for name in ("rm", "riv")
    }
    path, _ = caffe2_trunk(variant, tmp_path, **statistics)
    assert not open_checkpoint(path).is_bgr
    assert not names.FAMILIES["torchvision"].is_bgr
