"""Whether the videos can be read as fast as a network trains on them."""

import dataclasses
import os
import time

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class InputSpeed:
    """How fast a data set gives clips.

    Attributes:
        clips: Clips read.
        seconds: Time of reading them.
        cpu_seconds: Processor time of this process, all its threads; without
            that of worker processes.
    """

    clips: int
    seconds: float
    cpu_seconds: float

    @property
    def clips_per_second(self) -> float:
        """Clips a second."""
        return self.clips / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of a clip, in milliseconds."""
        return 1000 * self.cpu_seconds / self.clips


def measure_input(dataset: tf.data.Dataset, seconds: float) -> InputSpeed:
    """Reads batches as fast as they come.

    The first batch is not counted: the pipeline starts, and the files are seen
    for the first time.

    Args:
        dataset: As of `clip_dataset(..., repeat=True)`: starting it again and
            again would be measured too.
        seconds: Stop after the batch that is being read then, the first of
            those that count or a later one.

    Returns:
        An `InputSpeed`.

    Raises:
        ValueError: If the data set is not known to go on for ever.
    """
    cardinality = int(dataset.cardinality())
    if cardinality != tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`dataset` must go on for ever, as that of `clip_dataset(..., "
            f"repeat=True)`. Received: a data set of cardinality {cardinality}"
        )
    batches = iter(dataset)
    next(batches)
    clips, passed = 0, 0.0
    cpu, start = time.process_time(), time.perf_counter()
    while not clips or passed < seconds:
        clips += len(next(batches)[0])
        passed = time.perf_counter() - start
    return InputSpeed(clips, passed, time.process_time() - cpu)


def measure_training(
    model: keras.Model, clips: tf.Tensor, labels: tf.Tensor, seconds: float
) -> float:
    """Trains on one batch again and again, with `fit`.

    Args:
        model: A compiled classifier; its weights change.
        clips: Those of the batch.
        labels: Theirs.
        seconds: How long, about.

    Returns:
        Clips a second.
    """
    batches = tf.data.Dataset.from_tensors((clips, labels)).repeat()

    def run(steps: int) -> float:
        start = time.perf_counter()
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
        return time.perf_counter() - start

    run(1)  # Compilation, and the kernels' first choice.
    steps = max(round(seconds / run(1)), 1)
    return steps * len(clips) / run(steps)


def verdict(supply: float, demand: float) -> str:
    """Says what limits training, and what helps.

    Args:
        supply: Clips a second that the input gives.
        demand: Clips a second that the devices train on.

    Returns:
        A sentence or two.

    >>> verdict(100.0, 20.0)
    'The input gives 5.0 times the clips that training takes: it will not wait.'
    """
    ratio = supply / demand
    if ratio >= 1.2:
        return (
            f"The input gives {ratio:.1f} times the clips that training takes: "
            "it will not wait."
        )
    cores = os.cpu_count() or 1
    return (
        f"The input gives {ratio:.2f} times the clips that training takes: the "
        f"device will wait {max(1 - ratio, 0):.0%} of the time or more. With "
        f"{cores} processors, re-encode the videos to a short side of 256 and "
        "short groups of pictures (keras_nonlocal.cli.prepare), or write "
        "shards of pictures (keras_nonlocal.cli.shard)."
    )
