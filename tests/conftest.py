"""Fixtures of the whole suite."""

import gc
import os
import pathlib
import signal

# Before anything imports a backend: its start-up notes would be warnings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SHARED = "KERAS_NONLOCAL_SHARED"


@pytest.fixture(scope="session", autouse=True)
def _frozen_modules():
    """Keeps the collection after every test from walking all modules.

    That takes a third of a second for half a million objects which stay.
    """
    keras.utils.set_random_seed(0)  # Imports TensorFlow with any backend.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """Ctrl-C reaches the processes of tests that are run in the background.

    A shell starts those with the signal ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared():
    """The folder of shared material, which is not part of the project."""
    path = pathlib.Path(os.environ.get(_SHARED, _ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared material at {path}; set {_SHARED}")
    return path


@pytest.fixture(autouse=True)
def _fresh_state(_frozen_modules):
    """Seeds, names and policy do not leak from one test to the next."""
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
    keras.utils.clear_session(free_memory=True)
    # What is left stays: TensorFlow keeps the graph of every training step,
    # JAX all that it compiled. The next collection need not walk it again.
    gc.freeze()


@pytest.fixture
def rng():
    return np.random.default_rng(0)
