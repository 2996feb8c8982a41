"""What all training runs have in common: length, folder, devices, precision."""

import abc
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.skips import TooManySkipsError
from keras_nonlocal.training.config import RunConfig
from keras_nonlocal.training.distribution import Devices


@dataclasses.dataclass(frozen=True)
class RunPlan(abc.ABC):
    """A training run: how long, on which devices, and where its files go.

    Attributes:
        name: Of the network.
        config: Settings.
        devices: What trains.
        out: Where files go.
        skips: What could not be read.
    """

    name: str
    config: RunConfig
    devices: Devices
    out: pathlib.Path
    skips: SkipLog

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """Examples of one pass."""

    @property
    def epochs(self) -> int:
        """Times that the network is tested and saved."""
        return self.config.epochs_and_steps(self.count)[0]

    @property
    def steps_per_epoch(self) -> int:
        """Steps before each of these, as many each time."""
        return self.config.epochs_and_steps(self.count)[1]

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    def file(self, name: str) -> pathlib.Path:
        """Where this process writes a file that all of them have."""
        path, index = self.out / name, self.devices.process[0]
        return path.with_stem(f"{path.stem}_{index}") if index else path

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """Where a data set is read: in the end `skipped.json` is written.

        Raises:
            TooManySkipsError: If that is what has ended it.
        """
        try:
            yield
        except tf.errors.InvalidArgumentError:
            # Of the pipeline's own error a page of traces is made on its way.
            if self.skips.failure is None:
                raise
            raise TooManySkipsError(self.skips.failure) from None
        finally:
            self.skips.save(self.file("skipped.json"))


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers that are made meanwhile compute by this policy of Keras."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
