import concurrent.futures
import contextlib
import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import worker
from keras_nonlocal.data.worker import WorkerDied
from keras_nonlocal.data.worker import WorkerPool
from keras_nonlocal.data.worker import WorkerStartError
from keras_nonlocal.data.worker import WorkerTimeout
from tests.data import worker_targets

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = "tests.data.worker_targets:run"
# For what must not take any time, on a machine with much else to do.
SOON = 5.0
# A script of a user, without the seconds that TensorFlow takes to import, and
# without `if __name__ == "__main__"`.
SCRIPT = """
import sys, threading, time, types
sys.path.insert(0, {root!r})
package = types.ModuleType("keras_nonlocal")
package.__path__ = [{root!r} + "/keras_nonlocal"]
sys.modules["keras_nonlocal"] = package
from keras_nonlocal.data.worker import WorkerPool
RUN = {run!r}
"""

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads /proc"
)


@pytest.fixture(scope="module")
def pool():
    """For calls that leave their worker as it was."""
    with WorkerPool(RUN, num_workers=1) as pool:
        yield pool


@pytest.fixture
def make_pool():
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            WorkerPool(*args, **kwargs)
        )


def script(text):
    return [sys.executable, "-c", SCRIPT.format(root=str(ROOT), run=RUN) + text]


def is_gone(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    # Ended, and nobody has asked how.
    status = pathlib.Path(f"/proc/{process_id}/status")
    with contextlib.suppress(OSError):
        return "State:\tZ" in status.read_text()
    return False


def assert_gone(process_ids, seconds):
    deadline = time.monotonic() + seconds
    while not all(map(is_gone, process_ids)):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.01)


class TestResults:
    def test_arrays_arrive_as_they_were(self, pool, rng):
        frames = rng.integers(256, size=(4, 20, 30, 3), dtype="uint8")
        sent = {
            "frames": frames,
            "times": np.arange(5) / 7,
            "reversed": frames[::-1, :, ::2],
            "transposed": np.asfortranarray(frames),
            "empty": np.zeros((0, 3), "int64"),
            "names": np.array(["a", "bc"], object),
        }
        received = pool.call(("same", sent))
        assert list(received) == list(sent)
        for name, array in sent.items():
            np.testing.assert_array_equal(received[name], array, strict=True)
        assert received["frames"].flags.writeable
        assert received["times"].flags.aligned

    def test_any_object(self, pool):
        for value in (None, 0, "é", b"", [1, {2: (3,)}], decode.VideoError):
            assert pool.call(("same", value)) == value

    def test_too_large(self, make_pool):
        pool = make_pool(RUN, 1, max_bytes=2**20)
        assert len(pool.call(("zeros", 2**19))) == 2**19
        with pytest.raises(ValueError, match="at most max_bytes=1048576. Rec"):
            pool.call(("zeros", 2**20))
        assert len(pool.call(("zeros", 2**19))) == 2**19

    def test_what_is_printed_is_no_result(self, make_pool, capfd, monkeypatch):
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        assert make_pool(RUN, 1).call(("say", "hello")) == "hello"
        assert capfd.readouterr() == ("", "hello\nhello\n")

    @linux_only
    def test_nothing_piles_up(self, make_pool):
        pool = make_pool(RUN, 1)

        def state():
            files = len(os.listdir("/proc/self/fd"))
            mine = worker_targets.resident_bytes()
            return files, mine, pool.call(("resident_bytes",))

        pool.call(("zeros", 2**20))
        before = state()
        for _ in range(300):
            pool.call(("zeros", 2**20))
        after = state()
        assert after[0] <= before[0]
        assert after[1] - before[1] < 2**25
        assert after[2] - before[2] < 2**23
        with pytest.raises(WorkerDied):
            pool.call(("leave", 0))
        assert state()[0] <= before[0]


