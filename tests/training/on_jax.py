"""Schedule, optimizer and precise batch norm on JAX; run by test_replicas.py.

Prints what test_replicas.py compares with the same on TensorFlow.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.training.optimizers import SGD
from keras_nonlocal.training.precise_bn import PreciseBatchNorm
from keras_nonlocal.training.schedules import StepDecay

X = np.random.default_rng(0).normal(size=(16, 4), loc=2.0).astype("float32")
Y = X[:, :2] * 0.5


def trained():
    """Losses and weights of a training whose rate rises and drops."""
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential(
        [keras.Input((4,)), norm, keras.layers.Dense(2, name="top")]
    )
    weights = np.random.default_rng(1).normal(size=(4, 2))
    model.get_layer("top").set_weights([weights, np.zeros(2)])
    rate = StepDecay(0.1, drops=[5], warmup_steps=3)
    model.compile(
        SGD(rate, momentum=0.9, l2=0.01, rescale_momentum=True), "mse"
    )
    # As `train` gives them, on every backend.
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    history = model.fit(
        X,
        Y,
        batch_size=4,
        epochs=2,
        validation_data=(X, Y),
        callbacks=[PreciseBatchNorm(batches, steps=2)],
        shuffle=False,
        verbose=0,
    ).history
    weights = [weight.tolist() for weight in model.get_weights()]
    return {"weights": weights, "history": history}


if __name__ == "__main__":
    print(json.dumps({keras.backend.backend(): trained()}))
