"""Optimizer and precise batch norm on two replicas; run by test_replicas.py."""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.training.optimizers import SGD
from keras_nonlocal.training.precise_bn import PreciseBatchNorm
from keras_nonlocal.training.precise_bn import precise_batch_norm
from keras_nonlocal.training.schedules import StepDecay

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4), loc=2.0).astype("float32")
Y = X[:, :2] * 0.5

CLIP = 0.2


def network(strategy, synchronized, dropout=0.0):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((4,))
        norm = keras.layers.BatchNormalization(
            synchronized=synchronized, name="first"
        )
        x = keras.layers.Dense(3, activation="relu")(norm(inputs))
        norm = keras.layers.BatchNormalization(
            synchronized=synchronized, name="second"
        )
        x = keras.layers.Dropout(dropout)(norm(x))
        return keras.Model(inputs, keras.layers.Dense(2)(x))


def first_norm(strategy):
    """Of all gradients of the first step together."""
    model = network(strategy, synchronized=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(X[:4], training=True) - Y[:4]) ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    return float(tf.linalg.global_norm(gradients))


def trained(strategy, policy="float32"):
    """Weights after steps with a drop, and what tests found on the way."""
    keras.config.set_dtype_policy(policy)
    model = network(strategy, synchronized=True)
    with strategy.scope():
        optimizer = SGD(
            StepDecay(0.1, drops=[5]),
            momentum=0.9,
            nesterov=True,
            l2=0.01,
            rescale_momentum=True,
            use_ema=True,
            ema_momentum=0.5,
            global_clipnorm=CLIP,
        )
        model.compile(optimizer, "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    history = model.fit(
        data,
        epochs=2,
        validation_data=data,
        callbacks=[PreciseBatchNorm(data, steps=4)],
        shuffle=False,
        verbose=0,
    ).history
    keras.config.set_dtype_policy("float32")
    return {
        "weights": [weight.tolist() for weight in model.get_weights()],
        "history": history,
    }


def statistics(strategy, synchronized, batches):
    # Each replica has a seed of its own.
    model = network(strategy, synchronized, dropout=0.5)
    precise_batch_norm(model, batches, len(batches))
    return [
        value.numpy().tolist()
        for name in ("first", "second")
        for value in model.get_layer(name).non_trainable_weights
    ]


def main(path):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    one = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    # The last one is split unevenly.
    batches = [X[:4], X[4:8], X[8:11]]
    parts = [X[:2], X[2:4], X[4:6], X[6:8], X[8:9], X[9:11]]
    found = {
        "norm": first_norm(one),
        "one": trained(one),
        "two": trained(two),
        "half": trained(two, "mixed_float16"),
        "batches_on_one": statistics(one, False, batches),
        "parts_on_one": statistics(one, False, parts),
        "batches_on_two": statistics(two, False, batches),
        "synchronized": statistics(two, True, batches),
    }
    try:
        statistics(two, False, [X[:1]])
    except ValueError as error:
        found["too_small"] = str(error)
    with open(path, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(os.fspath(sys.argv[1]))
