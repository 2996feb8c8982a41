"""Interleaved timing of sides, each in a process of its own.

Of each case, every side is set up and warmed up, and then all are asked in
turn, A B A B and so on, one at a time. A side that fails, is too large or takes
too long is recorded with the reason, and the rest goes on. Peak memory comes
from processes of their own, which return freed memory to the system at once.
"""

import dataclasses
import datetime
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterable
from importlib import metadata
from multiprocessing import Pipe
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Timed processes keep what they free: no side pays for fresh pages.
KEEP = (
    "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:"
    "glibc.malloc.top_pad=67108864"
)
# Measured processes return it: the resident set is what is in use.
RETURN = (
    "glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=65536:"
    "glibc.malloc.arena_max=1"
)
# Seconds between two calls, in which the threads of the first fall asleep.
_PAUSE = 0.03
# Of a section's minutes, where memory is measured as well.
_TIMING_SHARE = 0.75
PACKAGES = (
    "av",
    "decord",
    "keras",
    "keras-nonlocal",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "tensorflow",
    "tf2onnx",
    "torch",
    "torchvision",
)


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to do a case's work.

    Attributes:
        name: In tables.
        function: What a worker calls: "module:function".
        arguments: Its keyword arguments.
        flops: Counted floating point operations of a call.
        dtype: Whose matmul peak they are compared with.
        skip: Why not to run it: (status, reason).
    """

    name: str
    function: str
    arguments: dict = dataclasses.field(default_factory=dict)
    flops: float = 0.0
    dtype: str = "float32"
    skip: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """Sides that do the same work.

    Attributes:
        name: Of the case, unique in its section.
        about: What it is, for the results.
        sides: In the order in which they are asked.
        peers: Names of those that others are compared with.
        memory: Of which sides to measure peak memory: "all"; "best", the
            fastest peer and the fastest other; or `None`.
        large: Whether every side gives its memory back after each call,
            because together they would not fit.
        tolerance: Largest difference between the sides' results that is still
            the same work, relative to the largest value; `None` if they are
            not to be compared.
    """

    name: str
    about: dict
    sides: tuple[Side, ...]
    peers: tuple[str, ...]
    memory: str | None = "all"
    large: bool = False
    tolerance: float | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long and how often.

    Attributes:
        seconds: Aimed at for all rounds of a case.
        rounds: Fewest and most rounds.
        limit: Longest time that a call may take, in seconds.
        set_up_limit: The same of getting ready.
        minutes: After which no case is begun.
        has_pool: Whether TensorFlow's own pool of memory is on where time is
            measured. Up to glibc 2.37 the system's allocator gives fresh
            pages for most large aligned tensors that vary in size.
    """

    seconds: float = 10.0
    rounds: tuple[int, int] = (3, 15)
    limit: float = 60.0
    set_up_limit: float = 240.0
    minutes: float = 10.0
    has_pool: bool = False


