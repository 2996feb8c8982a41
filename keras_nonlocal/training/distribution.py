"""The devices and processes that train one network together.

On TensorFlow they are the GPUs of one machine, under a `MirroredStrategy`. On
JAX they are the devices of any number of processes, on any number of machines,
under `keras.distribution.DataParallel`: every process runs the same program,
reads its share of every step, and holds the same weights.
"""

import atexit
import collections
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.videos import VideoList

_ALTERNATIVE = (
    "use the JAX backend (pip install 'keras-nonlocal[jax]', KERAS_BACKEND=jax "
    "in the environment) and keras_nonlocal.training.distribution.join in each "
    "process"
)
# All but the default strategy and those that mirror weights.
_REFUSED = (
    tf.distribute.TPUStrategy,
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
)


@dataclasses.dataclass(frozen=True)
class Devices:
    """What trains one network together.

    Attributes:
        replicas: Devices that share a step, over all processes.
        process: Number of this process, from 0, and how many there are.
        strategy: What the network is made and trained in the scope of; `None`
            for one device on another backend than TensorFlow.
    """

    replicas: int = 1
    process: tuple[int, int] = (0, 1)
    strategy: (
        tf.distribute.Strategy | keras.distribution.DataParallel | None
    ) = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.process[0] == 0

    @property
    def needs_even_batches(self) -> bool:
        """Whether tests in `fit` need an `EvenTest`."""
        return self.replicas > 1 or keras.backend.backend() == "jax"

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Where to make, compile and `fit` the network.

        In it all processes must do the same in the same order: one that makes
        a variable or runs the network by itself waits for the others for ever.
        What one process does for itself belongs into `alone()`. A process that
        leaves the scope by an exception ends without waiting for the others,
        so that they end too, instead of waiting for it.
        """
        outer = contextlib.nullcontext()
        with outer if self.strategy is None else self.strategy.scope():
            try:
                yield
            except BaseException:
                if self.process[1] > 1:
                    # What is registered last runs first: before JAX waits.
                    atexit.register(_leave)
                raise

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Where a process of several works by itself, also inside `scope()`.

        Networks that are made in it are on one device of this process: in a
        copy of the trained one `predict` works, which needs all scores in one
        process, and it can be saved.
        """
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(distribution)

    def share(self, batch_size: int) -> int:
        """Clips of a step that this process reads.

        Args:
            batch_size: Clips of a step of all processes.

        Raises:
            ValueError: If the devices would get different numbers of clips:
                their gradients are averaged as if they were of as many.

        >>> Devices(replicas=4, process=(1, 2)).share(16)
        8
        """
        if batch_size % self.replicas:
            raise ValueError(
                "`batch_size` must be a multiple of the number of devices, "
                f"{self.replicas}, on which the mean of the gradients is "
                f"taken. Received: batch_size={batch_size}"
            )
        return batch_size // self.process[1]

    def check_same(self, what: str, number: int) -> None:
        """Compares a number over all processes.

        Args:
            what: The number is, for the message.
            number: That of this process.

        Raises:
            ValueError: If they are not the same.
        """
        if self.process[1] == 1:
            return
        from jax.experimental import multihost_utils

        found = multihost_utils.process_allgather(np.array([number]))
        numbers = np.ravel(found).tolist()
        if len(set(numbers)) > 1:
            raise ValueError(
                f"All processes must have the same: {what}. Is the folder that "
                f"is written to one that all see? Received: {numbers}"
            )

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.process[1] > 1:
            _meet("wait")


