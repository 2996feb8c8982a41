import dataclasses
import inspect

import keras
import numpy as np
import pytest

import keras_nonlocal
from keras_nonlocal import NLI3D50
from keras_nonlocal import VARIANTS
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from tests import checks

SMALL = Variant(
    depth=26, inflation="3x1x1", num_nonlocal=2, width=4, stem="stride1"
)
CONSTRUCTORS = {
    "C2D50": "c2d_r50",
    "C2D101": "c2d_r101",
    "I3D50": "i3d_r50",
    "I3D101": "i3d_r101",
    "NLC2D50": "nl_c2d_r50",
    "NLC2D101": "nl_c2d_r101",
    "NLI3D50": "nl_i3d_r50",
    "NLI3D101": "nl_i3d_r101",
}


def random_clip(rng, shape=(2, 8, 40, 48, 3)):
    return rng.integers(0, 256, shape, "uint8")


def small(**kwargs):
    """A small network with random weights and 5 classes."""
    variant = dataclasses.replace(SMALL, **kwargs.pop("changes", {}))
    model = ResNet3D(variant, **{"classes": 5, **kwargs})
    checks.randomize(model, scale=0.1)
    return model


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors(name):
    constructor = getattr(keras_nonlocal, name)
    assert constructor.__name__ == name
    variant = CONSTRUCTORS[name]
    model = constructor(classes=7, classifier_activation=None)
    assert model.name == variant
    assert model.input_shape == (None, None, None, None, 3)
    assert model.output_shape == (None, 7)
    keys = set(inspect.signature(constructor).parameters)
    assert keys == set(inspect.signature(ResNet3D).parameters) - {"variant"}


def test_eight_arguments_in_the_order_of_keras_applications():
    keras_order = list(
        inspect.signature(keras.applications.ResNet50).parameters
    )
    ours = list(inspect.signature(NLI3D50).parameters)
    assert ours == [*keras_order, "include_preprocessing"]


def test_any_size_and_length(rng):
    model = small()
    for shape in ((1, 8, 40, 48, 3), (2, 5, 64, 33, 3)):
        scores = checks.outputs(model, random_clip(rng, shape))
        assert scores.shape == (shape[0], 5)
        np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)


def test_known_and_unknown_sizes_agree(rng):
    clip = random_clip(rng)
    unknown = small()
    known = small(input_shape=(8, 40, 48, 3))
    known.set_weights(unknown.get_weights())
    np.testing.assert_allclose(
        known.predict(clip, verbose=0),
        unknown.predict(clip, verbose=0),
        atol=1e-5,
    )


def test_without_top(rng):
    clip = random_clip(rng)
    maps = ResNet3D(SMALL, include_top=False)
    assert maps.output_shape == (None, None, None, None, 128)
    features = checks.outputs(maps, clip)
    assert features.shape == (2, 4, 2, 2, 128)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        pooled = ResNet3D(SMALL, include_top=False, pooling=pooling)
        pooled.set_weights(maps.get_weights())
        np.testing.assert_allclose(
            checks.outputs(pooled, clip), reduce(features, (1, 2, 3)), atol=1e-5
        )


def test_input_tensor():
    entry = keras.Input((None, 48, 48, 6))
    rgb = keras.layers.Conv3D(3, 1)(entry)
    model = ResNet3D(SMALL, input_tensor=rgb, classes=5)
    assert model.input_shape == (None, None, 48, 48, 6)
    assert model.predict(np.ones((1, 8, 48, 48, 6)), verbose=0).shape == (1, 5)


def test_preprocessing_is_in_the_model(rng):
    clip = random_clip(rng)
    with_it = small()
    without = small(include_preprocessing=False)
    without.set_weights(with_it.get_weights())
    normalized = ((clip - 114.75) / 57.375).astype("float32")
    np.testing.assert_allclose(
        checks.outputs(with_it, clip),
        checks.outputs(without, normalized),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        checks.outputs(with_it, clip),
        checks.outputs(with_it, clip.astype("float32")),
        atol=1e-6,
    )


@pytest.mark.parametrize("head", ["probability", "logit", "feature"])
def test_heads_average_what_they_say(head, rng):
    """Positions of the 7x7 window are clips of the right size, pooled alone."""
    features = rng.normal(size=(1, 2, 9, 8, 128)).astype("float32")
    model = small(changes={"head": head})
    entry = keras.Input(features.shape[1:])
    x = entry
    for name in ("pool5", "logits", "predictions"):
        x = model.get_layer(name)(x)
    scores = checks.numpy(keras.Model(entry, x)(features))
    kernel, bias = map(checks.numpy, model.get_layer("logits").weights)

    def softmax(logits):
        e = np.exp(logits - logits.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    windows = [
        features[0, :, y : y + 7, x : x + 7].mean((0, 1, 2)) @ kernel + bias
        for y in range(3)
        for x in range(2)
    ]
    expected = {
        "probability": np.mean(softmax(np.stack(windows)), 0),
        "logit": softmax(np.mean(windows, 0)),
        "feature": softmax(features[0].mean((0, 1, 2)) @ kernel + bias),
    }[head]
    np.testing.assert_allclose(scores[0], expected, atol=1e-5)


def test_initial_values():
    model = ResNet3D(VARIANTS["nl_i3d_r50"])
    conv = model.get_layer("res4_2_branch2b")
    fan_out = 256 * 9
    kernel = checks.numpy(conv.kernel)
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_out), rel=0.01)
    # Not truncated: a normal distribution this large passes 4 deviations.
    assert np.max(np.abs(kernel)) > 4 * np.std(kernel)
    assert not np.any(checks.numpy(model.get_layer("res4_2_branch2c_bn").gamma))
    assert np.all(
        checks.numpy(model.get_layer("res4_2_branch2a_bn").gamma) == 1
    )
    logits = model.get_layer("logits")
    assert np.std(checks.numpy(logits.kernel)) == pytest.approx(0.01, rel=0.02)
    assert not np.any(checks.numpy(logits.bias))
    norm = model.get_layer("conv1_bn")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)
    assert model.get_layer("nonlocal_res3_1").out_norm.epsilon == 1e-5


