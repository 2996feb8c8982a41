"""Worker processes that can be killed.

A decoder that hangs in C code cannot be stopped in a thread, and one that
crashes takes its process along. `WorkerPool` runs a function in processes of
its own, gives every call so many seconds, and replaces what hangs or dies.

The processes are started anew: a fork is not safe once TensorFlow has started
threads, and the workers of `multiprocessing` run the user's script again. They
import the function's module without `keras_nonlocal/__init__.py`, and so
neither Keras nor TensorFlow, and are ready in a fraction of a second.
"""

import contextlib
import os
import pickle
import pkgutil
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NoReturn
from typing import Self

import numpy as np

# Seconds for a worker to import its function, from a slow disk too.
_START_LIMIT = 60.0
# Seconds after which a killed process is left to the system: one that waits
# for a network disk only ends when that answers.
_REAP_LIMIT = 2.0
# Seconds after which a worker that nobody uses ends: pools may be held for as
# long as the process lives, as TensorFlow holds the functions it calls.
_IDLE_LIMIT = 10.0
# Seconds after the time limit at which a worker ends by itself.
_GRACE = 1.0
# A day; a longer limit would be none.
_MAX_TIME_LIMIT = 24 * 3600.0
# Room for an exception and its traceback, in bytes.
_MIN_MAX_BYTES = 2**20
# Bytes that a socket holds, if the system allows as many: a clip in few pieces,
# for each of which the parent has to get the interpreter's lock.
_BUFFER_SIZE = 2**20

