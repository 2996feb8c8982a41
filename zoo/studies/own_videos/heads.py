"""Training heads on features that lie on disk."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_nonlocal.training.config import TrainConfig
from zoo.studies.own_videos import arms
from zoo.studies.own_videos.outcome import Outcome


class Heads:
    """What is trained and tested where the trunk is frozen.

    Args:
        files: Features of each video, as of `extract`.
        labels: Class numbers.
        num_classes: Number of classes.
        config: Length and rate of the training, with Adam and a cosine decay.
        block: The blocks.
        eager: Whether to train without a graph, which is faster for a few
            steps and slower for more.
    """

    def __init__(
        self,
        files: Sequence[pathlib.Path],
        labels: np.ndarray,
        num_classes: int,
        config: TrainConfig,
        block: arms.Block,
        eager: bool = False,
    ) -> None:
        self.files = files
        self.labels = labels
        self.num_classes = num_classes
        self.config = config
        self.block = block
        self.eager = eager
        self.shape = np.load(files[0], mmap_mode="r").shape

    def run(
        self, arm: str, train: np.ndarray, test: np.ndarray, seed: int
    ) -> Outcome:
        """Trains one head and tests it.

        Args:
            arm: Which one.
            train: Numbers of the videos to train on.
            test: Numbers of those to test on.
            seed: Of weights, dropout and order.
        """
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        model = arms.head(arm, self.shape, self.num_classes, self.block)
        batches = self._batches(train, seed)
        steps = len(batches) * self.config.epochs
        rate = keras.optimizers.schedules.CosineDecay(
            self.config.learning_rate, steps
        )
        model.compile(
            keras.optimizers.Adam(rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            # Compiling takes longer than training so small a network.
            jit_compile=False,
            run_eagerly=self.eager,
        )
        history = model.fit(
            batches, epochs=self.config.epochs, shuffle=False, verbose=0
        ).history
        # A trace of the network would take longer than its few calls.
        batches = self._batches(test)
        logits = [
            keras.ops.convert_to_numpy(model(batches[n][0], training=False))
            for n in range(len(batches))
        ]
        best = np.concatenate(logits).argmax(axis=1).tolist()
        return Outcome(
            predictions=dict(zip(test.tolist(), best, strict=True)),
            parameters=model.count_params(),
            losses=history["loss"],
        )

    def _batches(
        self, numbers: np.ndarray, seed: int | None = None
    ) -> "_Batches":
        return _Batches(
            [self.files[number] for number in numbers],
            self.labels[numbers],
            self.config.batch_size,
            seed,
        )


class _Batches(keras.utils.PyDataset):
    """Features and labels; in a new order each epoch if there is a seed."""

    def __init__(
        self,
        files: Sequence[pathlib.Path],
        labels: np.ndarray,
        batch_size: int,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.files = files
        self.labels = labels
        self.batch_size = min(batch_size, len(files))
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(files))
        self.on_epoch_end()

    def __len__(self) -> int:
        # A norm of few clips is none: in training the rest is left out.
        whole = len(self.files) / self.batch_size
        return math.ceil(whole) if self.rng is None else math.floor(whole)

    def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        start = place * self.batch_size
        chosen = self.order[start : start + self.batch_size]
        maps = [np.load(self.files[n], allow_pickle=False) for n in chosen]
        return np.stack(maps).astype("float32"), self.labels[chosen]

    def on_epoch_end(self) -> None:
        if self.rng is not None:
            self.order = self.rng.permutation(len(self.files))
