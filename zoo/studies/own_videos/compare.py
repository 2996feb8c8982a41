"""The whole comparison, from videos to a page."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.config import TrainConfig
from zoo.studies.own_videos import features
from zoo.studies.own_videos import study
from zoo.studies.own_videos import summary
from zoo.studies.own_videos.arms import Block
from zoo.studies.own_videos.heads import Heads
from zoo.studies.own_videos.networks import Networks

INCEPTION = "inception"
# Depth 26 is the smallest.
_TINY: dict[str, Any] = {"depth": 26, "width": 4, "stem": "stride1"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a comparison is made.

    Attributes:
        config: Clips, batches, length and rate of the trainings.
        block: The non-local blocks.
        trunk: `"inception"`, whose weights are frozen, or the name of a
            network in `VARIANTS`, all of which is trained.
        layer: Block of the Inception network behind which heads are put.
        folds: Number of folds.
        seeds: Number of seeds.
        is_smoke: Whether to try everything with tiny random networks instead.
    """

    config: TrainConfig
    block: Block = Block()
    trunk: str = INCEPTION
    layer: str = "Mixed_5c"
    folds: int = 5
    seeds: int = 3
    is_smoke: bool = False

    def __post_init__(self) -> None:
        if self.trunk not in (INCEPTION, *VARIANTS):
            raise ValueError(
                f"--trunk must be {INCEPTION} or a network among "
                f"{', '.join(VARIANTS)}. Received: {self.trunk}"
            )

    def smoke(self) -> "Plan":
        """A plan that runs in seconds, to see that nothing is in its way."""
        config = dataclasses.replace(
            self.config,
            clip=ClipSpec(4, 2),
            batch_size=4,
            epochs=1,
            crop_size=32,
            short_side=(32, 32),
        )
        return dataclasses.replace(
            self,
            config=config,
            folds=min(self.folds, 2),
            seeds=1,
            is_smoke=True,
        )

    def settings(self) -> dict:
        """All of it but the seeds, for JSON."""
        config = self.config
        trunk = self.trunk
        if trunk == INCEPTION:
            trunk = f"Inception I3D up to {self.layer}, frozen"
        return {
            "trunk": f"{trunk} (smoke: tiny, random)"
            if self.is_smoke
            else trunk,
            "clip": str(config.clip),
            "clip_fields": dataclasses.asdict(config.clip),
            "crop_size": config.crop_size,
            "short_side": list(config.short_side),
            "flip": config.flip,
            "batch_size": config.batch_size,
            "epochs": config.epochs,
            "learning_rate": config.learning_rate,
            **dataclasses.asdict(self.block),
        }


def compare(
    videos: VideoList,
    groups: Sequence[str],
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] = ".",
    title: str = "Does a non-local block help?",
) -> dict:
    """Compares the three arms, and leaves `index.html` and `results.json`.

    Args:
        videos: The videos, of one class each.
        groups: The group of each.
        plan: How.
        out: Folder to write to. Features and results that are there are used
            if nothing that they depend on has changed.
        base: Folder of the videos, which paths in results begin after.
        title: Of the page.

    Returns:
        What `results.json` holds.

    Raises:
        ValueError: If the videos cannot be dealt into folds, whether all or
            those that can be read, or a loss is not finite.
    """
    out = pathlib.Path(out)
    settings = plan.settings()
    dealt = study.Study.deal(videos, groups, plan.folds, settings)
    skips = SkipLog()
    trainer: study.Trainer
    if plan.trunk == INCEPTION:
        trainer, dealt = _heads(dealt, plan, out, skips)
    else:
        trainer = _networks(dealt, plan)
    runs = dealt.run(trainer, plan.seeds, out)
    numbers = study.results(dealt, runs, os.fspath(base), skips.reasons)
    write_json(out / "results.json", numbers)
    write_text(out / "index.html", summary.page(numbers, title))
    for sentence in summary.sentences(numbers):
        print(sentence)
    return numbers


def _heads(
    dealt: study.Study, plan: Plan, out: pathlib.Path, skips: SkipLog
) -> tuple[Heads, study.Study]:
    """What trains heads, and the study of the videos that can be read."""
    trunk = features.tiny_trunk()
    if not plan.is_smoke:
        trunk = features.inception(plan.layer)
    found = features.extract(
        trunk, dealt.videos, plan.config, out / "features", skips
    )
    readable = np.array([file is not None for file in found])
    files = [file for file in found if file is not None]
    dealt = study.Study.deal(
        dealt.videos.subset(readable),
        [dealt.groups[number] for number in np.flatnonzero(readable)],
        plan.folds,
        dealt.settings,
    )
    trainer = Heads(
        files,
        dealt.videos.labels,
        len(dealt.videos.class_names),
        plan.config,
        plan.block,
        eager=plan.is_smoke,
    )
    return trainer, dealt


def _networks(dealt: study.Study, plan: Plan) -> Networks:
    variant = VARIANTS[plan.trunk]
    if plan.is_smoke:
        variant = dataclasses.replace(
            variant, num_nonlocal=0, nonlocal_places=None, **_TINY
        )
    return Networks(dealt.videos, variant, plan.config, plan.block)
