import json
import os
import pathlib
import time

import numpy as np
import pytest

from benchmarks import harness
from benchmarks import worker
from benchmarks.harness import Case
from benchmarks.harness import Settings
from benchmarks.harness import Side

HERE = "tests.benchmarks.test_harness"
SETTINGS = Settings(seconds=0.1, rounds=(3, 3), limit=20)


# Sides, called in processes of their own.


def note(path, letter, value=1.0):
    """Appends a letter to a file at every call."""

    def work():
        with open(path, "a") as file:
            file.write(letter)
        return np.full(3, value)

    return work


def fail():
    raise ValueError("no such thing")


def need():
    raise ImportError("nothing here")


def die():
    return lambda: os._exit(3)


def tire():
    """Warms up, and then takes long."""
    naps = [0, 0, 60]
    return lambda: time.sleep(naps.pop(0))


def fill(megabytes):
    return lambda: np.ones(megabytes * 2**20, "uint8")


def environment():
    return dict(os.environ)


def side(name, function, **arguments):
    return Side(name, f"{HERE}:{function}", arguments, flops=1e6)


def last(cases, settings=SETTINGS, peaks=None):
    *_, rows = harness.run(cases, settings, peaks or {}, progress=lambda _: 0)
    return rows


def test_sides_take_turns_and_failures_are_noted(tmp_path):
    path = str(tmp_path / "calls")
    sides = (
        side("A", "note", path=path, letter="A"),
        side("broken", "fail"),
        side("B", "note", path=path, letter="B"),
        side("missing", "need"),
        side("dead", "die"),
        side("other", "note", path=path, letter="C", value=2.0),
        Side("large", "", skip=("does not fit", "too large")),
    )
    case = Case("toy", {"n": 1}, sides, ("A",), None, tolerance=1e-3)
    (row,) = last([case], peaks={"float32": 1e9})
    json.dumps(row)  # All of it can be written.
    calls = pathlib.Path(path).read_text()
    # Two calls each to warm up; a side with other results takes no part.
    assert calls == "AABBCC" + "AB" * 3
    found = {s["name"]: (s["status"], s["reason"]) for s in row["sides"]}
    assert found["A"] == found["B"] == ("ok", "")
    assert found["broken"] == ("failed", "ValueError: no such thing")
    assert found["missing"] == ("not installed", "nothing here")
    assert found["dead"][0] == "failed" and "with 3" in found["dead"][1]
    assert found["other"][0] == "failed" and "off by 1" in found["other"][1]
    assert found["large"] == ("does not fit", "too large")
    a, _, b, *_ = row["sides"]
    assert len(a["seconds"]) == len(b["seconds"]) == row["rounds"] == 3
    assert a["speed_over"]["A"] == [1, 1, 1]
    ratios = np.array(a["seconds"]) / b["seconds"]
    assert b["speed_over"]["A"] == [
        np.median(ratios),
        min(ratios),
        max(ratios),
    ]
    assert a["fraction_of_peak"] == pytest.approx(1e-3 / a["median"])
    assert b["quartiles"][0] <= b["median"] <= b["quartiles"][1]


def test_time_is_limited_and_memory_is_of_one_call():
    sides = (
        side("small", "fill", megabytes=8),
        side("endless", "tire"),
        side("double", "fill", megabytes=16),
    )
    case = Case("toy", {}, sides, ("small",), "all")
    settings = Settings(seconds=0.01, rounds=(1, 1), limit=1)
    (row,) = last([case], settings)
    small, endless, double = row["sides"]
    assert endless["status"] == "out of time"
    assert endless["reason"] == "work: no answer in 1 s"
    assert endless["extra_bytes"] is None
    assert small["extra_bytes"] / 2**20 == pytest.approx(8, abs=1)
    assert double["extra_bytes"] / 2**20 == pytest.approx(16, abs=1)


def test_all_sides_have_one_environment(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    found = harness.prepare(f"{HERE}:environment", {})
    assert found["GLIBC_TUNABLES"] == harness.KEEP
    assert found["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] == "1"
    assert "OMP_WAIT_POLICY" not in found
    assert "TF_ENABLE_ONEDNN_OPTS" not in found
    with pytest.raises(harness.SideError, match="no such thing"):
        harness.prepare(f"{HERE}:fail", {})


def test_samples_are_of_the_same_places():
    x = np.arange(10_000.0).reshape(100, 100)
    (found,) = worker.sample(x)
    assert len(found) >= 2048
    np.testing.assert_array_equal(found[:3], [0, 4, 8])
    assert len(worker.sample([x, x, 1.0])) == 3


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "results" / "a.json"
    harness.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        harness.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(path.parent) == ["a.json"]
