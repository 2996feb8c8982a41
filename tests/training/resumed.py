"""Trains with `RunState`; run by test_checkpoints.py.

    python -m tests.training.resumed killed|mirrored|one JOB FOLDER

`killed` kills itself; others go on from the last state but one, and compare.
"""

import json
import os
import pathlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal import BatchNormalization
from keras_nonlocal import ClipNormalization
from keras_nonlocal import ClipSpec
from keras_nonlocal import VideoList
from keras_nonlocal import clip_dataset
from keras_nonlocal.training.checkpoints import RunState
from keras_nonlocal.training.optimizers import SGD

EPOCHS = 3
STEPS = 4
SETTINGS = {"config": {"epochs": EPOCHS}}


class Kill(keras.callbacks.Callback):
    """Kills the process in the midst of the last epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == EPOCHS - 1 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def make_model():
    """With all that has a state: statistics, dropout, velocities, averages."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, None, None, 3))
    x = ClipNormalization()(inputs)
    x = keras.layers.Conv3D(4, 3, strides=4)(x)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling3D()(x)
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.05, EPOCHS * STEPS)
    optimizer = SGD(schedule, momentum=0.9, use_ema=True, ema_momentum=0.9)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def clips(videos, training, first_step=0):
    return clip_dataset(
        videos,
        ClipSpec(4, 2),
        batch_size=4,
        training=training,
        repeat=training,
        first_step=first_step,
        crop_size=32,
        short_side=(32, 36),
    )


def train(videos, folder, *callbacks, strategy=None):
    """The state and the model after training, or what was left of it."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = make_model()
    state = RunState(folder, SETTINGS)
    epoch = state.restore(model)
    model.fit(
        clips(videos, True, epoch * STEPS),
        steps_per_epoch=STEPS,
        initial_epoch=epoch,
        epochs=EPOCHS,
        validation_data=clips(videos, False),
        callbacks=[
            keras.callbacks.SwapEMAWeights(),
            state,
            *callbacks,
        ],
        shuffle=False,
        verbose=0,
    )
    return state, model


def assert_same(one, other):
    """Histories and weights are the same to the last bit."""
    (state, model), (other_state, other_model) = one, other
    assert len(state.epoch_logs) == EPOCHS
    assert state.epoch_logs == other_state.epoch_logs
    for ours, theirs in zip(
        model.get_weights(), other_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def main(mode, job, folder):
    job = json.loads(pathlib.Path(job).read_text())
    videos = VideoList(job["paths"], job["labels"], ("dark", "light"))
    if mode == "killed":
        train(videos, folder, Kill())
    strategy = None
    if mode == "mirrored":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    whole = train(videos, folder, strategy=strategy)
    last = pathlib.Path(folder, f"state-{EPOCHS:06}.npz")
    last.unlink()
    assert_same(train(videos, folder, strategy=strategy), whole)
    assert last.exists()


if __name__ == "__main__":
    main(*sys.argv[1:])
