"""Training a Mask R-CNN on images with objects, and testing it on others."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.coco_annotations import CocoAnnotations
from keras_nonlocal.data.coco_dataset import coco_dataset
from keras_nonlocal.data.coco_dataset import coco_steps
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.detection.mask_rcnn import LOSSES
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.evaluation.coco import DetectorResult
from keras_nonlocal.evaluation.coco import require_pycocotools
from keras_nonlocal.evaluation.detector import evaluate_detector
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.training.callbacks import SkipReport
from keras_nonlocal.training.checkpoints import RunState
from keras_nonlocal.training.checkpoints import below_common_folder
from keras_nonlocal.training.checkpoints import settings_of
from keras_nonlocal.training.detector_config import DetectorConfig
from keras_nonlocal.training.distribution import Devices
from keras_nonlocal.training.distribution import check_compiled
from keras_nonlocal.training.distribution import find_devices
from keras_nonlocal.training.environment import environment
from keras_nonlocal.training.guards import LossGuard
from keras_nonlocal.training.guards import odd_images
from keras_nonlocal.training.optimizers import make_optimizer
from keras_nonlocal.training.plan import RunPlan
from keras_nonlocal.training.plan import precision
from keras_nonlocal.training.run_folder import RunPage
from keras_nonlocal.training.run_folder import begin_run
from keras_nonlocal.training.run_folder import tensorboard
from keras_nonlocal.visualization import figures
from keras_nonlocal.weights.lookup import find_for_classes

# Of boxes and masks, what is in the logs of an epoch and on the curves.
_MEASURES = ("AP", "AP50")


@dataclasses.dataclass(frozen=True)
class DetectorTrainResult:
    """What came out of training one detector.

    Attributes:
        name: Of the detector.
        model: The trained `MaskRCNN`.
        history: The losses of every epoch by name, and where it was tested
            average precision, as `box_AP` and `mask_AP50`; NaN elsewhere.
        test: The last test.
        parameters: Number of weights that were trained.
        seconds: Time of training since it was last started, with the tests.
        skipped: Reason for each image that could not be read.
    """

    name: str
    model: keras.Model
    history: dict[str, list[float]]
    test: DetectorResult
    parameters: int
    seconds: float
    skipped: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Run(RunPlan):
    """A training run of a detector.

    Attributes:
        train_images: Images to train on.
        test_images: Images to test on.
    """

    config: DetectorConfig
    train_images: CocoAnnotations
    test_images: CocoAnnotations

    @property
    def count(self) -> int:
        """Images of one pass: each with objects, and some of them twice."""
        size = self.config.batch_size
        return size * coco_steps(self.train_images, size)

    def train_data(self, first_step: int = 0) -> tf.data.Dataset:
        """Batches from a step on, for ever."""
        config = self.config
        return coco_dataset(
            self.train_images,
            None,
            batch_size=config.batch_size,
            training=True,
            short_side=config.short_side,
            max_side=config.max_side,
            flip=config.flip,
            max_objects=config.max_objects,
            mask_size=config.mask_size,
            pad_to=config.pad_to,
            repeat=True,
            first_step=first_step,
            seed=config.seed,
            skips=self.skips,
        )

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step."""
        return next(iter(self.train_data(step).as_numpy_iterator()))

    def test(self, model: keras.Model, out: pathlib.Path | None) -> Any:
        """Measures a detector; writes files about it where `out` says."""
        return evaluate_detector(
            model,
            self.test_images,
            out=out,
            short_side=self.config.test_short_side,
            max_side=self.config.max_side,
            limit=self.config.test_images,
            name=self.name,
            verbose=0,
        )