# `-P`, and an empty module in place of the package: a worker imports nothing
# that its function does not ask for. Ctrl-C is for the parent to handle.
_BOOTSTRAP = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.SIG_IGN)
_, target, time_limit, folder, *sys.path = sys.argv
package = types.ModuleType("keras_nonlocal")
package.__path__ = [folder]
sys.modules["keras_nonlocal"] = package
from keras_nonlocal.data.worker import serve
serve(target, float(time_limit))
"""
_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A message: pickled, and then the memory of the arrays in it.
_Parts = Sequence[bytes | memoryview]


class WorkerTimeout(TimeoutError):
    """A call took too long; its process has been killed."""


class WorkerDied(RuntimeError):
    """The process of a call ended before the call did."""


class WorkerStartError(RuntimeError):
    """No worker of a pool has ever started, so no call can succeed."""


class WorkerPool:
    """Calls a function in processes that are killed when they hang.

    Workers start when they are needed, end when they are not for 10 seconds or
    a little longer, and end with the pool, at the latest when this process
    ends, however it ends. Calls are begun in the order in which they are made.

    Arguments and results travel pickled, arrays without further copies. In a
    worker the package `keras_nonlocal` is bare: its modules can be imported,
    its public names cannot. What the function prints goes to standard error.

    Workers are there for hangs, crashes and lack of memory: where it runs out,
    Linux ends them first. They are no sandbox, having the rights of this
    process.

    Args:
        target: The function, of one argument, as "module:function". Workers
            look for the module in the `sys.path` of this process.
        num_workers: Most processes at a time, and so calls at a time.
        time_limit: Seconds for a call, at most a day. To wait for a worker to
            be free or to start does not count.
        max_bytes: Largest result, in bytes, at least `2**20`.
        max_calls: Calls after which a worker is replaced, against libraries
            that leak memory; `None` for any number.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: On Windows.

    >>> with WorkerPool("math:sqrt", num_workers=1, time_limit=10) as pool:
    ...     pool.call(2.25)
    1.5
    """

    def __init__(
        self,
        target: str,
        num_workers: int = 2,
        time_limit: float = 30.0,
        *,
        max_bytes: int = 2**30,
        max_calls: int | None = None,
    ) -> None:
        _check_arguments(target, num_workers, time_limit, max_bytes, max_calls)
        self._target = target
        self._num_workers = num_workers
        self._time_limit = time_limit
        self._max_bytes = max_bytes
        self._max_calls = max_calls
        self._command = _command(target, time_limit)
        self._process = os.getpid()
        self._has_started = False
        self._start_failure: str | None = None
        # Guards the next two, of threads, the one in the order of their calls.
        self._turns = threading.Condition()
        self._waiting: dict[int, None] = {}
        self._running: set[int] = set()
        # Never changed by more than one operation, so that the finalizer, which
        # may run anywhere, needs no lock.
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._is_watched = False  # Guarded by `_turns` too.
        _pools.add(self)
        self._finalizer = weakref.finalize(
            self, _end_all, self._workers, self._idle, self._process
        )

    def call(self, argument: Any) -> Any:
        """Calls the function in a worker and waits for its result.

        Any number of threads may call at the same time.

        Args:
            argument: The function's argument, anything that can be pickled.

        Returns:
            What the function returns. Its arrays are new and writable.

        Raises:
            WorkerTimeout: If the call takes longer than the time limit.
            WorkerDied: If the process ends during the call, or a new one
                cannot start although others did.
            WorkerStartError: If no worker has ever started, for instance
                because the module cannot be imported.
            ValueError: If the result is larger than `max_bytes`.
            RuntimeError: If the pool is closed, or this process is a fork of
                the one that made it.
            Exception: What the function raises, with the worker's traceback
                as a note; a `RuntimeError` with the same text where the
                exception cannot be pickled.
        """
        request = _encode(argument)
        with self._turn(), self._worker() as worker:
            answer = worker.ask(request, self._time_limit, self._max_bytes)
        return _result(answer)

    def close(self) -> None:
        """Ends the workers; calls in progress raise `RuntimeError`."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _is_closed(self) -> bool:
        return not self._finalizer.alive

    def _check_usable(self) -> None:
        if self._is_closed:
            raise RuntimeError(
                f"The `WorkerPool` of {self._target} must be open during a "
                "call. Received: one that is closed"
            )
        if os.getpid() != self._process:
            # Two processes would take each other's results from the workers.
            raise RuntimeError(
                f"The `WorkerPool` of {self._target} must be used in process "
                f"{self._process}, which made it. Received: a call in "
                f"{os.getpid()}, a fork of it"
            )

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits, first come first served, until a worker may be used."""
        thread = threading.get_ident()

        def is_next() -> bool:
            is_free = len(self._running) < self._num_workers
            return self._is_closed or (
                is_free and next(iter(self._waiting)) == thread
            )

        self._check_usable()
        with self._turns:
            # What Ctrl-C at a bad moment may have left of an earlier call.
            self._running.discard(thread)
            self._waiting.pop(thread, None)
            self._waiting[thread] = None
            try:
                self._turns.wait_for(is_next)
                self._check_usable()
                self._running.add(thread)
            finally:
                self._waiting.pop(thread, None)
                self._turns.notify_all()
        try:
            yield
        finally:
            with self._turns:
                self._running.discard(thread)
                self._turns.notify_all()

    @contextlib.contextmanager
    def _worker(self) -> "Iterator[_Worker]":
        """A worker to use, which lives on if nothing goes wrong."""
        worker = self._idle_worker() or self._start()
        with self._ended_by_errors(worker):
            yield worker
        worker.num_calls += 1
        if worker.num_calls == self._max_calls:
            self._end(worker)
            return
        worker.idle_since = time.monotonic()
        self._idle.append(worker)
        self._watch()
        if self._is_closed:  # Perhaps since before the worker was idle.
            _end_all(self._workers, self._idle, self._process)

    def _watch(self) -> None:
        """Has a thread look at the idle workers, as long as there are any."""
        with self._turns:
            if not self._is_watched:
                # Daemonic, and not keeping the pool.
                threading.Thread(
                    target=_watch, args=[weakref.ref(self)], daemon=True
                ).start()
                self._is_watched = True

    def _end_unused(self) -> bool:
        """Ends workers idle for too long; whether there are others."""
        latest = time.monotonic() - _IDLE_LIMIT
        for worker in list(self._idle):
            if worker.idle_since <= latest:
                with contextlib.suppress(ValueError):  # Just taken.
                    self._idle.remove(worker)
                    self._end(worker)
        with self._turns:
            self._is_watched = bool(self._idle)
            return self._is_watched

    def _idle_worker(self) -> "_Worker | None":
        while worker := _pop(self._idle):
            if worker.is_running():
                return worker
            self._end(worker)  # No news about the call that comes.
        return None

    def _start(self) -> "_Worker":
        if self._start_failure:
            raise WorkerStartError(self._start_failure)
        try:
            worker = _Worker(self._target, self._command)
            self._workers.add(worker)
            with self._ended_by_errors(worker):
                self._check_usable()  # Or `close` has missed this worker.
                _result(worker.listen(_START_LIMIT, _MIN_MAX_BYTES))
        except Exception as error:
            self._check_usable()
            message = (
                f"No worker for {self._target} could be started. "
                f"{type(error).__name__}: {error}"
            )
            if self._has_started:  # It may work again later.
                raise WorkerDied(message) from error
            self._start_failure = message
            raise WorkerStartError(message) from error
        self._has_started = True
        return worker

    @contextlib.contextmanager
    def _ended_by_errors(self, worker: "_Worker") -> Iterator[None]:
        # Also by Ctrl-C: an answer that nobody has waited for would be taken
        # for that to the next call.
        try:
            yield
        except BaseException as error:
            self._end(worker)
            if isinstance(error, WorkerDied):
                self._check_usable()  # Or it was `close` that ended it.
            raise

    def _end(self, worker: "_Worker") -> None:
        worker.end()
        self._workers.discard(worker)


# To close all of them when the process ends.
_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def close_pools() -> None:
    """Closes all pools of this process."""
    for pool in list(_pools):
        pool.close()


def _watch(pool: weakref.ref[WorkerPool]) -> None:
    while True:
        time.sleep(_IDLE_LIMIT / 2)
        watched = pool()
        if watched is None or not watched._end_unused():
            return
        del watched


class _Worker:
    """A process, and the parent's end of the socket that leads to it."""

    def __init__(self, target: str, command: Sequence[str]) -> None:
        self.num_calls = 0
        self.idle_since = 0.0
        self._target = target
        self._socket, theirs = socket.socketpair()
        # The workers themselves share the cores.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        try:
            with theirs:
                _enlarge_buffers(self._socket, theirs)
                self._process = subprocess.Popen(
                    command, stdin=theirs.fileno(), env=environment
                )
        except BaseException:
            self._socket.close()
            raise

    def is_running(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: _Parts, seconds: float, max_bytes: int) -> _Parts:
        """The answer to a request; after any error the worker is useless."""
        deadline = time.monotonic() + seconds
        with self._explained(seconds):
            _send(self._socket, request, deadline)
            return _receive(self._socket, max_bytes, deadline)

    def listen(self, seconds: float, max_bytes: int) -> _Parts:
        """What the worker says of itself."""
        with self._explained(seconds):
            return _receive(self._socket, max_bytes, time.monotonic() + seconds)

    def stop(self) -> None:
        """Ends the process, and soon whatever another thread asks of it."""
        # Reaches that thread even where the process cannot be killed.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._reap()

    def end(self) -> None:
        """Ends a worker that no other thread uses."""
        self.stop()
        self._socket.close()

    def _reap(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_REAP_LIMIT)
        return None

    @contextlib.contextmanager
    def _explained(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise WorkerTimeout(
                f"A worker process for {self._target} must answer within "
                f"{seconds:g} seconds. Received: nothing; it was killed"
            ) from None
        except (EOFError, ConnectionError):
            raise WorkerDied(
                f"A worker process for {self._target} {_ending(self._reap())}"
            ) from None


def serve(target: str, time_limit: float) -> None:
    """The life of a worker: answers requests on its standard input.

    The other end of that socket being closed ends the process.

    Args:
        target: The function, as "module:function".
        time_limit: Seconds for a call. It is for the parent to keep; a worker
            whose parent is gone ends itself, a little later.
    """
    connection = _take_standard_input()
    # Where memory runs out, this process has to go and not the training.
    with contextlib.suppress(OSError):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    requests: queue.SimpleQueue[_Parts] = queue.SimpleQueue()
    threading.Thread(
        target=_read_requests, args=(connection, requests), daemon=True
    ).start()
    with contextlib.suppress(ConnectionError):  # Nobody listens any more.
        try:
            function = _load(target)
        except Exception as error:
            _send(connection, _failure(error))
            return
        _send(connection, _encode((True, None)))
        while True:
            _send(connection, _answer(function, requests.get(), time_limit))


def _enlarge_buffers(*connections: socket.socket) -> None:
    for connection in connections:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_SIZE)


