import concurrent.futures
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data import decode
from keras_nonlocal.data import pipeline
from keras_nonlocal.data import python_function
from keras_nonlocal.data import worker
from tests.data.batches import dataset

# Forks have the seconds that imports take behind them, and nothing of
# TensorFlow is at work before the fork. Each of them prints "end" and would
# then hang.
SCRIPT = """
import os, signal, sys, time
import keras
from keras_nonlocal.data.readers.folder import read_folder
from tests.data.batches import dataset

class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            print("end", flush=True)
            os.kill(os.getpid(), signal.SIGINT)

def batches(num_workers):
    return dataset(
        read_folder(sys.argv[1]),
        training=True,
        repeat=True,
        num_workers=num_workers,
        num_parallel_calls=8,
    )

def fit(num_workers):
    model = keras.Sequential([
        keras.layers.Rescaling(1 / 255),
        keras.layers.GlobalAveragePooling3D(),
        keras.layers.Dense(2, activation="softmax"),
    ])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(
        batches(num_workers),
        steps_per_epoch=10**6,
        verbose=0,
        callbacks=[Interrupt()],
    )

def leave(num_workers):
    global iterator
    iterator = iter(batches(num_workers))
    next(iterator)
    print("end", flush=True)

children = {}
for case in ((fit, 0), (fit, 2), (leave, 0), (leave, 2)):
    child = os.fork()
    if not child:
        function, num_workers = case
        function(num_workers)
        break
    children[child] = case
else:
    deadline = time.monotonic() + 60
    while children and time.monotonic() < deadline:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            function, num_workers = children.pop(child)
            code = os.waitstatus_to_exitcode(status)
            print(function.__name__, num_workers, code, flush=True)
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_processes_end(relation):
    """After Ctrl-C and with an iterator that is in use."""
    root = relation[0].paths[0].rsplit("/", 2)[0]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, root],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    expected = [f"fit {n} {-2}" for n in (0, 2)]
    expected += [f"leave {n} 0" for n in (0, 2)] + 4 * ["end"]
    assert sorted(lines) == sorted(expected), result.stderr
    # Of calls that are refused nobody has to hear.
    assert result.stderr.count("Traceback") == 2, result.stderr


def test_calls_that_run_end_soon(monkeypatch):
    """The hook waits for them, and those that begin are refused."""
    calls = python_function._Calls()
    monkeypatch.setattr(python_function, "_calls", calls)
    monkeypatch.setattr(decode, "_is_stopped", threading.Event())
    monkeypatch.setattr(worker, "_pools", [])
    begun = threading.Event()

    def read():
        begun.set()
        with contextlib.suppress(RuntimeError):
            while True:
                decode.check_time("a.mp4")
                time.sleep(0.01)
        return np.int64(1)

    call = python_function.python_function(read, [tf.int64])
    ones = tf.data.Dataset.range(4).map(lambda _: call()[0])
    iterator = iter(ones)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        first = threads.submit(next, iterator)
        assert begun.wait(60)
        assert calls.are_ours()
        start = time.monotonic()
        python_function._end_calls()
        assert time.monotonic() - start < python_function._LIMIT
        assert first.result() == 1
    with pytest.raises(tf.errors.UnknownError, match="is about to end"):
        next(iterator)
    with pytest.raises(RuntimeError, match="a.mp4: not read"):
        decode.check_time("a.mp4")


def test_nothing_to_wait_for(monkeypatch):
    calls = python_function._Calls()
    monkeypatch.setattr(python_function, "_calls", calls)
    python_function._end_calls()
    assert not calls.are_ours()
    with calls.one_more():  # Not refused.
        pass


def test_a_call_that_is_stuck_is_named(monkeypatch):
    calls = python_function._Calls()
    monkeypatch.setattr(python_function, "_calls", calls)
    monkeypatch.setattr(python_function, "_LIMIT", 0.1)
    monkeypatch.setattr(decode, "_is_stopped", threading.Event())
    monkeypatch.setattr(worker, "_pools", [])
    warned = []
    monkeypatch.setattr(python_function.logging, "warning", warned.append)
    with calls.one_more():
        python_function._end_calls()
    assert len(warned) == 1


def interleaved(batches):
    """A data set that knows `batches` as a tensor only."""
    # The lambda refers to the variable, which then has another value.
    batches = tf.data.Dataset.range(2).interleave(lambda _: batches)
    gc.collect()
    return batches


def distributed(batches):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    return strategy.experimental_distribute_dataset(batches)


@pytest.mark.parametrize("use", [interleaved, distributed, iter])
def test_a_fresh_session_takes_nothing(relation, use):
    used = use(dataset(relation[1], training=True))
    keras.utils.clear_session(free_memory=True)
    assert len(list(used)) > 0


def test_workers_end_when_nobody_needs_them(relation, monkeypatch):
    """Though TensorFlow holds what reads: it may yet be needed."""
    monkeypatch.setattr(worker, "_IDLE_LIMIT", 0.5)
    pools = []
    make_pool = pipeline.make_pool

    def noted(*args):
        pools.append(make_pool(*args))
        return pools[-1]

    monkeypatch.setattr(pipeline, "make_pool", noted)
    batches = interleaved(dataset(relation[1], training=True, num_workers=1))
    for _ in range(2):
        assert len(list(batches)) > 0
        assert_no_workers(*pools)


def assert_no_workers(pool):
    deadline = time.monotonic() + 10
    while pool._workers:
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.02)
