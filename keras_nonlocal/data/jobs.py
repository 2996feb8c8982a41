"""Long work on many files: in killable processes, and it can be resumed."""

import contextlib
import hashlib
import itertools
import json
import os
import stat
import sys
import time
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from typing import IO
from typing import Any

from keras_nonlocal.data.worker import WorkerPool
from keras_nonlocal.data.worker import WorkerStartError


def run_jobs(
    target: str,
    arguments: Sequence[Any],
    *,
    num_workers: int | None = None,
    time_limit: float = 60.0,
    progress: bool = True,
    unit: str = "videos",
) -> Generator[tuple[int, Any], None, None]:
    """Calls a function in killable worker processes, several at a time.

    Close the iterator if you leave it early, so that no process stays at work.

    Args:
        target: The function, of one argument, as "module:function".
        arguments: Its arguments.
        num_workers: Processes; by default one for each processor.
        time_limit: Seconds that a call may take.
        progress: Whether to count on standard error, where that is a terminal.
        unit: What is counted.

    Yields:
        The number of an argument, and the result or the exception that the
        call has raised, in the order in which the calls end.

    Raises:
        WorkerStartError: If no worker can be started.
        ValueError: If an argument is out of range.

    >>> sorted(run_jobs("math:sqrt", [4.0, 9.0], num_workers=1))
    [(0, 2.0), (1, 3.0)]
    """
    if not arguments:
        return
    if num_workers is None:
        num_workers = os.cpu_count() or 1
    pool = WorkerPool(target, num_workers, time_limit)

    def attempt(number: int) -> Any:
        try:
            return pool.call(arguments[number])
        except WorkerStartError:
            raise
        except Exception as error:
            return error

    line = _ProgressLine(len(arguments), unit, progress)
    # Whatever happens the pool is closed first, which ends the threads' calls.
    with (
        line,
        ThreadPoolExecutor(num_workers) as threads,
        pool,
    ):
        todo = iter(range(len(arguments)))
        running: dict[Future, int] = {}
        while True:
            # A few wait, so that no worker does.
            free = 2 * num_workers - len(running)
            for number in itertools.islice(todo, free):
                running[threads.submit(attempt, number)] = number
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                line.advance()
                yield running.pop(future), future.result()


def stamp(path: str) -> list[int | str]:
    """What results of a file depend on, if nobody tampers with its times.

    Args:
        path: A file, or a folder of pictures.

    Returns:
        Size in bytes and time of the last change, of a folder those of its
        entries as well; nothing if there is no such file.

    >>> stamp("nowhere.mp4")
    []
    """
    try:
        status = os.stat(path)
        values: list[int | str] = [status.st_size, status.st_mtime_ns]
        if stat.S_ISDIR(status.st_mode):
            # Its own time does not tell that a file in it was written anew.
            values.append(_digest_of_entries(path))
    except (OSError, ValueError):  # A NUL in the name.
        return []
    return values


def _digest_of_entries(folder: str) -> str:
    digest = hashlib.sha256()
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            status = entry.stat(follow_symlinks=os.path.exists(entry.path))
            values = entry.name, status.st_size, status.st_mtime_ns
            digest.update(repr(values).encode())
    return digest.hexdigest()


class Journal:
    """Results of files that are finished, a line of JSON for each.

    A process that is killed loses what it was at, and nothing else: what is
    left of a line that was being written is passed over.

    Args:
        path: The file; made if missing.
        resume: Whether to keep what an earlier process has left in it.

    Raises:
        ValueError: If another process is at work with the same file.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Journal(folder.name + "/journal") as journal:
    ...     journal.add(["a.mp4", 10], {"frames": 3})
    >>> with Journal(folder.name + "/journal") as journal:
    ...     journal.get(["a.mp4", 10])
    {'frames': 3}
    >>> folder.cleanup()
    """

    def __init__(
        self, path: str | os.PathLike[str], resume: bool = True
    ) -> None:
        # Not in text mode: a name may hold bytes that are no text.
        self._file = open(path, "a+b")
        try:
            _lock(self._file, path)
            if not resume:
                self._file.truncate(0)
            self._places = _find_lines(self._file)
        except BaseException:
            self._file.close()
            raise

    def get(self, key: Any) -> Any:
        """The last value for `key`, `None` if there is none."""
        place = self._places.get(json.dumps(key))
        if place is None:
            return None
        self._file.seek(place)
        return json.loads(self._file.readline())[1]

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Each key with its last value."""
        for key in list(self._places):
            yield json.loads(key), self.get(json.loads(key))

    def add(self, key: Any, value: Any) -> None:
        """Notes a value; it is there if this process is killed right after."""
        line = json.dumps([key, value])
        # What is written goes to the end, wherever the last one was read.
        self._places[json.dumps(key)] = self._file.seek(0, os.SEEK_END)
        self._file.write(line.encode("ascii") + b"\n")
        self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _lock(file: IO[bytes], path: str | os.PathLike[str]) -> None:
    # Here: there is none on Windows, where there are no workers either.
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"{os.fspath(path)} must be of one process at a time. Received: a "
            "file that another process is at work with"
        ) from error
    except OSError:
        # Some network disks have no locks: then it is up to the user.
        return


def _find_lines(file: IO[bytes]) -> dict[str, int]:
    """Where the last line of each key begins: values may be many and large."""
    places: dict[str, int] = {}
    begin, line = 0, b"\n"
    file.seek(0)
    for line in file:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            key, _ = json.loads(line)
            places[json.dumps(key)] = begin
        begin += len(line)
    if not line.endswith(b"\n"):
        file.write(b"\n")
    return places


class _ProgressLine:
    """One line on standard error that counts; silent if it is no terminal."""

    def __init__(self, total: int, unit: str, shown: bool) -> None:
        self._total = total
        self._unit = unit
        self._shown = shown and sys.stderr.isatty()
        self._done = 0
        self._start = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if self._shown:
            print(f"\r\x1b[K{self}", end="", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        spent = time.monotonic() - self._start
        left = spent / self._done * (self._total - self._done)
        minutes, seconds = divmod(round(left), 60)
        return (
            f"{self._done:,} of {self._total:,} {self._unit}, "
            f"{minutes}:{seconds:02} min left"
        )

    def __enter__(self) -> "_ProgressLine":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._shown and self._done:
            print(file=sys.stderr)
