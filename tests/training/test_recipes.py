import dataclasses
import json

import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal.training import recipes
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import load_recipe


def drops(config):
    return [share * config.steps for share in config.drops]


@pytest.mark.parametrize(
    ("schedule", "batch", "rate", "steps", "at"),
    [
        ("400k", 64, 0.01, 400_000, [150_000, 300_000]),
        ("300k", 64, 0.01, 300_000, [150_000, 250_000]),
        ("600k_4gpu", 32, 0.005, 600_000, [300_000, 500_000]),
        ("300k_4gpu", 32, 0.005, 300_000, [150_000, 250_000]),
    ],
)
def test_kinetics_is_trained_as_published(schedule, batch, rate, steps, at):
    recipe = recipes.kinetics400("mine", "nl_i3d_r50_8x8", schedule)
    config = recipe.config
    assert (config.batch_size, config.peak_rate) == (batch, rate)
    assert config.num_steps(234_643) == steps
    assert drops(config) == pytest.approx(at)
    assert (config.schedule, config.warmup) == ("steps", 0.0)
    assert (config.momentum, config.nesterov) == (0.9, True)
    assert (config.weight_decay, config.rescale_momentum) == (1e-4, True)
    assert (config.crop_size, config.short_side) == (224, (256, 320))
    assert (config.batch_norm, config.precise_bn) == ("train", 200)
    assert config.weights == "torchvision_resnet50"
    assert recipe.network.dropout_rate == 0.5
    assert recipe.network.mean == (123.675, 116.28, 103.53)
    with pytest.raises(ValueError, match="'400k', '300k'.*Received: '200k'"):
        recipes.kinetics400("mine", "c2d_r50", "200k")


def test_less_memory_takes_smaller_batches_and_more_steps():
    config = recipes.kinetics400("mine", "c2d_r101").config
    one = dataclasses.replace(config, batch_size=8)
    assert one.peak_rate == pytest.approx(0.01 / 8)
    assert one.num_steps(234_643) == 3_200_000


def test_long_clips_are_trained_as_published():
    recipe = recipes.kinetics400_long(
        "mine",
        VARIANTS["nl_i3d_r50_128x1"],
        "i3d_baseline_32x2_IN_pretrain_400k",
    )
    config = recipe.config
    assert config.from_baseline
    assert (config.batch_size, config.peak_rate) == (16, 0.0025)
    assert config.num_steps(234_643) == 400_000
    assert drops(config) == pytest.approx([150_000, 300_000])
    assert (config.batch_norm, config.precise_bn) == ("affine", 0)
    assert config.clip == ClipSpec(128, 1)
    assert recipe.network.res3_group == 4


def test_slowfast_is_trained_as_published():
    recipe = recipes.kinetics400_from_scratch(
        "mine", "slowfast_I3D_NLN_8x8_R50"
    )
    config = recipe.config
    assert (config.epochs, config.steps, config.weights) == (196, None, None)
    assert (config.batch_size, config.peak_rate) == (64, 0.1)
    assert config.schedule == "cosine"
    assert config.warmup * config.epochs == pytest.approx(34)
    assert config.warmup_start * config.peak_rate == pytest.approx(0.01)
    assert config.clip == ClipSpec(8, 8, rule="slowfast")
    assert recipe.network.pool1_padding == 1


def test_charades_is_trained_as_in_the_paper():
    recipe = recipes.charades(
        "mine",
        VARIANTS["nl_i3d_r50_128x1"],
        "i3d_nonlocal_128x1_I3D_pretrain_400k",
    )
    config = recipe.config
    assert (config.batch_size, config.peak_rate) == (8, 0.00125)
    assert config.num_steps(7985) == 200_000
    assert drops(config) == pytest.approx([75_000, 150_000])
    assert (config.crop_size, config.short_side) == (288, (329, 411))
    assert (config.batch_norm, config.jitter) == ("affine", "uniform")
    assert recipe.network.crop_size == 288
    assert (recipe.classes, recipe.protocol) == (157, "charades_paper")


def test_charades_is_trained_as_for_feature_banks():
    recipe = recipes.charades_feature_bank(
        "mine", "lfb_r101_charades", "lfb_r101_k400_pretrained"
    )
    config = recipe.config
    assert (config.batch_size, config.peak_rate) == (16, 0.02)
    assert config.num_steps(7985) == 24_000
    assert drops(config) == pytest.approx([20_000])
    assert (config.weight_decay, config.jitter) == (1.25e-5, "inverse")
    assert (config.crop_size, config.short_side) == (224, (256, 320))
    assert config.clip == ClipSpec(32, 4, fps=24.0)
    network = recipe.network
    assert (network.depth, network.dropout_rate) == (101, 0.3)
    assert (network.res5_stride, network.pool1_padding) == (1, 1)


def test_few_videos_do_not_train_batch_norms():
    weights = "i3d_nonlocal_32x2_IN_pretrain_400k"
    recipe = recipes.finetune("mine", "ucf101", 101, weights, epochs=3)
    assert recipe.config.batch_norm == "freeze"
    assert (recipe.config.epochs, recipe.config.weights) == (3, weights)
    assert recipe.network == VARIANTS["nl_i3d_r50"]


