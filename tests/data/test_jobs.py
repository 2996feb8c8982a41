import contextlib
import io
import os
import sys

import pytest

from keras_nonlocal.data.jobs import Journal
from keras_nonlocal.data.jobs import run_jobs
from keras_nonlocal.data.jobs import stamp
from keras_nonlocal.data.worker import WorkerStartError


class TestStamp:
    def test_files(self, tmp_path):
        path = tmp_path / "a"
        assert stamp(str(path)) == stamp("a\0") == []
        path.write_text("x")
        first = stamp(str(path))
        assert first == stamp(str(path))
        path.write_text("xy")
        assert stamp(str(path)) != first

    def test_folders(self, tmp_path):
        path = tmp_path / "a\udcff"
        path.write_text("x")
        (tmp_path / "dangling").symlink_to("nowhere")
        first = stamp(str(tmp_path))
        assert first == stamp(str(tmp_path))
        os.utime(path, ns=(1, 1))
        second = stamp(str(tmp_path))
        # The folder itself has not changed.
        assert second[:2] == first[:2] and second != first


class TestJournal:
    def test_keeps_the_last_value(self, tmp_path):
        with Journal(tmp_path / "journal") as journal:
            journal.add(["a", 1], {"x": 1})
            journal.add(["b", None], 2)
            journal.add(["a", 1], {"x": 3})
            assert journal.get(["a", 1]) == {"x": 3}
        with Journal(tmp_path / "journal") as journal:
            assert journal.get(["a", 1]) == {"x": 3}
            assert journal.get(["b", None]) == 2
            assert journal.get(["c"]) is None
            items = [(["a", 1], {"x": 3}), (["b", None], 2)]
            assert list(journal.items()) == items
        with Journal(tmp_path / "journal", resume=False) as journal:
            assert journal.get(["a", 1]) is None
        assert (tmp_path / "journal").read_bytes() == b""

    def test_names_that_are_no_text(self, tmp_path):
        with Journal(tmp_path / "journal") as journal:
            journal.add(["a\udcff\n"], 1)
        with Journal(tmp_path / "journal") as journal:
            assert journal.get(["a\udcff\n"]) == 1

    @pytest.mark.parametrize(
        "rest", [b'[["b"], {"fra', b"\xff\xfe", b"[1]", b"3", b"[" * 99_999]
    )
    def test_passes_over_what_is_no_line(self, tmp_path, rest):
        path = tmp_path / "journal"
        with Journal(path) as journal:
            journal.add(["a"], 1)
        with open(path, "ab") as file:
            file.write(rest)
        with Journal(path) as journal:
            assert journal.get(["a"]) == 1
            journal.add(["b"], 2)
        with Journal(path) as journal:
            assert (journal.get(["a"]), journal.get(["b"])) == (1, 2)

    def test_is_of_one_process(self, tmp_path):
        with Journal(tmp_path / "journal"):
            with pytest.raises(ValueError, match="of one process at a time"):
                Journal(tmp_path / "journal")
        with Journal(tmp_path / "journal"):
            pass


class TestRunJobs:
    def test_results_and_errors(self):
        results = dict(run_jobs("math:sqrt", [4.0, -1.0, 9.0], num_workers=2))
        error = results.pop(1)
        assert results == {0: 2.0, 2: 3.0}
        assert isinstance(error, ValueError)

    def test_no_arguments_no_worker(self):
        assert list(run_jobs("nowhere:nothing", [])) == []

    def test_no_worker(self):
        with pytest.raises(WorkerStartError, match="nowhere"):
            list(run_jobs("nowhere:nothing", [1, 2, 3], num_workers=1))

    def test_left_early(self):
        jobs = run_jobs("time:sleep", [0.0, 600.0, 600.0], num_workers=2)
        with contextlib.closing(jobs):
            assert next(jobs) == (0, None)

    def test_counts_on_a_terminal_only(self, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        for stream, progress, is_shown in (
            (Terminal(), True, True),
            (Terminal(), False, False),
            (io.StringIO(), True, False),
        ):
            monkeypatch.setattr(sys, "stderr", stream)
            arguments = [1.0] * 3
            list(run_jobs("math:sqrt", arguments, progress=progress))
            assert ("3 of 3 videos, 0:00 min left" in stream.getvalue()) == (
                is_shown
            )
