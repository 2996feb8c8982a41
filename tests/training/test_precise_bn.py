import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import BatchNormalization
from keras_nonlocal import NonLocal
from keras_nonlocal import rematerialize
from keras_nonlocal.training.precise_bn import PreciseBatchNorm
from keras_nonlocal.training.precise_bn import precise_batch_norm
from tests import checks

layers = keras.layers
EPSILON = 1e-3
MOVING = "second/moving_mean"


def network(dropout=0.0):
    """Two batch norms, the second on what the first gives."""
    inputs = keras.Input((4,))
    x = layers.BatchNormalization(epsilon=EPSILON, name="first")(inputs)
    x = layers.Dropout(dropout, seed=1)(x)
    x = layers.Dense(3, name="middle")(x)
    x = BatchNormalization(epsilon=EPSILON, name="second")(x[:, None, None])
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    checks.randomize(model)
    return model


@pytest.fixture
def batches(rng):
    """Of different means and sizes; their labels are not looked at."""
    return [
        (rng.normal(size=(size, 4), loc=size).astype("float32"), None)
        for size in (4, 6, 8)
    ]


def state(model):
    return {v.path: checks.numpy(v) for v in model.variables}


def moments_of_batches(batches):
    """Mean of means, and mean of mean squares less the square of that."""
    mean = np.mean([x.mean(axis=0) for x in batches], axis=0)
    square = np.mean([(x**2).mean(axis=0) for x in batches], axis=0)
    return mean, square - mean**2


def normalized(batches, norm):
    gamma, beta = checks.numpy(norm.gamma), checks.numpy(norm.beta)
    return [
        (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + EPSILON) * gamma + beta
        for x in batches
    ]


def test_equals_the_statistics_of_the_activations(batches):
    model = network()
    before = state(model)
    precise_batch_norm(model, batches, steps=3)
    x = [inputs.astype("float64") for inputs, _ in batches]
    kernel, bias = map(checks.numpy, model.get_layer("middle").weights)
    for name in ("first", "second"):
        norm = model.get_layer(name)
        mean, variance = moments_of_batches(x)
        np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4)
        if name == "first":
            # What the next one sees is normalized batch by batch.
            x = [inputs @ kernel + bias for inputs in normalized(x, norm)]
    assert model.get_layer("first").momentum == 0.99
    assert model.get_layer("second").momentum == 0.9
    after = state(model)
    changed = {k for k in before if np.any(before[k] != after[k])}
    assert changed == {k for k in before if "moving" in k}


def test_takes_so_many_batches(batches):
    model = network()
    precise_batch_norm(model, iter(batches), steps=2)
    mean, _ = moments_of_batches([inputs for inputs, _ in batches[:2]])
    np.testing.assert_allclose(
        model.get_layer("first").moving_mean, mean, rtol=1e-5
    )


def test_frozen_norms_are_left_alone(batches):
    model = network()
    model.get_layer("second").trainable = False
    before = state(model)
    precise_batch_norm(model, batches, steps=3)
    after = state(model)
    for name, value in before.items():
        assert np.any(value != after[name]) == name.startswith("first/moving")
    model.trainable = False
    precise_batch_norm(model, iter(()), steps=3)  # Asks for no batch.


def test_is_deterministic_and_leaves_the_seeds(batches):
    """Dropout before a norm draws anew for each batch, but always the same."""
    model = network(dropout=0.5)
    batches = [batches[0]] * 2
    precise_batch_norm(model, batches, steps=2)
    both = state(model)
    precise_batch_norm(model, batches, steps=2)
    for name, value in state(model).items():
        np.testing.assert_array_equal(value, both[name])
    precise_batch_norm(model, batches[:1], steps=1)
    one = state(model)
    assert np.any(one[MOVING] != both[MOVING])


def test_the_norm_of_a_non_local_block_and_in_recomputed_blocks(rng):
    inputs = keras.Input((2, 4, 4, 3))
    x = layers.Dense(4)(inputs)
    x = layers.Add()([x, BatchNormalization(name="norm")(layers.Dense(4)(x))])
    block = NonLocal(name="block")
    x = block(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Add()([x, layers.Dense(4)(x)]))
    checks.randomize(model)
    clips = [rng.normal(size=(2, 2, 4, 4, 3)).astype("float32")] * 2
    precise_batch_norm(rematerialize(model, "blocks"), clips, steps=2)
    response = keras.Model(model.input, block.input)(clips[0], training=True)
    w_y = checks.numpy(block._response(response)).reshape(-1, 4)
    norm = block.out_norm
    np.testing.assert_allclose(norm.moving_mean, w_y.mean(0), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, w_y.var(0), rtol=1e-3)
    found = state(model)
    precise_batch_norm(model, clips, steps=2)
    for name, value in state(model).items():
        np.testing.assert_allclose(value, found[name], atol=1e-6)