def test_sides_of_something_something_are_swapped():
    recipe = recipes.something_something(
        "mine", "i3d_nonlocal_8x8_IN_pretrain_400k"
    )
    for pair in recipe.config.flip_pairs:
        left, right = (name.replace("from ", "") for name in pair)
        assert "left" in left and "right" in right
    assert len(recipe.config.flip_pairs) == 3
    assert recipe.network.sampling_rate == recipe.config.clip.sampling_rate == 5


def smoke(network, **settings):
    clip = ClipSpec(network.num_frames, network.sampling_rate)
    config = TrainConfig(clip, **settings)
    return Recipe("mine", network, config, "kinetics400", 400).smoke()


@pytest.mark.parametrize("name", [n for n in VARIANTS if "small" not in n])
def test_small_networks_have_the_parts_of_the_large(name):
    large, recipe = VARIANTS[name], smoke(VARIANTS[name])
    small = recipe.network
    for field in (
        "inflation",
        "mode",
        "attention_axes",
        "norm",
        "nonlocal_norm",
        "stem",
    ):
        assert getattr(small, field) == getattr(large, field)
    stages = [stage for stage, _ in small.nonlocal_blocks()]
    assert set(stages) == {stage for stage, _ in large.nonlocal_blocks()}
    # Blocks see frames beside their own, and groups beside theirs.
    frames = small.stage_sizes(small.num_frames, 32)["res3"][0]
    assert frames == (4 if large.res3_group else 2)
    assert frames % (small.res3_group or 1) == 0
    assert small.minimum_size()[1] <= small.crop_size <= 48
    assert recipe.config.crop_size == small.crop_size
    assert recipe.config.clip.num_frames == small.num_frames


def test_more_blocks_are_more_in_small():
    numbers = [
        smoke(VARIANTS[f"{name}_c2d_r50"]).network.num_nonlocal
        for name in ("nl1", "nl", "nl10")
    ]
    assert numbers == [1, 2, 4]
    places = (("res2", 2),)
    one = Variant(num_nonlocal=1, nonlocal_places=places)
    assert smoke(one).network.nonlocal_blocks() == (("res2", 1),)


def test_small_settings_need_no_files_and_few_clips():
    recipe = smoke(
        VARIANTS["nl_i3d_r50_128x1"],
        batch_size=16,
        epochs=3,
        schedule="steps",
        drops=(0.5,),
        weight_decay=0.1,
        weights="i3d_baseline_32x2_IN_pretrain_400k",
        from_baseline=True,
        batch_norm="affine",
        precise_bn=200,
        short_side=(256, 256),
        jitter="inverse",
        num_workers=4,
        flip_pairs=(("left", "right"),),
    )
    config = recipe.config
    assert (config.weights, config.from_baseline) == (None, False)
    assert (config.batch_norm, config.precise_bn) == ("auto", 1)
    assert (config.batch_size, config.num_steps(2)) == (2, 2)
    assert (config.num_workers, config.flip_pairs) == (0, ())
    assert config.short_side == (37, 37)
    assert (config.drops, config.weight_decay) == ((0.5,), 0.1)
    assert (config.jitter, recipe.classes) == ("inverse", None)
    assert (recipe.name, recipe.published) == ("mine_smoke", {})
    json.dumps(dataclasses.asdict(recipe))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "`name`.*Received: '../up'"),
        ({"classes": 0}, "`classes`.*Received: 0"),
        ({"protocol": "best"}, "`protocol`.*'paper'.*Received: 'best'"),
        ({"released": "gone"}, "`released`.*Received: 'gone'"),
    ],
)
def test_wrong_recipes_are_refused(changes, message):
    recipe = recipes.kinetics400("mine", "c2d_r50")
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(recipe, **changes)


def test_videos_must_have_the_classes_of_the_experiment():
    recipe = recipes.finetune(
        "mine", "ucf101", 3, "i3d_nonlocal_32x2_IN_pretrain_400k"
    )
    videos = VideoList("ab", [0, 2], "xyz")
    assert recipe.select(videos) is videos
    with pytest.raises(ValueError, match="of 3 classes. Received: 2 classes"):
        recipe.select(VideoList("ab", [0, 1], "xy"))


GOOD = """
from keras_nonlocal.training.recipes import kinetics400

def get_config(smoke=False):
    recipe = kinetics400("mine", "c2d_r50")
    return recipe.smoke() if smoke else recipe
"""


def test_a_file_gives_its_recipe(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    assert load_recipe(path) == recipes.kinetics400("mine", "c2d_r50")
    assert load_recipe(str(path), smoke=True).name == "mine_smoke"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "get_config.*Received: no such function"),
        ("get_config = 1", "get_config.*Received: no such function"),
        ("def get_config(smoke): return 3", "Received: one that gives int"),
        ("def get_config(): pass", "TypeError.*smoke"),
        ("1 / 0", "failed: ZeroDivisionError"),
        ("def get_config(", "failed: SyntaxError"),
        (GOOD.replace("c2d_r50", "c2d_r5"), "failed: KeyError: 'c2d_r5'"),
    ],
)
def test_a_file_that_gives_none_is_named(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s)mine.py must .*{message}"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["missing.py", "", "mine.txt"])
def test_what_is_no_python_file_is_refused(name, tmp_path):
    (tmp_path / "mine.txt").write_text(GOOD)
    with pytest.raises(ValueError, match="must be a Python file. Received: "):
        load_recipe(tmp_path / name)
