"""The parts of training on several replicas and on JAX.

Each in a process of its own: the devices of a process cannot be split after
its first use of them, nor its backend be changed.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.training import on_jax
from tests.training.replicas import CLIP

_FOLDER = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "found.json"
    script = str(_FOLDER / "replicas.py")
    subprocess.run([sys.executable, script, str(path)], check=True)
    return json.loads(path.read_text())


def assert_same(one, other, rtol):
    for ours, theirs in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)
    for key, values in one["history"].items():
        np.testing.assert_allclose(
            values, other["history"][key], rtol=rtol, err_msg=key
        )


@pytest.mark.parametrize(("kind", "rtol"), [("two", 1e-4), ("half", 2e-2)])
def test_two_replicas_train_as_one(replicas, kind, rtol):
    """With clipping, which Keras does to each replica's part of a gradient."""
    assert_same(replicas["one"], replicas[kind], rtol)
    assert replicas["norm"] > CLIP


def test_what_a_replica_has_is_a_batch(replicas):
    for one, two in (
        ("parts_on_one", "batches_on_two"),
        ("batches_on_one", "synchronized"),
    ):
        for ours, theirs in zip(replicas[one], replicas[two], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    # The first norm decides what the second one sees.
    apart, together = replicas["batches_on_two"], replicas["synchronized"]
    assert np.max(np.abs(np.subtract(apart[-1], together[-1]))) > 1e-3
    assert "a clip for each of 2 replicas. Received: 1" in replicas["too_small"]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_jax_trains_as_tensorflow():
    script = str(_FOLDER / "on_jax.py")
    printed = subprocess.run(
        [sys.executable, script],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    ).stdout
    found = json.loads(printed.splitlines()[-1])["jax"]
    assert_same(found, on_jax.trained(), 1e-4)
