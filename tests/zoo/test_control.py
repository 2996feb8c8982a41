import keras
import numpy as np
import pytest

from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import insert_nonlocal
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.ops.pairwise import MODES
from tests.checks import numpy
from tests.checks import randomize
from tests.checks import run_layer_test
from zoo.studies.control import MatchedControl
from zoo.studies.control import with_controls

SHAPES = [(2, 5, 16), (2, 4, 6, 16), (2, 3, 4, 4, 16)]


@pytest.mark.parametrize("shape", SHAPES, ids=["3", "4", "5"])
def test_routine_promises(shape, rng, tmp_path):
    inputs = rng.normal(size=shape).astype("float32")
    run_layer_test(
        MatchedControl,
        {"inter_channels": 8},
        inputs,
        expected_output_shape=shape,
        expected_num_weights=8,
        expected_num_trainable_weights=6,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize("norm", ["batch", "affine", None])
def test_is_the_identity_when_fresh(norm, rng):
    inputs = rng.normal(size=SHAPES[2]).astype("float32")
    block = MatchedControl(norm=norm)
    for training in (False, True):
        outputs = numpy(block(inputs, training=training))
        np.testing.assert_array_equal(outputs, inputs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("inter_channels", [None, 10])
@pytest.mark.parametrize("norm", ["batch", "affine", None])
def test_is_as_large_as_a_non_local_block(mode, inter_channels, norm):
    options = {"mode": mode, "inter_channels": inter_channels, "norm": norm}
    shape = (None, 4, 7, 7, 48)
    control, block = MatchedControl(**options), NonLocal(**options)
    control.build(shape)
    block.build(shape)
    assert control.count_params() == pytest.approx(
        block.count_params(), rel=0.02
    )


def test_a_position_sees_itself_alone(rng):
    inputs = rng.normal(size=SHAPES[2]).astype("float32")
    block = MatchedControl()
    block(inputs)
    for weight in block.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    before = numpy(block(inputs))
    inputs[:, 1, 2, 3] += 1
    changed = np.abs(numpy(block(inputs)) - before).max(axis=(0, -1)) > 0
    assert changed[1, 2, 3]
    assert changed.sum() == 1


@pytest.mark.parametrize(
    ("arguments", "shape", "words"),
    [
        ({"mode": "mean"}, SHAPES[0], "`mode` must be one of"),
        ({"inter_channels": 0}, SHAPES[0], "`inter_channels` must be pos"),
        ({"norm": "layer"}, SHAPES[0], "`norm` must be one of"),
        ({}, (2, 16), r"rank 3, 4 or 5.*\(2, 16\)"),
        ({}, (2, 4, 4, 4, 4), "within 2 %.*channels=4"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, shape, words):
    with pytest.raises(ValueError, match=words):
        MatchedControl(**arguments).build(shape)


def test_both_kernels_start_differently():
    block = MatchedControl(inter_channels=8)
    block.build((None, 5, 16))
    inner, out = numpy(block.inner.kernel), numpy(block.out.kernel)
    assert inner.shape == out.shape
    assert not np.array_equal(inner, out)


def test_controls_take_the_places_of_blocks(rng):
    variant = Variant(depth=26, width=4, stem="stride1")
    base = ResNet3D(variant, classes=3, input_shape=(2, 32, 32, 3))
    randomize(base, scale=0.1)
    after = ["res3_1", "res4_1"]
    options = {"inter_channels": 8, "mode": "dot_product"}
    model = with_controls(insert_nonlocal(base, after, **options))
    clip = rng.integers(256, size=(1, 2, 32, 32, 3))
    np.testing.assert_array_equal(numpy(model(clip)), numpy(base(clip)))
    controls = [x for x in model.layers if isinstance(x, MatchedControl)]
    assert [x.name for x in controls] == ["control_res3_1", "control_res4_1"]
    assert [x.input.shape[-1] for x in controls] == [32, 64]
    assert controls[0].get_config().items() >= options.items()
    blocks = insert_nonlocal(base, after, **options)
    assert model.count_params() == pytest.approx(
        blocks.count_params(), rel=0.02
    )


def test_controls_need_blocks():
    base = keras.Sequential([keras.Input((4, 16)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="must have NonLocal layers"):
        with_controls(base)
