"""Trains networks on a folder of videos and reports on them.

    python -m keras_nonlocal.cli.train --data videos --out runs/mine
    python -m keras_nonlocal.cli.train --data train.csv --validation val.csv \
        --config zoo/configs/kinetics400/nl_i3d_r50_32x2.py

--data is a folder with one folder of videos for each class, or a list in any of
the known formats. Without --validation a share of every class is held out.
--config is a recipe; other flags that are given change its settings. A run that
was broken off goes on where it was last saved.

Leaves a page (`index.html`) and for each network a `.keras` file and a
SavedModel that `keras_nonlocal.cli.predict` takes; without a recipe,
`results.json` compares the networks.
"""

import dataclasses
import pathlib
from typing import Any

from absl import app
from absl import flags

from keras_nonlocal.cli import clip_flags
from keras_nonlocal.cli import data_flags
from keras_nonlocal.cli import list_flags
from keras_nonlocal.cli import setting_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.pipeline import check_arguments
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.checkpoints import OtherSettingsError
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.distribution import find_devices
from keras_nonlocal.training.distribution import join
from keras_nonlocal.training.fit import train
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import load_recipe
from keras_nonlocal.training.run import export
from keras_nonlocal.training.run import run
from keras_nonlocal.weights.lookup import find

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(data_flags)
clip_flags.define(
    clip="8x8", batch_size=16, crop_size=112, short_side=(128, 160)
)
flags.adopt_module_key_flags(clip_flags)
flags.DEFINE_string(
    "config", None, "A recipe: a file of zoo/configs, or one like these."
)
flags.DEFINE_boolean(
    "smoke", False, "Only try the recipe: a tiny network, a few steps."
)
flags.DEFINE_string("out", "runs/train", "Folder to write to.")
flags.DEFINE_list(
    "variants",
    [],
    "Networks to train, by name; keras_nonlocal.cli.info lists them. By "
    "default that of the weights, or small_c2d and small_nl_c2d.",
)
flags.DEFINE_boolean(
    "staged",
    False,
    "Let each of --variants start from the one before it, as a network with "
    "non-local blocks from its baseline.",
)
flags.DEFINE_string(
    "weights",
    None,
    "Weights to start from: an entry that keras_nonlocal.cli.convert --list "
    "shows, kinetics400, or a file. The classifier starts anew.",
)
flags.DEFINE_string(
    "validation", None, "Videos to test on, in a form that --data may have."
)
flags.DEFINE_float(
    "held_out", 0.2, "Share of every class to test on without --validation."
)
flags.DEFINE_integer(
    "epochs", 30, "Passes over the training videos.", lower_bound=1
)
flags.DEFINE_float(
    "learning_rate",
    0.05,
    "Peak learning rate; with --config that for the recipe's batch, from which "
    "it follows --batch_size.",
)
flags.DEFINE_boolean("flip", True, "Mirror half of the training clips.")
flags.DEFINE_integer(
    "seed", 0, "Seed of weights, split and augmentation.", lower_bound=0
)
flags.adopt_module_key_flags(setting_flags)
flags.DEFINE_boolean(
    "resume", True, "Go on with a run that was broken off in --out."
)
flags.DEFINE_boolean(
    "join",
    False,
    "Train together with other processes on the JAX backend, as the "
    "environment variables KERAS_DISTRIBUTION_* or the cluster say.",
)

_OWN = ("epochs", "learning_rate", "flip", "seed", "weights")


def _networks() -> dict[str, Variant]:
    unknown = sorted(set(FLAGS.variants) - set(VARIANTS))
    if unknown:
        raise app.UsageError(
            f"--variants must be among {', '.join(VARIANTS)}. "
            f"Received: {', '.join(unknown)}"
        )
    if FLAGS.variants or not FLAGS.weights:
        names = FLAGS.variants or ("small_c2d", "small_nl_c2d")
        return {name: VARIANTS[name] for name in names}
    try:
        found = find(FLAGS.weights)
    except ValueError as error:
        raise app.UsageError(f"--weights: {error}") from error
    if not isinstance(found.network, Variant):
        raise app.UsageError(
            f"--weights={FLAGS.weights} does not say which network it is of: "
            "give --variants"
        )
    name = found.entry.name if found.entry else "network"
    return {name: found.network}


