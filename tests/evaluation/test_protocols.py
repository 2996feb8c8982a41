"""Frames and crops of every protocol, from the formulas of each code base."""

import dataclasses
import math

import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.evaluation.protocols import Protocol
from keras_nonlocal.evaluation.protocols import Window
from keras_nonlocal.evaluation.protocols import get_protocol

LENGTHS = (300, 299, 71, 40, 7, 1)


def places(name, clip, total, fps=30.0):
    protocol = PROTOCOLS[name]
    return protocol.places(protocol.clip(clip), total, fps)


@pytest.mark.parametrize("total", LENGTHS)
@pytest.mark.parametrize("name", ["paper", "caffe2"])
def test_frames_of_the_released_code(name, total):
    middle, *clips = places(name, ClipSpec(32, 2), total).tolist()
    for j, clip in enumerate(clips):
        start = math.floor(j * total / 10)
        assert clip == [(start + 2 * i) % total for i in range(32)]
    start = max(total - 64, 0) // 2
    assert len(clips) == 10
    assert middle == [(start + 2 * i) % total for i in range(32)]


@pytest.mark.parametrize("total", LENGTHS)
@pytest.mark.parametrize("name", ["mmaction2", "mmaction2_c2d"])
def test_frames_of_mmaction2(name, total):
    _, *clips = places(name, ClipSpec(8, 8), total).tolist()
    for j, clip in enumerate(clips):
        start = int(np.round(j * max(total - 64, 0) / 9))
        assert clip == [(start + 8 * i) % total for i in range(8)]
    assert len(clips) == 10


@pytest.mark.parametrize("total", LENGTHS)
@pytest.mark.parametrize("fps", [30.0, 25.0, 12.0])
def test_frames_of_slowfast(total, fps):
    _, *clips = places("slowfast", ClipSpec(8, 8), total, fps).tolist()
    length = 64 * fps / 30
    for j, clip in enumerate(clips):
        start = max(total - length, 0) * j / 10
        steps = np.linspace(start, start + length - 1, 8, dtype="float32")
        np.testing.assert_array_equal(
            clip, np.clip(steps.astype("int64"), 0, total - 1)
        )
    assert len(clips) == 10


@pytest.mark.parametrize("total", LENGTHS)
@pytest.mark.parametrize("step", [1, 4])
def test_frames_of_long_term_feature_banks(total, step):
    _, *clips = places("charades", ClipSpec(32, step), total, 24.0).tolist()
    half = 32 * step // 2
    for segment, clip in enumerate(clips):
        middle = int(np.round(total / 10 * (segment + 0.5)))
        frames = range(middle - half, middle + half, step)
        assert clip == [min(max(i, 0), total - 1) for i in frames]
    assert len(clips) == 10


@pytest.mark.parametrize("total", LENGTHS)
def test_one_clip_is_the_middle_one(total):
    (clip,) = places("clip", ClipSpec(32, 2), total).tolist()
    assert clip == places("paper", ClipSpec(32, 2), total)[0].tolist()


