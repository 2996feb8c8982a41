"""What a training run of a detector is made of."""

import dataclasses

from keras_nonlocal.training.config import RunConfig

# Detectron's and detectron2's images of a step, for their rate of 0.02.
REFERENCE_BATCH = 16
# detectron2's short sides in training.
SHORT_SIDES = (640, 672, 704, 736, 768, 800)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig(RunConfig):
    """Settings of a training run of a Mask R-CNN.

    The optimizer is SGD with momentum, not Nesterov's, and L2 decay. Optimizer,
    rate and sizes of images are detectron2's by default, length and warm-up
    suit a folder of one's own.

    An example is an image, an epoch by default one pass over those that have
    objects. The loss is a sum over images divided by their number, so that rate
    and length follow the batch: `learning_rate` and `steps` are those for
    `reference_batch` images.

    Attributes:
        short_side: What the short side of a training image is scaled to; of
            several one is drawn. In pixels.
        test_short_side: The same of a test image.
        max_side: The long side is at most this, or the image is made smaller.
        max_objects: Most objects of a training image that are learnt from.
        mask_size: Side of the masks that targets are made of, each in its box.
        pad_to: Height and width that all training images are padded to, so
            that there is one size; `None`: each batch to its largest image,
            in multiples of 32.
        clip_norm: Largest norm of all gradients together; `None` for any.
            Neither Detectron nor detectron2 clip by default, and a single batch
            may then end a run of days with a loss that is not finite.
        bias_rate: Factor of the rate for biases; Detectron takes 2.
        decay_biases: Whether biases decay; in Detectron they do not.
        backbone_weights: ImageNet weights that the trunk starts from, as the
            argument of `MaskRCNN`. Scales and shifts of its norms are not
            trained, so that a trunk without weights learns poorly.
        weights: Those of a whole detector to start from, as the argument of
            `MaskRCNN`; the layers that depend on the classes start anew where
            their number is another.
        test_every: Epochs from one test to the next; after the last one there
            always is one.
        test_images: Number of test images to take, the first ones; `None` for
            all.
        jit_compile: Whether XLA compiles the training step, on TensorFlow. It
            does so for every size of batch anew, which takes minutes each:
            with `pad_to`, or not at all. JAX always compiles.

    The other attributes are those of
    `keras_nonlocal.training.config.RunConfig`.

    Example:

    >>> config = DetectorConfig(batch_size=4, steps=90_000)
    >>> config.peak_rate, config.num_steps(count=117_266)
    (0.005, 360000)
    """

    batch_size: int = 2
    epochs: int = 12
    learning_rate: float = 0.02
    reference_batch: int | None = REFERENCE_BATCH
    schedule: str = "steps"
    drops: tuple[float, ...] = (2 / 3, 8 / 9)
    warmup: float = 0.05
    warmup_start: float = 0.001
    nesterov: bool = False
    clip_norm: float | None = 35.0
    short_side: tuple[int, ...] = SHORT_SIDES
    test_short_side: int = 800
    max_side: int = 1333
    max_objects: int = 100
    mask_size: int = 56
    pad_to: tuple[int, int] | None = None
    bias_rate: float = 1.0
    decay_biases: bool = True
    backbone_weights: str | None = None
    test_every: int = 1
    test_images: int | None = None
    jit_compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "test_short_side",
            "max_side",
            "max_objects",
            "mask_size",
            "test_every",
            "test_images",
            "bias_rate",
        ):
            self._check_positive(name)
        sides = self.short_side
        is_fine = len(sides) > 0 and all(
            isinstance(side, int) and 1 <= side <= self.max_side
            for side in sides
        )
        self._check("short_side", "whole numbers up to `max_side`", is_fine)
        if self.weights is not None and self.backbone_weights is not None:
            raise ValueError(
                "DetectorConfig: `weights` are of a whole detector: give them "
                "or `backbone_weights`, not both. Received: "
                f"weights={self.weights!r}, "
                f"backbone_weights={self.backbone_weights!r}"
            )