def _recipe() -> Recipe | None:
    if FLAGS.config is None:
        if FLAGS.smoke:
            raise app.UsageError("--smoke tries a recipe: give --config")
        return None
    if FLAGS.variants or FLAGS.staged:
        raise app.UsageError(
            "--config names its network: omit --variants and --staged"
        )
    try:
        return load_recipe(FLAGS.config, smoke=FLAGS.smoke)
    except ValueError as error:
        raise app.UsageError(f"--config: {error}") from error


def _config(recipe: Recipe | None) -> TrainConfig:
    """The settings: the recipe's or the flags' defaults, changed by flags."""
    if recipe is None:
        config = clip_flags.config(
            FLAGS.clip, **{name: FLAGS[name].value for name in _OWN}
        )
    else:
        config = recipe.config
        changes = clip_flags.given(config.clip)
        changes |= {x: FLAGS[x].value for x in _OWN if FLAGS[x].present}
        config = _changed(config, changes)
    changes = setting_flags.parse(TrainConfig, {"clip": "--clip"})
    if "steps" in changes and FLAGS["epochs"].present:
        raise app.UsageError("give either --epochs or --set=steps")
    return _changed(config, changes)


def _changed(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    if "epochs" in changes:
        changes = {**changes, "steps": None}
    try:
        config = dataclasses.replace(config, **changes)
        check_arguments(
            config.batch_size, config.crop_size, config.short_side, (0, 1)
        )
        return config
    except (TypeError, ValueError) as error:
        raise app.UsageError(str(error)) from error


def _lists(
    batch_size: int, recipe: Recipe | None
) -> tuple[VideoList, VideoList]:
    """Videos to train and to test on."""
    videos = data_flags.videos()
    if FLAGS.validation is None:
        try:
            parts = videos.split(FLAGS.held_out, FLAGS.seed)
        except ValueError as error:
            raise app.UsageError(f"--held_out: {error}") from error
    else:
        parts = videos, _validation()
    if recipe is not None:
        try:
            parts = recipe.select(parts[0]), recipe.select(parts[1])
        except ValueError as error:
            text = f"--data or --validation: {error}"
            raise app.UsageError(text) from error
    for use, part, least in (
        ("train on, those of a step", parts[0], batch_size),
        ("test on", parts[1], 1),
    ):
        if len(part) < least:
            raise app.UsageError(
                f"There must be {least} or more videos to {use}. Received: "
                f"{len(part)}; see --data, --validation and --held_out"
            )
    return parts


def _validation() -> VideoList:
    try:
        return list_flags.read(FLAGS.validation)
    except ValueError as error:
        text = str(error).removeprefix("--data: ")
        raise app.UsageError(f"--validation: {text}") from error


def _left_out(videos: VideoList) -> list[str]:
    """What is wrong with the list, and how often."""
    return [
        f"{kind}: {count}" for kind, count in videos.problem_counts().items()
    ]


def _compare(
    networks: dict[str, Variant],
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
    out: pathlib.Path,
) -> None:
    """Trains the networks of the flags on the same clips."""
    run(
        networks,
        config,
        train_videos,
        test_videos,
        out,
        title=f"Networks trained on {FLAGS.data}",
        notes=(
            f"{len(train_videos)} videos of {len(train_videos.class_names)} "
            f"classes to train on, {len(test_videos)} held out.",
            *_left_out(train_videos),
        ),
        staged=FLAGS.staged,
        resume=FLAGS.resume,
    )


def _follow(
    recipe: Recipe,
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
    out: pathlib.Path,
) -> None:
    """Trains the network of a recipe."""
    result = train(
        recipe.name,
        recipe.network,
        config,
        train_videos,
        test_videos,
        out,
        resume=FLAGS.resume,
    )
    devices = find_devices()
    if devices.is_first:
        with devices.alone():
            export(result, config, test_videos, out)


def main(_: list[str]) -> None:
    show_own_notes_only()
    recipe = _recipe()
    networks = _networks() if recipe is None else {}
    config = _config(recipe)
    train_videos, test_videos = _lists(config.batch_size, recipe)
    out = pathlib.Path(FLAGS.out)
    if FLAGS.join:  # After what one process may find wrong by itself.
        join()
    try:
        if recipe is None:
            _compare(networks, config, train_videos, test_videos, out)
        else:
            _follow(recipe, config, train_videos, test_videos, out)
    except OtherSettingsError as error:
        raise app.UsageError(str(error)) from error
    print(f"\nThe report: {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
