"""Recipes as a user trains and tests them."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_nonlocal import make_relation_dataset
from keras_nonlocal.export.saved_model import read_about
from tests.cli import usage

_RECIPE = (
    pathlib.Path(__file__).resolve().parents[2]
    / "zoo/configs/folder/folder_small_nl_c2d_8x8.py"
)
# Two uses in one process, which takes seconds to import all: the recipe, and
# the same again after its last epoch was lost.
_SCRIPT = """
import os, shutil, sys
from absl import app
from absl.testing import flagsaver
from keras_nonlocal.cli import train

recipe, root = sys.argv[1:]

def fit(out):
    arguments = [f"--config={recipe}", "--smoke", f"--data={root}/train",
                 f"--validation={root}/test", f"--out={root}/{out}",
                 "--set=steps=4", "--set=steps_per_epoch=2"]
    with flagsaver.flagsaver():
        try:
            app.run(train.main, ["train", *arguments])
        except SystemExit as error:
            assert not error.code, error.code

fit("whole")
shutil.copytree(f"{root}/whole", f"{root}/broken")
os.remove(f"{root}/broken/states/state-000002.npz")
os.remove(f"{root}/broken/model.keras")
fit("broken")
"""


def run_python(*arguments):
    """What it prints."""
    result = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of runs, and what was printed."""
    root = tmp_path_factory.mktemp("train")
    make_relation_dataset(root, 6, 4, num_frames=16, size=40, progress=False)
    return root, run_python("-c", _SCRIPT, str(_RECIPE), str(root))


def history(run):
    with open(run / "history.csv") as file:
        return list(csv.DictReader(file))


def test_a_recipe_leaves_a_run(runs):
    root, output = runs
    run = root / "whole"
    about = json.loads((run / "config.json").read_text())
    assert about["name"] == "folder_small_nl_c2d_8x8_smoke"
    assert about["config"]["steps"] == 4
    assert about["starts"][0]["versions"]["keras"] == keras.__version__
    assert len(history(run)) == 2
    assert "Training is over" in (run / "index.html").read_text()
    exported = read_about(run / "saved_model")
    assert exported["class_names"] == ["different_colour", "same_colour"]
    assert "The report:" in output


def test_a_run_that_was_broken_off_goes_on(runs):
    """The two do not differ in a bit of the losses."""
    root, output = runs
    whole, broken = history(root / "whole"), history(root / "broken")
    assert whole == broken
    starts = json.loads((root / "broken" / "config.json").read_text())["starts"]
    assert len(starts) == 2
    assert "goes on after epoch 1" in output


def test_a_recipe_says_how_it_is_tested(runs):
    root, _ = runs
    # As the recipe's file has it.
    run_python(
        "-m",
        "keras_nonlocal.cli.evaluate",
        f"--config={_RECIPE}",
        f"--data={root / 'test'}",
        f"--model={root / 'whole' / 'saved_model'}",
    )
    path = root / "whole" / "test" / "evaluation.json"
    tested = json.loads(path.read_text())
    assert tested["name"] == "folder_small_nl_c2d_8x8"
    assert tested["dataset"] == "folder"
    assert tested["protocol"]["name"] == "paper"
    about = json.loads((root / "whole" / "config.json").read_text())
    trained = about["config"]["clip"]
    assert tested["clip"]["num_frames"] == trained["num_frames"]
    assert tested["tested"] == 4


def test_wrong_uses_are_errors_of_usage(tmp_path):
    text = tmp_path / "text.py"
    text.write_text("nothing = 1")
    (tmp_path / "videos").mkdir()
    data = f"--data={tmp_path / 'videos'}"
    usage.check_refused(
        "train",
        {
            (data, f"--config={text}"): "get_config",
            (data, "--smoke"): "give --config",
            (data, f"--config={_RECIPE}", "--variants=small_c2d"): "omit",
            (data, "--set=rate=1"): "learning_rate",
            (data, "--set=ema=2"): "`ema` must be a share",
        },
    )
