"""Every recipe for videos is what its file says, fits its weights, and runs.

Those of detectors are in test_coco_configs.py.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import VARIANTS
from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal import train
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.models.applications import same_network
from keras_nonlocal.training import initialization
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import load_recipe
from keras_nonlocal.training.recipes import trained
from keras_nonlocal.visualization import figures
from keras_nonlocal.weights.catalogue import CATALOGUE
from zoo.readme import ZOO
from zoo.readme import recipes

EVERY = recipes()
OF_VIDEOS = {x: y for x, y in EVERY.items() if isinstance(y, Recipe)}
RECIPES = {recipe.name: recipe for recipe in OF_VIDEOS.values()}
FILES = {file.stem: file for file in OF_VIDEOS}
each_recipe = pytest.mark.parametrize("name", FILES)

# The paper's tables 2a to 2g and 4, typed off once more.
TOP1_TOP5 = {
    "c2d_r50_32x2": (71.8, 89.7),
    "nl1_c2d_r50_gaussian_32x2": (72.5, 90.2),
    "nl1_c2d_r50_32x2": (72.7, 90.5),
    "nl1_c2d_r50_dot_product_32x2": (72.9, 90.3),
    "nl1_c2d_r50_concatenation_32x2": (72.8, 90.5),
    "nl1_c2d_r50_res2_32x2": (72.7, 90.3),
    "nl1_c2d_r50_res3_32x2": (72.9, 90.4),
    "nl1_c2d_r50_res5_32x2": (72.3, 90.1),
    "nl_c2d_r50_32x2": (73.8, 91.0),
    "nl10_c2d_r50_32x2": (74.3, 91.2),
    "c2d_r101_32x2": (73.1, 91.0),
    "nl1_c2d_r101_32x2": (74.3, 91.3),
    "nl_c2d_r101_32x2": (75.1, 91.7),
    "nl10_c2d_r101_32x2": (75.1, 91.6),
    "nl_c2d_r50_space_32x2": (72.9, 90.8),
    "nl_c2d_r50_time_32x2": (73.1, 90.5),
    "nl_c2d_r101_space_32x2": (74.4, 91.3),
    "nl_c2d_r101_time_32x2": (74.4, 90.5),
    "i3d_3x3x3_r101_32x2": (74.1, 91.2),
    "i3d_r50_32x2": (73.3, 90.7),
    "nl_i3d_r50_32x2": (74.9, 91.6),
    "i3d_r101_32x2": (74.4, 91.1),
    "nl_i3d_r101_32x2": (76.0, 92.1),
    "c2d_r50_128x1": (73.8, 91.2),
    "i3d_r50_128x1": (74.9, 91.7),
    "nl_i3d_r50_128x1": (76.5, 92.6),
    "nl_i3d_r50_128x1_from_nl": (76.5, 92.6),
    "c2d_r101_128x1": (75.3, 91.8),
    "i3d_r101_128x1": (76.4, 92.7),
    "nl_i3d_r101_128x1": (77.7, 93.3),
    "nl_i3d_r101_128x1_from_nl": (77.7, 93.3),
}
PUBLISHED = {
    **{
        name: {"top1": top1, "top5": top5}
        for name, (top1, top5) in TOP1_TOP5.items()
    },
    "charades_i3d_r101_128x1": {"mAP": 35.5, "mAP_trainval": 37.2},
    "charades_nl_i3d_r101_128x1": {"mAP": 37.5, "mAP_trainval": 39.5},
}
# Rows of `VARIANTS` that are neither of the paper nor of its released models.
UNUSED = {
    "small_c2d",
    "nl_c2d_r50_128x1",
    "nl_c2d_r101_128x1",
}


def test_no_stem_twice_and_no_file_overlooked():
    files = list((ZOO / "configs").rglob("*.py"))
    stems = {file.stem for file in files}
    names = {recipe.name for recipe in EVERY.values()}
    assert len(files) == len(stems) == len(names)


@each_recipe
def test_file_and_recipe_agree(name):
    recipe, file = RECIPES[name], FILES[name]
    assert recipe.name == name
    assert file.parent.name == recipe.dataset
    assert str(recipe.config.clip) in name


@each_recipe
def test_docstring_says_what_the_recipe_is(name):
    recipe, text = RECIPES[name], FILES[name].read_text()
    path = FILES[name].relative_to(ZOO.parent)
    assert (
        f"""
    python -m keras_nonlocal.cli.train \\
        --config {path} \\
        --data TRAIN --validation VAL --out runs/{name}
    python -m keras_nonlocal.cli.evaluate \\
        --config {path} \\
        --data VAL --model runs/{name}/saved_model
"""
        in text
    )
    figures = ", ".join(f"{k} {v}" for k, v in recipe.published.items())
    claim = f"From {recipe.source}; no figure in the paper."
    if figures:
        claim = f"Paper, {recipe.source}: {figures}."
    elif recipe.source == "not in the paper":
        claim = "Not in the paper."
    measured = f"zoo/results/{name}.json"
    if not (ZOO.parent / measured).exists():
        measured = "nothing"
    assert (
        f"""
{claim}
Released: {recipe.released or "nothing"}.
Measured: {measured}.
\"""
"""
        in text
    )


