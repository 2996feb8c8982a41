import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ClipSpec
from keras_nonlocal import ImageVariant
from keras_nonlocal import ResNet2D
from keras_nonlocal import ResNet3D
from keras_nonlocal import TrainConfig
from keras_nonlocal.training.config import SMALL_SET
from keras_nonlocal.training.initialization import initial_network
from keras_nonlocal.training.initialization import with_activation
from tests import checks

replace = dataclasses.replace
CONFIG = TrainConfig(ClipSpec(4, 2), batch_norm="train")
BASELINE = replace(VARIANTS["small_c2d"], width=4, crop_size=32)
BLOCKS = replace(BASELINE, num_nonlocal=1)
# Those of an image network that the baseline has begun with, say.
PIXELS = {"mean": (100.0, 110.0, 120.0), "std": (50.0, 60.0, 70.0)}


def saved(variant, path, classes=7):
    """A network of a variant with random weights, and its file."""
    model = ResNet3D(variant, classes=classes)
    checks.randomize(model, scale=0.1)
    if path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return model, replace(CONFIG, weights=str(path))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "b.keras"
    return saved(replace(BASELINE, **PIXELS), path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return saved(BLOCKS, tmp_path_factory.mktemp("start") / "w.weights.h5")


@pytest.fixture
def clips(rng):
    return rng.integers(0, 256, (2, 4, 32, 32, 3)).astype("uint8")


def features(model, clips, training=False):
    trunk = keras.Model(model.input, model.get_layer("pool5").output)
    return checks.numpy(trunk(clips, training=training))


def recorded(model):
    """What the model says it is."""
    record = model.get_layer("network")
    return {**record.network, **record.trained_with}


def trainable_norms(model):
    kind = keras.layers.BatchNormalization
    norms = [layer for layer in model.layers if isinstance(layer, kind)]
    norms += [
        layer.out_norm
        for layer in model.layers
        if isinstance(getattr(layer, "out_norm", None), kind)
    ]
    return {norm.path for norm in norms if norm.trainable}


def test_random_weights():
    config = replace(CONFIG, batch_norm="auto")
    model, variant = initial_network(BLOCKS, config, 5, 100)
    assert variant == BLOCKS
    assert model.output_shape == (None, 5)
    assert model.get_layer("predictions").get_config()["activation"] in (
        None,
        "linear",
    )
    assert len(trainable_norms(model)) > 20


def test_weights_of_the_whole_network(whole, clips):
    source, config = whole
    model, variant = initial_network(BLOCKS, config, 5, 100)
    assert variant == BLOCKS
    np.testing.assert_array_equal(
        features(model, clips), features(source, clips)
    )
    assert model.get_layer("logits").units == 5
    other = replace(BLOCKS, stem="stride4")
    with pytest.raises(ValueError, match="stem: 'stride1' there"):
        initial_network(other, config, 5, 100)


def test_strides_may_differ_where_that_is_said(whole):
    """Not a weight depends on them."""
    source, config = whole
    other = replace(BLOCKS, res5_stride=1, head="feature")
    with pytest.raises(ValueError, match="res5_stride: 2 there, 1 here"):
        initial_network(other, config, 5, 100)
    config = replace(config, weights_differ_in=("res5_stride", "head"))
    model, built = initial_network(other, config, 5, 100)
    assert built == other
    for name in ("res5_1_branch2b", "nonlocal_res4_0"):
        for ours, theirs in zip(
            model.get_layer(name).get_weights(),
            source.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_blocks_are_added_to_a_baseline(baseline, clips):
    """The second stage begins with exactly the outputs of the first."""
    source, config = baseline
    config = replace(config, from_baseline=True)
    # What the baseline says of blocks it does not mean.
    for changes in ({}, {"mode": "dot_product", "attention_axes": "time"}):
        variant = replace(BLOCKS, **changes)
        model, built = initial_network(variant, config, 5, 100)
        assert built == replace(variant, **PIXELS)
        assert recorded(model)["num_nonlocal"] == 1
        assert recorded(model)["mean"] == list(PIXELS["mean"])
        np.testing.assert_array_equal(
            features(model, clips), features(source, clips)
        )
        assert np.any(model.get_layer("nonlocal_res4_0").g.kernel)
    other = replace(BLOCKS, depth=50)
    with pytest.raises(ValueError, match="depth: 26 there, 50 here"):
        initial_network(other, config, 5, 100)
    with pytest.raises(ValueError, match="num_nonlocal: 0 there, 1 here"):
        initial_network(BLOCKS, replace(config, from_baseline=False), 5, 100)


def test_the_128_frame_recipe(baseline, clips):
    """A folded network with groups of frames, from a trained baseline."""
    source, config = baseline
    config = replace(config, from_baseline=True, batch_norm="affine")
    variant = replace(
        BLOCKS, norm="affine", nonlocal_norm=None, res3_group=2, num_frames=128
    )
    model, built = initial_network(variant, config, 5, 100)
    assert built == replace(variant, **PIXELS)
    assert trainable_norms(model) == set()
    np.testing.assert_allclose(
        features(model, clips), features(source, clips), rtol=1e-4, atol=1e-5
    )


def test_folding_makes_another_variant(whole, clips):
    source, config = whole
    config = replace(config, batch_norm="affine")
    model, variant = initial_network(BLOCKS, config, 5, 100)
    assert variant == replace(BLOCKS, norm="affine", nonlocal_norm="affine")
    assert recorded(model)["norm"] == "affine"
    # Training sees the same features: nothing goes by the batch.
    np.testing.assert_allclose(
        features(model, clips, training=True),
        features(source, clips),
        rtol=1e-3,
        atol=1e-4,
    )
    assert_copied(with_activation(model, variant, "sigmoid"), model, clips)


def test_fresh_blocks_are_not_folded(baseline):
    config = replace(baseline[1], from_baseline=True, batch_norm="affine")
    model, variant = initial_network(BLOCKS, config, 5, 100)
    assert variant == replace(BLOCKS, norm="affine", **PIXELS)
    assert len(trainable_norms(model)) == 1


def test_freezing(whole, clips):
    source, config = whole
    frozen = replace(config, batch_norm="freeze")
    model, variant = initial_network(BLOCKS, frozen, 5, 100)
    assert variant == BLOCKS and trainable_norms(model) == set()
    np.testing.assert_allclose(
        features(model, clips, training=True),
        features(source, clips),
        rtol=1e-4,
        atol=1e-5,
    )
    assert_copied(with_activation(model, variant, "sigmoid"), model, clips)


def assert_copied(copy, model, clips):
    """Frozen layers do not change the order of the weights either."""
    np.testing.assert_allclose(
        checks.numpy(copy(clips)),
        1 / (1 + np.exp(-checks.numpy(model(clips)))),
        rtol=1e-4,
    )
    assert recorded(copy) == recorded(model)
    for ours, theirs in zip(copy.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(checks.numpy(ours), checks.numpy(theirs))


def test_fresh_blocks_are_not_frozen(baseline, clips):
    """The scale of 0 of their batch norm has to be trained."""
    frozen = replace(baseline[1], from_baseline=True, batch_norm="freeze")
    model, _ = initial_network(BLOCKS, frozen, 5, 100)
    (norm,) = trainable_norms(model)
    assert "nonlocal" in norm
    trained = {variable.path for variable in model.trainable_variables}
    assert {f"{norm}/gamma", f"{norm}/beta"} <= trained
    assert not any("_bn/" in path for path in trained)


def test_small_sets_freeze_by_default(whole):
    config = replace(whole[1], batch_norm="auto")
    # The length of clips may be another, too.
    longer = replace(BLOCKS, num_frames=64, sampling_rate=1, crop_size=64)
    few, variant = initial_network(longer, config, 5, SMALL_SET - 1)
    assert variant == longer and not trainable_norms(few)
    many, _ = initial_network(BLOCKS, config, 5, SMALL_SET)
    assert trainable_norms(many)


@pytest.mark.parametrize("batch_norm", ["freeze", "affine"])
def test_random_statistics_are_not_kept(batch_norm):
    config = replace(CONFIG, batch_norm=batch_norm)
    with pytest.raises(ValueError, match=f"'{batch_norm}' needs `weights`"):
        initial_network(BLOCKS, config, 5, 100)


def test_an_image_network_is_inflated(tmp_path, rng):
    image = ResNet2D("resnet50", classes=5)
    path = tmp_path / "image.weights.h5"
    image.save_weights(path)
    config = replace(CONFIG, weights=str(path), batch_norm="affine")
    wanted = replace(VARIANTS["i3d_r50_8x8"], num_nonlocal=1)
    # Also with as many classes, the classifier is fresh.
    model, variant = initial_network(wanted, config, 5, 100)
    pixels = {"mean": ImageVariant().mean, "std": ImageVariant().std}
    assert variant == replace(wanted, norm="affine", **pixels)
    assert recorded(model)["mean"] == list(ImageVariant().mean)
    theirs = checks.numpy(image.get_layer("conv1").kernel)
    ours = checks.numpy(model.get_layer("conv1").kernel)
    assert ours.shape[0] == 5
    np.testing.assert_allclose(ours.sum(axis=0), theirs, atol=1e-6)
    assert not np.array_equal(
        model.get_layer("logits").kernel, image.get_layer("logits").kernel
    )
    other = replace(wanted, stride_in_1x1=True, depth=101)
    with pytest.raises(ValueError, match="stride_in_1x1: False there, True he"):
        initial_network(other, config, 5, 100)
