import inspect
import math

import keras
import numpy as np
import pytest

from keras_nonlocal import ResNet3D
from keras_nonlocal import count_macs
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.models.inception_i3d import INCEPTION_VARIANTS
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.inception_i3d import InceptionVariant
from tests import checks

BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
CLASSES = 5
# Every remainder by the strides, and less than a kernel.
SIZES = (1, 2, 5, 8)


def random_clip(rng, shape=(1, 9, 38, 33, 3)):
    return rng.integers(0, 256, shape, "uint8")


def random_model(**kwargs):
    """A network with statistics and shifts that differ from the initial."""
    model = InceptionI3D(**{"classes": CLASSES, **kwargs})
    for seed, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            checks.randomize(layer, seed, scale=0.2)
    return model


def pad_same(x, kernel, strides, value):
    """TensorFlow's "SAME": enough for ceil(size / stride) windows."""
    pads = [(0, 0)]
    for size, k, stride in zip(x.shape[1:4], kernel, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + k - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)], constant_values=value)


def windows(x, kernel, strides):
    """`(batch, T', H', W', channels, t, h, w)`, without padding."""
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2, 3))
    t, h, w = strides
    return view[:, ::t, ::h, ::w]


def conv(x, kernel, strides=(1, 1, 1)):
    x = windows(
        pad_same(x, kernel.shape[:3], strides, 0), kernel.shape[:3], strides
    )
    return np.tensordot(x, kernel, ((5, 6, 7, 4), (0, 1, 2, 3)))


def max_pool(x, size, strides):
    x = windows(pad_same(x, size, strides, -np.inf), size, strides)
    return x.max((5, 6, 7))


class Reference:
    """The network of the paper's figure 3 in numpy, with a model's weights."""

    def __init__(self, model):
        self.model = model

    def weights(self, name):
        return [checks.numpy(w) for w in self.model.get_layer(name).weights]

    def unit(self, x, name, strides=(1, 1, 1)):
        (kernel,) = self.weights(name)
        beta, mean, variance = self.weights(f"{name}_bn")
        x = (conv(x, kernel, strides) - mean) / np.sqrt(variance + 1e-3) + beta
        return np.maximum(x, 0)

    def block(self, x, name):
        one, three = "Conv3d_0a_1x1", "Conv3d_0b_3x3"
        branches = [self.unit(x, f"{name}_Branch_0_{one}")]
        for branch in ("Branch_1", "Branch_2"):
            y = self.unit(x, f"{name}_{branch}_{one}")
            branches.append(self.unit(y, f"{name}_{branch}_{three}"))
        y = max_pool(x, (3, 3, 3), (1, 1, 1))
        branches.append(self.unit(y, f"{name}_Branch_3_Conv3d_0b_1x1"))
        return np.concatenate(branches, axis=-1)

    def maps(self, clip):
        x = clip / 127.5 - 1
        x = self.unit(x, "Conv3d_1a_7x7", (2, 2, 2))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.unit(x, "Conv3d_2b_1x1")
        x = self.unit(x, "Conv3d_2c_3x3")
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        for block in BLOCKS:
            if block == "4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))
            if block == "5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))
            x = self.block(x, f"Mixed_{block}")
        return x

    def scores(self, maps):
        window = [
            min(*sizes)
            for sizes in zip((2, 7, 7), maps.shape[1:4], strict=True)
        ]
        x = windows(maps, window, (1, 1, 1)).mean((5, 6, 7))
        kernel, bias = self.weights("logits")
        logits = (x @ kernel[0, 0, 0] + bias).mean((1, 2, 3))
        e = np.exp(logits - logits.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def test_the_whole_network_against_numpy(rng):
    model = random_model()
    clip = random_clip(rng)
    reference = Reference(model)
    expected = reference.maps(clip)
    assert expected.shape == (1, 2, 2, 2, 1024)
    assert np.std(expected) > 0.1 * np.max(expected)
    both = keras.Model(
        model.input, [model.get_layer("Mixed_5c").output, model.output]
    )
    maps, scores = checks.outputs(both, clip)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.max(expected))
    np.testing.assert_allclose(scores, reference.scores(maps), atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1)])
def test_convolutions_pad_as_tensorflow(kernel, stride, rng):
    for size in SIZES:
        x = rng.normal(size=(1, size, size + 1, 5, 2)).astype("float32")
        layer = keras.layers.Conv3D(3, kernel, stride, padding="same")
        y = checks.numpy(layer(x))
        expected = conv(x, checks.numpy(layer.kernel), (stride,) * 3)
        np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("pool_size", "strides"),
    [
        ((1, 3, 3), (1, 2, 2)),
        ((3, 3, 3), (2, 2, 2)),
        ((2, 2, 2), (2, 2, 2)),
        ((3, 3, 3), (1, 1, 1)),
    ],
)
def test_max_pooling_pads_as_tensorflow(pool_size, strides, rng):
    for size in SIZES:
        x = rng.normal(size=(2, size, 7, size + 1, 3)).astype("float32")
        y = checks.numpy(MaxPooling(pool_size, strides, "same")(x))
        np.testing.assert_array_equal(y, max_pool(x, pool_size, strides))


