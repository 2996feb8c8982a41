"""Detectors as a user trains, tests and uses them."""

import json

import pytest
import tensorflow as tf

from tests.cli import usage
from tests.training.detector_images import write_images

_RECIPE = """
from keras_nonlocal.training.detector_recipes import coco

def get_config(smoke=False):
    recipe = coco("mine", "r50", nonlocal_blocks=1)
    return recipe.smoke() if smoke else recipe
"""
_VIDEO_RECIPE = """
from keras_nonlocal.training.recipes import kinetics400

def get_config(smoke=False):
    return kinetics400("mine", "c2d_r50")
"""
# Tracing takes longer than a few steps.
_STEP_BY_STEP = "import tensorflow as tf; tf.config.run_functions_eagerly(True)"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a data set, recipes and files that are none."""
    root = tmp_path_factory.mktemp("detect")
    write_images(root / "images", count=3)
    write_images(root / "one", count=1)
    (root / "recipe.py").write_text(_RECIPE)
    (root / "video.py").write_text(_VIDEO_RECIPE)
    (root / "bad.jpg").write_bytes(b"no picture")
    (root / "text.json").write_text("no json")
    first = (root / "images" / "001.png").read_bytes()
    (root / "other").mkdir()
    (root / "other" / "001.png").write_bytes(first)
    return root


def right(root):
    """A training, a test of what it leaves, and its use."""
    data = [f"--annotations={root}/images.json", f"--images={root}/images"]
    return [
        [
            "train",
            *data,
            f"--recipe={root}/recipe.py",
            "--smoke",
            f"--out={root}/run",
            "--held_out=0.34",
            "--short_side=48",
            "--set=clip_norm=5.0",
        ],
        ["evaluate", *data, f"--model={root}/run", "--limit=1"],
        [
            "predict",
            f"--model={root}/run/model.keras",
            f"--out={root}/found",
            "--threshold=0",
            f"{root}/images/001.png",
            f"{root}/bad.jpg",
            f"{root}/other/001.png",
        ],
    ]


def wrong(root):
    """By uses, a part of what is said of them."""
    data = (f"--annotations={root}/one.json", f"--images={root}/one")
    text, video = f"{root}/text.json", f"{root}/video.py"
    test = (f"--test_annotations={root}/one.json",)
    return {
        (): "the first argument must be one of train, evaluate, predict",
        ("detect",): "Received: detect",
        ("train", "x", *data): "unknown arguments: x",
        ("train",): "--annotations must name a json file and --images",
        ("train", f"--annotations={text}", "--images=."): "--annotations: ",
        ("train", *data): "--held_out must leave images to train and to test",
        ("train", "--model=r50", *data): "--model must be one of mask_rcnn_r50",
        ("train", "--smoke", *data): "--smoke tries a recipe",
        ("train", f"--recipe={video}", *data): (
            "that gives a DetectorRecipe. Received: one that gives Recipe"
        ),
        # These weights take the place of the recipe's ImageNet weights.
        ("train", f"--recipe={root}/recipe.py", "--weights=x", *test, *data): (
            "--annotations must have the recipe's 80 classes. Received: 2"
        ),
        ("train", "--short_side=big", *data): "--short_side must be pixels",
        ("train", "--set=batch_size=0", *data): "`batch_size` must be",
        ("train", "--epochs=2", "--set=steps=9", *data): (
            "give either --epochs or --set=steps"
        ),
        ("train", "--test_images=.", *data): (
            "--test_images are of --test_annotations"
        ),
        ("train", f"--test_annotations={text}", "--held_out=0.5", *data): (
            "give either --held_out or --test_annotations"
        ),
        ("train", "--weights=imagenet", *data): "--weights, without --model: ",
        ("train", "--set=clip=3", *data): "--set must be NAME=VALUE",
        ("train", "--threshold=0.3", *data): (
            "--threshold is of predict, train has none"
        ),
        ("evaluate", *data): "--model must be the folder of a run",
        ("evaluate", "--model=nothing", *data): "Received: nothing",
        ("predict", "--model=nothing"): "name one or more images",
        ("predict", "--epochs=3", "a.jpg"): "--epochs is of train",
    }


@pytest.fixture(scope="module")
def said(root):
    """Status and output of every use."""
    uses = [*right(root), *wrong(root)]
    return usage.run("detect", uses, prepare=_STEP_BY_STEP)


def test_train_follows_recipe_and_flags(root, said):
    status, output = said[0]
    assert status == 0, output
    assert "mine_smoke: 2 images with objects of 2 classes" in output
    about = json.loads((root / "run" / "config.json").read_text())
    assert about["name"] == "mine_smoke"
    config = about["config"]
    assert config["clip_norm"] == 5.0 and config["steps"] == 2
    assert config["short_side"] == [48] and config["test_short_side"] == 48
    assert f"The report: {root}/run/index.html" in output


def test_evaluate_knows_the_sizes_of_the_run(root, said):
    status, output = said[1]
    assert status == 0, output
    left = root / "run" / "evaluation"
    metrics = json.loads((left / "metrics.json").read_text())
    assert metrics["name"] == "mine_smoke"
    assert metrics["images"] == 1
    assert metrics["about"]["short_side"] == 48
    assert "  boxes  AP " in output and "  masks  AP " in output
    assert f"The report: {left}/index.html" in output
    # That of training, of images held out, is left alone.
    about = json.loads((root / "run" / "test" / "metrics.json").read_text())
    assert about["images"] == 1 and about["about"]["batch_size"] == 1


def test_predict_draws_describes_and_names_what_it_cannot_read(root, said):
    status, output = said[2]
    assert status == 1, output  # One image could not be read.
    found = json.loads((root / "found" / "objects.json").read_text())
    one, other = found["images"]
    assert (one["picture"], other["picture"]) == ("001.jpg", "001_2.jpg")
    assert (one["height"], one["width"]) == (64, 80)
    assert one["objects"] == other["objects"]
    for thing in one["objects"]:
        assert thing["class"] in ("bright", "dark")
        assert thing["segmentation"]["size"] == [64, 80]
        left, top, right, bottom = thing["box"]
        assert 0 <= left <= right <= 80 and 0 <= top <= bottom <= 64
    for name in ("001.jpg", "001_2.jpg"):
        picture = tf.io.decode_jpeg((root / "found" / name).read_bytes())
        assert picture.shape[2] == 3
    assert f"{root}/bad.jpg\n  cannot be read: " in output


def test_wrong_uses_are_refused_in_a_sentence(root, said):
    usage.check_said(wrong(root), said[3:])
