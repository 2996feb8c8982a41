"""One side of a comparison: a process that works only when it is asked.

A side is a function named "module:function". Called with its arguments it gets
everything ready and returns a function of no arguments, which does the work
once and returns tensors, numbers or a list of them.
"""

import ctypes
import gc
import importlib
import re
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

# Below this a call is repeated before it counts as warmed up.
_SHORT_SECONDS = 2.0
_SAMPLED = 2048


class Server:
    """Answers the parent's requests."""

    def __init__(self) -> None:
        self._work: Callable[[], Any] | None = None

    def set_up(self, function: str, arguments: dict) -> None:
        """Gets a side ready in place of the one before."""
        self.release()
        self._work = self.run(function, arguments)

    def run(self, function: str, arguments: dict) -> Any:
        """What a function returns."""
        module, name = function.split(":")
        return getattr(importlib.import_module(module), name)(**arguments)

    def warm_up(self) -> tuple[float, list[np.ndarray]]:
        """Works until warm: seconds of the last call and a sample of it."""
        start = time.perf_counter()
        result = self._work()
        seconds = time.perf_counter() - start
        if seconds < _SHORT_SECONDS:
            seconds, _ = self.work()
        return seconds, sample(result)

    def work(self) -> tuple[float, float]:
        """One call: its seconds, and those of all processor cores together."""
        processor, start = time.process_time(), time.perf_counter()
        result = self._work()
        seconds = time.perf_counter() - start
        processor = time.process_time() - processor
        del result
        return seconds, processor

    def extra_memory(self) -> int:
        """Bytes that one call needs at its peak beyond what it starts with.

        The kernel's mark of the highest resident set is reset before the call.
        The process has to be warm.
        """
        trim()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = _status("VmRSS")
        result = self._work()
        extra = _status("VmHWM") - before
        del result
        return max(extra, 0)

    def trim(self) -> None:
        """Gives what is free back to the system."""
        trim()

    def release(self) -> None:
        """Drops the side and its memory."""
        self._work = None
        trim()


def sample(result: Any) -> list[np.ndarray]:
    """Some values of each tensor, at places that its size alone decides."""
    if not isinstance(result, (list, tuple)):
        result = [result]
    return [_sample(tensor) for tensor in result]


def _sample(tensor: Any) -> np.ndarray:
    if hasattr(tensor, "detach"):  # PyTorch's; numpy has no bfloat16.
        tensor = tensor.detach().float()
    flat = np.asarray(tensor).astype("float64").reshape(-1)
    return flat[:: max(len(flat) // _SAMPLED, 1)]


def trim() -> None:
    """Frees what nobody uses, and returns it to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return int(re.search(rf"{field}:\s+(\d+) kB", file.read())[1]) * 1024


def limit_memory(share: float = 0.9) -> None:
    """Lets an allocation fail before the kernel ends some process for it."""
    with open("/proc/meminfo") as file:
        total = int(re.search(r"MemTotal:\s+(\d+) kB", file.read())[1]) * 1024
    most = int(share * total)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    limit_memory()
    server = Server()
    while True:
        try:
            request, arguments = connection.recv()
        except EOFError:  # The parent has ended.
            return
        try:
            answer = ("ok", getattr(server, request)(*arguments))
        except ImportError as error:
            answer = ("not installed", str(error))
        except Exception as error:
            reason = str(error).strip().splitlines() or [""]
            answer = ("failed", f"{type(error).__name__}: {reason[0][:200]}")
            server.release()
        connection.send(answer)


if __name__ == "__main__":
    main()
