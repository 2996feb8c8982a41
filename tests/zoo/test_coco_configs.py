"""Every recipe for COCO is what its file says, fits its weights, and runs."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.detection.mask_rcnn import LOSSES
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.training.detector_fit import train_detector
from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.recipes import load_recipe
from keras_nonlocal.weights.catalogue import CATALOGUE
from tests.training.detector_images import write_images
from zoo.readme import ZOO
from zoo.readme import recipes

OF_IMAGES = {
    file: recipe
    for file, recipe in recipes().items()
    if isinstance(recipe, DetectorRecipe)
}
RECIPES = {recipe.name: recipe for recipe in OF_IMAGES.values()}
FILES = {file.stem: file for file in OF_IMAGES}
each_recipe = pytest.mark.parametrize("name", FILES)

# Table 5 of the paper, typed off once more: box AP, AP50, AP75, mask AP, ...
TABLE_5 = {
    "mask_rcnn_r50": (38.0, 59.6, 41.0, 34.6, 56.4, 36.5),
    "nl_mask_rcnn_r50": (39.0, 61.1, 41.9, 35.5, 58.0, 37.4),
    "mask_rcnn_r101": (39.5, 61.4, 42.9, 36.0, 58.1, 38.3),
    "nl_mask_rcnn_r101": (40.8, 63.1, 44.5, 37.1, 59.9, 39.2),
    "mask_rcnn_x152": (44.1, 66.4, 48.4, 39.7, 63.2, 42.2),
    "nl_mask_rcnn_x152": (45.0, 67.8, 48.9, 40.3, 64.4, 42.8),
}


def row(name):
    """The name of the row that a recipe is of."""
    return name.rpartition("_")[0]


def test_every_row_has_both_schedules():
    names = {f"{row}_{length}" for row in TABLE_5 for length in ("1x", "3x")}
    assert names == set(RECIPES) == set(FILES)


@each_recipe
def test_figures_are_the_papers(name):
    published = RECIPES[name].published
    assert tuple(published.values()) == TABLE_5[row(name)]
    measures = ("AP", "AP50", "AP75")
    assert list(published) == [
        f"{kind} {measure}" for kind in ("box", "mask") for measure in measures
    ]


@each_recipe
def test_docstring_says_what_the_recipe_is(name):
    recipe, text = RECIPES[name], FILES[name].read_text()
    path = FILES[name].relative_to(ZOO.parent)
    assert (
        f"""
    python -m keras_nonlocal.cli.detect train \\
        --recipe {path} \\
        --annotations TRAIN.json --images TRAIN \\
        --test_annotations VAL.json --test_images VAL \\
        --out runs/{name}
    python -m keras_nonlocal.cli.detect evaluate \\
        --model runs/{name}/model.keras \\
        --annotations VAL.json --images VAL
"""
        in text
    )
    figures = ", ".join(f"{k} {v}" for k, v in recipe.published.items())
    measured = f"zoo/results/{name}.json"
    if not (ZOO.parent / measured).exists():
        measured = "nothing"
    words = " ".join(text.split())
    assert (
        f"Paper, {recipe.source}: {figures}. "
        f"Released: {recipe.released or 'nothing'}. Measured: {measured}. "
        '"""' in words
    )
    steps = recipe.config.steps // 1000
    assert f"{steps}k steps of {recipe.config.batch_size} images" in words


@each_recipe
def test_the_network_is_the_papers(name):
    """But for pixels and strides, which are those of the ImageNet weights."""
    recipe = RECIPES[name]
    network, weights = recipe.network, recipe.config.backbone_weights
    image = CATALOGUE[weights].network
    plain = DETECTOR_VARIANTS[f"{row(name)}_paper"]
    assert network.trunk.num_nonlocal == int(name.startswith("nl_"))
    assert dataclasses.replace(network, trunk=plain.trunk) == plain
    fields = ("depth", "groups", "group_width", "stride_in_1x1", "mean", "std")
    for field in fields:
        assert getattr(network.trunk, field) == getattr(image, field)


@each_recipe
def test_released_weights_are_of_this_row(name):
    recipe = RECIPES[name]
    if recipe.released is None:
        return
    entry = CATALOGUE[recipe.released]
    assert (entry.dataset, entry.classes) == (recipe.dataset, recipe.classes)
    for field in ("depth", "groups", "num_nonlocal", "norm"):
        assert getattr(entry.network.trunk, field) == getattr(
            recipe.network.trunk, field
        )


def runs():
    """Names of recipes, those together that are the same code in small.

    One without a non-local block is less than the same with one.
    """
    found = {}
    # Of a group the first is run.
    for name in sorted(FILES, key=row, reverse=True):
        file = FILES[name]
        small = load_recipe(file, smoke=True, kind=DetectorRecipe)
        config = dataclasses.replace(
            small.config,
            learning_rate=1.0,
            drops=(0.5,),
            warmup=0.0,
        )
        trunk = dataclasses.replace(
            small.network.trunk,
            mean=(0, 0, 0),
            std=(1, 1, 1),
            num_nonlocal=1,
        )
        network = dataclasses.replace(small.network, trunk=trunk)
        found.setdefault((network, config), []).append(name)
    return list(found.values())


RUNS = runs()


def test_every_recipe_is_run():
    assert sorted(name for names in RUNS for name in names) == sorted(FILES)
    assert len(RUNS) == 2
    assert all(names[0].startswith("nl_") for names in RUNS)


@pytest.fixture
def step_by_step():
    """Tracing takes much longer than two steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_")
@pytest.mark.parametrize("names", RUNS, ids="+".join)
def test_runs_in_small(names, tmp_path, step_by_step):
    recipe = load_recipe(FILES[names[0]], smoke=True, kind=DetectorRecipe)
    images = read_coco(*write_images(tmp_path / "images", count=2))
    tested = images.subset([0])
    out = tmp_path / "run"
    result = train_detector(
        recipe.name, recipe.network, recipe.config, images, tested, out
    )
    for loss in LOSSES:
        assert np.isfinite(result.history[loss]).all()
    assert np.isfinite(result.history["box_AP"][-1])
    saved = keras.models.load_model(out / "model.keras")
    assert saved.variant == result.model.variant
    about = json.loads((out / "config.json").read_text())
    assert about["class_names"] == list(images.class_names)
