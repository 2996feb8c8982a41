"""A clip of one repeated frame gives what the image network gives."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ResNet2D
from keras_nonlocal import inflate
from tests import checks

layers = keras.layers
I3D = dataclasses.replace(VARIANTS["i3d_r50_8x8"], pool1_padding=1)
# Frames on each side that an inflated R50 with stride 1 in time spoils at
# res5: 2 of conv1, 3 of res2, then, twice as far apart, 2, 3 and 1.
SPOILT = 2 + 3 + 2 * (2 + 3 + 1)


def repeated(image, frames):
    return np.repeat(image[:, np.newaxis], frames, axis=1)


def images(rng, side=32):
    return rng.integers(0, 256, (1, side, side, 3)).astype("uint8")


def features(model):
    return keras.Model(model.input, model.get_layer("res5_2").output)


@pytest.fixture(scope="module")
def image_network():
    model = ResNet2D("resnet50", classes=7)
    checks.randomize(model, scale=0.1)
    return model


@pytest.mark.parametrize("inflation", ["3x1x1", "3x3x3", None])
def test_interior_frames_are_exact(image_network, inflation, rng):
    variant = dataclasses.replace(I3D, inflation=inflation)
    video = inflate(image_network, variant, include_top=False)
    image = images(rng)
    frames = 2 * SPOILT + 6
    expected = checks.numpy(features(image_network)(image))
    actual = checks.numpy(video(repeated(image, frames)))
    spoilt = SPOILT // 2 if inflation else 0
    inner = actual[:, spoilt : actual.shape[1] - spoilt]
    assert inner.shape[1] >= 3
    scale = np.std(expected)
    assert np.max(np.abs(inner - expected[:, None])) < 1e-4 * scale
    if inflation:
        assert np.max(np.abs(actual[:, 0] - expected)) > 1e-2 * scale


def test_scores_of_an_inflated_c2d(image_network, rng):
    variant = dataclasses.replace(I3D, inflation=None, head="feature")
    video = inflate(
        image_network, variant, classes=7, classifier_activation=None
    )
    image = images(rng)
    logits = keras.Model(
        image_network.input, image_network.get_layer("logits").output
    )
    expected = checks.numpy(logits(image))
    actual = checks.numpy(video(repeated(image, 4)))
    assert np.max(np.abs(actual - expected)) < 1e-4 * np.std(expected)


def test_non_local_blocks_begin_as_the_identity(image_network, rng):
    plain = dataclasses.replace(I3D, inflation=None)
    blocks = dataclasses.replace(plain, num_nonlocal=5)
    clip = repeated(images(rng), 4)
    with_blocks = inflate(image_network, blocks, include_top=False)
    without = inflate(image_network, plain, include_top=False)
    np.testing.assert_array_equal(
        checks.numpy(with_blocks(clip)), checks.numpy(without(clip))
    )


def test_batch_norms_are_folded_for_a_frozen_network(image_network, rng):
    plain = dataclasses.replace(I3D, inflation=None)
    frozen = dataclasses.replace(plain, norm="affine")
    clip = repeated(images(rng), 4)
    expected = checks.numpy(
        inflate(image_network, plain, include_top=False)(clip)
    )
    actual = checks.numpy(
        inflate(image_network, frozen, include_top=False)(clip)
    )
    assert np.max(np.abs(actual - expected)) < 1e-4 * np.std(expected)


def test_another_number_of_classes_gets_a_fresh_classifier(image_network):
    video = inflate(image_network, I3D, classes=3)
    assert video.output_shape == (None, 3)
    kernel = checks.numpy(video.get_layer("logits").kernel)
    assert 0.005 < np.std(kernel) < 0.02


def test_paddings_and_strides_must_agree(image_network):
    with pytest.raises(ValueError, match="pool1_padding=1"):
        inflate(image_network, "i3d_r50_8x8")
    inflate(image_network, "i3d_r50_8x8", strict=False, include_top=False)
    for depth in (26, 101):
        with pytest.raises(ValueError, match="differ in .* layers"):
            inflate(image_network, dataclasses.replace(I3D, depth=depth))
    with pytest.raises(ValueError, match="must be a ResNet2D"):
        inflate(keras.applications.MobileNet(weights=None), I3D)
    with pytest.raises(ValueError, match="classes.* for inflation into a"):
        inflate(image_network, classes=3)


def test_preprocessing_is_the_image_networks(image_network):
    video = inflate(image_network, I3D, include_top=False)
    mean = video.get_layer("normalize").mean
    assert mean == image_network.get_layer("normalize").mean
    bare = ResNet2D("resnet50", include_top=False, include_preprocessing=False)
    with pytest.raises(ValueError, match="include_preprocessing=False"):
        inflate(bare, I3D, include_top=False)
    inflate(bare, I3D, include_top=False, include_preprocessing=False)


def test_groups_are_refused():
    source = ResNet2D("resnext101_32x8d", include_top=False)
    with pytest.raises(ValueError, match="groups=32"):
        inflate(source, dataclasses.replace(I3D, depth=101))


def test_keras_applications(rng):
    """Stride in the 1x1 convolution, biases, another epsilon, BGR."""
    image_network = keras.applications.ResNet50(weights=None, classes=7)
    checks.randomize(image_network, scale=0.1)
    variant = dataclasses.replace(
        I3D, inflation=None, head="feature", stride_in_1x1=True
    )
    with pytest.raises(ValueError, match="stride_in_1x1=True"):
        inflate(image_network, dataclasses.replace(I3D, stride_in_1x1=False))
    video = inflate(
        image_network, variant, classes=7, classifier_activation=None
    )
    image = images(rng, side=64)
    prepared = keras.applications.resnet50.preprocess_input(
        image.astype("float32")
    )
    image_network.layers[-1].activation = keras.activations.linear
    expected = checks.numpy(
        keras.Model(
            image_network.input, image_network.get_layer("predictions").output
        )(keras.ops.image.resize(prepared, (224, 224)))
    )
    large = checks.numpy(
        keras.ops.image.resize(image.astype("float32"), (224, 224))
    )
    actual = checks.numpy(video(repeated(large, 4)))
    assert np.max(np.abs(actual - expected)) < 1e-4 * np.std(expected)


def test_the_deeper_network_of_keras_applications(rng):
    image_network = keras.applications.ResNet101(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    checks.randomize(image_network, scale=0.03)
    variant = dataclasses.replace(
        I3D, depth=101, inflation=None, stride_in_1x1=True
    )
    video = inflate(image_network, variant, include_top=False)
    image = images(rng, side=64)
    prepared = keras.applications.resnet.preprocess_input(
        image.astype("float32")
    )
    expected = checks.numpy(image_network(prepared))
    actual = checks.numpy(video(repeated(image, 4)))
    assert 0 < np.std(expected) < np.inf
    assert np.max(np.abs(actual - expected[:, None])) < 1e-4 * np.std(expected)


def vgg_like():
    inputs = keras.Input((16, 20, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    y = layers.ZeroPadding2D(1)(x)
    y = layers.Conv2D(8, 3, strides=2, name="b")(y)
    y = layers.BatchNormalization(axis=3, name="norm")(y)
    z = layers.Conv2D(8, 1, strides=2, use_bias=False, name="c")(x)
    x = layers.Concatenate()([layers.Add()([y, z]), y])
    x = layers.AveragePooling2D((2, 1), padding="same")(x)
    x = layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="d")(x)
    x = layers.GlobalMaxPooling2D(name="top")(x)
    return keras.Model(inputs, layers.Dense(3)(x), name="vgg_like")


def test_any_network_of_known_layers(rng):
    image_network = vgg_like()
    checks.randomize(image_network)
    video = inflate(image_network)
    names = {layer.name for layer in image_network.layers}
    assert names < {layer.name for layer in video.layers}
    assert video.get_layer("b").kernel_size == (3, 3, 3)
    assert video.get_layer("c").kernel_size == (1, 1, 1)
    image = rng.integers(0, 256, (2, 16, 20, 3)).astype("float32")
    clip = repeated(image, 11)
    # Before the last pooling, where frames are still apart.
    ours = keras.Model(video.input, video.get_layer("d").output)
    theirs = keras.Model(
        image_network.input, image_network.get_layer("d").output
    )
    actual, expected = checks.numpy(ours(clip)), checks.numpy(theirs(image))
    assert actual.shape == (2, 11, *expected.shape[1:])
    for frame in range(3, 8):
        np.testing.assert_allclose(
            actual[:, frame], expected, rtol=1e-4, atol=1e-4
        )
    assert np.abs(actual[:, 0] - expected).max() > 1e-3


def test_our_own_image_network_layer_by_layer(image_network):
    video = inflate(image_network, temporal_kernel=1)
    assert video.output_shape == (None, 7)
    names = {layer.name for layer in video.layers}
    # Another network than the one on record.
    assert "network" not in names and "res4_5_branch2b" in names


def test_a_sequential_model(rng):
    image_network = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.ReLU()]
    )
    checks.randomize(image_network)
    image = rng.normal(size=(1, 8, 8, 3)).astype("float32")
    video = inflate(image_network)
    np.testing.assert_allclose(
        checks.numpy(video(repeated(image, 5)))[:, 2],
        checks.numpy(image_network(image)),
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="functional Keras model"):
        inflate(keras.Sequential([layers.Conv2D(4, 3)]))


def test_without_extent_in_time_every_frame_is_exact(rng):
    image_network = vgg_like()
    checks.randomize(image_network)
    video = inflate(image_network, temporal_kernel=1)
    image = rng.integers(0, 256, (2, 16, 20, 3)).astype("float32")
    np.testing.assert_allclose(
        checks.numpy(video(repeated(image, 3))),
        checks.numpy(image_network(image)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_extent_may_depend_on_the_layer():
    def only_the_first(layer):
        return 5 if layer.name == "a" else 1

    video = inflate(vgg_like(), temporal_kernel=only_the_first)
    assert video.get_layer("a").kernel_size == (5, 3, 3)
    assert video.get_layer("b").kernel_size == (1, 3, 3)


@pytest.mark.parametrize("extent", [2, 0, 1.5])
def test_extents_are_odd(extent):
    with pytest.raises(ValueError, match="odd positive integer"):
        inflate(vgg_like(), temporal_kernel=extent)


def test_layers_without_counterpart_are_named():
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3)
    )
    with pytest.raises(ValueError, match="DepthwiseConv2D"):
        inflate(model)


def test_densenet_is_inflated(rng):
    model = keras.applications.DenseNet121(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    video = inflate(model, temporal_kernel=1)
    image = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        checks.numpy(video(repeated(image, 2)))[:, 1],
        checks.numpy(model(image)),
        atol=1e-4,
    )
