"""Recipes: a network, how it is trained, and what came out elsewhere.

The files in `zoo/configs` are recipes; the functions here hold what several of
them share. The settings are those of section 4.1 of the paper and of its
published code.

The paper's Kinetics networks start from an image network. Here that is
torchvision's: its files can be verified, are there for both depths, read red,
green, blue and may be used by anybody; the authors' own files have neither a
digest nor a known order of channels, and are not for commercial use. A network
then reads pixels as the image network does, with ImageNet's mean and deviation.
"""

import dataclasses
import importlib.util
import itertools
import os
import re
from typing import Any
from typing import TypeVar

import numpy as np

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.models.variants import BLOCKS
from keras_nonlocal.models.variants import STAGES
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import RunConfig
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.weights.catalogue import CATALOGUE

_NAME = re.compile(r"[a-z0-9_]+")
_AnyRecipe = TypeVar("_AnyRecipe", bound="BaseRecipe")
# Of a smoke run: depth 26 is the smallest, with two blocks a stage.
_TINY_DEPTH = 26
_TINY_WIDTH = 4
_TINY_SIDE = 32
_TINY_GROUP = 2


@dataclasses.dataclass(frozen=True)
class BaseRecipe:
    """What recipes have in common, whatever they train.

    Attributes:
        name: Of the experiment, and of its file: small letters, digits, `_`.
        network: What is trained.
        config: How.
        dataset: On what, a word: `"kinetics400"`.
        classes: Number of its classes; `None` for those of the examples.
        published: Figures of the paper in percent, as `{"top1": 74.9}`; empty
            if it has none.
        source: Where the experiment comes from: a table of the paper or a code
            base.
        released: The entry of `list_weights()` that has this experiment's
            weights and what they scored; `None` if none were published.
    """

    name: str
    network: Any
    config: RunConfig
    dataset: str
    classes: int | None
    _: dataclasses.KW_ONLY
    published: dict[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""
    released: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            self._refuse("name", "small letters, digits and underscores")
        if self.classes is not None and self.classes < 1:
            self._refuse("classes", "positive or None")
        if self.released not in (None, *CATALOGUE):
            self._refuse("released", "an entry of list_weights() or None")

    def _refuse(self, name: str, expected: str) -> None:
        raise ValueError(
            f"{type(self).__name__}: `{name}` must be {expected}. "
            f"Received: {getattr(self, name)!r}"
        )


@dataclasses.dataclass(frozen=True)
class Recipe(BaseRecipe):
    """All that an experiment needs but the videos.

    Attributes:
        network: What is trained.
        config: How.
        protocol: How it is tested: a name of
            `keras_nonlocal.evaluation.protocols.PROTOCOLS`.

    The other attributes are those of
    `keras_nonlocal.training.recipes.BaseRecipe`: `name`, `dataset`, `classes`
    (`None` for those of the videos), `published`, `source`, `released`.
    """

    network: Variant
    config: TrainConfig
    protocol: str = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol not in PROTOCOLS:
            self._refuse("protocol", f"one of {tuple(PROTOCOLS)}")

    def select(self, videos: VideoList) -> VideoList:
        """The videos of a list that the experiment is about.

        Args:
            videos: All videos of a split.

        Returns:
            All of them; of videos that may have several classes those that
            have one or more, as the official scores of Charades count them.

        Raises:
            ValueError: If they are not of as many classes as the experiment's.

        >>> from keras_nonlocal.training.recipes import kinetics400
        >>> small = kinetics400("mine", "nl_i3d_r50").smoke()
        >>> small.select(VideoList("abc", [[1, 1], [0, 0], [0, 1]], "xy")).paths
        ('a', 'c')
        """
        count = len(videos.class_names)
        if self.classes not in (None, count):
            raise ValueError(
                f"The recipe {self.name!r} is for videos of {self.classes} "
                f"classes. Received: {count} classes"
            )
        if not videos.multi_label:
            return videos
        return videos.subset(np.flatnonzero(videos.labels.any(axis=1)))

    def smoke(self) -> "Recipe":
        """The same experiment made so small that a CPU runs it in seconds.

        Two steps of two clips by a narrow network from random weights, on
        videos of any classes: it shows that a recipe runs, and nothing else.
        Pairwise function, axes, norms, strides, head, schedule and
        augmentation are the recipe's; its non-local blocks stand in the same
        stages.

        >>> from keras_nonlocal.training.recipes import kinetics400
        >>> small = kinetics400("mine", "nl_i3d_r50").smoke()
        >>> small.name, small.config.steps, small.network.nonlocal_blocks()
        ('mine_smoke', 2, (('res3', 1), ('res4', 1)))
        """
        network = _tiny_network(self.network)
        return dataclasses.replace(
            self,
            name=f"{self.name}_smoke",
            network=network,
            config=_tiny_config(self.config, network),
            classes=None,
            published={},
            released=None,
        )


def _tiny_network(network: Variant) -> Variant:
    places = _tiny_places(network)
    small = dataclasses.replace(
        network,
        depth=_TINY_DEPTH,
        width=_TINY_WIDTH,
        num_nonlocal=network.num_nonlocal if places is None else len(places),
        nonlocal_places=places,
        res3_group=None if network.res3_group is None else _TINY_GROUP,
    )
    _, side = small.minimum_size()
    # So many frames that blocks see two, or two groups of them.
    seen = 2 * (small.res3_group or 1)
    frames = next(
        n
        for n in itertools.count(1)
        if small.stage_sizes(n, 1)["res3"][0] == seen
    )
    return dataclasses.replace(
        small,
        num_frames=frames,
        sampling_rate=min(network.sampling_rate, 2),
        crop_size=max(_TINY_SIDE, -(-side // 16) * 16),
    )


def _tiny_places(network: Variant) -> tuple[tuple[str, int], ...] | None:
    """Blocks of the small network that stand for those of the large one."""
    if network.num_nonlocal < 2 and network.nonlocal_places is None:
        return None  # `nonlocal_stage` says it at any depth.
    last = dict(zip(STAGES, BLOCKS[_TINY_DEPTH], strict=True))
    return tuple(
        dict.fromkeys(
            (stage, min(block, last[stage] - 1))
            for stage, block in network.nonlocal_blocks()
        )
    )


def _tiny_config(config: TrainConfig, network: Variant) -> TrainConfig:
    side = network.crop_size
    low, high = (-(-side * x // config.crop_size) for x in config.short_side)
    return dataclasses.replace(
        config,
        clip=dataclasses.replace(
            config.clip,
            num_frames=network.num_frames,
            sampling_rate=network.sampling_rate,
        ),
        batch_size=2,
        reference_batch=2,
        epochs=1,
        steps=2,
        steps_per_epoch=2,
        batch_norm="auto",
        precise_bn=min(config.precise_bn, 1),
        crop_size=side,
        short_side=(low, high),
        flip_pairs=(),
        num_workers=0,
        weights=None,
        from_baseline=False,
    )


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """Clips of a step, rate, steps, and where the rate drops.

    The paper's rate begins at its peak.
    """

    batch_size: int
    learning_rate: float
    steps: int
    drops: tuple[int, ...]

    def config(self, clip: ClipSpec, **settings: Any) -> TrainConfig:
        return TrainConfig(
            clip,
            batch_size=self.batch_size,
            reference_batch=self.batch_size,
            steps=self.steps,
            learning_rate=self.learning_rate,
            schedule="steps",
            drops=tuple(step / self.steps for step in self.drops),
            warmup=0.0,
            **settings,
        )


_SCHEDULES = {
    "400k": _Schedule(64, 0.01, 400_000, (150_000, 300_000)),
    "300k": _Schedule(64, 0.01, 300_000, (150_000, 250_000)),
    "600k_4gpu": _Schedule(32, 0.005, 600_000, (300_000, 500_000)),
    "300k_4gpu": _Schedule(32, 0.005, 300_000, (150_000, 250_000)),
}
_LONG_CLIPS = _Schedule(16, 0.0025, 400_000, (150_000, 300_000))
_CHARADES = _Schedule(8, 0.00125, 200_000, (75_000, 150_000))
_FEATURE_BANKS = _Schedule(16, 0.02, 24_000, (20_000,))
# Batches over which the published code computes batch norms' statistics anew.
_PRECISE_BN = 200

# Classes of Something-Something that a mirror turns into each other.
_SIDES = (
    (
        "Pulling something from left to right",
        "Pulling something from right to left",
    ),
    (
        "Pushing something from left to right",
        "Pushing something from right to left",
    ),
    (
        "Turning the camera left while filming something",
        "Turning the camera right while filming something",
    ),
)


def trained(name: str) -> str:
    """Where the commands of `zoo/configs` leave the weights of a recipe.

    >>> trained("i3d_r101_32x2")
    'runs/i3d_r101_32x2/model.keras'
    """
    return f"runs/{name}/model.keras"


def inflated(variant: str) -> Variant:
    """A network of `VARIANTS` as it is once an image network is inflated."""
    network = VARIANTS[variant]
    image = CATALOGUE[_image_weights(network)].network
    return dataclasses.replace(network, mean=image.mean, std=image.std)


def _image_weights(network: Variant) -> str:
    return f"torchvision_resnet{network.depth}"


def _clip(network: Variant) -> ClipSpec:
    return ClipSpec(network.num_frames, network.sampling_rate)


def kinetics400(
    name: str,
    variant: str,
    schedule: str = "400k",
    *,
    dropout_rate: float = 0.5,
    short_side: tuple[int, int] = (256, 320),
    **about: Any,
) -> Recipe:
    """Kinetics-400 from an image network, for 8x8 and 32x2 clips.

    Args:
        name: Of the recipe.
        variant: Name of the network in `VARIANTS`.
        schedule: `"400k"` steps on 8 GPUs, the paper's; `"300k"`;
            `"600k_4gpu"` or `"300k_4gpu"`.
        dropout_rate: Before the classifier.
        short_side: Smallest and largest short side, in pixels.
        **about: `protocol`, `published`, `source`, `released` of the `Recipe`.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is no such schedule.

    >>> config = kinetics400("mine", "c2d_r50").config
    >>> [round(share * config.steps) for share in config.drops]
    [150000, 300000]
    """
    if schedule not in _SCHEDULES:
        raise ValueError(
            f"`schedule` must be one of {tuple(_SCHEDULES)}. "
            f"Received: {schedule!r}"
        )
    network = dataclasses.replace(inflated(variant), dropout_rate=dropout_rate)
    config = _SCHEDULES[schedule].config(
        _clip(network),
        batch_norm="train",
        precise_bn=_PRECISE_BN,
        short_side=short_side,
        weights=_image_weights(network),
    )
    return Recipe(name, network, config, "kinetics400", 400, **about)


def kinetics400_long(
    name: str,
    network: Variant,
    weights: str,
    *,
    from_baseline: bool = True,
    **about: Any,
) -> Recipe:
    """Kinetics-400 in clips of 32x4 or 128x1, from a network of shorter ones.

    Batch norms are folded into scales and shifts, which are not trained.

    Args:
        name: Of the recipe.
        network: The network.
        weights: Those of the network of shorter clips.
        from_baseline: Whether that has no non-local blocks, as in the published
            code; if not, it has those of `network`.
        **about: As of `kinetics400`.

    Returns:
        The recipe.
    """
    config = _LONG_CLIPS.config(
        _clip(network),
        batch_norm="affine",
        weights=weights,
        from_baseline=from_baseline,
    )
    return Recipe(name, network, config, "kinetics400", 400, **about)


def kinetics400_from_scratch(name: str, entry: str, **about: Any) -> Recipe:
    """Kinetics-400 from random weights, with SlowFast's settings.

    A cosine of 196 epochs, after a warm-up of 34, on 8 GPUs.

    Args:
        name: Of the recipe.
        entry: The entry of `list_weights()` whose network it is.
        **about: As of `kinetics400`.

    Returns:
        The recipe.
    """
    network = CATALOGUE[entry].network
    config = TrainConfig(
        dataclasses.replace(_clip(network), rule="slowfast"),
        batch_size=64,
        reference_batch=64,
        epochs=196,
        learning_rate=0.1,
        schedule="cosine",
        warmup=34 / 196,
        warmup_start=0.1,
        batch_norm="train",
        precise_bn=_PRECISE_BN,
    )
    return Recipe(
        name,
        network,
        config,
        "kinetics400",
        400,
        protocol="slowfast",
        released=entry,
        **about,
    )


def charades(name: str, network: Variant, weights: str, **about: Any) -> Recipe:
    """Charades as in section 4.2 of the paper: 128x1 clips of 288 pixels.

    Videos are rescaled so that a crop of 288 shows what one of 224 shows on
    Kinetics. The network's window grows with the crop, so that a training clip
    has scores at one position.

    Args:
        name: Of the recipe.
        network: The network of 128x1 clips on Kinetics.
        weights: Its weights.
        **about: As of `kinetics400`.

    Returns:
        The recipe.
    """
    side = 288
    config = _CHARADES.config(
        _clip(network),
        batch_norm="affine",
        crop_size=side,
        short_side=(256 * side // 224, 320 * side // 224),
        weights=weights,
        from_baseline=not network.num_nonlocal,
    )
    return Recipe(
        name,
        dataclasses.replace(network, crop_size=side),
        config,
        "charades",
        157,
        protocol="charades_paper",
        **about,
    )


def charades_feature_bank(
    name: str, entry: str, weights: str, **about: Any
) -> Recipe:
    """Charades as the code of "Long-Term Feature Banks" trains it.

    Without a feature bank: its networks of 32x4 clips alone.

    Args:
        name: Of the recipe.
        entry: The entry of `list_weights()` whose network it is.
        weights: What it starts from.
        **about: As of `kinetics400`.

    Returns:
        The recipe.
    """
    network = dataclasses.replace(CATALOGUE[entry].network, dropout_rate=0.3)
    config = _FEATURE_BANKS.config(
        dataclasses.replace(_clip(network), fps=24.0),
        batch_norm="affine",
        weight_decay=1.25e-5,
        jitter="inverse",
        weights=weights,
        weights_differ_in=("res5_stride", "res3_group", "head"),
    )
    return Recipe(
        name,
        network,
        config,
        "charades",
        157,
        protocol="charades",
        released=entry,
        **about,
    )


def finetune(
    name: str,
    dataset: str,
    classes: int | None,
    weights: str,
    *,
    clip: ClipSpec | None = None,
    protocol: str = "paper",
    **settings: Any,
) -> Recipe:
    """A small data set, from weights trained on Kinetics.

    Batch norms keep the statistics, scales and shifts of the weights: few
    videos do not suffice to train them. Nothing of this is in the paper.

    Args:
        name: Of the recipe.
        dataset: The data set.
        classes: Number of its classes; `None` for those of the videos.
        weights: The entry of `list_weights()` to start from, whose network is
            trained.
        clip: The clips. Default: those of the network.
        protocol: How it is tested.
        **settings: Of `TrainConfig`, where they are to be others.

    Returns:
        The recipe.

    >>> recipe = finetune(
    ...     "mine", "folder", None, "i3d_nonlocal_8x8_IN_pretrain_400k"
    ... )
    >>> str(recipe.config.clip), recipe.config.batch_norm
    ('8x8', 'freeze')
    """
    network = CATALOGUE[weights].network
    clip = clip or _clip(network)
    config: dict[str, Any] = {
        "batch_size": 16,
        "reference_batch": 16,
        "epochs": 30,
        "learning_rate": 0.005,
        "batch_norm": "freeze",
        "weights": weights,
    }
    return Recipe(
        name,
        dataclasses.replace(
            network,
            num_frames=clip.num_frames,
            sampling_rate=clip.sampling_rate,
        ),
        TrainConfig(clip, **(config | settings)),
        dataset,
        classes,
        protocol,
        source="not in the paper",
    )


def something_something(name: str, weights: str) -> Recipe:
    """Something-Something v2, in 8x5 clips, from weights trained on Kinetics.

    Such a clip is most of a video. Where a video is shorter its last frame goes
    on: begun again, a movement would be one to the other side. There are
    enough videos to train batch norms. Nothing of this is in the paper.

    Args:
        name: Of the recipe.
        weights: The entry of `list_weights()` to start from, whose network is
            trained.

    Returns:
        The recipe.
    """
    return finetune(
        name,
        "something_something_v2",
        174,
        weights,
        clip=ClipSpec(8, 5, short="clamp"),
        batch_size=64,
        reference_batch=64,
        epochs=22,
        learning_rate=0.02,
        schedule="steps",
        drops=(14 / 22, 18 / 22),
        warmup=0.0,
        batch_norm="train",
        precise_bn=_PRECISE_BN,
        flip_pairs=_SIDES,
        protocol="mmaction2",
    )


def load_recipe(
    path: str | os.PathLike[str],
    smoke: bool = False,
    # mypy takes no default for what a type variable stands for.
    kind: type[_AnyRecipe] = Recipe,  # type: ignore[assignment]
) -> _AnyRecipe:
    """Runs a file of `zoo/configs`, or one like it.

    The file is a Python program, which can do all that one can: load none that
    you do not trust.

    Args:
        path: A Python file with a function `get_config(smoke=False)` that
            gives a recipe.
        smoke: What to call it with.
        kind: What it has to give: a `Recipe`, for videos, or a
            `DetectorRecipe`, for a detector on images.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is no such file, if it fails, or if it gives no
            recipe.
    """
    path = os.fspath(path)
    if not (path.endswith(".py") and os.path.isfile(path)):
        raise ValueError(f"A recipe must be a Python file. Received: {path}")
    try:
        get_config = getattr(_run(path), "get_config", None)
        recipe = get_config(smoke=smoke) if callable(get_config) else None
    except Exception as error:
        raise ValueError(
            f"{path} must be a recipe. Running it failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(recipe, kind):
        found = "no such function"
        if callable(get_config):
            found = f"one that gives {type(recipe).__name__}"
        raise ValueError(
            f"{path} must have a function get_config(smoke=False) that gives a "
            f"{kind.__name__}. Received: {found}"
        )
    return recipe


def _run(path: str) -> Any:
    name = os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
