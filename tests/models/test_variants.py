"""Every variant against the counts of the published networks."""

import dataclasses
import functools

import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import count_macs

# Trainable parameters and GMACs at 32x224x224, 400 classes; ratio of the GMACs
# to the C2D of that depth as printed in table 2e where it is.
AT_32X224 = {
    "c2d_r101": (43_319_760, 35.083, 1.0),
    "i3d_3x3x3_r101": (63_042_768, 61.861, 1.8),
    "i3d_r101": (51_754_192, 51.378, 1.5),
    "nl_c2d_r101": (50_678_224, 43.210, 1.2),
    "nl1_c2d_r101": (45_421_520, 36.267, None),
    "nl10_c2d_r101": (58_036_688, 51.338, None),
    "nl_i3d_r101": (59_112_656, 59.506, None),
    "nl10_i3d_r101": (66_471_120, 67.634, None),
    "c2d_r50": (24_327_632, 20.234, 1.0),
    "i3d_3x3x3_r50": (33_433_808, 38.688, None),
    "i3d_r50": (28_043_472, 32.830, None),
    "nl1_c2d_r50": (26_429_392, 21.419, None),
    "nl_c2d_r50": (31_686_096, 28.361, None),
    "nl10_c2d_r50": (39_044_560, 36.489, None),
    "nl_i3d_r50": (35_401_936, 40.958, None),
    "nl10_i3d_r50": (42_760_400, 49.085, None),
}
# GMACs at the clip length of the variant and the given side.
GMACS = {
    ("c2d_r50_8x8", 224): 19.290,
    ("i3d_r50_8x8", 224): 28.109,
    ("nl_c2d_r50_8x8", 224): 27.417,
    ("nl_i3d_r50_8x8", 224): 36.237,
    ("i3d_r50_32x4", 224): 112.435,
    ("nl_i3d_r50_32x4", 224): 150.611,
    ("i3d_r50_128x1", 224): 131.317,
    ("nl_i3d_r50_128x1", 224): 169.493,
    ("c2d_r101_8x8", 224): 34.138,
    ("i3d_r101_8x8", 224): 46.658,
    ("nl_c2d_r101_8x8", 224): 42.266,
    ("nl_i3d_r101_8x8", 224): 54.785,
    ("i3d_r101_32x4", 224): 186.628,
    ("nl_i3d_r101_32x4", 224): 224.804,
    ("i3d_r101_128x1", 224): 205.510,
    ("nl_i3d_r101_128x1", 224): 243.686,
    ("c2d_r50_8x8", 256): 25.230,
    ("i3d_r50_8x8", 256): 36.765,
    ("nl_c2d_r50_8x8", 256): 37.041,
    ("nl_i3d_r50_8x8", 256): 48.576,
    ("c2d_r50", 256): 26.463,
    ("i3d_r50", 256): 42.930,
    ("nl_c2d_r50", 256): 38.274,
    ("nl_i3d_r50", 256): 54.742,
    ("c2d_r101_8x8", 256): 44.624,
    ("i3d_r101_8x8", 256): 60.991,
    ("nl_c2d_r101_8x8", 256): 56.435,
    ("nl_i3d_r101_8x8", 256): 72.802,
    ("c2d_r101", 256): 45.857,
    ("i3d_r101", 256): 67.157,
    ("nl_c2d_r101", 256): 57.668,
    ("nl_i3d_r101", 256): 78.968,
}
# At 224 if all frames saw each other in res3.
UNGROUPED_GMACS = {
    "nl_i3d_r50_32x4": 180.82,
    "nl_i3d_r50_128x1": 199.70,
    "nl_i3d_r101_32x4": 255.02,
    "nl_i3d_r101_128x1": 273.90,
}
# Millions of kernel weights, and ratios to the C2D of kernels and of GMACs.
KERNELS = {
    "c2d_r101": (43.2140, 1, 1),
    "i3d_3x3x3_r101": (62.9370, 1.456, 1.763),
    "i3d_r101": (51.6484, 1.195, 1.464),
    "nl_c2d_r101": (50.5540, 1.170, 1.232),
    "nl1_c2d_r101": (45.3112, 1.049, 1.034),
    "nl10_c2d_r101": (57.8941, 1.340, 1.463),
    "nl_i3d_r101": (58.9885, 1.365, 1.696),
    "nl10_i3d_r101": (66.3285, 1.535, 1.928),
    "c2d_r50": (24.2741, 1, 1),
    "i3d_3x3x3_r50": (33.3803, 1.375, 1.912),
    "i3d_r50": (27.9900, 1.153, 1.623),
    "nl1_c2d_r50": (26.3713, 1.086, 1.059),
    "nl_c2d_r50": (31.6141, 1.302, 1.402),
    "nl10_c2d_r50": (38.9542, 1.605, 1.803),
    "nl_i3d_r50": (35.3300, 1.455, 2.024),
    "nl10_i3d_r50": (42.6700, 1.758, 2.426),
}
# Blocks with the same weights whatever they look at.
SAME_PARAMETERS = {
    "nl_c2d_r50_space": "nl_c2d_r50",
    "nl_c2d_r50_time": "nl_c2d_r50",
    "nl1_c2d_r50_dot_product": "nl1_c2d_r50",
    "nl_i3d_r101_8x8": "nl_i3d_r101",
}