def find_devices(strategy: tf.distribute.Strategy | None = None) -> Devices:
    """What to train on.

    On TensorFlow the GPUs of this machine, mirrored if there are several; else
    the default device. On JAX all devices of all processes that have called
    `join`, or those of this one. On other backends the default device.

    Args:
        strategy: Of TensorFlow, in place of these.

    Raises:
        ValueError: If Keras cannot train under the strategy, if several
            processes were started that would train each by itself, or if the
            processes have different numbers of devices.

    >>> find_devices().process
    (0, 1)
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_devices(strategy)
    if strategy is not None:
        raise ValueError(
            "A strategy of TensorFlow does nothing on another backend: omit "
            f"`strategy`, all devices are used on JAX. Received: {strategy} on "
            f"the {backend} backend"
        )
    if backend == "jax":
        return _jax_devices()
    _check_alone(
        int(os.environ.get("WORLD_SIZE", "1")), f"the {backend} backend"
    )
    return Devices()


def join(
    coordinator: str | None = None,
    index: int | None = None,
    count: int | None = None,
) -> Devices:
    """Joins the processes that train together, on JAX.

    To be called in each of them before anything is computed, with the same
    number of devices in all. What is left out is taken from the environment
    variables KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_PROCESS_ID
    and KERAS_DISTRIBUTION_NUM_PROCESSES or, if they are not set, from what
    JAX knows of the cluster (Slurm, Open MPI). Returns when all have called it;
    JAX ends the process if that takes over 5 minutes.

    The processes end together: one that is through waits for the others, and
    when one fails, the others are ended within two minutes.

    Args:
        coordinator: Address and port of process 0, as `"10.0.0.1:1234"`, which
            it opens. Let nobody else reach it: who does can join.
        index: Number of this process, from 0.
        count: How many processes there are.

    Returns:
        What `find_devices` returns from now on.

    Raises:
        ValueError: On another backend, if `index` is not below `count`, or as
            `find_devices`.

    Example:

    ```python
    join("10.0.0.1:1234", index=1, count=2)
    train(name, variant, config, train_videos, test_videos, "runs/mine")
    ```
    """
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"Several processes cannot train together on the {backend} "
            f"backend: {_ALTERNATIVE}."
        )
    if index is not None and count is not None and not 0 <= index < count:
        raise ValueError(
            "`index` must be the number of this process, from 0, and `count` "
            f"how many there are. Received: index={index}, count={count}"
        )
    keras.distribution.initialize(coordinator, count, index)
    atexit.register(_end)
    return find_devices()


def check_compiled(model: keras.Model, devices: Devices) -> None:
    """Refuses what Keras cannot do on several replicas under TensorFlow.

    Args:
        model: A compiled model.
        devices: Where it is to train.

    Raises:
        ValueError: Under a `MirroredStrategy` with several replicas, if the
            model was compiled with `jit_compile=True`, with
            `steps_per_execution`, with an optimizer that accumulates
            gradients or with one that scales the loss, as in float16.

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", steps_per_execution=2)
    >>> check_compiled(model, Devices())
    """
    if devices.replicas == 1 or keras.backend.backend() != "tensorflow":
        return
    # That of mixed float16 is around another.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    accumulated = optimizer.gradient_accumulation_steps
    optimizer = model.optimizer
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    for name, value, is_fine, instead in (
        # It looks for overflows on the first replica alone.
        (
            "precision",
            "mixed_float16" if scales else "",
            not scales,
            'take "mixed_bfloat16"',
        ),
        (
            "jit_compile",
            model.jit_compile,
            not model.jit_compile,
            "compile with jit_compile=False",
        ),
        (
            "steps_per_execution",
            model.steps_per_execution,
            model.steps_per_execution == 1,
            "leave it at 1",
        ),
        (
            "gradient_accumulation_steps",
            accumulated,
            accumulated is None,
            'save memory with TrainConfig(rematerialize="blocks")',
        ),
    ):
        if not is_fine:
            raise ValueError(
                f"`{name}` fails in Keras on several replicas under "
                f"TensorFlow: {instead}, or train on one GPU or on the JAX "
                f"backend. Received: {name}={value} on {devices.replicas} "
                "replicas"
            )


class EvenTest:
    """A test in `fit` whose batches are all of one size.

    Of every batch all devices must get as many clips on JAX, of the first one
    under a `MirroredStrategy`, and all processes must get as many batches. A
    test set seldom is so, even less when videos of it cannot be read. Here
    batches are filled up with clips that have no weight. On JAX that also
    saves compiling the test for a smaller last batch.

    Args:
        videos: What is tested.
        batch_size: Clips of a batch of this process, `Devices.share(...)`.
        devices: What tests; only where `devices.needs_even_batches`.

    Example:

    ```python
    test = EvenTest(videos, batch_size, devices)
    model.compile(optimizer, loss, weighted_metrics=test.metrics(["accuracy"]))
    model.fit(
        train_data,
        validation_data=test.batches(test_data),
        callbacks=[test.callback(), ...],
    )
    ```
    """

    def __init__(
        self, videos: VideoList, batch_size: int, devices: Devices
    ) -> None:
        count = devices.process[1]
        self._batch_size = batch_size
        self._steps = -(-len(videos) // (batch_size * count))
        self._clips = self._steps * batch_size * count

    def batches(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Fills up the batches of `clip_dataset(training=False, ...)`.

        Returns:
            A data set of clips, labels and float32 weights of shape
            `(batch_size,)`, 1 or 0, as many batches in each process.
        """
        clips, labels = dataset.element_spec
        size = self._batch_size

        def empty(_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (
                tf.zeros([size, *clips.shape[1:]], clips.dtype),
                tf.zeros([size, *labels.shape[1:]], labels.dtype),
                tf.zeros([size]),
            )

        def fill(clips: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
            weights = tf.ones(tf.shape(labels)[:1])
            return tuple(
                _pad(tensor, size) for tensor in (clips, labels, weights)
            )

        spare = tf.data.Dataset.range(self._steps).map(empty)
        return dataset.map(fill).concatenate(spare).take(self._steps)

    def metrics(self, metrics: list) -> list:
        """The `weighted_metrics` to compile with: these and one of its own."""
        return [*metrics, _Tested(name="tested")]

    def callback(self) -> keras.callbacks.Callback:
        """To be the first: makes `val_loss` the mean over the clips tested."""
        return _MeanOverTested(self._clips)


def _pad(tensor: tf.Tensor, size: int) -> tf.Tensor:
    missing = size - tf.shape(tensor)[0]
    rest = [[0, 0]] * (tensor.shape.rank - 1)
    padded = tf.pad(tensor, [[0, missing], *rest])
    return tf.ensure_shape(padded, [size, *tensor.shape[1:]])


class _Tested(keras.metrics.Sum):
    """Adds up the weights of clips."""

    def update_state(
        self,
        y_true: keras.KerasTensor,
        y_pred: keras.KerasTensor,
        sample_weight: keras.KerasTensor | None = None,
    ) -> None:
        ones = keras.ops.ones(keras.ops.shape(y_pred)[:1])
        super().update_state(ones, sample_weight)


class _MeanOverTested(keras.callbacks.Callback):
    """Keras divides the loss by all clips, those without weight too."""

    def __init__(self, clips: int) -> None:
        super().__init__()
        self._clips = clips

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs.pop("tested", None)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is None:
            return
        logs.pop("tested", None)
        if "val_tested" in logs:
            logs["val_loss"] *= self._clips / logs.pop("val_tested")


def _tensorflow_devices(strategy: tf.distribute.Strategy | None) -> Devices:
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "`keras.distribution` does nothing on TensorFlow: train under a "
            "tf.distribute.MirroredStrategy, or on the JAX backend. Received: "
            f"{keras.distribution.distribution()}"
        )
    if strategy is None:
        _check_alone(_workers(_configured_cluster()), "the tensorflow backend")
        strategy = _default_strategy()
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        cluster = strategy.cluster_resolver.cluster_spec().as_dict()
        _check_alone(_workers(cluster), "a MultiWorkerMirroredStrategy")
    if isinstance(strategy, _REFUSED):
        raise ValueError(
            "`strategy` must be a tf.distribute.MirroredStrategy, the only one "
            f"that Keras 3 trains several devices with; or {_ALTERNATIVE}. "
            f"Received: {type(strategy).__name__}"
        )
    return Devices(strategy.num_replicas_in_sync, (0, 1), strategy)


def _default_strategy() -> tf.distribute.Strategy:
    current = tf.distribute.get_strategy()
    several = len(tf.config.list_logical_devices("GPU")) > 1
    if several and not tf.distribute.has_strategy():
        return tf.distribute.MirroredStrategy()
    return current


def _configured_cluster() -> dict[str, list[str]]:
    """That in which TensorFlow's environment variable puts this process."""
    return json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})


