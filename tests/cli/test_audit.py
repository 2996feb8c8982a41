"""The commands `audit` and `prepare`."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.data import files

ROOT = pathlib.Path(__file__).resolve().parents[2]
# As `python -m` does it, but without the seconds that TensorFlow takes to
# import: these commands do not need it.
BARE = """
import runpy, sys, types
package = types.ModuleType("keras_nonlocal")
package.__path__ = [sys.argv.pop(1)]
sys.modules["keras_nonlocal"] = package
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def command(name, *arguments, status=0):
    """Output of a command."""
    module = f"keras_nonlocal.cli.{name}"
    package = ROOT / "keras_nonlocal"
    result = subprocess.run(
        [sys.executable, "-c", BARE, package, module, *arguments],
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=100,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of two classes that is fine."""
    root = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(["jump", "run"]):
        files.write(root / name / f"{seed}.mp4", files.moving(seed))
    return root


@pytest.fixture
def leaking(folder, tmp_path):
    """Another, with a video of the first, and one that is broken."""
    root = tmp_path / "other"
    shutil.copytree(folder, root)
    files.write(root / "run" / "1.mp4", files.moving(7))
    name = os.fsdecode(b"a<b>\xff.mp4")
    (root / "run" / name).write_text("no video")
    return root


def test_audit_of_what_is_fine(folder, tmp_path):
    output = command("audit", f"--data={folder}", f"--out={tmp_path}")
    assert f"{folder.name}: 2 videos of 2 classes" in output
    assert "nothing was found to be wrong" in output
    assert str(tmp_path / "audit.html") in output


def test_audit_of_what_is_not(folder, leaking, tmp_path):
    output = command(
        "audit",
        f"--data=train={folder}",
        f"--data=test={leaking}",
        f"--out={tmp_path / 'out'}",
        "--clip=8x4",
        status=1,
    )
    assert "train: 2 videos of 2 classes" in output
    assert "test: 3 videos of 2 classes" in output
    assert f"1 leak, for example {leaking}/jump/0.mp4" in output
    assert rf"1 cannot be opened, for example {leaking}/run/a<b>\udcff" in (
        output
    )
    summary = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert summary["counts"] == {"error": 2, "warning": 0, "note": 0}
    page = (tmp_path / "out" / "audit.html").read_text()
    assert r"run/a&lt;b&gt;\udcff.mp4" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data must name a folder or list. Received: none"),
        (["--data=nowhere"], "nowhere"),
        (["--data=a=x/{0}", "--data=a=y"], "x/"),
        (["--data={0}", "--data={0}"], "must have a name for each split"),
        (["--data={0}", "--clip=8"], "like '32x2'. Received: '8'"),
        (["--data={0}", "--decode=some"], "--decode=some"),
        (["--data={0}", "more"], "unknown arguments: more"),
        (["--data={0}", "--format=coco"], "value should be one of <folder|"),
        (["--unknown"], "Unknown command line flag 'unknown'"),
    ],
)
def test_wrong_usage_of_audit(folder, tmp_path, arguments, message):
    arguments = [text.format(folder) for text in arguments]
    output = command("audit", *arguments, f"--out={tmp_path}", status=2)
    assert message in output


@pytest.fixture
def hmdb_list(tmp_path):
    """Options for a list of HMDB51 that needs a file of class names."""
    name = "x_kick_f_cm_np1_fr_med_1.avi"
    files.write(tmp_path / "videos" / "kick" / name, files.moving(0))
    (tmp_path / "list.txt").write_text(f"kick/{name} 9 0\n")
    return f"--data={tmp_path}/list.txt", f"--root={tmp_path}/videos"


def test_a_list_that_needs_more(hmdb_list, tmp_path):
    more = [f"--out={tmp_path / 'out'}", *hmdb_list]
    for name, status in ("audit", 2), ("prepare", 1):
        output = command(name, *more, status=status)
        assert "--data: `format` must be given" in output
        more.append("--format=hmdb51_list")
        output = command(name, *more, status=status)
        assert "missing a required argument: 'class_names'" in output
        more.pop()
    assert not (tmp_path / "out").exists()
    (tmp_path / "names.txt").write_text("jump\nkick\n")
    more += ["--format=hmdb51_list", f"--class_names={tmp_path}/names.txt"]
    output = command("audit", *more)
    assert "list.txt: 1 videos of 2 classes" in output


def test_prepare(leaking, tmp_path):
    out = tmp_path / "out"
    output = command(
        "prepare", f"--data={leaking}", f"--out={out}", "--gop=8", status=1
    )
    assert f"2 of 3 videos are in {out}" in output
    assert r"run/a<b>\udcff.mp4: cannot be prepared (" in output
    assert len(list(out.glob("*/*.mp4"))) == 2
    output = command("prepare", f"--data={out}", f"--out={out}", status=1)
    assert "`out` must be a folder that the videos are not in" in output