def train_detector(
    name: str,
    variant: DetectorVariant,
    config: DetectorConfig,
    train: CocoAnnotations,
    test: CocoAnnotations,
    out: str | os.PathLike[str],
    strategy: tf.distribute.Strategy | None = None,
    resume: bool = True,
) -> DetectorTrainResult:
    """Trains a Mask R-CNN with `fit` and tests it.

    The same arguments give the same weights, images and order. Images that
    cannot be read are skipped, counted and reported. A loss that is not finite
    ends training with an error that names the images of the step.

    After every epoch the run is saved. One that was broken off, by whatever,
    goes on from there when it is called again, and ends as if it had not been.

    Weights, their gradients and velocities take 12 bytes a parameter whatever
    the images: 0.5 GB for ResNet-50, 1.7 GB for ResNeXt-152. Activations, which
    grow with `config.short_side` and the images on a device, are much more.

    Args:
        name: Of the detector, for files and tables.
        variant: The detector; its number of classes is that of `train`.
        config: Settings.
        train: Images to train on; those without objects are left out.
        test: Images to test on, which nothing is chosen by.
        out: Folder for `model.keras`, a page about the run (`index.html`),
            `config.json`, `history.csv`, `skipped.json`, which says why images
            could not be read, and the last test in `test`; made if missing.
        strategy: Where to train, on TensorFlow. Default: what
            `keras_nonlocal.training.distribution.find_devices` finds.
        resume: Whether to go on with a run in `out`; if not, it is
            overwritten.

    Returns:
        A `DetectorTrainResult`.

    Raises:
        ImportError: If pycocotools or matplotlib are missing.
        ValueError: If there are no images with objects, if the classes of the
            two differ, if the weights are of another network, if the run in
            `out` was begun with other settings, if the devices cannot train
            together, or if the loss is no longer finite; `TooManySkipsError`
            if more images than `config.max_skipped` could not be read.

    Example:

    ```python
    train, test = (read_coco(f"{x}.json", "images") for x in ("train", "test"))
    variant = DETECTOR_VARIANTS["nl_mask_rcnn_r50"]
    config = DetectorConfig(backbone_weights="detectron2_R-50")
    train_detector("mine", variant, config, train, test, "runs/mine")
    ```
    """
    require_pycocotools()
    figures.require_matplotlib()
    _check_images(train, test)
    devices = _devices(strategy)
    devices.share(config.batch_size)
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    skips = SkipLog(config.max_skipped, unit="image")
    run = _Run(name, config, devices, out, skips, train, test)
    keras.utils.set_random_seed(config.seed)
    with precision(config.precision):
        with devices.scope():
            model = initial_detector(variant, config, len(train.class_names))
            _compile(model, run)
        start = time.monotonic()
        tester = _Tester(run)
        history = _fit(run, model, tester, resume)
        seconds = time.monotonic() - start
        trained = tester.tested(model)
        trained.save(out / "model.keras")
        result = tester.result or run.test(trained, out / "test")
    if skips.count:
        logging.warning("%s: skipped %d images", name, skips.count)
    return DetectorTrainResult(
        name=name,
        model=trained,
        history=history,
        test=result,
        parameters=sum(
            math.prod(weight.shape) for weight in model.trainable_weights
        ),
        seconds=seconds,
        skipped=skips.reasons | result.skipped,
    )


def initial_detector(
    variant: DetectorVariant, config: DetectorConfig, classes: int
) -> keras.Model:
    """Builds a detector and fills it as the configuration says.

    With `config.weights` of a detector of as many classes nothing is fresh but
    a non-local block that these weights have not; of another number of classes
    also the last layers of the heads are. With `config.backbone_weights` all is
    fresh but the trunk.

    Args:
        variant: The detector; its number of classes is not looked at.
        config: Settings.
        classes: Number of classes.

    Returns:
        A `MaskRCNN`, not compiled.

    Raises:
        ValueError: If the weights are of another network.
    """
    variant = dataclasses.replace(variant, classes=classes)
    if config.weights is None:
        _warn_of_fresh_trunk(variant, config)
        return MaskRCNN(variant, backbone_weights=config.backbone_weights)
    return MaskRCNN(variant, find_for_classes(config.weights, variant))


def _warn_of_fresh_trunk(
    variant: DetectorVariant, config: DetectorConfig
) -> None:
    if config.backbone_weights is None and variant.trunk.norm == "affine":
        logging.warning(
            "The trunk starts from random weights, and nothing normalizes what "
            "is in it: its scales and shifts are for batch norms of trained "
            "weights. Give `backbone_weights` or `weights`."
        )


def _check_images(train: CocoAnnotations, test: CocoAnnotations) -> None:
    if train.class_names != test.class_names:
        raise ValueError(
            "`train` and `test` must have the same classes. Received: "
            f"{train.class_names} and {test.class_names}"
        )
    if not len(train.trainable):
        raise ValueError(
            "`train` must have images with objects. Received: "
            f"{len(train)} images without any, of {train.path}"
        )
    if not len(test):
        raise ValueError(
            f"`test` must have images. Received: none, of {test.path}"
        )


def _devices(strategy: tf.distribute.Strategy | None) -> Devices:
    devices = find_devices(strategy)
    processes, backend = devices.process[1], keras.backend.backend()
    if processes > 1 or (devices.replicas > 1 and backend != "tensorflow"):
        raise ValueError(
            "Detectors train on several devices with TensorFlow's "
            "MirroredStrategy only, in one process: take the tensorflow "
            "backend, or show one device. "
            f"Received: {devices.replicas} devices of {processes} processes "
            f"on the {backend} backend"
        )
    return devices


def _compile(model: keras.Model, run: _Run) -> None:
    config = run.config
    arguments: dict[str, Any] = {}
    # JAX always compiles.
    if keras.backend.backend() == "tensorflow":
        arguments["jit_compile"] = config.jit_compile
    model.compile(
        make_optimizer(
            config,
            run.steps,
            bias_rate=config.bias_rate,
            decay_biases=config.decay_biases,
        ),
        **arguments,
    )
    check_compiled(model, run.devices)