def _take_standard_input() -> socket.socket:
    """The socket, out of reach of what the function reads and prints."""
    connection = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    with contextlib.suppress(OSError):  # There may be no standard error.
        os.dup2(2, 1)
    return connection


def _read_requests(
    connection: socket.socket, requests: "queue.SimpleQueue[_Parts]"
) -> NoReturn:
    try:
        while True:
            requests.put(_receive(connection))
    finally:
        # The parent is gone. Whatever the main thread is stuck in, as long as
        # it has released the interpreter's lock, ends here.
        os._exit(0)


def _load(target: str) -> Callable[[Any], Any]:
    function = pkgutil.resolve_name(target)
    if not callable(function):
        raise TypeError(f"{target} must be a function. Received: {function!r}")
    return function


def _answer(
    function: Callable[[Any], Any], request: _Parts, time_limit: float
) -> _Parts:
    # For code that is stuck, keeps the interpreter's lock and has no parent any
    # more. (PR_SET_PDEATHSIG would end the worker with the thread that started
    # it, and threads of tf.data come and go.)
    signal.setitimer(signal.ITIMER_REAL, time_limit + _GRACE)
    try:
        return _encode((True, function(_decode(request))))
    except Exception as error:
        return _failure(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _failure(error: Exception) -> _Parts:
    trace = "".join(traceback.format_exception(error))
    try:
        pickled = pickle.dumps(error)
    except Exception:  # Whatever the class or what it refers to raises.
        pickled = b""
    return _encode((False, (pickled, _text(error), trace)))


def _result(answer: _Parts) -> Any:
    """The function's result, or else raises what it raised."""
    is_result, value = _decode(answer)
    if is_result:
        return value
    pickled, text, trace = value
    error = _restored(pickled, text)
    error.add_note(f"In the worker process:\n{trace}")
    raise error


def _restored(pickled: bytes, text: str) -> Exception:
    # Exceptions are made again from their `args`, which not every class takes
    # back, or takes as they were.
    with contextlib.suppress(Exception):
        error = pickle.loads(pickled)  # noqa: S301
        if isinstance(error, Exception) and _text(error) == text:
            return error
    return RuntimeError(text)


def _text(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _encode(value: Any) -> _Parts:
    arrays: list[memoryview] = []
    pickled = pickle.dumps(
        value,
        protocol=5,
        buffer_callback=lambda buffer: arrays.append(buffer.raw()),
    )
    return [pickled, *arrays]


def _decode(parts: _Parts) -> Any:
    # The other process has our rights; its pickles add nothing to them.
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301


def _send(
    connection: socket.socket, parts: _Parts, deadline: float | None = None
) -> None:
    sizes = [len(part) for part in parts]
    header = struct.pack(f"={1 + len(sizes)}Q", len(sizes), *sizes)
    for part in (header, *parts):
        _allow_until(connection, deadline)
        connection.sendall(part)


def _receive(
    connection: socket.socket,
    max_bytes: int = sys.maxsize,
    deadline: float | None = None,
) -> _Parts:
    """A message; at its end, at the deadline or beyond the size an error."""

    def check(num_bytes: int) -> None:
        if num_bytes > max_bytes:
            raise ValueError(
                "What a worker process returns must be at most "
                f"max_bytes={max_bytes}. Received: {num_bytes} bytes"
            )

    (num_parts,) = struct.unpack("=Q", _read(connection, 8, deadline))
    check(8 * num_parts)
    header = _read(connection, 8 * num_parts, deadline)
    sizes = struct.unpack(f"={num_parts}Q", header)
    check(sum(sizes))
    return [_read(connection, size, deadline) for size in sizes]


def _read(
    connection: socket.socket, num_bytes: int, deadline: float | None
) -> memoryview:
    # Unlike a `bytearray` not filled with zeros first.
    data = np.empty(num_bytes, "uint8").data
    rest = data
    while rest:
        _allow_until(connection, deadline)
        count = connection.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data


def _allow_until(connection: socket.socket, deadline: float | None) -> None:
    """Makes the socket's next operation raise `TimeoutError` when late."""
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _pop(workers: list[_Worker]) -> _Worker | None:
    try:
        return workers.pop()
    except IndexError:
        return None


def _end_all(workers: set[_Worker], idle: list[_Worker], process: int) -> None:
    if os.getpid() != process:
        return  # A fork: they are the workers of another.
    for worker in list(workers):
        worker.stop()
    while unused := _pop(idle):
        unused.end()


def _ending(code: int | None) -> str:
    """How a process ended, from its exit status."""
    if code is None:
        return "does not answer any more"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # A real-time signal.
        name = f"signal {-code}"
    # Nobody else sends this one without being asked to.
    hint = "; perhaps memory ran out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _command(target: str, time_limit: float) -> list[str]:
    return [
        sys.executable,
        "-P",
        "-u",
        "-c",
        _BOOTSTRAP,
        target,
        repr(float(time_limit)),
        _PACKAGE_FOLDER,
        *(entry for entry in sys.path if isinstance(entry, str)),
    ]


def _check_arguments(
    target: str,
    num_workers: int,
    time_limit: float,
    max_bytes: int,
    max_calls: int | None,
) -> None:
    if os.name != "posix":
        raise RuntimeError(
            "`WorkerPool` must be used on Linux or macOS. "
            f"Received: {sys.platform}"
        )
    module, _, function = target.partition(":")
    if not module or not function:
        raise ValueError(
            f"`target` must be 'module:function'. Received: target={target!r}"
        )
    if num_workers < 1:
        raise ValueError(
            "`num_workers` must be positive. "
            f"Received: num_workers={num_workers}"
        )
    if not 0 < time_limit <= _MAX_TIME_LIMIT:
        raise ValueError(
            f"`time_limit` must be in (0, {_MAX_TIME_LIMIT:g}] seconds. "
            f"Received: time_limit={time_limit}"
        )
    if max_bytes < _MIN_MAX_BYTES:
        raise ValueError(
            f"`max_bytes` must be at least {_MIN_MAX_BYTES}. "
            f"Received: max_bytes={max_bytes}"
        )
    if max_calls is not None and max_calls < 1:
        raise ValueError(
            "`max_calls` must be positive or None. "
            f"Received: max_calls={max_calls}"
        )
