"""Every Mask R-CNN of the paper and of the code bases, as data.

`DetectorVariant` holds all that differs between the paper, Detectron,
detectron2 and torchvision; `DETECTOR_VARIANTS` is the only place where the
detectors are listed.
"""

import dataclasses
from typing import Any

from keras_nonlocal.models.resnet2d import ImageVariant

ANCHOR_STYLES = ("exact", "rounded", "detectron")
LEVEL_RULES = ("scale", "level")
STRIDES = (4, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True)
class DetectorVariant:
    """One Mask R-CNN with a feature pyramid: what `MaskRCNN` builds.

    The defaults are detectron2's. Lengths are in pixels of the network's
    input.

    Attributes:
        trunk: The residual network. With `num_nonlocal=1` it has a non-local
            block before the last residual block of res4 (section 6).
        classes: Number of classes, without the background.
        pyramid_channels: Of the feature pyramid and of the RPN.
        box_units: Width of the two dense layers of the box head.
        mask_channels: Of the mask head.
        mask_convs: Number of its 3x3 convolutions.
        anchor_sizes: Side of the anchors of P2 to P6, one for each.
        anchor_ratios: Height to width.
        anchor_style: How anchors are rounded: not (`"exact"`), torchvision's
            (`"rounded"`) or Detectron's way (`"detectron"`).
        box_offset: 0, or 1 for Detectron's boxes, whose last pixel belongs to
            them: their width is `x2 - x1 + 1`.
        box_size: Side of what RoIAlign gives the box head.
        mask_size: Of what it gives the mask head, whose masks are twice it.
        sampling_ratio: Samples in a bin of RoIAlign along each axis; 0: as
            many as the bin has cells.
        aligned: Whether RoIAlign shifts by half a cell, so that samples stand
            where they should.
        level_epsilon: Keeps regions on the border between two levels.
        level_rule: Where it is added: to the side of a region (`"scale"`) or
            to its level (`"level"`, torchvision).
        rpn_beta: Where the smooth L1 loss of the RPN begins to be linear; 0
            for an L1 loss.
        box_beta: That of the box head.
        pre_nms: Proposals a level before suppression, in training and later.
        post_nms: Proposals an image after it, in training and later.
        rpn_nms: Intersection over union above which a proposal suppresses.
        rpn_min_size: Proposals with a shorter side are dropped.
        inside_only: Whether anchors that cross the border of the image are
            ignored in training.
        rpn_low: Anchors below this intersection over union are negative.
        rpn_high: Anchors at or above it are positive.
        rpn_samples: Anchors an image that the RPN is trained on.
        rpn_positive_share: Most of them that may be positive.
        region_threshold: Regions at or above this are positive.
        region_samples: Regions an image that the heads are trained on.
        region_positive_share: Most of them that may be positive.
        score_threshold: Detections must be more probable than this.
        nms: Intersection over union above which detections of a class
            suppress.
        max_detections: Of an image.
        max_candidates: Most probable pairs of region and class among which
            detections are chosen.
        min_detection_size: Detections with a shorter side are dropped.
        frozen_stages: How much of the trunk is not trained: 0 nothing, 1
            conv1, 2 res2 as well, to 5. The non-local block is trained in any
            case.

    Sources: "Mask R-CNN" (He et al., ICCV 2017), "Feature Pyramid Networks
    for Object Detection" (Lin et al., CVPR 2017), and the settings of the
    code bases that `PRESETS` names.
    """

    trunk: ImageVariant
    classes: int = 80
    pyramid_channels: int = 256
    box_units: int = 1024
    mask_channels: int = 256
    mask_convs: int = 4
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_style: str = "exact"
    box_offset: float = 0.0
    box_size: int = 7
    mask_size: int = 14
    sampling_ratio: int = 0
    aligned: bool = True
    level_epsilon: float = 1e-8
    level_rule: str = "scale"
    rpn_beta: float = 0.0
    box_beta: float = 0.0
    pre_nms: tuple[int, int] = (2000, 1000)
    post_nms: tuple[int, int] = (1000, 1000)
    rpn_nms: float = 0.7
    rpn_min_size: float = 0.0
    inside_only: bool = False
    rpn_low: float = 0.3
    rpn_high: float = 0.7
    rpn_samples: int = 256
    rpn_positive_share: float = 0.5
    region_threshold: float = 0.5
    region_samples: int = 512
    region_positive_share: float = 0.25
    score_threshold: float = 0.05
    nms: float = 0.5
    max_detections: int = 100
    max_candidates: int = 4096
    min_detection_size: float = 0.0
    frozen_stages: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.trunk, ImageVariant):
            _refuse("trunk", "an ImageVariant", self.trunk)
        for name in _PAIRS + ("anchor_sizes", "anchor_ratios"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                _refuse(name, "a tuple of numbers", value)
            object.__setattr__(self, name, tuple(value))
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                _refuse(name, f"one of {allowed}", getattr(self, name))
        for name in _NATURAL:
            if not _is_natural(getattr(self, name)):
                _refuse(name, "a positive integer", getattr(self, name))
        for name in _PAIRS:
            value = getattr(self, name)
            if len(value) != 2 or not all(map(_is_natural, value)):
                _refuse(name, "two positive integers", value)
        if not isinstance(self.sampling_ratio, int) or self.sampling_ratio < 0:
            _refuse("sampling_ratio", "an integer from 0", self.sampling_ratio)
        for name in _SHARES:
            if not _is_between(getattr(self, name), 0, 1):
                _refuse(name, "a number from 0 to 1", getattr(self, name))
        for name in _LENGTHS:
            if not _is_between(getattr(self, name), 0, 1e6):
                _refuse(name, "a number from 0", getattr(self, name))
        if int(self.region_samples * self.region_positive_share) < 1:
            _refuse(
                "region_positive_share",
                "at least 1 / `region_samples`",
                self.region_positive_share,
            )
        self._check_anchors()

    def _check_anchors(self) -> None:
        sizes, ratios = self.anchor_sizes, self.anchor_ratios
        if len(sizes) != len(STRIDES) or not all(map(_is_natural, sizes)):
            _refuse("anchor_sizes", "a positive integer for P2 to P6", sizes)
        if not ratios or not all(_is_between(r, 1e-3, 1e3) for r in ratios):
            _refuse("anchor_ratios", "positive numbers", ratios)
        if self.rpn_low > self.rpn_high:
            _refuse("rpn_low", "at most `rpn_high`", self.rpn_low)

    @property
    def num_anchors(self) -> int:
        """Anchors at each position of a level."""
        return len(self.anchor_ratios)

    @property
    def nonlocal_blocks(self) -> int:
        """Number of non-local blocks in the trunk."""
        return self.trunk.num_nonlocal

    def with_nonlocal(self, number: int) -> "DetectorVariant":
        """The same detector with 0 or 1 non-local blocks.

        >>> DETECTOR_VARIANTS["mask_rcnn_r50"].with_nonlocal(1) == (
        ...     DETECTOR_VARIANTS["nl_mask_rcnn_r50"]
        ... )
        True
        """
        trunk = dataclasses.replace(self.trunk, num_nonlocal=number)
        return dataclasses.replace(self, trunk=trunk)


_ALLOWED: dict[str, tuple] = {
    "anchor_style": ANCHOR_STYLES,
    "box_offset": (0, 1),
    "aligned": (False, True),
    "level_rule": LEVEL_RULES,
    "inside_only": (False, True),
    "frozen_stages": (0, 1, 2, 3, 4, 5),
}
_NATURAL = (
    "classes",
    "pyramid_channels",
    "box_units",
    "mask_channels",
    "mask_convs",
    "box_size",
    "mask_size",
    "rpn_samples",
    "region_samples",
    "max_detections",
    "max_candidates",
)
_PAIRS = ("pre_nms", "post_nms")
_SHARES = (
    "rpn_nms",
    "rpn_low",
    "rpn_high",
    "rpn_positive_share",
    "region_threshold",
    "region_positive_share",
    "score_threshold",
    "nms",
)
_LENGTHS = (
    "level_epsilon",
    "rpn_beta",
    "box_beta",
    "rpn_min_size",
    "min_detection_size",
)
# Fields that may be chosen anew for the same weights.
TRAINING_FIELDS = frozenset(
    {
        "rpn_beta",
        "box_beta",
        "pre_nms",
        "post_nms",
        "rpn_nms",
        "rpn_min_size",
        "inside_only",
        "rpn_low",
        "rpn_high",
        "rpn_samples",
        "rpn_positive_share",
        "region_threshold",
        "region_samples",
        "region_positive_share",
        "score_threshold",
        "nms",
        "max_detections",
        "max_candidates",
        "min_detection_size",
        "frozen_stages",
    }
)


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _is_between(value: object, smallest: float, largest: float) -> bool:
    return isinstance(value, (int, float)) and smallest <= value <= largest


def _refuse(name: str, expected: str, value: object) -> None:
    raise ValueError(
        f"DetectorVariant: `{name}` must be {expected}. Received: {value!r}"
    )


def describe_detector(variant: DetectorVariant) -> dict[str, Any]:
    """A detector as a dict that JSON can hold."""
    return {"kind": "DetectorVariant", **dataclasses.asdict(variant)}


def restore_detector(description: dict[str, Any]) -> DetectorVariant:
    """The detector that `describe_detector` described.

    Args:
        description: The dict, also after it was written as JSON.

    Raises:
        ValueError: If it is none, or that of another version.

    >>> variant = DETECTOR_VARIANTS["nl_mask_rcnn_x152_paper"]
    >>> restore_detector(describe_detector(variant)) == variant
    True
    """
    try:
        fields = dict(description)
        fields.pop("kind", None)
        trunk: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in fields.pop("trunk").items()
        }
        return DetectorVariant(ImageVariant(**trunk), **fields)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(
            f"This does not describe a DetectorVariant: {error}. "
            f"Received: {description!r}"
        ) from error


