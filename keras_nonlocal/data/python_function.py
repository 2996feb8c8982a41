"""Python functions as TensorFlow operations that let a process end.

The threads of `tf.data` read ahead, and the iterator they belong to is often
still there when the script is over: held by a variable, or by the traceback of
Ctrl-C. It is then destroyed in the middle of the interpreter's own end and
waits for those threads, and they wait for an interpreter that will not run
again: the process hangs. So no thread may be in Python, or enter it, any more
once the interpreter begins to end. What `atexit` runs here sees to that: it
stops TensorFlow from calling, hurries the calls that run, and waits for them.
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

# Seconds without a call after which none is under way: between looking at the
# mark and calling, TensorFlow does nothing else.
_REST = 0.2
# Seconds to wait for that.
_LIMIT = 5.0


class _Calls:
    """Counts the calls that run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._last = time.monotonic()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, number: int) -> None:
        with self._lock:
            self._running += number
            self._last = time.monotonic()

    def end(self, seconds: float) -> bool:
        """Waits for the calls that run; whether all have ended in time."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            with self._lock:
                rest = time.monotonic() - max(start, self._last)
                if not self._running and rest > _REST:
                    return True
            time.sleep(0.01)
        return False


_calls = _Calls()


def python_function(
    function: Callable[..., Any], types: Sequence[tf.DType]
) -> Callable[..., list[tf.Tensor]]:
    """A function of arrays as one of tensors, for use in `tf.data`.

    Like `tf.numpy_function`, but when the process ends the operation fails, so
    that an iterator in use does not keep it from ending.

    Args:
        function: From arrays to as many arrays as there are `types`. Once in
            use it may be kept as long as the process lives: TensorFlow cannot
            tell when it is needed no more.
        types: Types of its results.

    Returns:
        The function of tensors. As long as a data set holds it the data set
        works, whatever `keras.utils.clear_session` does.

    >>> half = python_function(lambda x: (x / 2,), [tf.float32])
    >>> numbers = tf.data.Dataset.range(3, output_type=tf.float32)
    >>> [float(x) for x in numbers.map(lambda x: half(x)[0])]
    [0.0, 0.5, 1.0]
    """

    # TensorFlow holds what it calls by the default graph, and that of a plain
    # function, unlike a method, also by the function itself.
    def call(*arrays: np.ndarray) -> Any:
        with _calls.one_more():
            return function(*arrays)

    def operation(*tensors: tf.Tensor) -> list[tf.Tensor]:
        goes_on = tf.debugging.Assert(
            tf.equal(_end_mark().size(), 0), ["This process is about to end."]
        )
        with tf.control_dependencies([goes_on]):
            return tf.numpy_function(call, tensors, list(types))

    return operation


# Of each process: a fork has none of the threads.
_end_marks: dict[int, tf.lookup.experimental.MutableHashTable] = {}


def _end_mark() -> tf.lookup.experimental.MutableHashTable:
    """A table, empty until this process ends, that TensorFlow can look at."""
    process = os.getpid()
    if process not in _end_marks:
        # Not a variable, of which a strategy makes one for each device. Not
        # when this module is imported: then devices could not be set up later.
        with tf.init_scope():
            mark = tf.lookup.experimental.MutableHashTable(
                tf.int64, tf.int64, default_value=0
            )
        _end_marks.setdefault(process, mark)
    return _end_marks[process]


def _end_calls() -> None:
    mark = _end_marks.get(os.getpid())
    if mark is None:
        return
    mark.insert(np.int64(0), np.int64(1))
    decode.stop_reading()
    worker.close_pools()
    if not _calls.end(_LIMIT):
        logging.warning(
            "A file is still being read, and may keep this process from "
            "ending. With `num_workers` it could be given up."
        )


# Now and not with the first data set: hooks run in reverse, and those that a
# script registers may use its data sets.
atexit.register(_end_calls)
