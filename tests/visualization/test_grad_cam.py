import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal import VARIANTS
from keras_nonlocal import ClipNormalization
from keras_nonlocal import Conv3D
from keras_nonlocal import ResNet3D
from keras_nonlocal import insert_nonlocal
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.visualization.grad_cam import grad_cam
from keras_nonlocal.visualization.grad_cam import grad_cams
from tests import checks

SHAPE = (4, 24, 24, 3)


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).integers(0, 256, SHAPE, "uint8")


def small(activation=None, pool=layers.GlobalAveragePooling3D, **kwargs):
    """A network whose answer is known: convolution, mean, Dense."""
    inputs = keras.Input(SHAPE, **kwargs)
    x = ClipNormalization()(inputs)
    x = layers.Conv3D(6, 3, 2, "same", activation="relu", name="conv")(x)
    x = layers.Dense(5, activation, name="scores")(pool(name="pool")(x))
    model = keras.Model(inputs, x)
    checks.randomize(model)
    return model


def activation_map(model, clip, number):
    """Zhou et al.'s class activation map, over the number of positions."""
    maps = keras.Model(model.input, model.get_layer("conv").output)(clip[None])
    maps = checks.numpy(maps)[0]
    kernel = checks.numpy(model.get_layer("scores").kernel)
    weighted = np.maximum(maps @ kernel[:, number], 0)
    return weighted / np.prod(maps.shape[:3])


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_is_the_class_activation_map_of_a_mean_and_a_dense(activation, clip):
    model = small(activation)
    scores = checks.numpy(model(clip[None]))[0]
    for number in range(5):
        cam = grad_cam(model, clip, target=number)
        expected = activation_map(model, clip, number)
        np.testing.assert_allclose(cam.heat, expected, rtol=1e-4, atol=1e-7)
        assert (cam.class_index, cam.layer) == (number, "conv")
        assert cam.score == pytest.approx(scores[number], rel=1e-5)
    assert grad_cam(model, clip).class_index == scores.argmax()


def test_takes_uint8_inputs_and_frozen_networks(clip):
    model = small(dtype="uint8")
    model.trainable = False
    cam = grad_cam(model, clip[None], target=1)
    expected = activation_map(model, clip, 1)
    np.testing.assert_allclose(cam.heat, expected, rtol=1e-4, atol=1e-7)


def test_several_classes_in_one_pass_are_those_one_by_one(clip):
    model = small("softmax")
    cams = grad_cams(model, clip, 3)
    assert [cam.score for cam in cams] == sorted(
        checks.numpy(model(clip[None]))[0].tolist(), reverse=True
    )[:3]
    assert len(grad_cams(model, clip, 99)) == 5
    assert len(grad_cams(model, clip, np.int64(2))) == 2
    for cam in grad_cams(model, clip, [cams[1].class_index, 0]):
        alone = grad_cam(model, clip, target=cam.class_index)
        np.testing.assert_allclose(cam.heat, alone.heat, rtol=1e-5)
    assert (alone.class_index, cams[1].heat.any()) == (0, True)


