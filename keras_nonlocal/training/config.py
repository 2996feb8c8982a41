"""What a training run is made of."""

import dataclasses
import math
from typing import Any

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.transforms import JITTERS
from keras_nonlocal.models.rematerialization import UNITS

SCHEDULES = ("cosine", "steps", "constant")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
BATCH_NORMS = ("auto", "train", "freeze", "affine")
# What may stand in a field of an annotated type, in words and as types.
_NONE = type(None)
_TYPES: dict[Any, tuple[str, tuple[type, ...]]] = {
    ClipSpec: ("a ClipSpec", (ClipSpec,)),
    bool: ("True or False", (bool,)),
    int: ("a whole number", (int,)),
    int | None: ("a whole number or None", (int, _NONE)),
    float: ("a number", (int, float)),
    float | None: ("a number or None", (int, float, _NONE)),
    str: ("a word", (str,)),
    str | None: ("a word or None", (str, _NONE)),
    tuple[float, ...]: ("a tuple of numbers", (tuple,)),
    tuple[int, int]: ("a pair of whole numbers", (tuple, list)),
    tuple[int, int] | None: (
        "a pair of whole numbers or None",
        (tuple, list, _NONE),
    ),
    tuple[int, ...]: ("a tuple of whole numbers", (tuple,)),
    tuple[str, ...]: ("a tuple of names", (tuple,)),
    tuple[tuple[str, str], ...]: ("a tuple of pairs", (tuple,)),
}
# Fields of a `Variant` on which no weight's shape depends.
WEIGHTLESS = (
    "stem",
    "pool1_padding",
    "pool2",
    "res5_stride",
    "res3_group",
    "head",
)
# Fewer videos do not suffice to train batch norms that are trained already.
SMALL_SET = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings that training has, whatever is trained.

    The optimizer is SGD with momentum. What an example is (a clip, an image)
    depends on what is trained.

    Attributes:
        batch_size: Examples of a step, over all replicas and processes.
        epochs: Passes over the training examples.
        steps: Length of the training in steps, in place of `epochs`.
        steps_per_epoch: Steps after which the network is tested and saved.
            Default: those of one pass over the training examples.
        learning_rate: Peak learning rate.
        reference_batch: Examples of a step that `learning_rate` and `steps` are
            meant for: with other batches the rate is scaled in proportion and
            the steps inversely. Default: `batch_size`.
        schedule: `"cosine"` decays to zero, `"steps"` divides by 10 at `drops`,
            `"constant"` does neither.
        drops: When the rate drops, as shares of the steps, rising.
        warmup: Share of the steps in which the rate rises to its peak.
        warmup_start: What it rises from, as a share of the peak.
        momentum: Of SGD.
        nesterov: Whether momentum is Nesterov's.
        rescale_momentum: Whether velocities are scaled with the rate where it
            drops, as in the paper's code; Keras keeps those of the old rate.
        weight_decay: Factor of the weights added to their gradients, for all
            but scales and shifts of batch norms.
        clip_norm: Largest norm of all gradients together; `None` for any.
        ema: Share of the old value that an average of the weights keeps at
            each step; the averages are tested and saved. `None`: the weights.
        precision: `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`.
        flip: Whether half of the training examples are mirrored.
        seed: Seed of weights, order and augmentation.
        max_skipped: Share of examples that cannot be read above which training
            ends, with an explanation.
        weights: What to start from instead of random weights.
        tensorboard: Whether to write logs for TensorBoard.
    """

    batch_size: int = 8
    epochs: int = 10
    steps: int | None = None
    steps_per_epoch: int | None = None
    learning_rate: float = 0.01
    reference_batch: int | None = None
    schedule: str = "cosine"
    drops: tuple[float, ...] = ()
    warmup: float = 0.1
    warmup_start: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    rescale_momentum: bool = True
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    ema: float | None = None
    precision: str = "float32"
    flip: bool = True
    seed: int = 0
    max_skipped: float = 0.5
    weights: str | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        for name in (
            "batch_size",
            "epochs",
            "learning_rate",
            "steps",
            "steps_per_epoch",
            "reference_batch",
            "clip_norm",
        ):
            self._check_positive(name)
        for name in ("warmup", "warmup_start", "momentum", "ema"):
            self._check_share(name)
        self._check("weight_decay", "0 or positive", self.weight_decay >= 0)
        self._check_choice("schedule", SCHEDULES)
        self._check_choice("precision", PRECISIONS)
        self._check_drops()

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            expected, kinds = _TYPES[field.type]
            is_bool = isinstance(value, bool)
            is_fine = isinstance(value, kinds) and (
                bool in kinds or not is_bool
            )
            self._check(field.name, expected, is_fine)

    def _check(self, name: str, expected: str, is_fine: bool) -> None:
        if not is_fine:
            raise ValueError(
                f"{type(self).__name__}: `{name}` must be {expected}. "
                f"Received: {getattr(self, name)!r}"
            )

    def _check_positive(self, name: str) -> None:
        value = getattr(self, name)
        is_fine = value is None or 0 < value < math.inf
        self._check(name, "positive and finite", is_fine)

    def _check_share(self, name: str) -> None:
        value = getattr(self, name)
        is_fine = value is None or 0 <= value < 1
        self._check(name, "a share, from 0 and below 1", is_fine)

    def _check_choice(self, name: str, values: tuple) -> None:
        self._check(name, f"one of {values}", getattr(self, name) in values)

    def _check_drops(self) -> None:
        rising = all(
            one < other
            for one, other in zip(
                (0.0, *self.drops), (*self.drops, 1.0), strict=True
            )
        )
        if not rising or bool(self.drops) != (self.schedule == "steps"):
            raise ValueError(
                f"{type(self).__name__}: `drops` must be rising shares of the "
                'steps, between 0 and 1, with schedule="steps" and with no '
                f"other. Received: drops={self.drops}, "
                f"schedule={self.schedule!r}"
            )

    @property
    def peak_rate(self) -> float:
        """The learning rate for `batch_size`."""
        if self.reference_batch is None:
            return self.learning_rate
        return self.learning_rate * self.batch_size / self.reference_batch

    def num_steps(self, count: int) -> int:
        """Steps of the whole training on so many examples.

        >>> paper = RunConfig(batch_size=8, reference_batch=64, steps=400_000)
        >>> paper.num_steps(234_643)
        3200000
        """
        if self.steps is None:
            return self.epochs * (count // self.batch_size)
        reference = self.reference_batch or self.batch_size
        return -(-self.steps * reference // self.batch_size)

    def epochs_and_steps(self, count: int) -> tuple[int, int]:
        """How often the network is tested and saved, and after how many steps.

        Together they are the steps that are asked for, rounded up to whole
        epochs, of as many steps each.

        Args:
            count: Of the training examples, at least `batch_size`.

        Returns:
            Number of epochs, and steps of each.

        >>> RunConfig(batch_size=2, steps=100).epochs_and_steps(64)
        (4, 25)
        """
        steps = self.num_steps(count)
        epochs = -(-steps // (self.steps_per_epoch or count // self.batch_size))
        return epochs, -(-steps // epochs)


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Settings of a training run on clips of videos.

    The defaults of optimizer and augmentation are the paper's (section 4.1),
    those of length and schedule suit a folder of one's own.

    Attributes:
        clip: Frames of a clip.
        label_smoothing: Share of a label that is spread over all classes.
        class_weights: `"balanced"` weighs clips inversely to how frequent their
            class is, with a mean of 1; `None` does not.
            On several devices, and on JAX, the accuracy shown in training is
            weighted as well.
        batch_norm: `"train"`; `"freeze"` uses trained statistics, scales and
            shifts as they are; `"affine"` folds them into frozen scales and
            shifts; `"auto"` freezes when training goes on from `weights` on
            less than `SMALL_SET` videos. Batch norms that `weights` do not
            fill are trained.
        precise_bn: Batches over which the statistics of batch norms are
            computed anew before each test and at the end; the paper's code
            takes 200. 0 keeps moving averages.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of a rescaled video, in
            pixels.
        jitter: `"uniform"` draws the short side uniformly, `"inverse"` its
            inverse.
        flip_pairs: Names of classes that a mirrored clip swaps.
        num_workers: Processes that read videos; 0 reads in threads.
        weights: What to start from instead of random weights, as the argument
            of `ResNet3D`; the classifier starts anew. Those of an image
            network are inflated.
        from_baseline: Whether `weights` are of the network without its
            non-local blocks, which start as the identity.
        weights_differ_in: Fields of the network that were others when `weights`
            were trained, of those that change no shape of a weight:
            `("res5_stride",)`. What is not named here must be the same.
        rematerialize: What is computed again in the backward pass instead of
            being kept, to train in less memory: `"norms"` or `"blocks"`, as
            `keras_nonlocal.rematerialize` says. The results are the same.

    The other attributes are those of
    `keras_nonlocal.training.config.RunConfig`: length, optimizer, schedule,
    precision, seed; an example is a clip.

    Example:

    >>> config = TrainConfig(ClipSpec(8, 8), batch_size=16, reference_batch=64)
    >>> config.peak_rate
    0.0025
    """

    clip: ClipSpec
    _: dataclasses.KW_ONLY
    label_smoothing: float = 0.0
    class_weights: str | None = None
    batch_norm: str = "auto"
    precise_bn: int = 0
    crop_size: int = 224
    short_side: tuple[int, int] = (256, 320)
    jitter: str = "uniform"
    flip_pairs: tuple[tuple[str, str], ...] = ()
    num_workers: int = 0
    from_baseline: bool = False
    weights_differ_in: tuple[str, ...] = ()
    rematerialize: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("label_smoothing")
        self._check("precise_bn", "0 or positive", self.precise_bn >= 0)
        self._check_choice("class_weights", (None, "balanced"))
        self._check_choice("batch_norm", BATCH_NORMS)
        self._check_choice("jitter", JITTERS)
        self._check_choice("rematerialize", (None, *UNITS))
        self._check(
            "weights_differ_in",
            f"names among {WEIGHTLESS}",
            set(self.weights_differ_in) <= set(WEIGHTLESS),
        )
        if self.from_baseline and self.weights is None:
            raise ValueError(
                "TrainConfig: `from_baseline` needs `weights` to start from. "
                "Received: from_baseline=True, weights=None"
            )
