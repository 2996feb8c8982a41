"""Learning rates over the steps of a training run."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay
from keras.optimizers.schedules import LearningRateSchedule

from keras_nonlocal.training.config import RunConfig

_FACTOR = 0.1  # Of a drop.
# What float64 may lack of a whole number of steps.
_ROUNDING = 1e-6


def make_schedule(config: RunConfig, steps: int) -> LearningRateSchedule:
    """The learning rate that a configuration means.

    It rises in equal steps from `warmup_start * peak_rate` to `peak_rate` over
    the share `warmup` of the steps. From there a cosine falls to zero, or the
    rate stays but for `drops`.

    Args:
        config: Settings.
        steps: Of the whole training.

    Returns:
        A schedule from the number of steps done to the rate of the next one.

    Raises:
        ValueError: If there is no step.

    Example:

    >>> config = RunConfig(schedule="steps", drops=(0.375, 0.75), warmup=0.0)
    >>> rate = make_schedule(config, steps=400)
    >>> [round(float(rate(step)), 6) for step in (0, 149, 150, 300)]
    [0.01, 0.01, 0.001, 0.0001]
    """
    if steps < 1:
        raise ValueError(
            f"`steps` must be 1 or more. Received: {steps}: there is less to "
            "train on than a batch"
        )
    peak = config.peak_rate
    # A share that was a number of steps comes out as that again.
    warmup = int(config.warmup * steps + _ROUNDING)
    if config.schedule == "cosine":
        return CosineDecay(
            config.warmup_start * peak if warmup else peak,
            decay_steps=steps - warmup,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    # The first step is before any drop, however few there are.
    drops = [max(round(drop * steps), 1) for drop in config.drops]
    return StepDecay(peak, drops, warmup, config.warmup_start)


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class StepDecay(LearningRateSchedule):
    """A constant learning rate that drops now and then, after a warm-up.

    Args:
        peak: The rate after the warm-up and before the first drop.
        drops: Numbers of steps after which the rate is multiplied by `factor`.
        warmup_steps: Steps in which the rate rises to what it would be
            without a warm-up.
        warmup_start: What it rises from, as a share.
        factor: Of a drop.

    Example:

    >>> rate = StepDecay(0.1, drops=[20], warmup_steps=10)
    >>> [round(float(rate(step)), 4) for step in (0, 5, 10, 20)]
    [0.0, 0.05, 0.1, 0.01]
    """

    def __init__(
        self,
        peak: float,
        drops: Sequence[int] = (),
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
        factor: float = _FACTOR,
    ) -> None:
        super().__init__()
        self.peak = peak
        self.drops = [int(drop) for drop in drops]
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.factor = factor

    def __call__(self, step: Any) -> Any:
        """The rate of the step after so many."""
        step = ops.convert_to_tensor(step)
        # Powers in Python: those of float32 would not be as exact.
        rate = ops.convert_to_tensor(self.peak, "float32")
        for number, drop in enumerate(sorted(self.drops), start=1):
            dropped = self.peak * self.factor**number
            # Compared as integers: float32 knows them up to 2^24.
            rate = ops.where(step >= drop, dropped, rate)
        if not self.warmup_steps:
            return rate
        done = ops.cast(step, "float32") / self.warmup_steps
        share = self.warmup_start + (1.0 - self.warmup_start) * done
        return rate * ops.minimum(share, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "peak": self.peak,
            "drops": self.drops,
            "warmup_steps": self.warmup_steps,
            "warmup_start": self.warmup_start,
            "factor": self.factor,
        }