class SideError(Exception):
    """A side cannot go on: `status` and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Workers:
    """Processes by name, alike but for what they are asked.

    Args:
        tunables: `GLIBC_TUNABLES` of all of them.
        has_pool: Whether TensorFlow's own pool of memory is on.
    """

    def __init__(self, tunables: str, has_pool: bool = False) -> None:
        self._environment = _environment(tunables, has_pool)
        self._running: dict[str, tuple[subprocess.Popen, Any]] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.end(name)

    def start(self, name: str) -> None:
        """Starts a process unless there is one."""
        if name in self._running:
            return
        ours, theirs = Pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", str(theirs.fileno())],
            env=self._environment,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._running[name] = process, ours

    def ask(self, name: str, limit: float, request: str, *arguments: Any):
        """One answer of a process.

        Raises:
            SideError: If there is none, or it says that it cannot.
        """
        self.start(name)
        process, connection = self._running[name]
        try:
            connection.send((request, arguments))
            if not connection.poll(limit):
                self.end(name)
                raise SideError(
                    "out of time", f"{request}: no answer in {limit:.0f} s"
                )
            status, answer = connection.recv()
        except (EOFError, OSError) as error:
            code = process.wait()
            self.end(name)
            raise SideError(
                "failed", f"{request}: the process ended with {code}"
            ) from error
        if status != "ok":
            raise SideError(status, answer)
        return answer

    def end(self, name: str) -> None:
        """Ends a process and those that it started."""
        process, connection = self._running.pop(name)
        connection.close()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def release(self) -> None:
        """Lets every process drop its side."""
        for name in list(self._running):
            try:
                self.ask(name, 60, "release")
            except SideError:
                pass

    def processor_seconds(self, but: str) -> float:
        """What all processes but one have used so far."""
        return sum(
            _processor_seconds(process.pid)
            for name, (process, _) in self._running.items()
            if name != but
        )


def run(
    cases: Iterable[Case],
    settings: Settings,
    peaks: dict[str, float],
    progress: Callable[[str], None] = print,
) -> Iterable[list[dict]]:
    """Measures cases, first all times and then all memory.

    Args:
        cases: What to measure.
        settings: How long.
        peaks: Floating point operations per second of a large matmul, by
            dtype.
        progress: Takes a line of text.

    Yields:
        The rows so far, after each step.
    """
    cases, rows = list(cases), []
    started, most = time.monotonic(), 60 * settings.minutes
    with_memory = [case for case in cases if case.memory]
    for_times = _TIMING_SHARE * most if with_memory else most
    with Workers(KEEP, settings.has_pool) as workers:
        for number, case in enumerate(cases, 1):
            begun = time.monotonic()
            if begun - started > for_times:
                case = _without_time(case)
            rows.append(_time(case, settings, workers, peaks))
            progress(_line(number, len(cases), rows[-1], begun))
            yield rows
    with Workers(RETURN) as workers:
        for case, row in zip(cases, rows, strict=True):
            if case.memory and time.monotonic() - started < most:
                _measure_memory(case, row, settings, workers)
                progress(f"memory of {case.name}: {_memory_text(row)}")
                yield rows


def _without_time(case: Case) -> Case:
    reason = "not run", "the time for this section was up"
    return dataclasses.replace(
        case,
        sides=tuple(
            dataclasses.replace(side, skip=side.skip or reason)
            for side in case.sides
        ),
    )


def prepare(function: str, arguments: dict, limit: float = 240.0) -> Any:
    """What a function returns in a process of its own.

    Raises:
        SideError: If it fails or takes longer.
    """
    with Workers(KEEP) as workers:
        return workers.ask("prepare", limit, "run", function, arguments)


def _time(
    case: Case, settings: Settings, workers: Workers, peaks: dict[str, float]
) -> dict:
    rows = {side.name: _start_row(side) for side in case.sides}
    wanted = [side for side in case.sides if side.skip is None]
    for side in wanted:  # Imports of all take place at a time.
        workers.start(side.name)
    warm, samples = {}, {}
    for side in wanted:
        with _Noting(rows[side.name]):
            warm[side.name], samples[side.name] = _warm_up(
                side, settings, workers, case.large
            )
    _compare(rows, samples, case)
    low, high = settings.rounds
    total = sum(warm.values())
    rounds = min(high, max(low, int(settings.seconds / max(total, 1e-9))))
    idle = elapsed = 0.0
    for _ in range(rounds):
        for name in warm:
            row = rows[name]
            if row["status"] != "ok":
                continue
            time.sleep(_PAUSE)
            with _Noting(row):
                before = workers.processor_seconds(but=name)
                seconds, processor = workers.ask(name, settings.limit, "work")
                idle += workers.processor_seconds(but=name) - before
                elapsed += seconds
                row["seconds"].append(seconds)
                row["processor_seconds"].append(processor)
                if case.large:
                    workers.ask(name, settings.limit, "trim")
    workers.release()
    for side in case.sides:
        _summarise(rows[side.name], side, peaks)
    _add_ratios(rows, case.peers)
    return {
        "name": case.name,
        "about": case.about,
        "peers": list(case.peers),
        "rounds": rounds,
        "memory_returned_after_each_call": case.large,
        "processor_share_of_idle_sides": idle / elapsed if elapsed else None,
        "sides": list(rows.values()),
    }


def _warm_up(
    side: Side, settings: Settings, workers: Workers, large: bool
) -> tuple[float, list[np.ndarray]]:
    workers.ask(
        side.name,
        settings.set_up_limit,
        "set_up",
        side.function,
        side.arguments,
    )
    # The first call may still build what the side needs.
    answer = workers.ask(
        side.name, settings.limit + settings.set_up_limit, "warm_up"
    )
    if large:
        workers.ask(side.name, settings.limit, "trim")
    return answer


def _measure_memory(
    case: Case, row: dict, settings: Settings, workers: Workers
) -> None:
    chosen = _chosen_for_memory(case, row)
    for side, side_row in zip(case.sides, row["sides"], strict=True):
        if side.name not in chosen:
            continue
        try:
            _warm_up(side, settings, workers, False)
            side_row["extra_bytes"] = workers.ask(
                side.name, 2 * settings.limit, "extra_memory"
            )
            workers.ask(side.name, settings.limit, "release")
        except SideError as error:
            side_row["extra_bytes_reason"] = f"{error.status}: {error}"


def _chosen_for_memory(case: Case, row: dict) -> set[str]:
    ranked = [
        side["name"]
        for side in sorted(row["sides"], key=lambda side: side["median"] or 0)
        if side["status"] == "ok"
    ]
    if case.memory == "all":
        return set(ranked)
    peers = [name for name in ranked if name in case.peers]
    others = [name for name in ranked if name not in case.peers]
    return {*peers[:1], *others[:1]}


class _Noting:
    """Writes a side's failure into its row and goes on."""

    def __init__(self, row: dict) -> None:
        self._row = row

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object):
        if not isinstance(error, SideError):
            return False
        self._row["status"], self._row["reason"] = error.status, str(error)
        return True


def _start_row(side: Side) -> dict:
    status, reason = side.skip or ("ok", "")
    return {
        "name": side.name,
        "status": status,
        "reason": reason,
        "flops": side.flops,
        "dtype": side.dtype,
        "seconds": [],
        "processor_seconds": [],
        "median": None,
        "quartiles": None,
        "fraction_of_peak": None,
        "extra_bytes": None,
        "difference": None,
        "speed_over": {},
    }