def bright_square():
    """Class 1 is said by what is brighter than anything else."""
    inputs = keras.Input((8, 32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.ZeroPadding3D((0, 1, 1))(x)
    x = Conv3D(2, (2, 4, 4), (2, 2, 2), use_bias=True, name="conv")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling3D()(x)
    model = keras.Model(inputs, layers.Dense(2, "softmax", name="top")(x))
    mean = np.full((2, 4, 4, 3, 1), 1 / 96, "float32")
    model.get_layer("conv").set_weights(
        [np.concatenate([-mean, mean], -1), np.array([0.6, -0.6], "float32")]
    )
    model.get_layer("top").set_weights([np.eye(2) * 9, np.zeros(2)])
    return model


def test_finds_what_the_network_answers_by():
    clip = np.full((8, 32, 32, 3), 60, "uint8")
    for frame in (4, 5):
        clip[frame, 20:26, 6:12] = 255
    cam = grad_cam(bright_square(), clip, target=1)
    heat = cam.on_clip()
    t, y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert t in (4, 5) and 20 <= y < 26 and 6 <= x < 12
    centre = np.argwhere(heat > 0.5 * heat.max()).mean(axis=0)
    np.testing.assert_allclose(centre, [4.5, 22.5, 8.5], atol=0.6)
    assert heat[:3].max() == 0 and heat[:, :16].max() == 0
    # What is dark speaks for the other class.
    other = grad_cam(bright_square(), clip, target=0).on_clip()
    assert other[4:6, 20:26, 6:12].min() < 0.3 * other.max()


@pytest.mark.parametrize("name", ["small_nl_c2d", "small_c2d"])
def test_takes_the_networks_of_the_package(name):
    base = dataclasses.replace(VARIANTS[name], width=4, head="probability")
    model = ResNet3D(base, classes=3)
    checks.randomize(model, scale=0.2)
    # More than the training size: probabilities at several places.
    clip = np.random.default_rng(1).integers(0, 256, (8, 64, 96, 3), "uint8")
    cam = grad_cam(model, clip)
    assert cam.layer == "res5_1"
    assert cam.heat.shape[1:] == (2, 3)
    assert cam.on_clip().shape == (8, 64, 96)
    assert cam.heat.any() and (cam.heat >= 0).all()
    if name == "small_c2d":
        return
    features = keras.Model(
        model.input,
        layers.GlobalMaxPooling3D()(model.get_layer("res5_1").output),
    )
    assert grad_cam(features, clip).layer == "res5_1"


def test_stops_before_the_pooling_of_a_head_with_places():
    inputs = keras.Input((8, 18, 20, 3))
    x = Conv3D(4, 3, padding="same", strides=2, name="conv")(inputs)
    x = layers.ReLU(name="relu")(x)
    # As that of the Inception I3D.
    x = WindowAverage((2, 7, 7), name="average")(x)
    x = layers.Dropout(0.5)(x)
    x = Conv3D(5, 1, name="logits")(x)
    x = layers.GlobalAveragePooling3D()(x)
    model = keras.Model(inputs, layers.Activation("softmax")(x))
    clip = np.random.default_rng(1).normal(size=(8, 18, 20, 3))
    cam = grad_cam(model, clip)
    assert (cam.layer, cam.heat.shape) == ("relu", (4, 9, 10))
    cam = grad_cam(model, clip, layer="logits")
    assert cam.heat.shape == (3, 3, 4)


def test_average_poolings_of_branches_are_not_that_of_the_head():
    """As in Inception modules, and the gates of a squeeze-and-excitation."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    pooled = layers.AveragePooling2D(3, 1, padding="same")(x)
    pooled = layers.Conv2D(2, 1)(pooled)
    x = layers.Concatenate(name="mixed")(
        [layers.Conv2D(2, 3, 1, "same")(x), pooled]
    )
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="sigmoid")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    x = layers.Dense(4, name="last")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(5)(x))
    checks.randomize(model)
    image = np.random.default_rng(1).normal(size=(16, 16, 3))
    assert grad_cam(model, image).layer == "last"
    inner = keras.Model(inputs, model.get_layer("mixed").output)
    ends = layers.Dense(5)(layers.GlobalAveragePooling2D()(inner.output))
    assert grad_cam(keras.Model(inputs, ends), image).layer == "mixed"


def test_a_head_may_keep_the_axes_that_it_averages():
    """As that of MobileNetV3."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(5, 1, name="logits")(x)
    model = keras.Model(inputs, layers.Softmax()(layers.Flatten()(x)))
    cam = grad_cam(model, np.ones((16, 16, 3)))
    assert (cam.layer, cam.heat.shape) == ("relu", (1, 14, 14))


def test_branches_that_meet_too_late_must_be_named():
    inputs = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    ends = [
        layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name=name)(x))
        for name in ("slow", "fast")
    ]
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(ends)))
    image = np.ones((16, 16, 3))
    with pytest.raises(ValueError, match="`layer` must be given.*'fast'"):
        grad_cam(model, image)
    assert grad_cam(model, image, layer="slow").heat.shape == (1, 14, 14)


