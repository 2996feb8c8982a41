"""Training a network on a list of videos, and measuring it on another."""

import dataclasses
import os
import pathlib
import time
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.memory import memory_plan
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.callbacks import SkipReport
from keras_nonlocal.training.checkpoints import RunState
from keras_nonlocal.training.checkpoints import run_settings
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.distribution import Devices
from keras_nonlocal.training.distribution import EvenTest
from keras_nonlocal.training.distribution import check_compiled
from keras_nonlocal.training.distribution import find_devices
from keras_nonlocal.training.environment import environment
from keras_nonlocal.training.guards import NaNGuard
from keras_nonlocal.training.guards import check_dataset
from keras_nonlocal.training.guards import warn_batch_norm
from keras_nonlocal.training.initialization import initial_network
from keras_nonlocal.training.initialization import with_activation
from keras_nonlocal.training.machine import available_memory
from keras_nonlocal.training.objective import class_weights
from keras_nonlocal.training.objective import loss_for
from keras_nonlocal.training.objective import metrics_for
from keras_nonlocal.training.objective import prepare_labels
from keras_nonlocal.training.optimizers import make_optimizer
from keras_nonlocal.training.plan import RunPlan
from keras_nonlocal.training.plan import precision
from keras_nonlocal.training.precise_bn import PreciseBatchNorm
from keras_nonlocal.training.result import TrainResult
from keras_nonlocal.training.run_folder import RunPage
from keras_nonlocal.training.run_folder import begin_run
from keras_nonlocal.training.run_folder import tensorboard


@dataclasses.dataclass(frozen=True)
class _Run(RunPlan):
    """A training run: who trains what on what, and how long.

    Attributes:
        train_videos: Videos to train on.
        test_videos: Videos to test on.
    """

    config: TrainConfig
    train_videos: VideoList
    test_videos: VideoList

    @property
    def count(self) -> int:
        """Videos of one pass."""
        return len(self.train_videos)

    def train_data(self, first_step: int = 0) -> tf.data.Dataset:
        """Batches of this process from a step on, for ever."""
        return self._dataset(self.train_videos, True, first_step)

    def test_data(self) -> tf.data.Dataset:
        """Batches of this process, once."""
        return self._dataset(self.test_videos, False, 0)

    def clips_of(self, step: int) -> np.ndarray:
        """The clips of a step."""
        return next(iter(self.train_data(step)))[0].numpy()

    def _dataset(
        self, videos: VideoList, training: bool, first_step: int
    ) -> tf.data.Dataset:
        dataset = clips(
            videos,
            self.config,
            training,
            self.skips,
            batch_size=self.devices.share(self.config.batch_size),
            process=self.devices.process,
            first_step=first_step,
        )
        return prepare_labels(dataset, videos, self.config)


