"""Statistics of batch norms that are not moving averages.

Moving averages mix the statistics of weights that are gone, and of few
batches. The paper's code computes those of the weights at hand over 200
batches, before each test and each checkpoint.
"""

import contextlib
import itertools
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from keras import ops

_SECONDS_BETWEEN_NOTES = 30.0


def precise_batch_norm(
    model: keras.Model, batches: Iterable[Any], steps: int
) -> None:
    """Sets the statistics of all batch norms in training anew.

    The moving mean becomes the mean over the batches of the batch's mean, the
    moving variance the mean of the batch's mean square less the square of
    that. Batches go through the network as in training, where each batch norm
    goes by the statistics of the batch at hand; no other state of the model
    changes. Batch norms that are not trainable are left alone.

    Under a `MirroredStrategy` the replicas share a batch as they do in
    training, and what each has of it counts as a batch: batch norms that are
    not synchronized go by the same number of clips as in training.

    Args:
        model: A built model, which calls each batch norm once; also one that
            `rematerialize` gave. Under a strategy, made in its scope.
        batches: Inputs, or tuples of inputs and labels as `fit` takes them,
            of training.
        steps: Batches to take.

    Raises:
        ValueError: If there are no batches, if one has fewer clips than there
            are replicas, if a batch norm has renormalization, or if there are
            several JAX processes.

    Example:

    >>> norm = keras.layers.BatchNormalization()
    >>> model = keras.Sequential([keras.Input((1,)), norm])
    >>> precise_batch_norm(model, [np.array([[1.0], [3.0]])], steps=1)
    >>> float(norm.moving_mean[0]), float(norm.moving_variance[0])
    (2.0, 1.0)
    """
    _Statistics(model).update(batches, steps)


class PreciseBatchNorm(keras.callbacks.Callback):
    """Calls `precise_batch_norm` within `fit` before each test and each save.

    That is at the beginning of each test, or else at the end of the epoch, and
    at the end of training; never twice for the same weights. Put it before
    callbacks that write checkpoints and after those that change weights, as
    `keras.callbacks.SwapEMAWeights`.

    Training goes on as it would without: its steps use the statistics of their
    own batches.

    Args:
        batches: As for `precise_batch_norm`; iterated anew each time.
        steps: As for `precise_batch_norm`.

    Example:

    ```python
    model.fit(
        train,
        validation_data=test,
        callbacks=[keras_nonlocal.PreciseBatchNorm(train_again, steps=200)],
    )
    ```
    """

    def __init__(self, batches: Iterable[Any], steps: int) -> None:
        super().__init__()
        self.batches = batches
        self.steps = steps
        self._is_fitting = False
        self._is_done = False
        self._statistics: _Statistics | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begins with the model as it is compiled now."""
        self._is_fitting = True
        self._is_done = False
        self._statistics = _Statistics(self.model)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """The weights have changed."""
        self._is_done = False

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Sets the statistics that the test goes by."""
        self._update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the statistics that are saved."""
        self._update()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Sets the statistics of the final weights."""
        # `fit` has put the averages of the weights in their place.
        self._is_done = self._is_done and not _keeps_average(self.model)
        self._update()
        self._is_fitting = False
        self._statistics = None

    def _update(self) -> None:
        # Tests outside of `fit` find the weights as they are.
        if self._is_fitting and not self._is_done and self._statistics:
            self._statistics.update(self.batches, self.steps)
            self._is_done = True


def _keeps_average(model: keras.Model) -> bool:
    optimizer = model.optimizer
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return bool(getattr(optimizer, "use_ema", False))