def test_of_a_layer_that_is_called_twice_the_last_call():
    entry = keras.Input((None, None, 3))
    x = layers.Conv2D(3, 3, 2, "same", name="conv")(entry)
    inner = keras.Model(entry, x, name="inner")
    inputs = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(inner(inner(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    cam = grad_cam(model, np.ones((16, 16, 3)))
    assert cam.heat.shape == cam.keys.shape == (1, 4, 4)
    assert cam.keys.size == (1, 7, 7)


def test_channels_that_the_network_moves(clip):
    model = small()
    expected = grad_cam(model, clip, target=1)
    inputs = keras.Input((3, *SHAPE[:3]))
    moved = keras.Model(inputs, model(layers.Permute((2, 3, 4, 1))(inputs)))
    cam = grad_cam(moved, np.moveaxis(clip, -1, 0), target=1)
    assert cam.keys.clip_size == SHAPE[:3]
    np.testing.assert_allclose(cam.heat, expected.heat, rtol=1e-5)


def test_goes_into_nested_and_reloaded_models(tmp_path, clip):
    inner = small("softmax")
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(-1.0, offset=255.0)(inputs)
    outer = keras.Model(inputs, inner(x))
    expected = grad_cam(inner, 255 - clip, target=2)
    outer.save(tmp_path / "outer.keras")
    for model in (outer, keras.models.load_model(tmp_path / "outer.keras")):
        cam = grad_cam(model, clip, target=2)
        assert cam.layer == f"{inner.name}/conv"
        np.testing.assert_allclose(cam.heat, expected.heat, rtol=1e-5)
        again = grad_cam(model, clip, target=2, layer=cam.layer)
        np.testing.assert_array_equal(again.heat, cam.heat)
    inserted = insert_nonlocal(inner, "conv", mode="gaussian")
    assert grad_cam(inserted, clip).layer == "nonlocal_conv"


@pytest.mark.parametrize("rank", [2, 3])
def test_takes_images_and_channels_first(rank, rng):
    sizes = (4, 6, 5)[-rank:]
    inputs = keras.Input((3, *sizes))
    pool = getattr(layers, f"GlobalAveragePooling{rank}D")
    x = layers.ReLU(name="maps")(inputs)
    x = pool(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(x))
    values = rng.uniform(size=(3, *sizes)).astype("float32")
    cam = grad_cam(model, values, target=1)
    kernel = checks.numpy(model.get_layer("scores").kernel)[:, 1]
    expected = np.maximum(np.tensordot(kernel, values, 1), 0) / np.prod(sizes)
    np.testing.assert_allclose(
        cam.heat, expected.reshape((1, *sizes)[-3:]), rtol=1e-4, atol=1e-7
    )


def test_says_what_is_wrong(clip):
    model = small()
    with pytest.raises(ValueError, match="from 0 to 4. Received: .5."):
        grad_cam(model, clip, target=5)
    with pytest.raises(ValueError, match="`targets` must be positive"):
        grad_cams(model, clip, 0)
    with pytest.raises(ValueError, match="'cov'. Close: .'conv'"):
        grad_cam(model, clip, layer="cov")
    with pytest.raises(ValueError, match="path of a layer .*'pool'"):
        grad_cam(model, clip, layer="pool")
    with pytest.raises(ValueError, match="`clip` must be one clip"):
        grad_cam(model, clip[:, :8])
    with pytest.raises(ValueError, match="functional model"):
        grad_cam(keras.Sequential([layers.Dense(1)]), clip)
    maps = keras.Model(model.input, model.get_layer("conv").output)
    with pytest.raises(ValueError, match=r"\(batch, classes\)"):
        grad_cam(maps, clip)
    inputs = keras.Input((4, 8, 8, 3))
    x = layers.GlobalAveragePooling3D()(inputs)
    flat = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="must have a layer whose output"):
        grad_cam(flat, np.ones((4, 8, 8, 3)))


def test_refuses_a_layer_that_scores_do_not_depend_on(clip):
    inputs = keras.Input(SHAPE)
    loose = layers.Conv3D(2, 1, name="loose")(inputs)
    stop = layers.Lambda(keras.ops.stop_gradient, output_shape=lambda s: s)
    x = layers.GlobalAveragePooling3D()(stop(loose))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="`layer` must be one that the"):
        grad_cam(model, clip, layer="loose")