def train(
    name: str,
    variant: Variant,
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
    out: str | os.PathLike[str],
    strategy: tf.distribute.Strategy | None = None,
    resume: bool = True,
) -> TrainResult:
    """Trains a network with `fit` and tests it.

    The same arguments give the same weights, clips and order. Videos that
    cannot be read are skipped, counted and reported. What a step will take in
    memory is printed before, with a warning if the machine has less.

    After every epoch the run is saved. One that was broken off, by whatever,
    goes on from there when it is called again, and ends as if it had not been.

    Several processes train together on JAX after
    `keras_nonlocal.training.distribution.join`; `out` must then be a folder
    that all of them see.

    Args:
        name: Of the network, for files and tables.
        variant: The network.
        config: Settings.
        train_videos: Videos to train on.
        test_videos: Videos to test on: one clip of each after every epoch,
            which nothing is chosen by.
        out: Folder for `model.keras`, a page about the run (`index.html`),
            `config.json`, `history.csv`, and `skipped.json`, which says why
            videos could not be read; made if missing.
        strategy: Where to train. Default: what
            `keras_nonlocal.training.distribution.find_devices` finds.
        resume: Whether to go on with a run in `out`; if not, it is
            overwritten.

    Returns:
        A `TrainResult`.

    Raises:
        ValueError: If the videos do not suffice for a batch, if the classes of
            the two lists differ, if `config.weights` are of another network,
            if the run in `out` was begun with other settings, if the devices
            cannot train together, or if the loss is no longer finite;
            `TooManySkipsError` if more clips than `config.max_skipped` could
            not be read.
    """
    _check_lists(train_videos, test_videos)
    devices = find_devices(strategy)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    skips = SkipLog(config.max_skipped)
    run = _Run(name, config, devices, out, skips, train_videos, test_videos)
    train_data = run.train_data()
    # For whoever finds the network in a file.
    variant = dataclasses.replace(
        variant,
        num_frames=config.clip.num_frames,
        sampling_rate=config.clip.sampling_rate,
        crop_size=config.crop_size,
    )
    keras.utils.set_random_seed(config.seed)
    with devices.scope(), precision(config.precision):
        model, variant = initial_network(
            variant,
            config,
            len(train_videos.class_names),
            len(train_videos),
        )
        fitted = model
        if config.rematerialize is not None:
            fitted = rematerialize(model, config.rematerialize)
        test = None
        if devices.needs_even_batches:
            share = devices.share(config.batch_size)
            test = EvenTest(test_videos, share, devices)
        compile_model(fitted, config, run.steps, devices, train_videos, test)
        if devices.is_first:
            _print_memory(model, config, devices)
        # On JAX statistics are of the whole step.
        parts = 1 if keras.backend.backend() == "jax" else devices.replicas
        warn_batch_norm(model, config.batch_size // parts, parts)
        start = time.monotonic()
        history = _fit(run, fitted, variant, train_data, test, resume)
        seconds = time.monotonic() - start
    with devices.alone(), precision(config.precision):
        activation = "sigmoid" if train_videos.multi_label else "softmax"
        trained = with_activation(model, variant, activation)
        if devices.is_first:
            trained.save(out / "model.keras")
        if skips.count:
            logging.warning("%s: skipped %d clips", name, skips.count)
        result = _measure(run, trained, history, seconds)
    devices.wait()  # For the files that the first one has written.
    return result


def _check_lists(train_videos: VideoList, test_videos: VideoList) -> None:
    if train_videos.class_names != test_videos.class_names:
        raise ValueError(
            "`train_videos` and `test_videos` must have the same classes. "
            f"Received: {train_videos.class_names} and "
            f"{test_videos.class_names}"
        )
    if train_videos.multi_label != test_videos.multi_label:
        raise ValueError(
            "`train_videos` and `test_videos` must both have one class a "
            "video, or both several. Received: one list of each kind"
        )


def _fit(
    run: _Run,
    model: keras.Model,
    network: Variant,
    train_data: tf.data.Dataset,
    test: EvenTest | None,
    resume: bool,
) -> dict[str, list[float]]:
    """Trains from where the run has come to; returns all epochs' logs."""
    settings = run_settings(
        run.config, network, run.train_videos, run.test_videos
    )
    versions = environment()["versions"]
    state = RunState(run.out / "states", settings, versions)
    epoch = state.restore(model) if resume else 0
    run.devices.check_same("the epoch after which the run goes on", epoch)
    if epoch:
        if run.devices.is_first:
            print(f"{run.name}: goes on after epoch {epoch}", flush=True)
        train_data = run.train_data(epoch * run.steps_per_epoch)
    test_data = run.test_data()
    callbacks = _callbacks(run, model, state, settings, epoch > 0)
    if test is not None:
        test_data = test.batches(test_data)
        callbacks.insert(0, test.callback())
    with run.skipping():
        check_dataset(train_data, model)
        with warnings.catch_warnings():
            # A test video that cannot be read makes the pass shorter than
            # Keras expects. It is in `skips`; no training is interrupted.
            warnings.filterwarnings(
                "ignore", message="Your input ran out of data"
            )
            fitted = model.fit(
                train_data,
                epochs=run.epochs,
                initial_epoch=epoch,
                steps_per_epoch=run.steps_per_epoch,
                validation_data=test_data,
                class_weight=class_weights(run.train_videos, run.config),
                callbacks=callbacks,
                verbose="auto" if run.devices.is_first else 0,
                shuffle=False,  # The data set shuffles.
            )
    if run.devices.is_first:
        return state.history
    before = state.history
    return {k: before.get(k, []) + v for k, v in fitted.history.items()}


def _callbacks(
    run: _Run,
    model: keras.Model,
    state: RunState,
    settings: dict,
    resumed: bool,
) -> list[keras.callbacks.Callback]:
    """Those of every process, then those that write files."""
    config = run.config
    callbacks: list[keras.callbacks.Callback] = [
        NaNGuard(
            run.train_videos,
            config.batch_size,
            config.seed,
            run.file("nan_batch.json"),
            # One process of several has not all clips of a step.
            run.clips_of if run.devices.process[1] == 1 else None,
        )
    ]
    if config.ema is not None:
        callbacks.append(keras.callbacks.SwapEMAWeights())
    if config.precise_bn:
        batches = run.train_data()
        callbacks.append(PreciseBatchNorm(batches, config.precise_bn))
    if not run.devices.is_first:
        return callbacks
    about = begin_run(run.out, settings, name=run.name, resumed=resumed)
    callbacks += [
        SkipReport(run.skips, run.file("skipped.json")),
        state,
        RunPage(run.out, run.name, state, about, run.skips),
    ]
    if config.tensorboard:
        callbacks.append(tensorboard(run.out / "tensorboard"))
    return callbacks


def clips(
    videos: VideoList,
    config: TrainConfig,
    training: bool,
    skips: SkipLog,
    **arguments: Any,
) -> tf.data.Dataset:
    """The batches of `clip_dataset` that settings describe."""
    return clip_dataset(
        videos,
        config.clip,
        training=training,
        crop_size=config.crop_size,
        short_side=config.short_side,
        jitter=config.jitter,
        flip=config.flip,
        flip_pairs=config.flip_pairs if training else (),
        repeat=training,
        seed=config.seed,
        num_workers=config.num_workers,
        skips=skips,
        **arguments,
    )


def compile_model(
    model: keras.Model,
    config: TrainConfig,
    steps: int,
    devices: Devices,
    videos: VideoList,
    test: EvenTest | None = None,
) -> None:
    """Compiles a network that gives logits, as `train` does.

    Args:
        model: The network, made in the scope of the devices.
        config: Settings.
        steps: Of the whole training.
        devices: What trains.
        videos: What is trained on.
        test: What is tested with evened batches, if so.
    """
    metrics = metrics_for(videos, config)
    measures = (
        {"metrics": metrics}
        if test is None
        else {"weighted_metrics": test.metrics(metrics)}
    )
    is_mirrored = keras.backend.backend() == "tensorflow" and (
        devices.replicas > 1
    )
    model.compile(
        make_optimizer(config, steps),
        loss=loss_for(videos, config),
        # Compiled by XLA, variables of the replicas end on the wrong device.
        jit_compile=False if is_mirrored else "auto",
        **measures,
    )
    check_compiled(model, devices)


def _print_memory(
    model: keras.Model, config: TrainConfig, devices: Devices
) -> None:
    """Prints the memory plan of a replica; warns if there is less."""
    replicas, budget = devices.replicas, available_memory()
    if budget is not None:
        # The float32 weights are there already, once for each replica.
        here = replicas // devices.process[1]
        budget = budget // here + 4 * model.count_params()
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


def _measure(
    run: _Run,
    model: keras.Model,
    history: dict[str, list[float]],
    seconds: float,
) -> TrainResult:
    """Scores one clip of each test video, all of them in this process."""
    videos, config = run.test_videos, run.config
    # Numbers in place of labels say which videos the scores are of.
    count, skips = len(videos), SkipLog()
    numbered = dataclasses.replace(
        videos,
        labels=np.arange(count),
        actions=None,
        class_names=tuple(str(number) for number in range(count)),
    )
    batches = [
        (model.predict_on_batch(frames.numpy()), numbers)
        for frames, numbers in clips(
            numbered, config, False, skips, batch_size=config.batch_size
        )
    ]
    if not batches:
        raise ValueError(
            "At least one of `test_videos` must be readable. Received: "
            f"{next(iter(skips.reasons.values()), 'none')}"
        )
    scores, tested = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    side = config.crop_size
    return TrainResult(
        name=run.name,
        model=model,
        history=history,
        scores=scores,
        labels=videos.labels[tested],
        tested_videos=tested.tolist(),
        parameters=sum(
            int(np.prod(weight.shape)) for weight in model.trainable_weights
        ),
        macs=count_macs(model, (config.clip.num_frames, side, side, 3)),
        seconds=seconds,
        # In training this process may have read others of the test videos.
        skipped=run.skips.reasons | skips.reasons,
        damaged=run.skips.damaged | skips.damaged,
    )