def _compare(rows: dict, samples: dict, case: Case) -> None:
    """Puts down how far each side's results are from the first one's."""
    if case.tolerance is None or not samples:
        return
    expected = next(iter(samples.values()))
    for name, found in samples.items():
        row = rows[name]
        difference = _difference(found, expected)
        row["difference"] = difference
        if not difference <= case.tolerance:
            row["status"] = "failed"
            row["reason"] = (
                f"other results: off by {difference:.2g}, more than "
                f"{case.tolerance:.2g}"
            )


def _difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float("inf")
    return max(
        float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), 1e-30))
        for x, y in zip(found, expected, strict=True)
    )


def _summarise(row: dict, side: Side, peaks: dict[str, float]) -> None:
    seconds = row["seconds"]
    if not seconds:
        return
    row["median"] = statistics.median(seconds)
    row["quartiles"] = [float(q) for q in np.percentile(seconds, (25, 75))]
    row["range"] = [min(seconds), max(seconds)]
    if side.flops and side.dtype in peaks:
        rate = side.flops / row["median"]
        row["fraction_of_peak"] = rate / peaks[side.dtype]


def _add_ratios(rows: dict, peers: Iterable[str]) -> None:
    """Median, smallest and largest ratio over the rounds."""
    for peer in peers:
        theirs = rows[peer]
        if theirs["status"] != "ok":
            continue
        for row in rows.values():
            if row["status"] == "ok":
                ratios = [
                    a / b
                    for a, b in zip(
                        theirs["seconds"], row["seconds"], strict=True
                    )
                ]
                row["speed_over"][peer] = [
                    statistics.median(ratios),
                    min(ratios),
                    max(ratios),
                ]


def _line(number: int, total: int, row: dict, started: float) -> str:
    parts = [
        f"{side['name']} {side['median'] * 1e3:.4g} ms"
        if side["status"] == "ok"
        else f"{side['name']}: {side['status']}"
        for side in row["sides"]
    ]
    seconds = time.monotonic() - started
    return (
        f"[{number}/{total}] {row['name']} ({row['rounds']} rounds, "
        f"{seconds:.0f} s): " + ", ".join(parts)
    )


def _memory_text(row: dict) -> str:
    return ", ".join(
        f"{side['name']} {side['extra_bytes'] / 1e6:.0f} MB"
        for side in row["sides"]
        if side["extra_bytes"] is not None
    )


def _environment(tunables: str, has_pool: bool) -> dict[str, str]:
    cores = str(num_cores())
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    chosen = {
        "GLIBC_TUNABLES": tunables,
        "KERAS_BACKEND": "tensorflow",
        "MKL_NUM_THREADS": cores,
        "OMP_NUM_THREADS": cores,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Else TensorFlow has a pool of its own, to which none of the above
        # applies and which returns nothing.
        "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "0" if has_pool else "1",
    }
    # What would make the machine of one user unlike another's.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TF_", "XLA_", "OMP_", "KMP_", "MKL_"))
    }
    return {**kept, **chosen}


def _processor_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def total_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor_flags() -> set[str]:
    """What the processor can do, as the kernel names it."""
    return set(_cpuinfo("flags").split())


def machine() -> dict:
    """What the figures depend on, of this machine."""
    return {
        "processor": _cpuinfo("model name"),
        "cores": num_cores(),
        "memory_bytes": total_memory(),
        "matrix_instructions": sorted(
            processor_flags() & {"avx512_bf16", "amx_bf16", "avx512f"}
        ),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "packages": _versions(),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpuinfo(field: str) -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return "unknown"


def machine_slug() -> str:
    """A name of this machine for files."""
    words = _cpuinfo("model name").lower().split()
    name = "-".join(word for word in words if word.isalnum())
    return f"{name or 'machine'}-{num_cores()}-cores"


def write_json(path: str | os.PathLike[str], content: dict) -> None:
    """Writes a file, complete or not at all."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(unfinished, path)


def today() -> str:
    """The date, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


PEAK_SIDES = tuple(
    Side(
        f"{library} {dtype}",
        f"benchmarks.{library}_sides:matmul",
        {"size": 3072, "dtype": dtype},
        flops=2.0 * 3072**3,
        dtype=dtype,
    )
    for dtype in ("float32", "bfloat16")
    for library in ("tensorflow", "torch")
)


def measure_peaks(settings: Settings) -> tuple[dict[str, float], dict]:
    """Floating point operations per second of a large square matmul.

    Returns:
        The best of all libraries by dtype, and the row with each of them.
    """
    case = Case("matmul", {"size": 3072}, PEAK_SIDES, (), memory=None)
    with Workers(KEEP) as workers:
        row = _time(case, settings, workers, {})
    peaks: dict[str, float] = {}
    for side in row["sides"]:
        if side["seconds"]:
            rate = side["flops"] / min(side["seconds"])
            peaks[side["dtype"]] = max(rate, peaks.get(side["dtype"], 0.0))
    return peaks, row
