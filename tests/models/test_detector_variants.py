"""The table of detectors, and the image networks under them."""

import dataclasses
import json

import keras
import pytest

from keras_nonlocal import ImageVariant
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import PRESETS
from keras_nonlocal.models.detector_variants import TRAINING_FIELDS
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.detector_variants import describe_detector
from keras_nonlocal.models.detector_variants import detector_name
from keras_nonlocal.models.detector_variants import restore_detector
from keras_nonlocal.models.resnet2d import trunk_stages

BASE = DETECTOR_VARIANTS["nl_mask_rcnn_r50"]


def test_the_six_rows_of_the_paper():
    rows = [
        DETECTOR_VARIANTS[detector_name(trunk, "paper", number)]
        for trunk in ("r50", "r101", "x152")
        for number in (0, 1)
    ]
    networks = [
        (v.trunk.depth, v.trunk.groups, v.trunk.group_width, v.nonlocal_blocks)
        for v in rows
    ]
    assert networks == [
        (50, 1, 64, 0),
        (50, 1, 64, 1),
        (101, 1, 64, 0),
        (101, 1, 64, 1),
        (152, 32, 8, 0),
        (152, 32, 8, 1),
    ]
    # MSRA's networks have their strides elsewhere than ResNeXts.
    assert [v.trunk.stride_in_1x1 for v in rows] == [True] * 4 + [False] * 2
    assert {(v.sampling_ratio, v.aligned) for v in rows} == {(2, False)}
    assert {(v.rpn_beta, v.box_beta) for v in rows} == {(1 / 9, 1.0)}


def test_every_preset_has_every_detector():
    names = {
        detector_name(trunk, preset, number)
        for preset in PRESETS
        for trunk in ("r50", "r101", "x152")
        for number in (0, 1)
    }
    small = {"small_mask_rcnn", "small_nl_mask_rcnn"}
    assert set(DETECTOR_VARIANTS) == names | small
    assert len(set(DETECTOR_VARIANTS.values())) == len(names | small) == 26


def test_presets_differ_from_each_other_where_the_code_bases_do():
    torchvision = DETECTOR_VARIANTS["mask_rcnn_r50_torchvision"]
    assert torchvision.trunk == ImageVariant(norm="affine")
    assert torchvision.post_nms == (2000, 1000)
    assert torchvision.level_rule == "level"
    detectron = DETECTOR_VARIANTS["mask_rcnn_r50_detectron"]
    assert detectron.box_offset == 1
    assert detectron.trunk.mean == (122.7717, 115.9465, 102.9801)
    ours = DETECTOR_VARIANTS["mask_rcnn_r50"]
    assert (ours.sampling_ratio, ours.rpn_beta, ours.box_beta) == (0, 0, 0)
    assert ours.trunk.mean == (123.675, 116.28, 103.53)
    assert ours.trunk.std == (1, 1, 1)


def test_a_description_survives_json():
    for variant in DETECTOR_VARIANTS.values():
        description = json.loads(json.dumps(describe_detector(variant)))
        assert restore_detector(description) == variant
        assert description.keys() > TRAINING_FIELDS


@pytest.mark.parametrize(
    "change",
    [{"anchors": 1}, {"trunk": 3}, {"trunk": {"depth": 18}}, {"classes": 0}],
)
def test_what_describes_no_detector(change):
    with pytest.raises(ValueError, match="does not describe"):
        restore_detector({**describe_detector(BASE), **change})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trunk", "resnet50"),
        ("classes", 0),
        ("classes", 2.5),
        ("anchor_style", "round"),
        ("anchor_sizes", (32, 64, 128, 256)),
        ("anchor_sizes", 32),
        ("anchor_ratios", (0.5, -1.0)),
        ("sampling_ratio", -1),
        ("pre_nms", (2000,)),
        ("nms", 1.5),
        ("rpn_low", 0.8),
        ("rpn_beta", -0.1),
        ("region_positive_share", 0.001),
        ("frozen_stages", 6),
    ],
)
def test_refused_fields(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received"):
        dataclasses.replace(BASE, **{name: value})


def test_lists_are_as_good_as_tuples():
    listed = dataclasses.replace(
        BASE, anchor_sizes=list(BASE.anchor_sizes), post_nms=[1000, 1000]
    )
    assert listed == BASE
    assert hash(listed) == hash(BASE)


def test_a_detector_without_a_trunk():
    with pytest.raises(TypeError, match="trunk"):
        DetectorVariant()


def test_narrow_and_shallow_trunks():
    """As the 64 channels of the paper's, an eighth of them."""
    variant = ImageVariant(
        depth=26, width=8, groups=8, group_width=16, num_nonlocal=1
    )
    x = keras.Input((64, 96, 3))
    stages = trunk_stages(x, variant)
    model = keras.Model(x, stages)
    shapes = [tuple(stage.shape[1:]) for stage in stages.values()]
    assert shapes == [(16, 24, 32), (8, 12, 64), (4, 6, 128), (2, 3, 256)]
    # 16 channels in all, two a group.
    assert model.get_layer("res2_1_branch2b").kernel.shape == (3, 3, 2, 16)
    names = [layer.name for layer in model.layers]
    # Before the last residual block.
    block = names.index("nonlocal_res4_0")
    assert names.index("res4_0") < block < names.index("res4_1_branch2a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "`width` must be a positive integer"),
        ({"width": 8, "group_width": 4}, "a whole number"),
        ({"sub_sample": "keys"}, "`sub_sample` must be one of"),
        ({"depth": 18}, "`depth` must be one of"),
    ],
)
def test_refused_image_networks(change, words):
    with pytest.raises(ValueError, match=words):
        ImageVariant(**change)
