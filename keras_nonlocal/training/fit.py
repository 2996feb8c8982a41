"""Training a network on a list of videos, and measuring it on another."""

import dataclasses
import os
import pathlib
import time
import warnings

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.skips import TooManySkipsError
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation.intervals import wilson_interval
from keras_nonlocal.models import pretrained
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.memory import memory_plan
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.callbacks import SkipReport
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.machine import available_memory
from keras_nonlocal.training.optimizers import SGD


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came out of training one network.

    Attributes:
        name: Of the network.
        model: The trained network, which gives probabilities.
        history: Loss and accuracy per epoch, as Keras names them.
        correct: Test videos whose class was right.
        tested: Test videos that could be read.
        scores: Probabilities `(tested, classes)`, in the order of
            `tested_videos`.
        tested_videos: Positions in the test list of the videos read.
        parameters: Number of trainable weights.
        macs: Multiply-adds of one clip.
        seconds: Time of training, with the test after each epoch.
        skipped: Reason for each video that could not be read.
        damaged: The same for those of which only some clips could be read.
    """

    name: str
    model: keras.Model
    history: dict[str, list[float]]
    correct: int
    tested: int
    scores: np.ndarray
    tested_videos: list[int]
    parameters: int
    macs: int
    seconds: float
    skipped: dict[str, str]
    damaged: dict[str, str]

    @property
    def accuracy(self) -> float:
        """Share of the test videos that was right."""
        return self.correct / self.tested

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson_interval(self.correct, self.tested)


def default_strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, mirrored; else the default device."""
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def train(
    name: str,
    variant: Variant,
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
    out: str | os.PathLike[str],
    strategy: tf.distribute.Strategy | None = None,
) -> TrainResult:
    """Trains a network with `fit` and tests it.

    The same arguments give the same weights, clips and order. Videos that
    cannot be read are skipped, counted and reported. What a step will take in
    memory is printed before, with a warning if the machine has less.

    Args:
        name: Of the network, for files and tables.
        variant: The network.
        config: Settings.
        train_videos: Videos to train on.
        test_videos: Videos to test on: one clip of each after every epoch,
            which nothing is chosen by.
        out: Folder for `model.keras`, `history.csv` and `skipped.json`, which
            says why videos could not be read; made if missing.
        strategy: Where to train. Default: `default_strategy()`.

    Returns:
        A `TrainResult`.

    Raises:
        ValueError: If the videos do not suffice for a batch, if the classes of
            the two lists differ, if videos may have several, if
            `config.weights` are of another network, or if the loss is no longer
            finite; `TooManySkipsError` if more clips than `config.max_skipped`
            could not be read.
    """
    if train_videos.class_names != test_videos.class_names:
        raise ValueError(
            "`train_videos` and `test_videos` must have the same classes. "
            f"Received: {train_videos.class_names} and "
            f"{test_videos.class_names}"
        )
    if train_videos.multi_label or test_videos.multi_label:
        raise ValueError(
            "`train_videos` and `test_videos` must have one class a video. "
            "Received: videos that may have several"
        )
    strategy = strategy or default_strategy()
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    skips = SkipLog(config.max_skipped)
    train_data = _dataset(train_videos, config, True, skips)
    test_data = _dataset(test_videos, config, False, skips)
    steps = len(train_videos) // config.batch_size
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = _network(variant, train_videos, None)
        if config.weights is not None:
            _start_from(config.weights, model, variant)
        fitted = model
        if config.rematerialize is not None:
            fitted = rematerialize(model, config.rematerialize)
        compile_model(fitted, config, steps * config.epochs, strategy)
    _print_memory(model, config, strategy.num_replicas_in_sync)
    start = time.monotonic()
    with warnings.catch_warnings():
        # A test video that cannot be read makes the pass shorter than Keras
        # expects. It is in `skips`; no training is interrupted.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        history = _fit(fitted, train_data, test_data, steps, config, skips, out)
    seconds = time.monotonic() - start
    _check_finite(name, history)
    trained = _network(variant, train_videos, "softmax")
    trained.set_weights(model.get_weights())
    trained.save(out / "model.keras")
    if skips.count:
        logging.warning("%s: skipped %d clips", name, skips.count)
    return _measure(name, trained, history, config, test_videos, seconds, skips)


def _fit(
    model: keras.Model,
    train_data: tf.data.Dataset,
    test_data: tf.data.Dataset,
    steps: int,
    config: TrainConfig,
    skips: SkipLog,
    out: pathlib.Path,
) -> dict[str, list[float]]:
    table = keras.callbacks.CSVLogger(str(out / "history.csv"))
    try:
        return model.fit(
            train_data,
            epochs=config.epochs,
            steps_per_epoch=steps,
            validation_data=test_data,
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                SkipReport(skips, out / "skipped.json"),
                table,
            ],
            shuffle=False,  # The data set shuffles.
        ).history
    except tf.errors.InvalidArgumentError:
        # Of the pipeline's own error a page of traces is made on its way.
        if skips.failure is None:
            raise
    finally:
        skips.save(out / "skipped.json")
        if table.csv_file is not None:  # Keras closes it only at a good end.
            table.csv_file.close()
    raise TooManySkipsError(skips.failure)


