import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import ClipNormalization
from keras_nonlocal import ClipSpec
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal import clip_dataset
from keras_nonlocal.data.pipeline import step_videos
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.training import guards
from keras_nonlocal.training.guards import NaNGuard
from keras_nonlocal.training.guards import NonFiniteLossError

STEPS = 4
SEED = 5


class LogBrightness(keras.layers.Layer):
    """Of a black clip: minus infinity."""

    def call(self, inputs):
        mean = keras.ops.mean(keras.ops.cast(inputs, "float32"), (1, 2, 3))
        return keras.ops.log(mean)


def make_model(rate=0.01, **arguments):
    inputs = keras.Input((None, None, None, 3))
    x = keras.layers.Dense(2, name="classifier")(LogBrightness()(inputs))
    model = keras.Model(inputs, x)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(rate)
    if arguments:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, **arguments)
    model.compile(optimizer, loss, jit_compile=False)
    return model


def clips(videos, first_step=0):
    return clip_dataset(
        videos,
        ClipSpec(4, 2),
        batch_size=4,
        training=True,
        repeat=True,
        first_step=first_step,
        seed=SEED,
        crop_size=32,
        short_side=(32, 36),
    )


def fit(model, videos, path, epochs=3, initial_epoch=0, **arguments):
    guard = NaNGuard(videos, 4, SEED, path, **arguments)
    return model.fit(
        clips(videos, initial_epoch * STEPS),
        steps_per_epoch=STEPS,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[guard],
        shuffle=False,
        verbose=0,
    )


@pytest.fixture
def with_black(videos, tmp_path):
    """The videos, the last one being black."""
    path = tmp_path / "black.mp4"
    write_video(path, np.zeros((12, 36, 40, 3), "uint8"))
    paths = (*videos.paths[:-1], str(path))
    return VideoList(paths, videos.labels, videos.class_names)


@pytest.mark.parametrize("epoch", [0, 2])
def test_names_the_videos_of_the_step(with_black, tmp_path, epoch):
    def read(step):
        return next(clips(with_black, step).as_numpy_iterator())[0]

    path = tmp_path / "new" / "nan_batch.json"
    (place,) = [
        place
        for place in range(STEPS)
        if 15 in step_videos(with_black, 4, SEED, epoch * STEPS + place)
    ]
    with pytest.raises(NonFiniteLossError) as info:
        fit(make_model(), with_black, path, 3, epoch, read=read)
    report = json.loads(path.read_text())
    assert (report["epoch"], report["step"]) == (epoch + 1, place + 1)
    assert report["first_step"] == epoch * STEPS + place
    assert report["learning_rate"] == pytest.approx(0.01)
    black = with_black.paths[15]
    assert len(report["videos"]) == 4
    assert black in report["videos"]
    assert black not in report["videos_before"]
    colour = "has nothing but the colour [0, 0, 0]"
    assert report["odd_clips"] == {black: colour}
    for part in (f"epoch {epoch + 1}, step {place + 1}", black, str(path)):
        assert part in str(info.value)


def test_tells_the_weights_that_are_spoilt(videos, tmp_path):
    path = tmp_path / "nan_batch.json"
    with pytest.raises(NonFiniteLossError, match="Lower the learning rate"):
        fit(make_model(rate=1e39), videos, path)
    report = json.loads(path.read_text())
    assert report["weights"] == ["classifier/kernel", "classifier/bias"]
    assert report["odd_clips"] == {}
    # The first step has the loss of the first weights.
    assert report["step"] == 2
    paths = [videos.paths[n] for n in step_videos(videos, 4, SEED, 0)]
    assert report["videos_before"] == paths


def test_gradients_that_overflow_end_nothing(videos, tmp_path):
    """Halving the scale from this one takes more than one step."""
    path = tmp_path / "nan_batch.json"
    model = make_model(initial_scale=3e38)
    before = model.get_weights()
    history = fit(model, videos, path, epochs=1).history
    assert np.isfinite(history["loss"]).all()
    assert not path.exists()
    assert float(model.optimizer.dynamic_scale) < 3e38
    assert len(before) == len(model.get_weights())
    assert all(np.isfinite(x).all() for x in model.get_weights())


def test_a_step_that_cannot_be_read_again_hides_nothing(
    with_black, tmp_path, caplog
):
    def read(step):
        raise OSError("no such disk")

    path = tmp_path / "nan_batch.json"
    with pytest.raises(NonFiniteLossError):
        fit(make_model(), with_black, path, read=read)
    assert "no such disk" in caplog.text
    assert json.loads(path.read_text())["odd_clips"] == {}
    path.unlink()
    path.mkdir()
    with pytest.raises(NonFiniteLossError):
        fit(make_model(), with_black, path)
    assert "could not be written" in caplog.text


