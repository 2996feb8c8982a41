import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.training.throughput import InputSpeed
from keras_nonlocal.training.throughput import measure_input
from keras_nonlocal.training.throughput import measure_training
from keras_nonlocal.training.throughput import verdict

BATCH = 3
# The first clips take longer: files are opened, processes started.
START = 0.2


def endless(calls, work):
    """Batches of clips; `work` is done for each clip, `calls` says when."""

    def read(number):
        if number < BATCH:
            time.sleep(START / BATCH)
        work()
        calls.append(time.perf_counter())
        return np.float32(number)

    clips = tf.data.Dataset.range(10**6).repeat()
    clips = clips.map(lambda x: tf.numpy_function(read, [x], tf.float32))
    options = tf.data.Options()
    # Only what is asked for is read.
    options.experimental_optimization.apply_default_optimizations = False
    batches = clips.batch(BATCH).map(lambda x: (x, x))
    return batches.with_options(options)


def test_input_speed_counts_what_is_read_after_the_start():
    calls = []
    dataset = endless(calls, lambda: time.sleep(0.005))
    start = time.perf_counter()
    speed = measure_input(dataset, seconds=0.2)
    total = time.perf_counter() - start
    # The first batch is read and not counted, nor is its time.
    assert speed.clips == len(calls) - BATCH
    assert speed.clips % BATCH == 0
    assert 0.2 <= speed.seconds <= total - START
    assert speed.seconds >= calls[-1] - calls[BATCH]
    # It ends with the batch in which time is up.
    assert calls[-BATCH - 1] - calls[BATCH] < 0.2


def test_input_speed_has_the_time_of_all_threads():
    def busy():
        start = time.thread_time()
        while time.thread_time() - start < 0.005:
            pass

    speed = measure_input(endless([], busy), seconds=0.1)
    assert speed.cpu_seconds >= 0.005 * speed.clips


def test_input_speed_is_never_of_nothing():
    assert measure_input(endless([], lambda: None), seconds=0).clips == BATCH


def test_input_speed_of_an_example():
    speed = InputSpeed(clips=10, seconds=2.0, cpu_seconds=0.1)
    assert speed.clips_per_second == 5
    assert speed.cpu_milliseconds == 10


@pytest.mark.parametrize("count", [1, 5])
def test_input_that_ends_is_refused(count):
    dataset = tf.data.Dataset.from_tensors((tf.zeros([3]), 0)).repeat(count)
    message = f"must go on for ever.* cardinality {count}"
    with pytest.raises(ValueError, match=message):
        measure_input(dataset, seconds=1)


def test_training_speed_leaves_out_the_start():
    steps = []

    class Slow(keras.layers.Layer):
        def call(self, inputs):
            if isinstance(inputs, tf.__internal__.EagerTensor):
                time.sleep(0.03 if steps else START)
                steps.append(len(inputs))
            return keras.ops.mean(inputs, axis=(1, 2, 3))

    model = keras.Sequential([Slow(), keras.layers.Dense(2)])
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    start = time.perf_counter()
    labels = tf.zeros([3], tf.int32)
    speed = measure_training(
        model, tf.zeros([3, 2, 4, 4, 3]), labels, seconds=0.2
    )
    total = time.perf_counter() - start
    assert set(steps) == {3}
    # Two steps find out how long one takes.
    timed = sum(steps[2:])
    assert timed
    assert timed / (total - START) <= speed <= 3 / 0.03


@pytest.mark.parametrize("supply", [12.0, 100.0])
def test_verdict_where_training_does_not_wait(supply):
    text = verdict(supply, 10.0)
    assert f"{supply / 10:.1f} times" in text and "will not wait" in text
    assert "shards" not in text


@pytest.mark.parametrize(
    ("supply", "share"), [(5.0, "50%"), (1.0, "90%"), (11.0, "0%")]
)
def test_verdict_where_it_waits(supply, share):
    text = verdict(supply, 10.0)
    assert f"{supply / 10:.2f} times" in text
    assert f"will wait {share} of the time or more" in text
    assert f"{os.cpu_count()} processors" in text
    assert "cli.prepare" in text and "cli.shard" in text
