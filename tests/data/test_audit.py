import collections
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest

from keras_nonlocal.data import audit as audit_module
from keras_nonlocal.data.audit import audit
from keras_nonlocal.data.auditing.video import inspect
from keras_nonlocal.data.videos import VideoList
from tests.data import files

ROOT = pathlib.Path(__file__).resolve().parents[2]
# For what must not take any time, on a machine with much else to do.
SOON = 10.0
# They end too early, and decoders do not mind.
SILENT = {"made/truncated_50pct.avi", "made/truncated_50pct.mkv"}
# In a process of its own, without the seconds that TensorFlow takes to import.
SCRIPT = """
import sys, types
root, out, *paths = sys.argv[1:]
sys.path.insert(0, root)
package = types.ModuleType("keras_nonlocal")
package.__path__ = [root + "/keras_nonlocal"]
sys.modules["keras_nonlocal"] = package
from keras_nonlocal.data import audit
from keras_nonlocal.data.videos import VideoList
audit._VIDEO = "tests.data.job_targets"
videos = VideoList(paths, [0] * len(paths), ("run",))
audit.audit({"train": videos}, out, num_workers=1)
"""


def listed(paths, labels=None, **fields):
    paths = [os.fspath(path) for path in paths]
    labels = np.zeros(len(paths), int) if labels is None else labels
    return VideoList(paths, labels, ("jump", "run"), **fields)


