"""Evaluation as a user runs it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ClipSpec
from keras_nonlocal import ResNet3D
from keras_nonlocal import export_saved_model
from keras_nonlocal import make_relation_dataset
from keras_nonlocal.data.synthetic import CLASS_NAMES
from keras_nonlocal.evaluation import score_files
from tests import checks
from tests.cli import usage

# Several uses in one process, which takes seconds to import all.
_SCRIPT = """
import json, sys
from absl import app
from absl.testing import flagsaver
from keras_nonlocal.cli import evaluate

for arguments in json.load(sys.stdin):
    with flagsaver.flagsaver():
        try:
            app.run(evaluate.main, ["evaluate", *arguments])
        except SystemExit as error:
            print("status", error.code, flush=True)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos, of which one is broken, and a network in three forms."""
    root = tmp_path_factory.mktemp("evaluate")
    make_relation_dataset(root, 2, 6, num_frames=20, size=40, progress=False)
    (root / "test" / "same_colour" / "text.mp4").write_text("not a video")
    variant = dataclasses.replace(
        VARIANTS["small_c2d"],
        width=4,
        num_frames=4,
        sampling_rate=2,
        crop_size=28,
    )
    model = ResNet3D(variant, classes=2, name="tiny")
    checks.randomize(model, scale=0.1)
    model.save(root / "tiny.keras")
    model.save_weights(root / "tiny.weights.h5")
    about = {
        "class_names": CLASS_NAMES,
        "clip": dataclasses.asdict(ClipSpec(4, 2)),
        "crop_size": 28,
        "short_side": 32,
    }
    export_saved_model(model, root / "tiny" / "saved_model", about)
    shutil.copytree(root / "tiny" / "saved_model", root / "other")
    about["class_names"] = ("no", "yes")
    file = root / "other" / "assets.extra" / "model.json"
    file.write_text(json.dumps(about))
    return root


@pytest.fixture(scope="module")
def output(root):
    """What it prints for each of its forms, and for all together."""
    forms = {
        "keras": f"--model={root / 'tiny.keras'}",
        "exported": f"--model={root / 'tiny' / 'saved_model'}",
        "weights": f"--weights={root / 'tiny.weights.h5'}",
    }
    uses = [
        [
            f"--data={root / 'test'}",
            form,
            f"--out={root / name}",
            "--protocol=caffe2",
        ]
        for name, form in forms.items()
    ]
    scores = [str(root / name / "scores.npz") for name in forms]
    uses.append(
        [
            f"--ensemble={','.join(scores)}",
            "--ensemble_weights=1,2,3",
            f"--out={root / 'ensemble'}",
            "--name=all",
        ]
    )
    # Once more, from the scores that are there.
    uses.append([*uses[0], "--batch_size=1"])
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps(uses),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        timeout=300,
    )
    assert result.stdout.count("status None") == len(uses), result.stdout
    return result.stdout


@pytest.mark.parametrize("name", ["keras", "exported", "weights"])
def test_leaves_figures_scores_and_a_page(root, output, name):
    content = json.loads((root / name / "evaluation.json").read_text())
    assert content["tested"] == 6 and content["skipped"] == 1
    assert list(content["settings"]) == ["1 clip", "10 clips", "10x3 views"]
    # Sizes for training crops of 28 pixels, as 256 are for 224.
    protocol = content["protocol"]
    assert (protocol["name"], protocol["short_side"]) == ("caffe2", 32)
    clip = content["clip"]
    assert (clip["num_frames"], clip["sampling_rate"]) == (4, 2)
    assert content["dataset"] == "test"
    figures = content["settings"]["10x3 views"]
    result = score_files.load(root / name / "scores.npz")
    assert result.figures() == figures
    page = (root / name / "index.html").read_text()
    assert f"{figures['top1']:.1%}" in page and "text.mp4" in page
    assert f"top-1 {figures['top1']:.1%}" in output
    assert "Could not be read: 1" in output


def test_all_forms_give_the_same(root, output):
    first, *others = (
        score_files.load(root / name / "scores.npz").scores["10x3 views"]
        for name in ("keras", "exported", "weights", "ensemble")
    )
    for scores in others:
        np.testing.assert_allclose(scores, first, atol=1e-5)


def test_ensemble_needs_no_model(root, output):
    content = json.loads((root / "ensemble" / "evaluation.json").read_text())
    assert content["name"] == "all" and content["tested"] == 6
    weights = [member["weight"] for member in content["members"]]
    assert weights == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    assert content["skipped_videos"][0]["path"].endswith("text.mp4")


def test_goes_on_from_its_scores(root, output):
    assert output.count("7 videos, clips 4x2") == 4
    # No bar the last time but for the file that could not be read.
    assert output.count("7/7") == 3 and output.count("1/1\x1b") == 1


def test_says_what_is_wrong(root, tmp_path):
    (tmp_path / "scores.npz").write_text("none")
    data, model = f"--data={root / 'test'}", f"--model={root / 'tiny.keras'}"
    weights = f"--weights={root / 'tiny.weights.h5'}"
    scores = tmp_path / "scores.npz"
    out = f"--out={tmp_path}"
    uses = {
        (): "--data must name a folder or list",
        (data,): "give either --model or --weights",
        (data, model, weights): "give either --model or --weights",
        (data, f"--model={root / 'absent'}"): "must be a .keras file or the",
        (data, f"--model={root}"): "export_saved_model",
        (data, f"--model={root / 'other'}"): "the model's classes, ('no', 'y",
        (data, weights, "--variant=x"): "--variant must be one of c2d_r50,",
        (data, "--weights=absent"): "no such entry",
        (data, "--weights=resnet50_v1"): "no such entry",
        (data, model, out): "it must be a file of scores",
        (data, model, "--clip=8"): "'32x2'. Received: '8'",
        (data, weights, "--fps=-1"): "--fps=-1",
        (data, model, "--crop_size=64"): "at most the short side, 32",
        (data, model, "--protocol=30"): "--protocol=30",
        (data, model, "--outputs=logit", "--noresume"): "None or 'softmax'",
        (data, model, "--max_skipped=0"): "`max_share` must be above 0",
        (data, model, "more"): "unknown arguments: more",
        (data, f"--ensemble={scores}"): "--ensemble takes neither",
        (f"--ensemble={scores}", out): "--out must be another folder",
        (f"--ensemble={scores}",): "scores.npz: it must be a file of scores",
        (f"--ensemble={scores}", "--ensemble_weights=a"): "_weights: could",
    }
    home = f"--out={tmp_path / 'out'}"
    usage.check_refused(
        "evaluate",
        {
            arguments if out in arguments else (*arguments, home): message
            for arguments, message in uses.items()
        },
    )
