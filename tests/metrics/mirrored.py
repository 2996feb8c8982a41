"""Counts on one device and on two replicas; run by the test beside it."""

import sys

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.metrics.binned_average_precision import (
    BinnedMeanAveragePrecision,
)


def main(path):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    with np.load(path) as case:
        pairs = case["scores"], case["labels"]
    # The last batch, of 3, splits unevenly.
    data = tf.data.Dataset.from_tensor_slices(pairs).batch(8)
    one = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for strategy in (one, two):
        with strategy.scope():
            model = keras.Sequential(
                [keras.Input((5,)), keras.layers.Identity()]
            )
            metric = BinnedMeanAveragePrecision(5, from_logits=True)
            model.compile(loss="mse", metrics=[metric])
        values = model.evaluate(data, verbose=0, return_dict=True)
        print(values["binned_map"])


if __name__ == "__main__":
    main(sys.argv[1])
