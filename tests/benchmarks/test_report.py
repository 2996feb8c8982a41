import copy
import json
import pathlib

import pytest

from benchmarks import operation
from benchmarks import report

RESULTS = pathlib.Path(report.__file__).resolve().parent / "results"


def a_side(name, seconds, extra=None):
    return {
        "name": name,
        "status": "ok",
        "reason": "",
        "flops": 1e9,
        "dtype": "float32",
        "seconds": [seconds] * 3,
        "processor_seconds": [2 * seconds] * 3,
        "median": seconds,
        "quartiles": [seconds, seconds],
        "fraction_of_peak": 0.25,
        "extra_bytes": extra,
        "speed_over": {},
    }


def a_case(mode, queries, keys, sides):
    return {
        "name": operation.name_of(mode, queries, keys, True),
        "about": {
            "mode": mode,
            "queries": queries,
            "keys": keys,
            "backward": True,
        },
        "peers": ["Keras plain"],
        "rounds": 3,
        "memory_returned_after_each_call": False,
        "sides": sides,
    }


@pytest.fixture
def results():
    failed = {**a_side("torch plain", 1.0), "status": "failed"}
    failed["reason"] = "it broke"
    cases = [
        a_case(
            "dot_product",
            n,
            n // 4,
            [
                a_side("Keras plain", n**2 * 1e-9, 100 * n),
                failed,
                a_side("ours auto", n * 1e-6, 5 * n),
                a_side("ours plain", n**2 * 1e-9, 90 * n),
                a_side("ours reassociated", n * 0.8e-6, 5 * n),
            ],
        )
        for n in (3136, 12544, 50176, 200704)
    ]
    machine = {
        "processor": "Some CPU",
        "cores": 2,
        "memory_bytes": 16e9,
        "packages": {"torch": None, "keras": "3.0"},
    }
    result = {
        "section": "operation",
        "date": "2026-01-02",
        "quick": False,
        "complete": True,
        "machine": machine,
        "peaks": {"float32": 1e11},
        "cases": cases,
    }
    return {"operation_some-cpu": result}


def test_page_has_the_figures(results):
    text = report.render(results)
    assert "| 12544x3136 | f+b | 157; 1 MB (25%) | failed |" in text
    assert "keras 3.0" in text and "torch not installed" in text
    assert "- failed: it broke (dot_product 3136x784" in text
    aim = "| dot_product 12544x3136 | forward+backward over Keras plain "
    assert f"{aim}| at least 12 | 12.54 | yes |" in text
    assert "| its extra memory / Keras plain's | at most 0.1 | 0.05 |" in text
    assert "| worst auto / best forced | at most 1.15 | 1.25 | no |" in text
    assert "Keras plain forward+backward 2.00 (memory 1.00)" in text
    assert (
        "| OpenVINO float32 | ours over PyTorch's export | at least 0.95 "
        in (text)
    )
    assert "not measured" in text


def test_unfinished_and_trial_runs_say_so(results):
    results = copy.deepcopy(results)
    results["operation_some-cpu"].update(quick=True, complete=False)
    text = report.render(results)
    assert "a trial" in text and "not finished" in text


def test_everything_is_written(results, tmp_path):
    pytest.importorskip("matplotlib")
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    page, picture = report.write(tmp_path)
    assert page.read_text() == report.render(results)
    assert picture.stat().st_size > 10_000
    assert report.write(tmp_path / "nothing") == []


def test_page_of_results_is_of_its_files():
    results = report.load(RESULTS)
    if not results:
        pytest.skip("nothing has been measured yet: make benchmark")
    assert (RESULTS / "README.md").read_text() == report.render(results)