_PAPER: dict[str, Any] = {
    "sampling_ratio": 2,
    "aligned": False,
    "rpn_beta": 1 / 9,
    "box_beta": 1.0,
}
# Fields in which each code base differs from the defaults. "paper" is what
# the paper's experiments were probably run with: Detectron's settings, as
# detectron2's baselines for a comparison with Detectron have them;
# "detectron" adds what only Detectron itself has.
PRESETS: dict[str, dict[str, Any]] = {
    "detectron2": {},
    "paper": _PAPER,
    "torchvision": {
        "anchor_style": "rounded",
        "sampling_ratio": 2,
        "aligned": False,
        "level_epsilon": 1e-6,
        "level_rule": "level",
        "rpn_beta": 1 / 9,
        "box_beta": 1 / 9,
        "post_nms": (2000, 1000),
        "rpn_min_size": 1e-3,
        "min_detection_size": 1e-2,
    },
    "detectron": {
        **_PAPER,
        "anchor_style": "detectron",
        "box_offset": 1.0,
        "inside_only": True,
    },
}

_TRUNKS: dict[str, dict[str, Any]] = {
    "r50": {"depth": 50},
    "r101": {"depth": 101},
    "x152": {"depth": 152, "groups": 32, "group_width": 8},
}
_DETECTRON_MEAN = (122.7717, 115.9465, 102.9801)


