"""Recipes of detectors: the files in `zoo/configs/coco`.

They are the rows of table 5 of the paper. Section 6 tells the network (one
non-local block right before the last residual block of res4), the data
(train2017 and val2017) and that training is end to end from an ImageNet
network. It does not tell rate, length, batch, the treatment of batch norms nor
the data of the trunk of ResNeXt-152. Here these are the settings of Detectron,
the code base that names the paper among its projects: two samples a bin of
RoIAlign, which is not aligned; smooth L1 losses; frozen scales and shifts; one
scale; biases at twice the rate and without decay. Table 6, of keypoints, is
left out.

One thing is neither the paper's nor Detectron's: the norm of the gradients is
bounded, since training these networks is known to end, now and then, with a
loss that is not finite.
"""

import dataclasses
from typing import Any

from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.detector_variants import detector_name
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.training.detector_config import SHORT_SIDES
from keras_nonlocal.training.detector_config import DetectorConfig
from keras_nonlocal.training.recipes import BaseRecipe
from keras_nonlocal.weights.catalogue import CATALOGUE


@dataclasses.dataclass(frozen=True)
class DetectorRecipe(BaseRecipe):
    """All that an experiment with a detector needs but the images.

    Attributes:
        network: What is trained.
        config: How.

    The other attributes are those of
    `keras_nonlocal.training.recipes.BaseRecipe`: `name`, `dataset`, `classes`
    (`None` for those of the images), `published`, `source`, `released`.
    """

    network: DetectorVariant
    config: DetectorConfig

    def smoke(self) -> "DetectorRecipe":
        """The same experiment made so small that a CPU runs it in seconds.

        Two steps of two images by a narrow network from random weights, on
        images of any classes: it shows that a recipe runs, and nothing else.
        Anchors, sampling, losses and schedule are the recipe's.

        >>> small = coco("mine", "r50", nonlocal_blocks=1).smoke()
        >>> small.name, small.config.steps, small.network.trunk.num_nonlocal
        ('mine_smoke', 2, 1)
        """
        return dataclasses.replace(
            self,
            name=f"{self.name}_smoke",
            network=_tiny_network(self.network),
            config=dataclasses.replace(self.config, **_TINY_CONFIG),
            classes=None,
            published={},
            released=None,
        )


# Depth 26 is the smallest, with two blocks a stage.
_TINY_TRUNK: dict[str, Any] = {"depth": 26, "width": 8}
_TINY: dict[str, Any] = {
    "pyramid_channels": 8,
    "box_units": 8,
    "mask_channels": 8,
    "mask_convs": 1,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "pre_nms": (32, 32),
    "post_nms": (16, 16),
    "rpn_samples": 32,
    "region_samples": 16,
    "max_detections": 4,
    "max_candidates": 32,
}
_TINY_CONFIG: dict[str, Any] = {
    "batch_size": 2,
    "reference_batch": 2,
    "steps": 2,
    "steps_per_epoch": 2,
    "short_side": (64,),
    "test_short_side": 64,
    "max_side": 96,
    "mask_size": 14,
    "weights": None,
    "backbone_weights": None,
}


def _tiny_network(network: DetectorVariant) -> DetectorVariant:
    trunk = dataclasses.replace(network.trunk, **_TINY_TRUNK)
    return dataclasses.replace(network, trunk=trunk, **_TINY)


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """Images of a step, rate, steps and where the rate drops."""

    batch_size: int
    learning_rate: float
    steps: int
    drops: tuple[int, int]
    warmup: int = 500
    warmup_start: float = 1 / 3

    def settings(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "reference_batch": self.batch_size,
            "steps": self.steps,
            "learning_rate": self.learning_rate,
            "schedule": "steps",
            "drops": tuple(step / self.steps for step in self.drops),
            "warmup": self.warmup / self.steps,
            "warmup_start": self.warmup_start,
        }