class TestErrors:
    @pytest.mark.parametrize(
        "error",
        [
            decode.VideoError("a.mp4: no video stream"),
            KeyError("é"),
            FileNotFoundError(2, "No such file", "a.mp4"),
        ],
        ids=repr,
    )
    def test_travel(self, pool, error):
        with pytest.raises(type(error)) as info:
            pool.call(("raise_error", error))
        assert type(info.value) is type(error)
        assert str(info.value) == str(error)
        (note,) = info.value.__notes__
        assert "worker_targets.py" in note and "raise error" in note

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("raise_picky", "Picky: a.mp4: no frames"),
            ("raise_wordy", "Wordy: a.mp4: cannot be read"),
        ],
    )
    def test_keep_their_words(self, pool, name, text):
        with pytest.raises(RuntimeError) as info:
            pool.call((name,))
        assert str(info.value) == f"tests.data.worker_targets.{text}"

    def test_of_pickle(self, pool):
        process_id = pool.call(("process_id",))
        with pytest.raises(Exception, match="lambda"):
            pool.call(lambda: None)
        with pytest.raises(Exception, match="lambda"):
            pool.call(("function",))
        assert pool.call(("process_id",)) == process_id

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("no_such_module:function", "ModuleNotFoundError: No module named"),
            ("math:no_such", "AttributeError: .* no attribute 'no_such'"),
            ("math:pi", "TypeError: math:pi must be a function. Received: 3"),
        ],
    )
    def test_no_such_function(self, make_pool, target, message):
        with pytest.raises(WorkerStartError, match=f"for {target}.*{message}"):
            make_pool(target).call(None)

    def test_a_start_that_fails_is_not_tried_again(
        self, make_pool, tmp_path, monkeypatch
    ):
        monkeypatch.syspath_prepend(tmp_path)
        starts = tmp_path / "starts"
        module = tmp_path / "never_starts.py"
        module.write_text(f"open({str(starts)!r}, 'a').write('x'); exit(3)")
        pool = make_pool("never_starts:function")
        for _ in range(3):
            with pytest.raises(WorkerStartError, match="exit code 3"):
                pool.call(None)
        assert starts.read_text() == "x"

    def test_a_start_that_fails_later_is(
        self, make_pool, tmp_path, monkeypatch
    ):
        monkeypatch.syspath_prepend(tmp_path)
        module = tmp_path / "starts_at_times.py"
        module.write_text("from os import _exit as leave")
        pool = make_pool("starts_at_times:leave", 1)
        with pytest.raises(WorkerDied, match="exit code 4"):
            pool.call(4)
        module.rename(tmp_path / "away.py")
        with pytest.raises(WorkerDied, match="be started.*ModuleNotFound"):
            pool.call(4)
        (tmp_path / "away.py").rename(module)
        with pytest.raises(WorkerDied, match="exit code 5"):
            pool.call(5)