def _trunk(key: str, preset: str) -> ImageVariant:
    """A trunk as the code base of a preset has it."""
    fields = {"norm": "affine", **_TRUNKS[key]}
    if preset != "torchvision":
        # MSRA's networks, and ResNeXts whose conv1 has taken up the
        # deviations.
        fields["stride_in_1x1"] = key != "x152"
        fields["std"] = (1.0, 1.0, 1.0)
    if preset == "detectron":
        fields["mean"] = _DETECTRON_MEAN
    return ImageVariant(**fields)


def detector_name(trunk: str, preset: str, nonlocal_blocks: int) -> str:
    """The key of a detector in `DETECTOR_VARIANTS`.

    >>> detector_name("r101", "paper", 1)
    'nl_mask_rcnn_r101_paper'
    """
    prefix = "nl_" if nonlocal_blocks else ""
    suffix = "" if preset == "detectron2" else f"_{preset}"
    return f"{prefix}mask_rcnn_{trunk}{suffix}"


def _variants() -> dict[str, DetectorVariant]:
    table = {}
    for preset, changes in PRESETS.items():
        for trunk in _TRUNKS:
            baseline = DetectorVariant(_trunk(trunk, preset), **changes)
            for number in (0, 1):
                key = detector_name(trunk, preset, number)
                table[key] = baseline.with_nonlocal(number)
    return table


def _small() -> DetectorVariant:
    """For pictures of 256 pixels on a processor: "paper", narrow.

    Its batch norms are trained, as nothing else has trained them; anchors have
    half the usual sizes.
    """
    trunk = _trunk("r50", "paper")
    return DetectorVariant(
        dataclasses.replace(trunk, depth=26, width=16, norm="batch"),
        **_PAPER,
        pyramid_channels=48,
        box_units=128,
        mask_channels=32,
        mask_convs=2,
        anchor_sizes=(16, 32, 64, 128, 256),
        pre_nms=(200, 100),
        post_nms=(100, 50),
        rpn_samples=128,
        region_samples=64,
        region_positive_share=0.5,
        max_detections=30,
        max_candidates=512,
        frozen_stages=0,
    )


DETECTOR_VARIANTS: dict[str, DetectorVariant] = {
    **_variants(),
    "small_mask_rcnn": _small(),
    "small_nl_mask_rcnn": _small().with_nonlocal(1),
}