SIZES = [(256, 340), (340, 256), (256, 341), (455, 256), (256, 256)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", ["caffe2", "mmaction2"])
def test_three_crops_of_the_released_code(name, height, width):
    views = PROTOCOLS[name].views(height, width)
    step = (max(height, width) - 256) // 2
    offsets = [
        (k * step, 0) if height > width else (0, k * step) for k in range(3)
    ]
    expected = [
        (clip, (*offset, 256, 256, False))
        for clip in range(1, 11)
        for offset in offsets
    ]
    assert views["10x3 views"] == expected
    assert views["10 clips"] == expected[1::3]
    assert views["1 clip"] == [(0, expected[1][1])]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", ["slowfast", "charades"])
def test_three_crops_of_slowfast(name, height, width):
    extra = max(height, width) - 256
    offsets = [0, math.ceil(extra / 2), extra]
    views = PROTOCOLS[name].views(height, width)["10x3 views"]
    along = [(x.window.top, x.window.left)[height <= width] for x in views]
    across = [(x.window.top, x.window.left)[height > width] for x in views]
    assert along == offsets * 10 and across == [0] * 30


def test_crops_that_are_smaller_than_the_short_side():
    protocol = Protocol("x", 2, crops="three", crop_size=224)
    windows = [view.window for view in protocol.views(256, 341)["2x3 views"]]
    assert windows[:3] == [(16, x, 224, 224, False) for x in (0, 58, 116)]
    up = dataclasses.replace(protocol, rounding="up")
    windows = [view.window for view in up.views(255, 341)["2x3 views"]]
    assert windows[:3] == [(16, x, 224, 224, False) for x in (0, 59, 117)]
    # A square has no longer side: three beside each other.
    windows = [view.window for view in protocol.views(256, 256)["2x3 views"]]
    assert windows[:3] == [(16, x, 224, 224, False) for x in (0, 16, 32)]


def test_mmaction2_tests_c2d_on_smaller_frames():
    views = PROTOCOLS["mmaction2_c2d"].views(224, 398)["10x3 views"]
    windows = [view.window for view in views]
    assert windows[:3] == [(0, x, 224, 224, False) for x in (0, 87, 174)]


def test_whole_frames_beside_centre_crops():
    views = PROTOCOLS["paper"].views(256, 340)
    assert list(views) == ["1 clip", "10 clips", "10 whole frames"]
    assert views["10 whole frames"] == [
        (clip, (0, 0, 256, 340, False)) for clip in range(1, 11)
    ]
    assert views["10 clips"] == [
        (clip, (0, 42, 256, 256, False)) for clip in range(1, 11)
    ]
    assert views["1 clip"] == [(0, (0, 42, 256, 256, False))]


def test_names_say_what_there_is():
    def names(**fields):
        protocol = Protocol("x", **fields)
        assert tuple(protocol.views(256, 300)) == protocol.setting_names
        return protocol.setting_names

    assert names(num_clips=1) == ("1 clip",)
    assert names(num_clips=4) == ("1 clip", "4 clips")
    assert names(num_clips=1, crops="three") == ("1 clip", "1x3 views")
    assert names(num_clips=1, crops="full") == ("1 clip", "1 whole frame")
    assert names(num_clips=4, flips=True)[2:] == ("4x2 views",)
    assert names(crops="full", flips=True)[2:] == ("10x2 whole frames",)


def test_flips_double_the_crops():
    protocol = dataclasses.replace(PROTOCOLS["caffe2"], flips=True)
    views = protocol.views(256, 300)["10x6 views"]
    assert len(views) == len(set(views)) == 60
    assert views[0].window == Window(0, 0, 256, 256)
    assert views[1].window == Window(0, 0, 256, 256, flip=True)
    # The centre crops are not mirrored.
    assert not any(v.window.flip for v in protocol.views(256, 300)["10 clips"])


def test_the_rule_is_the_protocols_and_else_the_clips():
    clip = ClipSpec(8, 8, rule="slowfast", fps=24.0)
    assert PROTOCOLS["caffe2"].clip(clip) == ClipSpec(8, 8, fps=24.0)
    assert PROTOCOLS["clip"].clip(clip) == clip
    with pytest.raises(ValueError, match="'charades' repeats .* 'loop'"):
        PROTOCOLS["charades"].clip(ClipSpec(8, 8, short="loop"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crops": "ten"}, "`crops` must be one of .*'three'.*'ten'"),
        ({"average": "max"}, "`average` must be one of"),
        ({"over_clips": "sum"}, "`over_clips` must be one of"),
        ({"rule": "dense"}, "`rule` must be one of"),
        ({"starts": "segments"}, "`rule` must be that of the paper"),
        ({"num_clips": 0}, "`num_clips` must be a positive integer"),
        ({"crop_size": 300}, "`crop_size` must be at most the short side, 256"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Protocol("x"), **fields)


def test_by_name():
    assert all(get_protocol(n) is p for n, p in PROTOCOLS.items())
    mine = Protocol("mine")
    assert get_protocol(mine) is mine
    with pytest.raises(ValueError, match="one of .*'paper'.*'30 views'"):
        get_protocol("30 views")