def _workers(cluster: dict[str, list[str]]) -> int:
    return len(cluster.get("chief", ())) + len(cluster.get("worker", ()))


def _check_alone(workers: int, means: str) -> None:
    if workers > 1:
        raise ValueError(
            f"Keras 3 cannot train on several machines with {means}: "
            f"{_ALTERNATIVE}. Received: a cluster of {workers} workers"
        )


def _jax_devices() -> Devices:
    import jax

    _leave_gpus_to_jax()
    process = jax.process_index(), jax.process_count()
    devices = collections.Counter(
        device.process_index for device in jax.devices()
    )
    if len(set(devices.values())) > 1:
        raise ValueError(
            "Every process must have as many devices as the others, as each "
            "reads as many clips. Received: "
            f"{[devices[index] for index in sorted(devices)]}"
        )
    distribution = keras.distribution.distribution()
    if distribution is None:
        if devices.total() == 1:
            return Devices()
        distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    _check_distribution(distribution, process[1])
    replicas = distribution.device_mesh.devices.size
    return Devices(replicas, process, distribution)


def _check_distribution(
    distribution: keras.distribution.DataParallel, processes: int
) -> None:
    """Refuses what was set by `keras.distribution.set_distribution`."""
    if not isinstance(distribution, keras.distribution.DataParallel):
        raise ValueError(
            "Only a keras.distribution.DataParallel can be trained with: set "
            "that, or none for one over all devices. Received: "
            f"{type(distribution).__name__}"
        )
    if processes > 1 and distribution.auto_shard_dataset:
        raise ValueError(
            "Each process reads its own share already: make the "
            "keras.distribution.DataParallel with auto_shard_dataset=False. "
            "Received: auto_shard_dataset=True"
        )


def _leave_gpus_to_jax() -> None:
    """TensorFlow, which reads the videos, would take all of their memory."""
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        logging.warning(
            "TensorFlow was used before `join` or `train` and may have taken "
            "the memory of the GPUs; TF_FORCE_GPU_ALLOW_GROWTH=true in the "
            "environment keeps it from doing so."
        )


def _meet(name: str) -> None:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def _end() -> None:
    """Waits for the others, which JAX itself does for 5 minutes only."""
    if hasattr(sys, "last_value"):  # This process ends by an exception.
        _leave()
    _meet("end")


def _leave() -> None:
    """Ends this process now; the others notice, as it is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