@dataclasses.dataclass
class Counts:
    """What is asked of a network, without keeping its weights."""

    trainable: int
    kernels: int
    trainable_names: list[str]
    weight_names: list[str]
    blocks: list[str]
    macs: dict[tuple[int, int], int]


@functools.cache
def count(variant):
    model = ResNet3D(variant)
    frames = (VARIANTS.get(variant) or variant).num_frames
    sizes = {(32, 224), (frames, 224), (frames, 256)}
    weights = model.trainable_weights
    return Counts(
        trainable=size(weights),
        kernels=size(w for w in weights if len(w.shape) > 1),
        trainable_names=[w.path for w in weights],
        weight_names=[w.path for w in model.weights],
        blocks=[x.name for x in model.layers if x.name.startswith("nonlocal")],
        macs={(t, s): count_macs(model, (t, s, s, 3)) for t, s in sizes},
    )


def size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.parametrize("name", AT_32X224)
def test_parameters_and_macs(name):
    parameters, gmacs, printed = AT_32X224[name]
    assert count(name).trainable == parameters
    macs = count(name).macs[32, 224]
    assert macs / 1e9 == pytest.approx(gmacs, rel=1e-4)
    if printed is not None:
        base = AT_32X224["c2d_r101" if "101" in name else "c2d_r50"][1]
        assert round(macs / 1e9 / base, 1) == printed


@pytest.mark.parametrize(("name", "side"), GMACS)
def test_macs_at_other_sizes(name, side):
    macs = count(name).macs[VARIANTS[name].num_frames, side]
    assert macs / 1e9 == pytest.approx(GMACS[name, side], rel=1e-4)


@pytest.mark.parametrize("name", UNGROUPED_GMACS)
def test_macs_without_groups(name):
    ungrouped = dataclasses.replace(VARIANTS[name], res3_group=None)
    macs = count(ungrouped).macs[ungrouped.num_frames, 224]
    assert macs / 1e9 == pytest.approx(UNGROUPED_GMACS[name], rel=1e-4)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_and_ratios(name):
    millions, kernels, macs = KERNELS[name]
    ours = count(name)
    base = count("c2d_r101" if "101" in name else "c2d_r50")
    assert ours.kernels / 1e6 == pytest.approx(millions, abs=1e-4)
    assert ours.kernels / base.kernels == pytest.approx(kernels, abs=1e-3)
    ratio = ours.macs[32, 224] / base.macs[32, 224]
    assert ratio == pytest.approx(macs, abs=1e-3)


@pytest.mark.parametrize("name", SAME_PARAMETERS)
def test_same_parameters(name):
    same = SAME_PARAMETERS[name]
    assert count(name).trainable == count(same).trainable