def test_steps_must_be_known(videos, tmp_path):
    guard = NaNGuard(videos, 4, SEED, tmp_path / "nan_batch.json")
    endless = tf.data.Dataset.from_tensors((tf.zeros([1, 2]), tf.zeros([1])))
    unknown = endless.filter(lambda x, y: True)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="steps_per_epoch"):
        model.fit(unknown, callbacks=[guard], shuffle=False, verbose=0)


def network(normalized=True, shape=(None, None, None, 3)):
    inputs = keras.Input(shape)
    x = ClipNormalization()(inputs) if normalized else inputs
    return keras.Model(inputs, keras.layers.GlobalAveragePooling3D()(x))


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (2, 4, 8, 8, 3)).astype("uint8")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_clips_that_are_fine(pixels, caplog, dtype):
    guards.check_clips(pixels.astype(dtype), network())
    guards.check_clips((pixels / 128 - 1), network(normalized=False))
    guards.check_clips((pixels // 64), network())  # Dark, but pixels.
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x / 255, "from 0 to 255.*Received: values from 0 to 1$"),
        (lambda x: x / 127.5 - 1, "values from -1 to 1$"),
        (lambda x: x[0], r"shape \(None, None.*Received: \(4, 8, 8, 3\)"),
        (lambda x: x[..., :1], r"Received: \(2, 4, 8, 8, 1\)"),
        (lambda x: x[:0], r"at least one of each.*\(0, 4, 8, 8, 3\)"),
        (lambda x: x.astype(str), "type <U"),
        (lambda x: x > 3, "type bool"),
        (lambda x: np.where(x == x[0, 0, 0, 0], np.nan, x), "finite.* 2 clips"),
    ],
)
def test_clips_that_a_network_does_not_take(pixels, change, message):
    with pytest.raises(ValueError, match=message):
        guards.check_clips(change(pixels), network())


def test_lengths_and_sizes_of_a_network(pixels):
    guards.check_clips(pixels, network(shape=(4, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"\(None, 8, 8, 8, 3\)"):
        guards.check_clips(pixels, network(shape=(8, 8, 8, 3)))


def test_clips_without_content_are_warned_of(pixels, caplog):
    pixels[1] = [0, 10, 255]
    guards.check_clips(pixels, network())
    assert "1 of the first 2 clips show nothing" in caplog.text
    assert "nothing but the colour [0, 10, 255]" in caplog.text
    # All black is no sign of values from 0 to 1.
    guards.check_clips(np.zeros((2, 4, 8, 8, 3)), network())
    assert "2 of the first 2 clips show nothing" in caplog.text


@pytest.mark.parametrize("offset", [-20, 20])
def test_values_beyond_pixels_are_warned_of(pixels, caplog, offset):
    guards.check_clips(pixels.astype("float32") + offset, network())
    assert "takes values from 0 to 255 and is given" in caplog.text


def test_first_batch_of_a_data_set(pixels):
    whole = tf.data.Dataset.from_tensors((pixels, [0, 1]))
    guards.check_dataset(whole, network())
    with pytest.raises(ValueError, match="none at all"):
        guards.check_dataset(whole.take(0), network())
    halves = whole.map(lambda x, y: (x[..., :1], y))
    with pytest.raises(ValueError, match="8, 8, 1"):
        guards.check_dataset(halves, network())


@pytest.fixture(scope="module")
def nonlocal_network():
    return ResNet3D(Variant(depth=26, width=4, num_nonlocal=1), classes=2)


@pytest.mark.parametrize(("clips", "warned"), [(7, True), (8, False)])
def test_few_clips_for_batch_norms(nonlocal_network, caplog, clips, warned):
    assert guards.warn_batch_norm(nonlocal_network, clips) == warned
    assert ('batch_norm="freeze"' in caplog.text) == warned
    assert "sync_batch" not in caplog.text


def test_batch_norms_that_are_frozen_need_no_clips(nonlocal_network, caplog):
    for layer in nonlocal_network.layers:
        layer.trainable = False
    assert not guards.warn_batch_norm(nonlocal_network, 1)
    # The norm that a block ends in is trained alone.
    block = next(x for x in nonlocal_network.layers if "nonlocal" in x.name)
    block.trainable = True
    assert guards.warn_batch_norm(nonlocal_network, 1, replicas=4)
    assert 'over the 4 replicas with norm="sync_batch"' in caplog.text
    for layer in nonlocal_network.layers:
        layer.trainable = True


def test_synchronized_batch_norms_have_the_clips_of_all(caplog):
    inputs = keras.Input((2, 4, 4, 3))
    norm = keras.layers.BatchNormalization(synchronized=True)
    inner = keras.Model(inputs, norm(inputs))
    model = keras.Model(inputs, inner(inputs))
    assert not guards.warn_batch_norm(model, 4, replicas=2)
    assert guards.warn_batch_norm(model, 2, replicas=3)
    assert "statistics of 6 clips" in caplog.text
    assert "sync_batch" not in caplog.text
