import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import VideoList
from keras_nonlocal.training.distribution import Devices
from keras_nonlocal.training.distribution import EvenTest
from keras_nonlocal.training.distribution import check_compiled
from keras_nonlocal.training.distribution import find_devices
from keras_nonlocal.training.distribution import join

_FOLDER = pathlib.Path(__file__).parent
_ALTERNATIVE = r"use the JAX backend .*keras-nonlocal\[jax\].*join"


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


# Networks on JAX are compiled for longer than they run.
ON_JAX = {
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}


def start(script, *arguments, env=()):
    return subprocess.Popen(
        [sys.executable, str(_FOLDER / script), *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **dict(env)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends(processes, seconds):
    """Statuses and outputs; kills what does not end in time."""
    limit = time.monotonic() + seconds
    try:
        outputs = [
            process.communicate(timeout=max(limit - time.monotonic(), 1))[0]
            for process in processes
        ]
        return [process.returncode for process in processes], outputs
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    """What one process, and each of two, make of the same videos."""
    pytest.importorskip("jax", reason="pip install 'keras-nonlocal[jax]'")
    out = tmp_path_factory.mktemp("trained")
    broken = out / "broken.mp4"
    broken.write_text("no video")
    # The second process reads odd numbers: one clip less than the first, and
    # one more of them is not to be read.
    paths = [*videos.paths[:5], str(broken), *videos.paths[5:10]]
    labels = [*videos.labels[:5].tolist(), 0, *videos.labels[5:10].tolist()]
    job = {
        "train": {"paths": videos.paths, "labels": videos.labels.tolist()},
        "test": {"paths": paths, "labels": labels},
        "out": str(out),
    }
    (out / "job.json").write_text(json.dumps(job))
    (address,) = free_addresses(1)
    processes = [
        start(
            "processes.py",
            "train",
            out / "job.json",
            address,
            *place,
            env=ON_JAX,
        )
        for place in ((0, 1), (0, 2), (1, 2))
    ]
    statuses, outputs = ends(processes, 400)
    assert statuses == [0, 0, 0], outputs
    return out


def result(folder, index, count):
    return json.loads((folder / f"{index}of{count}.json").read_text())


def test_two_processes_train_as_one(trained):
    """Batch norm too: its statistics are of the clips of both."""
    one = result(trained, 0, 1)["history"]
    for index in range(2):
        history = result(trained, index, 2)["history"]
        assert history.keys() == one.keys()
        for key in one:
            np.testing.assert_allclose(history[key], one[key], rtol=1e-5)
    assert one["loss"][1] < one["loss"][0]


def test_processes_notice_that_they_differ(trained):
    assert result(trained, 0, 1)["refused"] == ""
    for index in range(2):
        message = result(trained, index, 2)["refused"]
        assert message.startswith("All processes must have the same: the proc")
        assert message.endswith("Received: [0, 1]")


def test_each_process_can_predict_and_one_saves(trained):
    scores = [result(trained, *at)["scores"] for at in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
    assert scores[2] == scores[1]
    saved = keras.models.load_model(trained / "2.keras")
    clips = np.zeros((1, 2, 32, 32, 3), "uint8")
    np.testing.assert_allclose(saved(clips), scores[1], rtol=1e-4)


def test_a_process_that_fails_ends_the_others(tmp_path):
    pytest.importorskip("jax", reason="pip install 'keras-nonlocal[jax]'")
    (tmp_path / "job.json").write_text("{}")
    (address,) = free_addresses(1)
    processes = [
        start(
            "processes.py",
            "fail",
            tmp_path / "job.json",
            address,
            index,
            2,
            env=ON_JAX,
        )
        for index in range(2)
    ]
    statuses, outputs = ends(processes, 200)
    assert 0 not in statuses
    assert "ValueError: as the test wants it" in outputs[1]


def test_several_workers_of_tensorflow_are_refused(tmp_path):
    addresses = ",".join(free_addresses(2))
    processes = [
        start("workers.py", addresses, index, tmp_path) for index in range(2)
    ]
    statuses, outputs = ends(processes, 200)
    assert statuses == [0, 0], outputs
    for index in range(2):
        messages = json.loads((tmp_path / f"worker{index}.json").read_text())
        strategy, variable = messages
        assert strategy.startswith(
            "Keras 3 cannot train on several machines with a "
            "MultiWorkerMirroredStrategy: use the JAX backend"
        )
        assert strategy.endswith("Received: a cluster of 2 workers")
        assert "with the tensorflow backend: use the JAX" in variable


def test_one_worker_is_no_cluster(monkeypatch):
    cluster = {"worker": ["127.0.0.1:1234"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    assert find_devices().replicas == 1
    cluster["chief"] = ["127.0.0.1:1235"]
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster}))
    with pytest.raises(ValueError, match=_ALTERNATIVE):
        find_devices()


def test_takes_the_strategy_it_is_in():
    mirrored = tf.distribute.MirroredStrategy(["CPU:0"])
    with mirrored.scope():
        assert find_devices().strategy is mirrored
    assert find_devices().strategy is tf.distribute.get_strategy()
    assert find_devices(mirrored).strategy is mirrored


def test_other_strategies_are_refused():
    other = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    with pytest.raises(ValueError, match=_ALTERNATIVE + ".*CentralStorage"):
        find_devices(other)


def test_what_has_no_effect_is_refused():
    try:
        data_parallel = keras.distribution.DataParallel(devices=["cpu:0"])
    except AttributeError:
        pytest.skip("this Keras does not make it on TensorFlow")
    with data_parallel.scope(), pytest.raises(ValueError, match="does nothing"):
        find_devices()


def test_processes_are_refused_on_tensorflow():
    with pytest.raises(ValueError, match=_ALTERNATIVE):
        join("127.0.0.1:1234", 0, 2)


def test_devices_get_as_many_clips_each():
    devices = Devices(replicas=4, process=(1, 2))
    assert devices.share(8) == 4
    with pytest.raises(ValueError, match="multiple of .*, 4, .*batch_size=6"):
        devices.share(6)


@pytest.mark.parametrize(
    "optimizer, arguments",
    [
        ({}, {"jit_compile": True}),
        ({}, {"steps_per_execution": 2}),
        ({"gradient_accumulation_steps": 2}, {}),
    ],
)
def test_what_fails_on_replicas_is_refused(optimizer, arguments):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(**optimizer), "mse", **arguments)
    check_compiled(model, Devices())
    ((name, value),) = {**optimizer, **arguments}.items()
    with pytest.raises(ValueError, match=f"`{name}` fails.*{name}={value} on"):
        check_compiled(model, Devices(replicas=2))


def test_scaled_losses_are_refused_on_replicas():
    """Keras looks for overflows on one of them."""
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    check_compiled(model, Devices())
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        check_compiled(model, Devices(replicas=2))


def test_even_batches_have_weights():
    videos = VideoList("abcdefg", [0, 1, 0, 1, 0, 1, 0], ("dark", "light"))
    # Of the four of this process one could not be read.
    dataset = tf.data.Dataset.from_tensor_slices(
        (np.ones((3, 2, 4, 4, 3), "uint8"), np.ones(3, "int32"))
    ).batch(2)
    even = EvenTest(videos, 1, Devices(replicas=2, process=(0, 2)))
    assert len(list(even.batches(dataset.rebatch(1)))) == 4
    even = EvenTest(videos, 2, Devices(replicas=2, process=(0, 2)))
    batches = list(even.batches(dataset))
    weights = np.concatenate([batch[2] for batch in batches])
    assert weights.tolist() == [1, 1, 1, 0]
    assert [batch[0].shape for batch in batches] == [(2, 2, 4, 4, 3)] * 2
    assert batches[1][1].numpy().tolist() == [1, 0]