def _fit(
    run: _Run, model: keras.Model, tester: "_Tester", resume: bool
) -> dict[str, list[float]]:
    """Trains from where the run has come to; returns all epochs' logs."""
    settings = settings_of(
        run.config,
        model.variant,
        train_images=_fingerprint(run.train_images),
        test_images=_fingerprint(run.test_images),
    )
    # For whoever asks the trained detector for names.
    settings["class_names"] = list(run.train_images.class_names)
    versions = environment()["versions"]
    state = RunState(run.out / "states", settings, versions)
    epoch = state.restore(model) if resume else 0
    if epoch:
        print(f"{run.name}: goes on after epoch {epoch}", flush=True)
    about = begin_run(run.out, settings, name=run.name, resumed=epoch > 0)
    callbacks = _callbacks(run, state, tester, about)
    with run.skipping():
        model.fit(
            run.train_data(epoch * run.steps_per_epoch),
            epochs=run.epochs,
            initial_epoch=epoch,
            steps_per_epoch=run.steps_per_epoch,
            callbacks=callbacks,
            shuffle=False,  # The data set shuffles.
        )
    return state.history


def _callbacks(
    run: _Run,
    state: RunState,
    tester: "_Tester",
    about: Mapping[str, Any],
) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = [
        _ImageGuard(run),
        tester,
        SkipReport(run.skips, run.file("skipped.json")),
        state,
        RunPage(run.out, run.name, state, about, run.skips, _curves),
    ]
    if run.config.tensorboard:
        callbacks.append(tensorboard(run.out / "tensorboard"))
    return callbacks


class _Tester(keras.callbacks.Callback):
    """Tests the detector every few epochs, and after the last one.

    Adds average precision to the logs of these epochs.

    Attributes:
        result: The test after the last epoch, `None` before.
    """

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self.result: DetectorResult | None = None
        self._run = run
        self._copy: keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Tests, if it is time to."""
        is_last = epoch + 1 == self._run.epochs
        if not is_last and (epoch + 1) % self._run.config.test_every:
            return
        averages = None
        if self._run.config.ema is not None:
            averages = keras.callbacks.SwapEMAWeights()
            averages.set_model(self.model)
            averages.on_test_begin()
        try:
            found = self._run.test(
                self.tested(self.model),
                self._run.out / "test" if is_last else None,
            )
        finally:
            if averages is not None:
                averages.on_test_end()
        if is_last:
            self.result = found
        if logs is not None:
            logs |= average_precision(found)

    def tested(self, model: keras.Model) -> keras.Model:
        """The network as one device has it: of several, a copy."""
        if self._run.devices.replicas == 1:
            return model
        if self._copy is None:
            self._copy = MaskRCNN(model.variant, name=model.name)
        self._copy.set_weights(model.get_weights())
        return self._copy


def average_precision(result: DetectorResult) -> dict[str, float]:
    """The measures of a test that a history keeps, NaN if there are none."""
    return {
        f"{kind}_{measure}": math.nan if value is None else float(value)
        for kind, measures in (("box", result.box), ("mask", result.mask))
        for measure in _MEASURES
        for value in [measures.get(measure)]
    }


class _ImageGuard(LossGuard):
    """Names the images of a step whose loss is not finite."""

    files_are = "images"
    examples_are = "images"
    advice = (
        "Lower the learning rate, bound the gradients more tightly "
        "(`clip_norm`), or mend the images"
    )

    def __init__(self, run: _Run) -> None:
        super().__init__(run.file("nan_batch.json"))
        self._run = run
        self._paths = {
            image.image_id: image.path for image in run.train_images.images
        }

    def files(self, step: int) -> list[str]:
        """Paths of the images of a step."""
        ids = self._run.batch(step)["image_ids"]
        return [self._paths[int(number)] for number in ids]

    def odd(self, step: int) -> dict[str, str]:
        """What images of a step have that hardly is a photograph."""
        batch = self._run.batch(step)
        paths = [self._paths[int(number)] for number in batch["image_ids"]]
        return {
            paths[place]: what
            for place, what in odd_images(
                batch["images"], batch["sizes"]
            ).items()
        }


def _curves(title: str, history: Mapping[str, Sequence[float]]) -> bytes | None:
    """The five losses and their sum; average precision where it is known."""
    del title  # It is that of the page.
    losses = {
        name: history[name] for name in ("loss", *LOSSES) if name in history
    }
    scores = {
        name.replace("_", " "): values
        for name, values in history.items()
        if name.startswith(("box_AP", "mask_AP"))
    }
    if not losses:
        return None
    panels = {"loss in training": losses}
    if scores:
        panels["average precision of tests"] = scores
    return figures.epoch_curves(panels)


def _fingerprint(annotations: CocoAnnotations) -> str:
    """Number of images and a hash of what is said of them, but for masks."""
    images = annotations.images
    digest = hashlib.sha256()
    paths = below_common_folder([image.path for image in images])
    digest.update(json.dumps([paths, annotations.class_names]).encode())
    for image in images:
        digest.update(f"{image.height}x{image.width}".encode())
        digest.update(np.ascontiguousarray(image.boxes).tobytes())
        digest.update(np.ascontiguousarray(image.classes).tobytes())
        digest.update(np.ascontiguousarray(image.is_crowd).tobytes())
    return f"{len(images)} images, sha256 {digest.hexdigest()[:16]}"