def _dataset(
    videos: VideoList, config: TrainConfig, training: bool, skips: SkipLog
) -> tf.data.Dataset:
    return clip_dataset(
        videos,
        config.clip,
        batch_size=config.batch_size,
        training=training,
        crop_size=config.crop_size,
        short_side=config.short_side,
        flip=config.flip,
        repeat=training,
        seed=config.seed,
        num_workers=config.num_workers,
        skips=skips,
    )


def _network(
    variant: Variant, videos: VideoList, activation: str | None
) -> keras.Model:
    # Logits in training: a cross-entropy of rounded probabilities has no
    # gradient where it is needed most.
    return ResNet3D(
        variant,
        classes=len(videos.class_names),
        classifier_activation=activation,
    )


def _start_from(weights: str, model: keras.Model, variant: Variant) -> None:
    """Loads trained weights; the classifier stays as it is."""
    checkpoint = pretrained.find(weights, variant)
    if checkpoint is not None:
        trunk = keras.Model(model.input, model.get_layer("pool5").output)
        checkpoint.fill(trunk, variant)


def compile_model(
    model: keras.Model,
    config: TrainConfig,
    steps: int,
    strategy: tf.distribute.Strategy,
) -> None:
    """Compiles a network that gives logits, as `train` does.

    Args:
        model: The network, made in the scope of `strategy`.
        config: Settings.
        steps: Of the whole training.
        strategy: Where it trains.
    """
    warmup = int(config.warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else config.learning_rate,
        decay_steps=steps - warmup,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    model.compile(
        SGD(rate, momentum=0.9, nesterov=True),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # Compiled by XLA, variables of the replicas end on the wrong device.
        jit_compile=False if strategy.num_replicas_in_sync > 1 else "auto",
    )


def _print_memory(
    model: keras.Model, config: TrainConfig, replicas: int
) -> None:
    """Prints the memory plan of a replica; warns if there is less."""
    budget = available_memory()
    if budget is not None:
        # The float32 weights are there already, once for each replica.
        budget = budget // replicas + 4 * model.count_params()
    plan = memory_plan(
        model,
        -(-config.batch_size // replicas),
        config.clip.num_frames,
        config.crop_size,
        training=True,
        budget=budget,
        rematerialize=config.rematerialize,
    )
    print(plan, flush=True)
    if budget is not None and plan.total > budget:
        logging.warning(
            "Training is likely to run out of memory: a step with %d clips is "
            "predicted to take %.2f GB on each of %d replicas, and there are "
            "%.2f GB. The largest `batch_size` that should fit is %d%s.",
            config.batch_size,
            plan.total / 1e9,
            replicas,
            budget / 1e9,
            plan.largest_batch * replicas,
            _advice(config),
        )


def _advice(config: TrainConfig) -> str:
    if config.rematerialize == "blocks":
        return ""
    return '; more with rematerialize="blocks"'


def _check_finite(name: str, history: dict[str, list[float]]) -> None:
    losses = history["loss"]
    if not np.all(np.isfinite(losses)):
        raise ValueError(
            f"{name}: the loss is no longer finite in epoch {len(losses)}; "
            "lower the learning rate. Losses of the epochs: "
            f"{[round(loss, 3) for loss in losses]}"
        )


def _measure(
    name: str,
    model: keras.Model,
    history: dict[str, list[float]],
    config: TrainConfig,
    videos: VideoList,
    seconds: float,
    skips: SkipLog,
) -> TrainResult:
    # Numbers in place of labels say which videos the scores are of.
    count = len(videos)
    numbered = dataclasses.replace(
        videos,
        labels=np.arange(count),
        class_names=tuple(str(number) for number in range(count)),
    )
    batches = [
        (model.predict_on_batch(clips), numbers)
        for clips, numbers in _dataset(numbered, config, False, SkipLog())
    ]
    scores, tested = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    right = np.argmax(scores, axis=1) == videos.labels[tested]
    side = config.crop_size
    return TrainResult(
        name=name,
        model=model,
        history=history,
        correct=int(np.sum(right)),
        tested=len(tested),
        scores=scores,
        tested_videos=tested.tolist(),
        parameters=sum(
            int(np.prod(weight.shape)) for weight in model.trainable_weights
        ),
        macs=count_macs(model, (config.clip.num_frames, side, side, 3)),
        seconds=seconds,
        skipped=skips.reasons,
        damaged=skips.damaged,
    )