def test_blocks_change_nothing_at_first(rng):
    """A fresh network with blocks is the baseline."""
    clip = random_clip(rng)
    blocks = small()
    plain = ResNet3D(dataclasses.replace(SMALL, num_nonlocal=0), classes=5)
    fresh = ResNet3D(SMALL, classes=5)
    for layer in plain.layers:
        layer.set_weights(blocks.get_layer(layer.name).get_weights())
        fresh.get_layer(layer.name).set_weights(layer.get_weights())
    np.testing.assert_array_equal(
        checks.numpy(fresh(clip)), checks.numpy(plain(clip))
    )
    trained = checks.numpy(blocks(clip))
    assert np.max(np.abs(trained - checks.numpy(plain(clip)))) > 1e-4


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, rng):
    clip = random_clip(rng)
    full = small()
    keras.config.set_dtype_policy(policy)
    half = small()
    half.set_weights(full.get_weights())
    assert half.get_layer("nonlocal_res3_1").compute_dtype == policy[6:]
    scores = checks.outputs(half, clip)
    assert keras.backend.standardize_dtype(scores.dtype) == "float32"
    layer = "res5_1"
    ours, theirs = (
        checks.outputs(
            keras.Model(m.input, m.get_layer(layer).output), clip
        ).astype("float32")
        for m in (half, full)
    )
    limit = 0.01 if policy == "mixed_float16" else 0.08
    assert np.max(np.abs(ours - theirs)) < limit * np.std(theirs)


def test_keras_file_round_trip(rng, tmp_path):
    model, clip = small(), random_clip(rng)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        checks.outputs(reloaded, clip), checks.outputs(model, clip)
    )
    assert [x.name for x in reloaded.layers] == [x.name for x in model.layers]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "i3d_r18"}, "nl_i3d_r50"),
        ({"variant": 50}, "Variant"),
        ({"pooling": "sum", "include_top": False}, "pooling"),
        ({"pooling": "avg"}, "include_top"),
        ({"classes": 0}, "classes"),
        ({"input_shape": (8, 64, 64, 4)}, "RGB"),
        ({"input_shape": (64, 64, 3)}, "RGB"),
        ({"input_shape": (1, 64, 64, 3)}, "too small"),
        ({"input_tensor": np.ones((1, 8, 64, 64, 3))}, "Keras tensor"),
        ({"weights": "kinetics"}, "weights"),
        ({"classes": None}, "classes"),
        (
            {
                "input_tensor": keras.Input((8, 64, 64, 3)),
                "input_shape": (8, 32, 32, 3),
            },
            "contradicts",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet3D(**{"variant": SMALL, **arguments})


def test_wrong_number_of_channels_at_call(rng):
    per_channel = {"mean": (124.0, 116.0, 104.0), "std": (58.0, 57.0, 57.0)}
    for changes in ({}, per_channel):
        model = small(changes=changes)
        for channels in (1, 4):
            clip = random_clip(rng, (1, 8, 40, 40, channels))
            with pytest.raises(
                ValueError, match=r"one channel|, 3\), found|axis -1"
            ):
                model(clip)


def test_mean_and_std_of_the_variant_are_used(rng):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    model = small(changes={"mean": mean, "std": std})
    plain = small(include_preprocessing=False)
    plain.set_weights(model.get_weights())
    clip = random_clip(rng)
    normalized = ((clip - np.array(mean)) / np.array(std)).astype("float32")
    np.testing.assert_allclose(
        checks.outputs(model, clip),
        checks.outputs(plain, normalized),
        atol=1e-6,
    )


def test_dropout_stands_before_the_classifier(rng):
    model = small(changes={"dropout_rate": 0.5})
    clip = random_clip(rng)
    features = keras.Model(
        model.get_layer("pool5").output, model.get_layer("dropout").output
    )
    x = np.ones((1, 1, 1, 128), "float32")
    dropped = checks.numpy(features(x, training=True))
    assert 30 < np.sum(dropped == 0) < 98
    np.testing.assert_array_equal(checks.numpy(features(x)), x)
    names = [layer.name for layer in model.layers]
    assert names[-3:] == ["dropout", "logits", "predictions"]
    assert checks.outputs(model, clip).shape == (2, 5)


def test_a_training_size_below_one_position_of_res5(rng):
    variant = dataclasses.replace(SMALL, crop_size=16)
    scores = checks.outputs(ResNet3D(variant, classes=5), random_clip(rng))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