class _Statistics:
    """Measures the batch norms of a model, and sets what it has measured."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._norms = _trainable_norms(model)
        others = model.non_trainable_variables
        places = {id(variable): place for place, variable in enumerate(others)}
        self._means = [places[id(norm.moving_mean)] for norm in self._norms]
        self._variances = [
            places[id(norm.moving_variance)] for norm in self._norms
        ]
        weights = {id(variable) for variable in model.weights}
        self._seeds = [
            place for key, place in places.items() if key not in weights
        ]
        self._sizes = [norm.moving_mean.shape[0] for norm in self._norms]
        self._run = self._compiled()

    def update(self, batches: Iterable[Any], steps: int) -> None:
        """Takes batches and sets the statistics of the batch norms."""
        if not self._norms:
            return
        mean = np.zeros(sum(self._sizes))
        square, count = np.zeros_like(mean), 0
        for found_mean, found_variance in self._measure(batches, steps):
            mean += found_mean
            square += found_variance + found_mean**2
            count += 1
        if not count:
            raise ValueError("`batches` must give a batch. Received: none")
        mean /= count
        # Rounding may leave less than nothing to a constant channel.
        variance = np.maximum(square / count - mean**2, 0.0)
        if not np.all(np.isfinite(variance)):
            logging.warning(
                "Precise batch norm: activations are not finite; the moving "
                "averages stay."
            )
            return
        ends = np.cumsum(self._sizes)[:-1]
        for norm, new_mean, new_variance in zip(
            self._norms,
            np.split(mean, ends),
            np.split(variance, ends),
            strict=True,
        ):
            norm.moving_mean.assign(new_mean)
            norm.moving_variance.assign(new_variance)

    def _measure(
        self, batches: Iterable[Any], steps: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Means and variances of all channels, in float64, batch by batch."""
        variables = self._model.non_trainable_variables
        seeds = [ops.copy(variables[place]) for place in self._seeds]
        noted = time.monotonic()
        number = 0
        for number, batch in enumerate(itertools.islice(batches, steps), 1):
            inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            # Of `tf.data`, whatever the backend.
            inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
            # What is left of the old average with this momentum is nothing.
            with _momentum(self._norms, 0.0):
                found, seeds = self._run(inputs, seeds)
            for values in found:
                array = ops.convert_to_numpy(values).astype("float64")
                mean, variance = np.split(array, 2)
                yield mean, variance
            if time.monotonic() - noted > _SECONDS_BETWEEN_NOTES:
                noted = time.monotonic()
                print(
                    f"precise batch norm: {number} of {steps} batches",
                    flush=True,
                )
        if number < steps:
            logging.warning(
                "Precise batch norm: %d batches in place of %d.", number, steps
            )

    def _compiled(self) -> Callable[[Any, list], tuple[tuple, list]]:
        """From inputs and seeds to measurements, one a replica, and seeds."""
        backend = keras.backend.backend()
        if backend == "tensorflow":
            return self._compiled_by_tensorflow()
        forward = self._forward
        if backend == "jax":
            import jax

            if self._norms and jax.process_count() > 1:
                raise ValueError(
                    "Precise batch norm runs in one process. Received: "
                    f"{jax.process_count()} JAX processes; pass precise_bn=0"
                )
            forward = jax.jit(forward)

        def run(inputs: Any, seeds: list) -> tuple[tuple, list]:
            trainable, others = self._values()
            found, seeds = forward(trainable, others, inputs, seeds)
            return (found,), seeds

        return run

    def _compiled_by_tensorflow(self) -> Callable[[Any, list], Any]:
        strategy = self._model.distribute_strategy

        def replica_step(inputs: Any, seeds: list) -> tuple[tf.Tensor, list]:
            return self._forward(*self._values(), inputs, seeds)

        @tf.function(reduce_retracing=True)
        def step(inputs: Any, seeds: list) -> tuple[Any, list]:
            return strategy.run(replica_step, args=(inputs, seeds))

        def run(inputs: Any, seeds: list) -> tuple[tuple, list]:
            found, seeds = step(_shared(inputs, strategy), seeds)
            local = strategy.experimental_local_results
            return local(found), [local(seed)[0] for seed in seeds]

        return run

    def _values(self) -> tuple[list, list]:
        """What the variables are now, on the replica that asks."""
        model = self._model
        return (
            [ops.convert_to_tensor(v) for v in model.trainable_variables],
            [ops.convert_to_tensor(v) for v in model.non_trainable_variables],
        )

    def _forward(
        self, trainable: list, others: list, inputs: Any, seeds: list
    ) -> tuple[Any, list]:
        """One pass as in training, which leaves all variables as they are.

        Returns:
            Means and then variances of all channels, float32; and the seeds of
            the next pass.
        """
        others = list(others)
        for place, seed in zip(self._seeds, seeds, strict=True):
            others[place] = seed
        for place in (*self._means, *self._variances):
            # Not even a share of 0 of what is not finite is nothing.
            others[place] = ops.zeros_like(others[place])
        _, others = self._model.stateless_call(
            trainable, others, inputs, training=True
        )
        found = [
            ops.cast(others[place], "float32")
            for place in (*self._means, *self._variances)
        ]
        return ops.concatenate(found), [others[p] for p in self._seeds]


def _trainable_norms(
    model: keras.Model,
) -> list[keras.layers.BatchNormalization]:
    """The batch norms that go by the batch in training, in inner layers too."""
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and layer.built
    ]
    # Keras before 3.13 has no `renorm`.
    renormalized = [x.name for x in norms if getattr(x, "renorm", False)]
    if renormalized:
        raise ValueError(
            "Precise batch norm is for batch norms without renormalization. "
            f"Received: {', '.join(renormalized)}"
        )
    return norms


@contextlib.contextmanager
def _momentum(
    norms: Iterable[keras.layers.BatchNormalization], value: float
) -> Iterator[None]:
    """Batch norms that are traced within keep a share of the old average."""
    before = [(norm, norm.momentum) for norm in norms]
    try:
        for norm, _ in before:
            norm.momentum = value
        yield
    finally:
        for norm, momentum in before:
            norm.momentum = momentum


def _shared(inputs: Any, strategy: tf.distribute.Strategy) -> Any:
    """The clips of a batch, shared among the replicas."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return inputs
    size = len(keras.tree.flatten(inputs)[0])
    if size < replicas:
        raise ValueError(
            f"A batch must have a clip for each of {replicas} replicas. "
            f"Received: {size}"
        )

    def share(leaf: Any) -> Any:
        def part(context: Any) -> Any:
            number = context.replica_id_in_sync_group
            first = size * number // replicas
            return leaf[first : size * (number + 1) // replicas]

        return strategy.experimental_distribute_values_from_function(part)

    return keras.tree.map_structure(share, inputs)