def test_max_pooling_is_a_good_layer(rng, tmp_path):
    checks.run_layer_test(
        MaxPooling,
        {"pool_size": (3, 3, 2), "strides": (2, 2, 1), "padding": "same"},
        rng.normal(size=(2, 5, 6, 7, 3)).astype("float32"),
        expected_output_shape=(2, 3, 3, 7, 3),
        expected_num_weights=0,
        expected_num_trainable_weights=0,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize(
    ("sizes", "positions"), [((5, 9, 8), (4, 3, 2)), ((1, 4, 7), (1, 1, 1))]
)
def test_window_average(sizes, positions, rng, tmp_path):
    x = rng.normal(size=(2, *sizes, 3)).astype("float32")
    checks.run_layer_test(
        WindowAverage,
        {"window": (2, 7, 7)},
        x,
        expected_output_shape=(2, *positions, 3),
        expected_num_weights=0,
        expected_num_trainable_weights=0,
        tmp_path=tmp_path,
    )
    window = [min(*both) for both in zip((2, 7, 7), sizes, strict=True)]
    np.testing.assert_allclose(
        checks.numpy(WindowAverage((2, 7, 7))(x)),
        windows(x, window, (1, 1, 1)).mean((5, 6, 7)),
        atol=1e-6,
    )


def test_window_average_is_square():
    for window in ((2, 7, 8), (7, 7)):
        with pytest.raises(ValueError, match="frames, side, side"):
            WindowAverage(window)


def test_arguments_are_those_of_resnet3d():
    ours = list(inspect.signature(InceptionI3D).parameters)
    theirs = list(inspect.signature(ResNet3D).parameters)
    assert ours == [*theirs[1:], "modality"]


def test_parameters_and_multiply_adds():
    """The number of released values; multiply-adds by hand."""
    model = InceptionI3D()
    assert model.count_params() == 12_704_544
    positions = {
        "Conv3d_1a": 32 * 112 * 112,
        "Conv3d_2b": 32 * 56 * 56,
        "Conv3d_2c": 32 * 56 * 56,
        "Mixed_3": 32 * 28 * 28,
        "Mixed_4": 16 * 14 * 14,
        "Mixed_5": 8 * 7 * 7,
        "logits": 7,
    }
    macs = sum(
        count * math.prod(layer.kernel.shape)
        for layer in model.layers
        for prefix, count in positions.items()
        if layer.name.startswith(prefix) and hasattr(layer, "kernel")
    )
    assert count_macs(model, (64, 224, 224, 3)) == macs == 111_153_143_808
    assert InceptionI3D(classes=600).count_params() == 12_909_544
    flow = InceptionI3D(modality="flow")
    assert flow.count_params() == 12_704_544 - 7 * 7 * 7 * 64


def test_variables_are_those_of_the_release():
    """57 units of 4 and the classifier: 230 tensors and no scale."""
    model = InceptionI3D()
    found = {
        layer.name: [weight.name for weight in layer.weights]
        for layer in model.layers
        if layer.weights and layer.name != "dropout"
    }
    units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
    units += [
        f"Mixed_{block}_Branch_{branch}"
        for block in BLOCKS
        for branch in (
            "0_Conv3d_0a_1x1",
            "1_Conv3d_0a_1x1",
            "1_Conv3d_0b_3x3",
            "2_Conv3d_0a_1x1",
            "2_Conv3d_0b_3x3",
            "3_Conv3d_0b_1x1",
        )
    ]
    norm = ["beta", "moving_mean", "moving_variance"]
    expected = {name: ["kernel"] for name in units}
    expected |= {f"{name}_bn": norm for name in units}
    expected["logits"] = ["kernel", "bias"]
    assert found == expected
    assert sum(len(names) for names in found.values()) == 230
    for name in units:
        layer = model.get_layer(f"{name}_bn")
        assert (layer.epsilon, layer.momentum) == (1e-3, 0.9)


def test_shapes():
    model = InceptionI3D()
    assert model.input_shape == (None, None, None, None, 3)
    assert model.output_shape == (None, 400)
    ends = keras.Model(
        model.input,
        [model.get_layer(n).output for n in ("Mixed_5c", "avg_pool")],
    )
    for sizes, positions, pooled in (
        ((64, 224, 224), (8, 7, 7), (7, 1, 1)),
        ((16, 112, 112), (2, 4, 4), (1, 1, 1)),
        ((79, 256, 300), (10, 8, 10), (9, 2, 4)),
        ((None, 1, 31), (None, 1, 1), (None, 1, 1)),
    ):
        assert ends.compute_output_shape((2, *sizes, 3)) == [
            (2, *positions, 1024),
            (2, *pooled, 1024),
        ]


def test_known_and_unknown_sizes_agree(rng):
    unknown = random_model()
    known = InceptionI3D(classes=CLASSES, input_shape=(9, 38, 33, 3))
    known.set_weights(unknown.get_weights())
    clip = random_clip(rng)
    np.testing.assert_allclose(
        unknown.predict(clip, verbose=0),
        checks.outputs(known, clip),
        atol=1e-6,
    )


def test_without_top(rng):
    clip = random_clip(rng)
    maps = random_model(include_top=False)
    assert maps.output_shape == (None, None, None, None, 1024)
    features = checks.outputs(maps, clip)
    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        pooled = InceptionI3D(include_top=False, pooling=pooling)
        pooled.set_weights(maps.get_weights())
        np.testing.assert_allclose(
            checks.outputs(pooled, clip),
            reduce(features, (1, 2, 3)),
            atol=1e-5 * np.max(features),
        )


def test_preprocessing_is_in_the_model(rng):
    clip = random_clip(rng)
    with_it = random_model()
    without = random_model(include_preprocessing=False)
    without.set_weights(with_it.get_weights())
    scores = checks.outputs(with_it, clip)
    normalized = (clip / 127.5 - 1).astype("float32")
    for same in (
        checks.outputs(without, normalized),
        checks.outputs(with_it, clip.astype("float32")),
    ):
        np.testing.assert_allclose(same, scores, atol=1e-6)


def test_variants_are_the_modalities():
    for name, variant in INCEPTION_VARIANTS.items():
        assert InceptionI3D(modality=variant.modality).name == name
    with pytest.raises(ValueError, match="modality.*depth"):
        InceptionVariant("depth")


def test_flow_is_taken_as_it_is():
    for include_preprocessing in (True, False):
        model = InceptionI3D(
            modality="flow", include_preprocessing=include_preprocessing
        )
        assert model.input_shape == (None, None, None, None, 2)
        assert "normalize" not in [layer.name for layer in model.layers]


def test_input_tensor(rng):
    entry = keras.Input((None, 38, 33, 6))
    rgb = keras.layers.Conv3D(3, 1)(entry)
    model = InceptionI3D(input_tensor=rgb, classes=CLASSES)
    assert model.input_shape == (None, None, 38, 33, 6)
    clip = random_clip(rng, (1, 9, 38, 33, 6))
    assert checks.outputs(model, clip).shape == (1, CLASSES)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, rng):
    clip = random_clip(rng)
    full = random_model()
    keras.config.set_dtype_policy(policy)
    half = InceptionI3D(classes=CLASSES)
    half.set_weights(full.get_weights())
    assert half.get_layer("Mixed_5c").compute_dtype == policy[6:]
    scores = checks.outputs(half, clip)
    assert keras.backend.standardize_dtype(scores.dtype) == "float32"
    limit = 1e-3 if policy == "mixed_float16" else 1e-2
    np.testing.assert_allclose(scores, checks.outputs(full, clip), atol=limit)


