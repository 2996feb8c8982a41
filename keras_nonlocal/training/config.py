"""What a training run is made of."""

import dataclasses

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.models.rematerialization import UNITS


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    The optimizer is SGD with Nesterov momentum 0.9, as the paper's, with a
    linear warm-up and cosine decay of the learning rate.

    Attributes:
        clip: Frames of a clip.
        batch_size: Clips of a step, over all replicas.
        epochs: Passes over the training videos.
        learning_rate: Peak learning rate.
        warmup: Share of the steps in which the rate rises to its peak.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of a rescaled video, in
            pixels.
        flip: Whether half of the training clips are mirrored.
        seed: Seed of weights, order and augmentation.
        num_workers: Processes that read videos; 0 reads in threads.
        max_skipped: Share of clips that cannot be read above which training
            ends, with an explanation.
        weights: What to start from instead of random weights, as the argument
            of `ResNet3D`; the classifier starts anew.
        rematerialize: What is computed again in the backward pass instead of
            being kept, to train in less memory: `"norms"` or `"blocks"`, as
            `keras_nonlocal.rematerialize` says. The results are the same.
    """

    clip: ClipSpec
    batch_size: int = 8
    epochs: int = 10
    learning_rate: float = 0.01
    warmup: float = 0.1
    crop_size: int = 224
    short_side: tuple[int, int] = (256, 320)
    flip: bool = True
    seed: int = 0
    num_workers: int = 0
    max_skipped: float = 0.5
    weights: str | None = None
    rematerialize: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"TrainConfig: `{name}` must be positive. "
                    f"Received: {getattr(self, name)!r}"
                )
        if self.rematerialize not in (None, *UNITS):
            raise ValueError(
                f"TrainConfig: `rematerialize` must be one of {UNITS} or None. "
                f"Received: {self.rematerialize!r}"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(
                "TrainConfig: `warmup` must be a share of the steps, from 0 "
                f"and below 1. Received: {self.warmup!r}"
            )