def test_figures_are_the_papers():
    ours = {n: r.published for n, r in RECIPES.items() if r.published}
    assert ours == PUBLISHED


def plain(network):
    """As in `VARIANTS`: what the start or the schedule changes undone."""
    default = Variant()
    return dataclasses.replace(
        network,
        mean=default.mean,
        std=default.std,
        dropout_rate=default.dropout_rate,
        crop_size=default.crop_size,
    )


def test_every_network_of_the_paper_has_a_recipe():
    networks = {plain(recipe.network) for recipe in RECIPES.values()}
    missing = {n for n, variant in VARIANTS.items() if variant not in networks}
    assert missing == UNUSED


@each_recipe
def test_network_and_settings_agree(name):
    recipe = RECIPES[name]
    network, config = recipe.network, recipe.config
    assert network.num_frames == config.clip.num_frames
    assert network.sampling_rate == config.clip.sampling_rate
    assert network.crop_size == config.crop_size <= min(config.short_side)
    assert config.reference_batch == config.batch_size
    assert (config.batch_norm == "affine") == (network.norm == "affine")
    if config.precise_bn:
        assert config.batch_norm == "train"


@each_recipe
def test_released_weights_are_of_this_experiment(name):
    recipe = RECIPES[name]
    if recipe.released is None:
        return
    entry = CATALOGUE[recipe.released]
    assert same_network(plain(recipe.network), plain(entry.network))
    assert recipe.config.clip.num_frames == entry.network.num_frames
    assert recipe.config.clip.sampling_rate == entry.network.sampling_rate
    assert (recipe.dataset, recipe.classes) == (entry.dataset, entry.classes)


@each_recipe
def test_weights_of_an_earlier_recipe_fit(name):
    """They are of its network, or of its network's baseline."""
    recipe, config = RECIPES[name], RECIPES[name].config
    if not (config.weights or "").startswith("runs/"):
        return
    earlier = config.weights.split("/")[1]
    assert config.weights == trained(earlier)
    words = FILES[name].read_text().split()
    assert f"the recipe {earlier} leaves" in " ".join(words)
    start = RECIPES[earlier].network
    network = recipe.network
    if config.from_baseline:
        network = initialization._baseline(network, start)
    assert same_network(start, network)


@each_recipe
def test_released_weights_fit(name):
    """They are taken for this network; nothing is downloaded."""
    recipe, config = RECIPES[name], RECIPES[name].config
    if config.weights not in CATALOGUE:
        return
    found = initialization._find(config, recipe.network)
    # Normalized as it says, not only in the end.
    assert found.network.mean == recipe.network.mean
    assert found.network.std == recipe.network.std


def is_multi_label(recipe):
    return recipe.dataset == "charades"


def runs():
    """Names of recipes, those together that are the same code in small.

    Apart from learning rate, weight decay and the mean and deviation of
    pixels, recipes that are together are equal in small: they run once.
    """
    found = {}
    for name, file in FILES.items():
        small = load_recipe(file, smoke=True)
        config = dataclasses.replace(
            small.config, learning_rate=1.0, weight_decay=1.0
        )
        key = plain(small.network), config, is_multi_label(small)
        found.setdefault(key, []).append(name)
    return list(found.values())


RUNS = runs()
# Tracing takes two thirds of the time of a small run. One of videos of one
# class and one of several are compiled as in use; the others run step by step.
COMPILED = ("nl10_i3d_r101_32x2", "charades_nl_i3d_r50_32x4")


def test_every_recipe_is_run():
    ran = [name for names in RUNS for name in names]
    assert sorted(ran) == sorted(FILES)
    assert {names[0] for names in RUNS} >= set(COMPILED)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Four videos of 48 frames."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    names = [str(folder / f"{number}.mp4") for number in range(4)]
    for name in names:
        frames = rng.integers(0, 256, (48, 40, 48, 3)).astype("uint8")
        write_video(name, frames)
    return tuple(names)


@pytest.fixture
def step_by_step(monkeypatch):
    """Makes runs cheap: nothing is traced and no curves are drawn."""

    def begin():
        tf.config.run_functions_eagerly(True)
        monkeypatch.setattr(figures, "training_curves", lambda _: b"")

    yield begin
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_")
@pytest.mark.parametrize("names", RUNS, ids="+".join)
def test_runs_in_small(names, paths, tmp_path, step_by_step):
    if names[0] not in COMPILED:
        step_by_step()
    recipe = load_recipe(FILES[names[0]], smoke=True)
    labels = np.array([0, 1, 0, 1])
    if is_multi_label(recipe):
        labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    videos = VideoList(paths, labels, ("one", "other"))
    tested = videos.subset([0, 1])
    result = train(
        recipe.name, recipe.network, recipe.config, videos, tested, tmp_path
    )
    assert np.isfinite(result.history["loss"]).all()
    assert np.isfinite(result.scores).all() and result.scores.shape == (2, 2)
    assert (tmp_path / "model.keras").exists()