def test_keras_file_round_trip(rng, tmp_path):
    model, clip = random_model(), random_clip(rng)
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        checks.outputs(reloaded, clip), checks.outputs(model, clip)
    )
    assert [x.name for x in reloaded.layers] == [x.name for x in model.layers]


def test_classifier(rng):
    model = random_model(classifier_activation=None)
    names = [layer.name for layer in model.layers]
    assert names[-5:] == [
        "avg_pool",
        "dropout",
        "logits",
        "mean_logits",
        "predictions",
    ]
    assert model.get_layer("dropout").rate == 0.5
    scores = random_model()
    scores.set_weights(model.get_weights())
    clip = random_clip(rng)
    logits = checks.outputs(model, clip)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(
        checks.outputs(scores, clip), expected, atol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "depth"}, "modality.*flow"),
        ({"pooling": "sum", "include_top": False}, "pooling"),
        ({"pooling": "avg"}, "include_top"),
        ({"classes": 0}, "classes"),
        ({"classes": None}, "classes"),
        ({"input_shape": (8, 64, 64, 2)}, "height, width, 3"),
        ({"input_shape": (8, 64, 64, 3), "modality": "flow"}, "width, 2"),
        ({"input_shape": (64, 64, 3)}, "frames"),
        ({"input_tensor": np.ones((1, 8, 64, 64, 3))}, "Keras tensor"),
        ({"input_tensor": keras.Input((8, 64, 64, 1))}, "channels"),
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
        InceptionI3D(**arguments)
