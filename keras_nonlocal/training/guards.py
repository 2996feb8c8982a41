"""Early warnings, and what is to be known when a loss is not finite."""

import abc
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.pipeline import step_videos
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.preprocessing import ClipNormalization

# Statistics over less are too noisy to train well with (Wu and He, "Group
# Normalization", figure 1).
_LEAST_CLIPS = 8
# Values that are normalised already: 0..1, -1..1 or standard deviations.
_SMALL = 10.0
_NAMED = 3
# What reading the examples of a step again may raise.
_UNREADABLE = (tf.errors.OpError, OSError, ValueError)


class NonFiniteLossError(ValueError):
    """The loss is infinite or no number: training cannot go on."""


class LossGuard(keras.callbacks.Callback, abc.ABC):
    """Ends `fit` at the first loss that is not finite, and names the files.

    What the files of a step are, a subclass tells.

    Writes a JSON file that tells the epoch and the step, both as the progress
    bar counts them; the step's number from the beginning of training; the
    learning rate; what the progress bar shows; the files that the step asked
    for, and those of the step before, whose update may have spoilt the weights;
    the weights that are not finite; and what is odd about the examples.

    In float16 gradients may overflow while the loss is finite: the optimizer
    skips such a step, and this does not end training.

    Put it before all other callbacks, so that these do not save what is spoilt.

    Args:
        path: The JSON file.

    Attributes:
        files_are: What the files are called in messages.
        examples_are: What is taken from them.
        advice: What may help.

    Raises:
        NonFiniteLossError: In `fit`.
        ValueError: In `fit`, if it does not know the steps of an epoch.
    """

    files_are = "files"
    examples_are = "examples"
    advice = "Lower the learning rate, or mend the files"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = pathlib.Path(path)
        self._epoch = 0
        self._seen = -1

    @abc.abstractmethod
    def files(self, step: int) -> list[str]:
        """The files of a step, by its number from the beginning of training."""

    def odd(self, step: int) -> dict[str, str]:
        """What is odd about examples of a step, by their files."""
        return {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Checks that steps can be told from each other."""
        if not self.params["steps"]:
            raise ValueError(
                f"`fit` must have `steps_per_epoch` for `{type(self).__name__}`"
                f" to know the {self.files_are} of a step. Received: none"
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the epoch."""
        self._epoch, self._seen = epoch, -1

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss.

        Keras gives the mean over the epoch so far: the first that is not
        finite is that of the step.
        """
        logs = logs or {}
        if not np.isfinite(logs.get("loss", 0.0)):
            # Several, where `steps_per_execution` is more than 1.
            self._stop(logs, range(self._seen + 1, batch + 1))
        self._seen = batch

    def _stop(self, logs: dict, batches: range) -> None:
        start = self._epoch * self.params["steps"]
        steps = [start + batch for batch in batches]
        rate = self.model.optimizer.learning_rate
        odd: dict[str, str] = {}
        for step in steps:
            odd |= self._odd(step)
        report: dict[str, Any] = {
            "loss": str(float(logs["loss"])),
            "logs": {name: str(value) for name, value in logs.items()},
            "epoch": self._epoch + 1,
            "step": batches[-1] + 1,
            "first_step": steps[0],
            "learning_rate": float(keras.ops.convert_to_numpy(rate)),
            self.files_are: [path for step in steps for path in self._of(step)],
            f"{self.files_are}_before": self._of(steps[0] - 1),
            "weights": [
                variable.path
                for variable in self.model.weights
                if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable)))
            ],
            f"odd_{self.examples_are}": odd,
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, report)
        except OSError as error:  # The loss is the news.
            logging.warning("%s could not be written: %s", self.path, error)
        raise NonFiniteLossError(self._message(report))

    def _message(self, report: dict[str, Any]) -> str:
        paths = report[self.files_are]
        more = ", ..." if len(paths) > _NAMED else ""
        odd = "".join(
            f"; that of {path} {what}"
            for path, what in list(report[f"odd_{self.examples_are}"].items())[
                :_NAMED
            ]
        )
        return (
            f"The loss is no longer finite in epoch {report['epoch']}, step "
            f"{report['step']}: it is {report['loss']}, at a learning rate of "
            f"about {report['learning_rate']:.3g}, on {self.examples_are} of "
            f"{', '.join(paths[:_NAMED])}{more}{odd}. {self.path} has all of "
            f"them. {self.advice}"
        )

    def _of(self, step: int) -> list[str]:
        """The files of a step, as far as it can be told."""
        if step < 0:
            return []
        try:
            return self.files(step)
        except _UNREADABLE as error:
            logging.warning("Step %d could not be read: %s", step, error)
            return []

    def _odd(self, step: int) -> dict[str, str]:
        try:
            return self.odd(step)
        except _UNREADABLE as error:
            logging.warning("Step %d could not be read: %s", step, error)
            return {}


class NaNGuard(LossGuard):
    """Ends `fit` at the first loss that is not finite, and names the videos.

    As `LossGuard` does; what `clip_dataset` takes as `first_step` is in the
    JSON file.

    Args:
        videos: What is trained on.
        batch_size: Clips of a step, over all processes.
        seed: Of the data set.
        path: The JSON file.
        read: Gives the clips of a step, to look at them: an array of the shape
            `(batch_size, T, H, W, C)` for the number of the step from the
            beginning of training. `None`: they are not looked at.

    Example:

    ```python
    guard = NaNGuard(videos, 8, seed=0, path="runs/mine/nan_batch.json")
    model.fit(data, steps_per_epoch=steps, callbacks=[guard], shuffle=False)
    ```
    """

    files_are = "videos"
    examples_are = "clips"
    advice = "Lower the learning rate, or mend the videos"

    def __init__(
        self,
        videos: VideoList,
        batch_size: int,
        seed: int,
        path: str | os.PathLike[str],
        read: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        super().__init__(path)
        self._videos = videos
        self._batch_size = batch_size
        self._seed = seed
        self._read = read

    def files(self, step: int) -> list[str]:
        """Paths of the videos of a step."""
        return [
            self._videos.paths[number]
            for number in step_videos(
                self._videos, self._batch_size, self._seed, step
            )
        ]

    def odd(self, step: int) -> dict[str, str]:
        """What the clips of a step have that hardly is a video."""
        if self._read is None:
            return {}
        paths = self.files(step)
        return {
            paths[place]: what
            for place, what in odd_clips(self._read(step)).items()
        }


def odd_clips(clips: np.ndarray) -> dict[int, str]:
    """What clips have that hardly is a video: by place, for those that do.

    Args:
        clips: Of the shape `(batch, T, H, W, C)`.

    >>> odd_clips(np.zeros((1, 2, 4, 4, 3), "uint8"))
    {0: 'has nothing but the colour [0, 0, 0]'}
    """
    odd = {}
    for place, clip in enumerate(np.asarray(clips)):
        if not np.all(np.isfinite(clip)):
            odd[place] = "has values that are not finite"
        elif clip.size and np.all(clip == clip[:1, :1, :1]):
            colour = clip[0, 0, 0].tolist()
            odd[place] = f"has nothing but the colour {colour}"
    return odd


def odd_images(images: np.ndarray, sizes: np.ndarray) -> dict[int, str]:
    """The same of images, in the upper left corners of a batch.

    Args:
        images: `(batch, H, W, C)`.
        sizes: Height and width of each, `(batch, 2)`.

    >>> odd_images(np.zeros((1, 8, 8, 3), "uint8"), np.array([[4, 4]]))
    {0: 'has nothing but the colour [0, 0, 0]'}
    """
    odd = {}
    for place, (height, width) in enumerate(sizes.tolist()):
        for what in odd_clips(images[[place], None, :height, :width]).values():
            odd[place] = what
    return odd


def check_dataset(dataset: tf.data.Dataset, model: keras.Model) -> None:
    """Looks at the first batch before training, as `check_clips`.

    This begins an iteration, which a data set that counts them as epochs
    counts: use it on those of `clip_dataset` with `repeat`.

    Args:
        dataset: Batches of clips and labels.
        model: What they are for.

    Raises:
        ValueError: If there is no batch, or as `check_clips`.
    """
    for batch in dataset.take(1):
        check_clips(batch[0].numpy(), model)
        return
    raise ValueError(
        "`dataset` must give clips to train on. Received: none at all"
    )


def check_clips(clips: np.ndarray, model: keras.Model) -> None:
    """Looks at whether clips are what a network takes.

    Clips that are of one colour throughout are worth a warning; so are values
    beyond 0 to 255 where the network normalises those itself.

    Args:
        clips: A batch of the shape `(batch, T, H, W, C)`.
        model: The network; that it takes RGB values from 0 to 255 is known
            from its `ClipNormalization`.

    Raises:
        ValueError: If there are no clips, or their shape, type or values are
            not what the network takes.

    >>> inputs = keras.Input((None, None, None, 3))
    >>> model = keras.Model(inputs, ClipNormalization()(inputs))
    >>> check_clips(np.random.rand(1, 2, 4, 4, 3), model)
    Traceback (most recent call last):
    ...
    ValueError: The clips must have values from 0 to 255, which the network...
    """
    expected = model.input_shape
    shape = clips.shape
    fits = len(shape) == len(expected) and all(
        wanted in (None, found)
        for wanted, found in zip(expected, shape, strict=True)
    )
    if not fits or 0 in shape:
        raise ValueError(
            f"The clips must be of the shape {expected}, with at least one of "
            f"each. Received: {shape}"
        )
    if clips.dtype.kind not in "uif":
        raise ValueError(
            f"The clips must be numbers. Received: the type {clips.dtype}"
        )
    if not np.all(np.isfinite(clips)):
        raise ValueError(
            "The clips must be finite. Received: values that are not, in "
            f"{sum(not np.all(np.isfinite(clip)) for clip in clips)} of "
            f"{len(clips)} clips"
        )
    odd = odd_clips(clips)
    if odd:
        logging.warning(
            "%d of the first %d clips show nothing: the first of them %s. "
            "`python -m keras_nonlocal.cli.audit` says what is wrong with a "
            "data set.",
            len(odd),
            len(clips),
            next(iter(odd.values())),
        )
    if any(isinstance(layer, ClipNormalization) for layer in model.layers):
        _check_range(clips, has_content=len(odd) < len(clips))


def _check_range(clips: np.ndarray, has_content: bool) -> None:
    low, high = float(np.min(clips)), float(np.max(clips))
    received = f"values from {low:.3g} to {high:.3g}"
    is_float = clips.dtype.kind == "f"
    if has_content and is_float and max(-low, high) <= _SMALL:
        raise ValueError(
            "The clips must have values from 0 to 255, which the network "
            f"normalises itself. Received: {received}"
        )
    if low < 0 or high > 255:
        logging.warning(
            "The network takes values from 0 to 255 and is given %s.", received
        )


def warn_batch_norm(
    model: keras.Model, batch_per_replica: int, replicas: int = 1
) -> bool:
    """Warns of batch norms that are trained on few clips.

    Args:
        model: The network.
        batch_per_replica: Clips of a step on each replica.
        replicas: How many there are: synchronised batch norms have the clips
            of all.

    Returns:
        Whether there was reason to.
    """
    clips = [
        batch_per_replica * (replicas if norm.synchronized else 1)
        for norm in _batch_norms(model)
        if norm.trainable
    ]
    if not clips or min(clips) >= _LEAST_CLIPS:
        return False
    gather = (
        f', or gather them over the {replicas} replicas with norm="sync_batch"'
        if min(clips) == batch_per_replica and replicas > 1
        else ""
    )
    logging.warning(
        "Batch norms are trained on statistics of %d clips, which are noisy "
        "below %d. Take more clips a step%s, or start from trained weights "
        'with batch_norm="freeze" or "affine".',
        min(clips),
        _LEAST_CLIPS,
        gather,
    )
    return True


def _batch_norms(
    model: keras.Model,
) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _batch_norms(layer)
        norm = layer.out_norm if _ends_in_norm(layer) else layer
        if isinstance(norm, keras.layers.BatchNormalization):
            yield norm


def _ends_in_norm(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, NonLocal) and layer.norm is not None