class TestProcesses:
    def test_import_nothing_from_the_working_directory(
        self, make_pool, tmp_path, monkeypatch
    ):
        (tmp_path / "signal.py").write_text("exit(3)")
        monkeypatch.chdir(tmp_path)
        assert make_pool(RUN, 1).call(("same", 1)) == 1

    def test_are_light(self, pool):
        """They decode without what the package's public names need."""
        assert pool.call(("same", decode.VideoError)) is decode.VideoError
        modules = set(pool.call(("modules",)))
        assert "keras_nonlocal.data.decode" in modules
        assert not {"tensorflow", "keras", "absl"} & modules

    @linux_only
    def test_have_nothing_of_others(self, make_pool):
        """So the end of a socket is seen when its one other end is closed."""
        make_pool(RUN, 1).call(("process_id",))
        assert make_pool(RUN, 1).call(("surroundings",)) == {
            "input": b"",
            "interrupt": signal.SIG_IGN,
            "files": 4,  # Input, output, errors and the socket.
            "memory": "1000\n",
            "threads": "1",
        }

    @pytest.mark.parametrize(
        ("action", "message"),
        [
            (("send_signal", signal.SIGSEGV), "was ended by SIGSEGV$"),
            (("send_signal", signal.SIGKILL), "was ended by SIGKILL; perhaps"),
            (("leave", 3), "ended with exit code 3$"),
            (("raise_error", SystemExit(4)), "ended with exit code 4$"),
        ],
        ids=str,
    )
    def test_that_die_are_replaced(self, make_pool, action, message):
        pool = make_pool(RUN, 1, time_limit=SOON)
        with pytest.raises(WorkerDied, match=f"for {RUN} {message}"):
            pool.call(action)
        assert pool.call(("same", 1)) == 1

    def test_that_hang_are_killed(self, make_pool):
        pools = [make_pool(RUN, 1, time_limit=1) for _ in range(3)]
        process_ids = [pool.call(("process_id",)) for pool in pools]
        hanging = [
            ("sleep", 60),
            ("hold_lock", 60),
            ("send_signal", signal.SIGSTOP),
        ]
        with concurrent.futures.ThreadPoolExecutor() as threads:
            start = time.monotonic()
            calls = [
                threads.submit(pool.call, action)
                for pool, action in zip(pools, hanging, strict=True)
            ]
            for call in calls:
                with pytest.raises(WorkerTimeout, match="within 1 seconds"):
                    call.result()
            assert 1 <= time.monotonic() - start < 1 + SOON
        assert all(map(is_gone, process_ids))
        assert pools[0].call(("same", 1)) == 1

    def test_that_hang_in_the_middle_of_a_request_are_killed(self, make_pool):
        """One that fills the socket's buffers."""
        pool = make_pool(RUN, 1, time_limit=0.5)
        process_id = pool.call(("process_id",))
        os.kill(process_id, signal.SIGSTOP)
        with pytest.raises(WorkerTimeout):
            pool.call(("same", bytes(2**25)))
        assert is_gone(process_id)

    def test_that_die_while_idle_are_replaced(self, make_pool):
        pool = make_pool(RUN, 1)
        process_id = pool.call(("process_id",))
        os.kill(process_id, signal.SIGKILL)
        os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOWAIT)
        assert pool.call(("process_id",)) != process_id

    def test_that_nobody_uses_end(self, make_pool, monkeypatch):
        """Those alone, without a zombie; the next call starts another."""
        monkeypatch.setattr(worker, "_IDLE_LIMIT", 0.6)
        pool = make_pool(RUN, 2)
        with concurrent.futures.ThreadPoolExecutor() as threads:
            calls = [("sleep", 0.3)] * 2
            list(threads.map(pool.call, calls))
        assert len(pool._workers) == 2
        process_id = pool.call(("process_id",))
        deadline = time.monotonic() + SOON
        while len(pool._workers) == 2:
            assert pool.call(("process_id",)) == process_id
            assert time.monotonic() < deadline
        while pool._workers:
            time.sleep(0.01)
            assert time.monotonic() < deadline
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)
        assert pool.call(("process_id",)) != process_id
        while pool._workers:
            time.sleep(0.01)
            assert time.monotonic() < deadline + SOON

    def test_are_replaced_after_max_calls(self, make_pool):
        pool = make_pool(RUN, 1, max_calls=2)
        numbers = [pool.call(("process_id",)) for _ in range(4)]
        assert numbers[0] == numbers[1] != numbers[2] == numbers[3]
        assert all(map(is_gone, numbers))

    def test_end_with_the_pool(self):
        with WorkerPool(RUN, 1) as pool:
            process_id = pool.call(("process_id",))
        assert is_gone(process_id)
        pool.close()
        with pytest.raises(RuntimeError, match="must be open"):
            pool.call(("process_id",))

    def test_end_with_the_last_reference(self):
        pool = WorkerPool(RUN, 1)
        process_id = pool.call(("process_id",))
        del pool
        gc.collect()
        assert is_gone(process_id)

    @linux_only
    def test_end_with_a_killed_parent(self):
        """Idle, asleep, and stuck where no other thread can run."""
        parent = subprocess.Popen(
            script("""
pools = [WorkerPool(RUN, 1, time_limit) for time_limit in (30, 30, 1)]
process_ids = [pool.call(("process_id",)) for pool in pools]
for pool, name in zip(pools[1:], ("sleep", "hold_lock")):
    threading.Thread(target=pool.call, args=[(name, 60)]).start()
time.sleep(0.2)
print(*process_ids, flush=True)
"""),
            stdout=subprocess.PIPE,
        )
        with parent:
            process_ids = [int(x) for x in parent.stdout.readline().split()]
            assert not any(map(is_gone, process_ids))
            parent.kill()
        assert_gone(process_ids[:2], 2)
        assert_gone(process_ids[2:], SOON)

    @linux_only
    def test_end_with_ctrl_c(self):
        parent = subprocess.Popen(
            script("""
pool = WorkerPool(RUN, 1)
print(pool.call(("process_id",)), flush=True)
pool.call(("sleep", 60))
"""),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        process_id = int(parent.stdout.readline())
        time.sleep(0.1)
        os.killpg(parent.pid, signal.SIGINT)
        _, errors = parent.communicate(timeout=3)
        assert errors.count("Traceback") == 1
        assert errors.endswith("KeyboardInterrupt\n")
        assert is_gone(process_id)

    def test_do_not_run_the_users_script(self):
        """A script without a guard runs once, and its forks do no harm."""
        result = subprocess.run(
            script("""
import os
pool = WorkerPool(RUN, 1)
process_id = pool.call(("process_id",))
child = os.fork()
if not child:
    try:
        pool.call(("process_id",))
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit()
os.waitpid(child, 0)
print(pool.call(("process_id",)) == process_id)
"""),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.stderr == ""
        lines = result.stdout.splitlines()
        assert len(lines) == 2 and lines[1] == "True"
        assert "a fork of it" in lines[0]


class TestThreads:
    def test_take_turns(self, make_pool):
        pool = make_pool(RUN, 2)
        order = []

        def calls(number):
            for turn in range(6):
                sent = (number, turn)
                assert pool.call(("sleep", 0.01, sent)) == sent
                order.append(number)

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(pool.call, [("sleep", 0.2)] * 2))  # Both start.
            list(threads.map(calls, range(8)))
        # Nobody's first turn comes after half of all.
        assert len(order) == 48
        assert set(order[:24]) == set(range(8))

    def test_close_during_calls(self, make_pool):
        """Those that run and those that wait raise, at once."""
        pool = make_pool(RUN, 2)
        process_ids = [pool.call(("process_id",))]
        with concurrent.futures.ThreadPoolExecutor() as threads:
            calls = [threads.submit(pool.call, ("sleep", 60)) for _ in range(4)]
            time.sleep(0.2)
            start = time.monotonic()
            pool.close()
            for call in calls:
                with pytest.raises(RuntimeError, match="must be open"):
                    call.result()
        assert time.monotonic() - start < SOON
        assert all(map(is_gone, process_ids))

    def test_close_during_a_start(self, make_pool, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        module = tmp_path / "starts_slowly.py"
        module.write_text("import time; time.sleep(60)")
        pool = make_pool("starts_slowly:function")
        with concurrent.futures.ThreadPoolExecutor() as threads:
            call = threads.submit(pool.call, None)
            time.sleep(0.2)
            pool.close()
            with pytest.raises(RuntimeError, match="must be open"):
                call.result()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "module"}, "`target` must be 'module:function'"),
        ({"num_workers": 0}, "`num_workers` must be positive"),
        ({"time_limit": 0}, "`time_limit` must be in"),
        ({"time_limit": float("nan")}, "`time_limit` must be in"),
        ({"time_limit": float("inf")}, "`time_limit` must be in"),
        ({"max_bytes": 0}, "`max_bytes` must be at least"),
        ({"max_calls": 0}, "`max_calls` must be positive or None"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        WorkerPool(**{"target": RUN, **arguments})