@pytest.mark.parametrize(
    ("stage", "channels"),
    [("res2", 256), ("res3", 512), ("res4", 1024), ("res5", 2048)],
)
def test_one_block_in_each_stage(stage, channels):
    name = "nl1_c2d_r50" + ("" if stage == "res4" else f"_{stage}")
    width = channels // 2
    block = 4 * channels * width + 3 * width + channels + 2 * channels
    assert count(name).trainable == count("c2d_r50").trainable + block
    last = VARIANTS[name].blocks[stage] - 2
    assert VARIANTS[name].nonlocal_blocks() == ((stage, last),)
    assert count(name).blocks == [f"nonlocal_{stage}_{last}"]


def test_gaussian_has_no_embedding_and_concatenation_one_vector_more():
    embedded = count("nl1_c2d_r50").trainable
    theta_and_phi = 2 * (1024 * 512 + 512)
    gaussian = count("nl1_c2d_r50_gaussian").trainable
    assert gaussian == embedded - theta_and_phi
    concatenation = count("nl1_c2d_r50_concatenation").trainable
    assert concatenation == embedded + 2 * 512


def test_frozen_norm_has_nothing_to_train_but_kernels():
    affine, batch = count("nl_i3d_r50_32x4"), count("nl_i3d_r50_8x8")
    scales = ("gamma", "beta")
    assert not any(n.endswith(scales) for n in affine.trainable_names)
    assert any(n.endswith(scales) for n in affine.weight_names)
    assert not any("moving" in name for name in affine.weight_names)
    assert affine.kernels == batch.kernels
    kept = [n for n in batch.trainable_names if not n.endswith(scales)]
    assert affine.trainable_names == kept


def test_every_row_is_one_network_and_is_built():
    assert len(set(VARIANTS.values())) == len(VARIANTS)
    for name, variant in VARIANTS.items():
        places = [f"nonlocal_{s}_{b}" for s, b in variant.nonlocal_blocks()]
        assert count(name).blocks == places
        assert len(places) == variant.num_nonlocal


@pytest.mark.parametrize(
    ("name", "frames", "side", "expected"),
    [
        ("nl_i3d_r50_8x8", 8, 224, "8x112 8x55 4x55 4x28 4x14 4x7"),
        ("nl_i3d_r50", 32, 256, "16x128 8x63 4x63 4x32 4x16 4x8"),
        ("i3d_r50_32x4", 32, 224, "32x112 32x55 16x55 16x28 16x14 16x7"),
        ("i3d_r50_128x1", 128, 256, "64x128 32x63 16x63 16x32 16x16 16x8"),
        ("c2d_r50", 32, 288, "16x144 8x71 4x71 4x36 4x18 4x9"),
    ],
)
def test_stage_sizes(name, frames, side, expected):
    sizes = VARIANTS[name].stage_sizes(frames, side)
    order = ("conv1", "res2", "pool2", "res3", "res4", "res5")
    written = " ".join("{}x{}".format(*sizes[stage]) for stage in order)
    assert written == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stem": "stride1", "pool1_padding": 1},
        {"stem": "stride4_skip", "res5_stride": 1},
        {"num_nonlocal": 0},
    ],
)
def test_the_smallest_clip_runs_and_a_smaller_one_does_not(changes):
    variant = dataclasses.replace(
        Variant(depth=26, num_nonlocal=2, width=4), **changes
    )
    frames, side = variant.minimum_size()
    model = ResNet3D(variant, classes=3)
    clip = np.zeros((1, frames, side, side, 3), "uint8")
    assert np.all(np.isfinite(model(clip)))
    sizes = variant.stage_sizes(frames, side)
    shape = model.get_layer("res5_1").output.shape
    assert sizes["res5"][0] >= 1 and len(shape) == 5
    for smaller in ((frames - 1, side), (frames, side - 1)):
        with pytest.raises(ValueError, match="too small"):
            ResNet3D(variant, input_shape=(*smaller, smaller[1], 3))
        clip = np.zeros((1, smaller[0], smaller[1], smaller[1], 3), "uint8")
        with pytest.raises(ValueError, match="does not fit"):
            model(clip)


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 34},
        {"num_nonlocal": 3},
        {"inflation": "1x3x3"},
        {"stem": "git"},
        {"pool1_padding": 2},
        {"head": "max"},
        {"norm": None},
        {"mode": "softmax"},
    ],
)
def test_wrong_variants(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Variant(**changes)