# By the depth of the trunk. Of ResNeXt-152 a GPU takes one image; its 1x is
# what Detectron calls s1x, a stretched one.
_SCHEDULES = {
    (50, "1x"): _Schedule(16, 0.02, 90_000, (60_000, 80_000)),
    (50, "3x"): _Schedule(16, 0.02, 270_000, (210_000, 250_000)),
    (152, "1x"): _Schedule(8, 0.01, 260_000, (200_000, 240_000)),
    (152, "3x"): _Schedule(8, 0.01, 540_000, (420_000, 500_000)),
}
_SCHEDULES |= {(101, x): _SCHEDULES[50, x] for x in ("1x", "3x")}
SCHEDULES = ("1x", "3x")
# Of the trunks.
_IMAGE_WEIGHTS = {
    "r50": "detectron2_R-50",
    "r101": "detectron2_R-101",
    "x152": "detectron_X-152-32x8d-IN5k",
}
_STEPS_PER_EPOCH = 5_000
_MEASURES = (
    "box AP",
    "box AP50",
    "box AP75",
    "mask AP",
    "mask AP50",
    "mask AP75",
)
# Table 5 of the paper, by trunk and number of non-local blocks.
_TABLE_5 = {
    ("r50", 0): (38.0, 59.6, 41.0, 34.6, 56.4, 36.5),
    ("r50", 1): (39.0, 61.1, 41.9, 35.5, 58.0, 37.4),
    ("r101", 0): (39.5, 61.4, 42.9, 36.0, 58.1, 38.3),
    ("r101", 1): (40.8, 63.1, 44.5, 37.1, 59.9, 39.2),
    ("x152", 0): (44.1, 66.4, 48.4, 39.7, 63.2, 42.2),
    ("x152", 1): (45.0, 67.8, 48.9, 40.3, 64.4, 42.8),
}


def coco(
    name: str,
    trunk: str,
    schedule: str = "1x",
    *,
    nonlocal_blocks: int = 0,
    released: str | None = None,
) -> DetectorRecipe:
    """COCO from an ImageNet network, as the paper probably trained it.

    Args:
        name: Of the recipe.
        trunk: `"r50"`, `"r101"` or `"x152"`.
        schedule: `"1x"` or `"3x"`. The paper does not say which it took;
            Detectron has `"1x"`.
        nonlocal_blocks: 0 or 1.
        released: An entry of `list_weights()` with this experiment's weights.

    Returns:
        The recipe.

    Raises:
        ValueError: If there is no such trunk or schedule.

    >>> config = coco("mine", "r50").config
    >>> [round(share * config.steps) for share in config.drops]
    [60000, 80000]
    """
    for what, value, allowed in (
        ("trunk", trunk, tuple(_IMAGE_WEIGHTS)),
        ("schedule", schedule, SCHEDULES),
    ):
        if value not in allowed:
            raise ValueError(
                f"`{what}` must be one of {allowed}. Received: {value!r}"
            )
    network = DETECTOR_VARIANTS[detector_name(trunk, "paper", nonlocal_blocks)]
    weights = _IMAGE_WEIGHTS[trunk]
    network = _on_trunk_of(network, weights)
    config = DetectorConfig(
        **_SCHEDULES[network.trunk.depth, schedule].settings(),
        steps_per_epoch=_STEPS_PER_EPOCH,
        test_every=4,
        # Detectron has several for its largest network alone.
        short_side=SHORT_SIDES if trunk == "x152" else (800,),
        bias_rate=2.0,
        decay_biases=False,
        backbone_weights=weights,
    )
    figures = _TABLE_5[trunk, nonlocal_blocks]
    return DetectorRecipe(
        name,
        network,
        config,
        "coco",
        80,
        published=dict(zip(_MEASURES, figures, strict=True)),
        source="table 5",
        released=released,
    )


def _on_trunk_of(network: DetectorVariant, weights: str) -> DetectorVariant:
    """The detector with pixels and strides as image weights are used to."""
    image = CATALOGUE[weights].network
    if not isinstance(image, ImageVariant):
        raise ValueError(
            f"{weights} must be weights of an image network. Received: those "
            f"of {type(image).__name__}"
        )
    trunk = dataclasses.replace(
        network.trunk,
        stride_in_1x1=image.stride_in_1x1,
        mean=image.mean,
        std=image.std,
    )
    return dataclasses.replace(network, trunk=trunk)
