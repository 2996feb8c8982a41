"""Training whole networks of the paper."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.skips import TooManySkipsError
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.optimizers import SGD
from zoo.studies.own_videos import arms
from zoo.studies.own_videos.features import numbered
from zoo.studies.own_videos.outcome import Outcome


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """What is trained and tested where the whole network is.

    `keras_nonlocal.train` builds its networks from a `Variant`, and no variant
    has controls: all arms are trained here, and alike.

    Attributes:
        videos: All videos.
        variant: The network.
        config: Clips, batches, length and rate of the training, with SGD and a
            cosine decay.
        block: The blocks.
    """

    videos: VideoList
    variant: Variant
    config: TrainConfig
    block: arms.Block

    def run(
        self, arm: str, train: np.ndarray, test: np.ndarray, seed: int
    ) -> Outcome:
        """Trains one network and tests it on one clip a video.

        Args:
            arm: Which one.
            train: Numbers of the videos to train on.
            test: Numbers of those to test on.
            seed: Of weights, clips and order.

        Raises:
            ValueError: If no video to test on can be read;
                `TooManySkipsError` if more clips than `config.max_skipped`
                cannot.
        """
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        model = arms.network(
            arm, self.variant, len(self.videos.class_names), self.block
        )
        skips = SkipLog(self.config.max_skipped)
        try:
            losses = self._fit(model, self.videos.subset(train), seed, skips)
            predictions = self._test(model, test, skips)
        except tf.errors.InvalidArgumentError as error:
            # Of the pipeline's own error a page of traces is made on its way.
            if skips.failure is not None:
                raise TooManySkipsError(skips.failure) from error
            paths = {self.videos.paths[number] for number in test}
            if not paths <= set(skips.reasons):
                raise
            raise ValueError(
                "At least one video of every fold must be readable. Received "
                f"none, for example {skips.reasons[min(paths)]}"
            ) from error
        return Outcome(predictions, model.count_params(), losses, skips.reasons)

    def _fit(
        self, model: keras.Model, videos: VideoList, seed: int, skips: SkipLog
    ) -> list[float]:
        batch_size = min(self.config.batch_size, len(videos))
        steps = len(videos) // batch_size
        rate = keras.optimizers.schedules.CosineDecay(
            self.config.learning_rate, steps * self.config.epochs
        )
        model.compile(
            SGD(rate, momentum=0.9, nesterov=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        dataset = self._clips(
            videos,
            skips,
            batch_size=batch_size,
            training=True,
            flip=self.config.flip,
            repeat=True,
            seed=seed,
        )
        return model.fit(
            dataset,
            epochs=self.config.epochs,
            steps_per_epoch=steps,
            shuffle=False,
            verbose=2,
        ).history["loss"]

    def _test(
        self, model: keras.Model, test: np.ndarray, skips: SkipLog
    ) -> dict[int, int]:
        predictions: dict[int, int] = {}
        dataset = self._clips(
            numbered(self.videos, test.tolist()),
            skips,
            batch_size=self.config.batch_size,
            training=False,
        )
        for clips, numbers in dataset:
            # A trace of the network would take longer than its few calls.
            best = model(clips, training=False).numpy().argmax(axis=1)
            predictions.update(
                zip(numbers.numpy().tolist(), best.tolist(), strict=True)
            )
        return predictions

    def _clips(
        self, videos: VideoList, skips: SkipLog, **arguments: Any
    ) -> tf.data.Dataset:
        return clip_dataset(
            videos,
            self.config.clip,
            crop_size=self.config.crop_size,
            short_side=self.config.short_side,
            num_workers=self.config.num_workers,
            skips=skips,
            **arguments,
        )
