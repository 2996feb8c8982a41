"""Python functions as TensorFlow operations that let a process end.

The threads of `tf.data` read ahead, and the iterator they belong to is often
still there when the script is over: held by a variable, or by the traceback of
Ctrl-C. It is then destroyed in the middle of the interpreter's own end and
waits for its threads, and those that are in a Python function wait for an
interpreter that will not run again: the process hangs. TensorFlow begins no
call once the interpreter ends, but does not wait for those that run. What
`atexit` runs here does: it hurries them, refuses others and waits.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data import decode
from keras_nonlocal.data import worker

# Seconds without a call, refused ones too, after which none is expected.
_REST = 0.2
# Seconds to wait for that.
_LIMIT = 5.0


class _Calls:
    """Knows of the calls that run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: int | None = None
        self._running = 0
        self._last = 0.0
        self._is_over = False

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Counts a call, or refuses it."""
        self._add(1)
        try:
            if self._is_over:
                raise RuntimeError("This process is about to end.")
            yield
        finally:
            self._add(-1)

    def are_ours(self) -> bool:
        """Whether there were any, not of a process that this is a fork of."""
        return self._process == os.getpid()

    def refuse(self) -> None:
        """Refuses calls from now on."""
        self._is_over = True

    def wait(self) -> bool:
        """Waits for those that run; whether all have ended in time."""
        start = time.monotonic()
        while time.monotonic() < start + _LIMIT:
            with self._lock:
                rest = time.monotonic() - max(start, self._last)
                if not self._running and rest > _REST:
                    return True
            time.sleep(0.01)
        return False

    def _add(self, number: int) -> None:
        with self._lock:
            self._process = os.getpid()
            self._running += number
            self._last = time.monotonic()


_calls = _Calls()


def python_function(
    function: Callable[..., Any], types: Sequence[tf.DType]
) -> Callable[..., list[tf.Tensor]]:
    """A function of arrays as one of tensors, for use in `tf.data`.

    Like `tf.numpy_function`, but an iterator that is in use does not keep the
    process from ending.

    Args:
        function: From arrays to as many arrays as there are `types`.
            TensorFlow may keep it for as long as the process lives, as it
            cannot tell when it is needed no more.
        types: Types of the results.

    Returns:
        The function of tensors.

    >>> halve = python_function(lambda x: [x / 2], [tf.float32])
    >>> numbers = tf.data.Dataset.range(3, output_type=tf.float32)
    >>> [float(x) for (x,) in numbers.map(lambda x: tuple(halve(x)))]
    [0.0, 0.5, 1.0]
    """

    def call(*arrays: np.ndarray) -> Any:
        with _calls.one_more():
            return function(*arrays)

    def operation(*tensors: tf.Tensor) -> list[tf.Tensor]:
        return tf.numpy_function(call, tensors, list(types))

    return operation


def _end_calls() -> None:
    if not _calls.are_ours():
        return
    _calls.refuse()
    decode.stop_reading()
    worker.close_pools()
    if not _calls.wait():
        logging.warning(
            "A file is still being read and may keep this process from "
            "ending. With `num_workers` it would have been given up."
        )


# Now and not with the first data set: hooks run in reverse, and those of a
# script may use its data sets.
atexit.register(_end_calls)