def found(result, root):
    """Severity, kind and file name of each finding."""
    return {
        (x.severity, x.kind, x.where.removeprefix(f"{root}/"))
        for x in result.findings
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Four videos that nothing is wrong with."""
    root = tmp_path_factory.mktemp("good")
    return [
        files.write(root / f"{seed}.mp4", files.moving(seed))
        for seed in range(4)
    ]


def test_nothing_is_found_where_all_is_well(good, tmp_path):
    splits = {
        "train": listed(good[:2], [0, 1]),
        "test": listed(good[2:], [0, 1]),
    }
    result = audit(splits, tmp_path, num_workers=2)
    assert result.findings == ()
    facts = result.videos[str(good[0])]
    assert (facts.num_frames, facts.height, facts.width) == (64, 32, 32)
    assert facts.seconds == pytest.approx(64 / 25)
    assert facts.size == good[0].stat().st_size
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["counts"] == {"error": 0, "warning": 0, "note": 0}
    assert summary["splits"]["test"]["classes"] == {"jump": 1, "run": 1}
    assert summary["videos"][str(good[0])]["sha256"] == facts.sha256
    page = (tmp_path / "audit.html").read_text()
    assert page.count("data:image/jpeg") == 4
    assert {path.name for path in tmp_path.iterdir()} == {
        "audit.json",
        "audit.html",
        "audit.jsonl",
    }


def test_every_fault_is_found(good, tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    for number, path in enumerate(good):
        shutil.copy(path, train / f"good{number}.mp4")
    frames = files.moving(10)
    (train / "garbage.mp4").write_bytes(bytes(range(256)) * 8)
    (train / "empty.mp4").touch()
    os.mkfifo(train / "pipe.mp4")
    with wave.open(str(train / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    files.damage(good[0], train / "damaged.mp4")
    avi = files.write(tmp_path / "all.avi", files.moving(11), "mpeg4")
    files.cut(avi, train / "cut.avi", 0.8)
    mkv = files.write(tmp_path / "all.mkv", files.moving(12), bf="0")
    files.cut(mkv, train / "cut.mkv", 0.5)
    mp4 = files.write(tmp_path / "all.mp4", files.moving(13))
    files.cut(mp4, train / "cut.mp4", 0.7)
    shutil.copy(good[1], train / "same_file.mp4")
    larger = files.moving(2).repeat(2, 1).repeat(2, 2)
    files.write(train / "same_pictures.avi", larger, "mpeg4", b="300k")
    shutil.copy(good[3], test / "same_in_test.mp4")
    files.write(train / "short.mp4", files.moving(14, num_frames=10))
    upright = files.write(tmp_path / "upright.mp4", files.moving(15))
    files.turn(upright, train / "turned.mp4")
    ticks = np.arange(64) * 40 + 100 * (np.arange(64) > 30)
    files.write(train / "uneven.mp4", files.moving(16), ticks=ticks)
    files.write(train / "untimed.avi", files.moving(17), bf="2")
    files.write(train / "blank.mp4", np.full_like(frames, 90))
    files.write_folder(train / "pictures", files.moving(18))
    gap = files.write_folder(train / "gap", files.moving(19, num_frames=3))
    (gap / "img_00002.png").unlink()
    paths = [*sorted(train.iterdir()), train / "nowhere.mp4"]
    splits = {
        "train": listed(paths),
        "test": listed(test.iterdir(), [1]),
    }
    result = audit(splits, num_workers=2)
    assert found(result, tmp_path) == {
        ("error", "cannot be opened", "train/gap"),
        ("error", "cannot be opened", "train/garbage.mp4"),
        ("error", "decoding fails", "train/cut.mp4"),
        ("error", "decoding fails", "train/damaged.mp4"),
        ("error", "empty file", "train/empty.mp4"),
        ("error", "leak", "test/same_in_test.mp4"),
        ("error", "missing file", "train/nowhere.mp4"),
        ("error", "no regular file", "train/pipe.mp4"),
        ("error", "no video stream", "train/sound.mp4"),
        ("error", "truncated", "train/cut.avi"),
        ("error", "truncated", "train/cut.mkv"),
        ("warning", "blank", "train/blank.mp4"),
        ("warning", "class without videos", "test"),
        ("warning", "class without videos", "train"),
        ("warning", "duplicate file", "train/same_file.mp4"),
        ("warning", "duplicate pictures", "train/same_pictures.avi"),
        ("warning", "short", "train/short.mp4"),
        ("note", "no usable times", "train/untimed.avi"),
        ("note", "rotated", "train/turned.mp4"),
        ("note", "variable frame rate", "train/uneven.mp4"),
    }


@pytest.mark.parametrize("decode", ["ends", "headers"])
def test_less_can_be_decoded(good, tmp_path, decode):
    """At the ends broken files are found; the headers promise too much."""
    whole = files.write(tmp_path / "all.mp4", files.moving(20))
    files.cut(whole, tmp_path / "cut.mp4", 0.7)
    videos = listed([good[0], tmp_path / "cut.mp4"], [0, 1])
    result = audit({"train": videos}, decode=decode, clip="8x1")
    kind = {"ends": "decoding fails", "headers": "truncated"}[decode]
    assert found(result, tmp_path) == {("error", kind, "cut.mp4")}


def test_awkward_files(shared):
    """Errors are those of the manifest, and those that no decoder notices."""
    folder = shared / "data" / "awkward"
    with open(folder / "manifest.csv", newline="") as file:
        # Of the others, those that are quick to decode.
        rows = [
            row
            for row in csv.DictReader(file)
            if row["decode_error"]
            or row["file"] in SILENT
            or int(row["bytes"]) < 50_000
        ]
    paths = [str(folder / row["file"]) for row in rows]
    result = audit({"all": listed(paths)})
    by_kind = collections.defaultdict(set)
    for path, facts in result.videos.items():
        name = path.removeprefix(f"{folder}/")
        by_kind[facts.fault].add(name)
    assert by_kind["decoding fails"] == {
        row["file"] for row in rows if row["decode_error"]
    }
    unopened = {row["file"] for row in rows if row["open_error"]}
    assert by_kind["cannot be opened"] | by_kind["empty file"] == unopened
    assert by_kind["truncated"] == SILENT
    assert set(by_kind) == {
        "",
        "cannot be opened",
        "decoding fails",
        "empty file",
        "truncated",
    }


class TestJobs:
    """With stand-ins for files that hang and crash."""

    @pytest.fixture(autouse=True)
    def stand_ins(self, monkeypatch):
        monkeypatch.setattr(audit_module, "_VIDEO", "tests.data.job_targets")

    @staticmethod
    def calls(folder):
        """How often each file was looked at."""
        return collections.Counter((folder / "log").read_text().splitlines())

    def test_hang_and_crash(self, tmp_path):
        names = ["crash", "disk", "fine", "hang", "odd"]
        videos = listed([tmp_path / name for name in names], [0, 0, 0, 1, 1])
        splits, out = {"train": videos}, tmp_path / "out"
        expected = {
            ("error", "cannot be read", "disk"),
            ("error", "decoder crashes", "crash"),
            ("error", "decoder crashes", "odd"),
            ("error", "time limit", "hang"),
        }
        for name in names:
            (tmp_path / name).touch()
        result = audit(splits, out, time_limit=0.5)
        assert found(result, tmp_path) == expected
        details = " ".join(x.detail for x in result.findings)
        assert "SIGABRT" in details and "KeyError" in details
        assert "Input/output error" in details
        # It hangs in the same time again, and perhaps not in a longer one. The
        # memory that lacked and the disk may be there now.
        for seconds, counts in (0.5, [2, 2, 1, 1, 1]), (0.8, [3, 3, 1, 2, 1]):
            result = audit(splits, out, time_limit=seconds)
            assert found(result, tmp_path) == expected
            calls = self.calls(tmp_path)
            assert [calls[path] for path in videos.paths] == counts

    def test_only_changed_files_are_looked_at_again(self, tmp_path):
        paths = [tmp_path / "a", tmp_path / "b"]
        for path in paths:
            path.touch()
        splits, out = {"train": listed(paths, [0, 1])}, tmp_path / "out"
        audit(splits, out)
        paths[1].write_text("longer")
        audit(splits, out)
        assert self.calls(tmp_path) == {str(paths[0]): 1, str(paths[1]): 2}
        audit(splits, out, resume=False)
        assert self.calls(tmp_path) == {str(paths[0]): 2, str(paths[1]): 3}

    def test_pictures_that_were_written_anew(self, tmp_path):
        folder = files.write_folder(tmp_path / "in", files.moving(0, 3))
        splits, out = {"train": listed([folder])}, tmp_path / "out"
        before = folder.stat().st_mtime_ns
        audit(splits, out)
        with open(folder / "img_00002.png", "ab") as file:
            file.write(b"more")
        assert folder.stat().st_mtime_ns == before
        audit(splits, out)
        audit(splits, out)
        assert self.calls(tmp_path) == {str(folder): 2}

    def start(self, tmp_path, names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.touch()
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, ROOT, tmp_path / "out", *paths],
            stderr=subprocess.PIPE,
        )
        return process, listed(paths)

    def wait_for(self, path, lines, process):
        end = time.monotonic() + SOON
        while not path.exists() or len(path.read_bytes().split(b"\n")) < lines:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)

    def test_goes_on_after_a_kill(self, tmp_path):
        process, videos = self.start(tmp_path, [str(i) for i in range(16)])
        with process:
            journal = tmp_path / "out" / "audit.jsonl"
            self.wait_for(journal, 5, process)
            process.kill()
        done = journal.read_bytes().count(b"\n")
        assert 4 <= done < 16
        # As if it had been killed in the middle of a line.
        with open(journal, "ab") as file:
            file.write(b'[["/torn')
        result = audit({"train": videos}, tmp_path / "out")
        assert len(result.videos) == 16
        calls = self.calls(tmp_path)
        assert len(calls) == 16
        # Finished, but not noted down: one, and the one after it.
        assert calls.total() <= 16 + 2

    def test_ends_with_ctrl_c(self, tmp_path):
        process, _ = self.start(tmp_path, ["hang"])
        with process:
            self.wait_for(tmp_path / "log", 2, process)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert time.monotonic() - begin < SOON
        assert process.returncode and b"KeyboardInterrupt" in errors


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx")]
)
def test_the_last_second_is_missing(tmp_path, name, codec):
    frames = files.moving(0, num_frames=125)
    whole = files.write(tmp_path / name, frames, codec, g="10")
    cut = tmp_path / f"cut_{name}"
    files.cut(whole, cut, 0.85)
    assert inspect((str(whole), "headers")).fault == ""
    facts = inspect((str(cut), "headers"))
    assert facts.fault == "truncated" and facts.num_frames > 90
    # By their size only: nothing else says how long such a file should be.
    content = bytearray(whole.read_bytes())
    place = content.index(b"\x44\x89\x88")  # Duration: a float64 follows.
    content[place : place + 11] = b"\xec\x89" + bytes(9)
    whole.write_bytes(content)
    assert inspect((str(whole), "headers")).fault == ""
    files.cut(whole, cut, 0.85)
    facts = inspect((str(cut), "headers"))
    size = cut.stat().st_size
    assert facts.detail.startswith(f"{size} of {len(content)} bytes")


def test_a_tail_of_zeros(tmp_path):
    """As a download leaves it that was given its full size first."""
    frames = files.moving(0, num_frames=125)
    path = files.write(tmp_path / "a.mkv", frames, g="10")
    content = path.read_bytes()
    kept = len(content) * 4 // 5
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    facts = inspect((str(path), "headers"))
    assert facts.fault == "truncated"
    assert "s that its header promises" in facts.detail


def test_a_disk_that_fails():
    with pytest.raises(OSError):
        inspect(("/proc/self/mem", "all"))


def test_an_empty_list(tmp_path):
    result = audit({"train": listed([])}, tmp_path)
    assert found(result, tmp_path) == {
        ("warning", "class without videos", "train")
    }


@pytest.mark.parametrize(
    ("splits", "arguments", "message"),
    [
        ({}, {}, "`splits` must be one or more lists. Received: none"),
        ({"a": listed([])}, {"decode": "some"}, "`decode` must be one of"),
        ({"a": listed([])}, {"clip": "x"}, "frames and sampling rate"),
    ],
)
def test_arguments(splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        audit(splits, **arguments)
