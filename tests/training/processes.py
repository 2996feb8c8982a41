"""Trains as one of several processes on JAX; run by test_distribution.py."""

import json
import pathlib
import sys

import keras
import numpy as np

from keras_nonlocal import BatchNormalization
from keras_nonlocal import ClipNormalization
from keras_nonlocal import ClipSpec
from keras_nonlocal import Conv3D
from keras_nonlocal import NonLocal
from keras_nonlocal import VideoList
from keras_nonlocal import clip_dataset
from keras_nonlocal.training import distribution
from keras_nonlocal.training.optimizers import SGD

BATCH = 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main(task, job, coordinator, index, count):
    if count > 1:
        distribution.join(coordinator, index, count)
    TASKS[task](job, distribution.find_devices())


def train(job, devices):
    """Writes the history and, from the first process, scores."""
    videos, test_videos = (
        VideoList(part["paths"], part["labels"], ("dark", "light"))
        for part in (job["train"], job["test"])
    )
    share = devices.share(BATCH)
    keras.utils.set_random_seed(0)
    devices.check_same("a number", 7)
    refused = ""
    try:
        devices.check_same("the process", devices.process[0])
    except ValueError as error:
        refused = str(error)
    with devices.scope():
        model = network()
        optimizer = SGD(0.1, momentum=0.9, l2=1e-4, global_clipnorm=5.0)
        data = dataset(videos, share, devices, training=True)
        test = dataset(test_videos, share, devices, training=False)
        arguments = compile_(model, optimizer, test, test_videos, devices)
        history = model.fit(
            data,
            epochs=2,
            steps_per_epoch=len(videos) // BATCH,
            shuffle=False,
            verbose=0,
            **arguments,
        ).history
        with devices.alone():
            copy = network()
            copy.set_weights(model.get_weights())
            if devices.is_first:
                copy.save(job["out"] + f"/{devices.process[1]}.keras")
            clips = np.zeros((1, 2, 32, 32, 3), "uint8")
            scores = copy.predict(clips, verbose=0)
    name = "{}of{}.json".format(*devices.process)
    result = {
        "history": history,
        "scores": scores.tolist(),
        "refused": refused,
    }
    pathlib.Path(job["out"], name).write_text(json.dumps(result))
    devices.wait()


def compile_(model, optimizer, test, videos, devices):
    """Compiles the model; one process alone tests as Keras does."""
    if devices.process[1] == 1:
        model.compile(optimizer, LOSS, metrics=["accuracy"])
        return {"validation_data": test}
    even = distribution.EvenTest(videos, devices.share(BATCH), devices)
    model.compile(optimizer, LOSS, weighted_metrics=even.metrics(["accuracy"]))
    return {
        "validation_data": even.batches(test),
        "callbacks": [even.callback()],
    }


def network():
    return keras.Sequential(
        [
            keras.Input((2, 32, 32, 3)),
            ClipNormalization(),
            Conv3D(4, (1, 3, 3), strides=(1, 4, 4)),
            BatchNormalization(),
            NonLocal(),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(2),
        ]
    )


def dataset(videos, batch_size, devices, training):
    return clip_dataset(
        videos,
        ClipSpec(2, 2),
        batch_size=batch_size,
        training=training,
        crop_size=32,
        short_side=(32, 36),
        repeat=training,
        process=devices.process,
    )


def fail(job, devices):
    """The last process fails while the others wait for it."""
    with devices.scope():
        if devices.process[0] == devices.process[1] - 1:
            raise ValueError("as the test wants it")
        devices.wait()


TASKS = {"train": train, "fail": fail}

if __name__ == "__main__":
    main(
        sys.argv[1],
        json.loads(pathlib.Path(sys.argv[2]).read_text()),
        sys.argv[3],
        int(sys.argv[4]),
        int(sys.argv[5]),
    )