def test_statistics_that_are_not_finite(batches, caplog):
    model = network()
    first = model.get_layer("first")
    first.moving_mean.assign(np.full(4, np.nan))
    wrong = [(np.full((4, 4), np.inf, "float32"), None)]
    before = state(model)
    precise_batch_norm(model, wrong, steps=1)
    assert "not finite; the moving averages stay" in caplog.text
    for name, value in state(model).items():
        np.testing.assert_array_equal(value, before[name])
    # Averages that are lost are found again.
    precise_batch_norm(model, batches, steps=3)
    assert np.all(np.isfinite(first.moving_mean))


def test_too_few_batches(batches, caplog):
    model = network()
    precise_batch_norm(model, batches, steps=5)
    assert "3 batches in place of 5" in caplog.text
    with pytest.raises(ValueError, match="must give a batch. Received: none"):
        precise_batch_norm(model, [], steps=5)


class _Recorder(keras.callbacks.Callback):
    """The statistics and weights at each test and at each save."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _note(self, moment):
        self.seen.append((moment, state(self.model)))

    def on_test_batch_begin(self, batch, logs=None):
        self._note("test")

    def on_epoch_end(self, epoch, logs=None):
        self._note("save")

    def on_train_end(self, logs=None):
        self._note("end")


class _Counted:
    """Batches that count how often they are begun."""

    def __init__(self, batches):
        self.batches = batches
        self.count = 0

    def __iter__(self):
        self.count += 1
        return iter(self.batches)


def fitted(callbacks, tests=True, **kwargs):
    keras.utils.set_random_seed(0)
    model = network(dropout=0.2)
    optimizer = keras.optimizers.SGD(0.01, **kwargs)
    model.compile(optimizer, "mse", run_eagerly=True)
    rng = np.random.default_rng(1)
    data = tf.data.Dataset.from_tensor_slices(
        (rng.normal(size=(8, 4)), rng.normal(size=(8, 1)))
    ).batch(4)
    return model, model.fit(
        data,
        epochs=2,
        validation_data=data if tests else None,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )


def test_in_fit(batches):
    recorder, counted = _Recorder(), _Counted(batches)
    callback = PreciseBatchNorm(counted, steps=3)
    model, history = fitted([callback, recorder])
    _, plain = fitted([])
    # Training is the same, the test another.
    assert history.history["loss"] == plain.history["loss"]
    assert history.history["val_loss"] != plain.history["val_loss"]
    moments = [moment for moment, _ in recorder.seen]
    assert moments == ["test", "test", "save", "test", "test", "save", "end"]
    # Once for the same weights.
    assert counted.count == 2
    first, last = recorder.seen[2][1], recorder.seen[-1][1]
    for (_, earlier), (_, later) in itertools.pairwise(recorder.seen):
        is_same = np.array_equal(earlier[MOVING], later[MOVING])
        assert is_same == (later is not recorder.seen[3][1])
    for seen in (first, last):
        for variable in model.variables:
            variable.assign(seen[variable.path])
        precise_batch_norm(model, batches, steps=3)
        for name, value in state(model).items():
            np.testing.assert_array_equal(value, seen[name])
    # A test of its own takes the model as it is.
    x, _ = batches[0]
    model.evaluate(x, np.zeros((len(x), 1)), verbose=0, callbacks=[callback])
    assert counted.count == 2


def test_without_tests_before_the_save(batches):
    recorder, counted = _Recorder(), _Counted(batches)
    callback = PreciseBatchNorm(counted, steps=3)
    model, _ = fitted([callback, recorder], tests=False)
    assert counted.count == 2
    precise_batch_norm(model, batches, steps=3)
    for name, value in state(model).items():
        np.testing.assert_array_equal(value, recorder.seen[-1][1][name])


def test_of_averaged_weights(batches):
    """What `fit` puts in the weights' place at its end has other statistics."""
    counted = _Counted(batches)
    callback = PreciseBatchNorm(counted, steps=3)
    model, _ = fitted([callback], use_ema=True, ema_momentum=0.5)
    assert counted.count == 3
    found = state(model)
    precise_batch_norm(model, batches, steps=3)
    for name, value in state(model).items():
        np.testing.assert_array_equal(value, found[name])


def test_renormalization_is_refused(batches):
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((4,)), norm])
    norm.renorm = True
    with pytest.raises(ValueError, match="without renormalization"):
        precise_batch_norm(model, batches, steps=1)
