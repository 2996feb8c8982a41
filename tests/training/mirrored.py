"""Trains on one device and on two replicas; run by test_fit.py."""

import dataclasses
import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal import clip_dataset
from keras_nonlocal import train

CONFIG = TrainConfig(
    clip=ClipSpec(4, 2),
    batch_size=4,
    epochs=2,
    learning_rate=0.002,
    crop_size=32,
    short_side=(32, 36),
)
# Without dropout: each replica draws its own.
APART = Variant(
    depth=26, width=4, num_nonlocal=1, stem="stride1", dropout_rate=0.0
)
SYNCHRONIZED = dataclasses.replace(
    APART, norm="sync_batch", nonlocal_norm="sync_batch"
)


def main(folder):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    one = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    job = json.loads((folder / "job.json").read_text())
    videos = VideoList(
        tuple(job["paths"]), np.array(job["labels"], "int32"), ("dark", "light")
    )
    # Less than a batch: the replicas get different numbers of clips.
    few = videos.subset(np.arange(3))
    # The last batch has one clip for one replica and none for the other.
    more = videos.subset(np.arange(13))

    def trained(name, variant, strategy):
        out = folder / name
        return train(name, variant, CONFIG, videos, few, out, strategy).history

    histories = {
        "one": trained("one", SYNCHRONIZED, one),
        "two": trained("two", SYNCHRONIZED, two),
        "apart": trained("apart", APART, two),
    }
    saved = folder / "one" / "model.keras"
    histories["evaluated_one"] = evaluated(saved, more, one)
    histories["evaluated_two"] = evaluated(saved, more, two)
    (folder / "histories.json").write_text(json.dumps(histories))


def evaluated(path, videos, strategy):
    data = clip_dataset(
        videos,
        CONFIG.clip,
        batch_size=4,
        training=False,
        crop_size=32,
        short_side=(32, 36),
    )
    with strategy.scope():
        model = keras.models.load_model(path)
        model.compile(
            loss="sparse_categorical_crossentropy", metrics=["accuracy"]
        )
    return model.evaluate(data, return_dict=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
