"""SGD as the paper's code has it, in no more memory than it needs."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_nonlocal.training.config import RunConfig
from keras_nonlocal.training.schedules import make_schedule

# Scales and shifts of batch norms, by the names of their variables.
_NOT_DECAYED = ("gamma", "beta")
_BIAS = "bias"
# Share of the last rate below which a rate has dropped. Warm-ups rise, and
# schedules that are smooth fall by less in a step.
_DROP = 0.9


def make_optimizer(
    config: RunConfig, steps: int, **arguments: Any
) -> keras.optimizers.Optimizer:
    """The optimizer that a configuration means.

    Args:
        config: Settings.
        steps: Of the whole training.
        **arguments: Of `SGD`, beside those that the settings give.

    Returns:
        An `SGD` with a schedule. With `config.ema` it keeps averages of the
        trainable weights, which `fit` puts in their place when it ends; until
        then `keras.callbacks.SwapEMAWeights` tests them.

    Example:

    >>> make_optimizer(RunConfig(), steps=1000).l2
    0.0001
    """
    # A cosine's last steps are drops by number only.
    has_drops = config.schedule == "steps"
    if config.ema is not None:
        arguments = {"ema_momentum": config.ema, **arguments}
    return SGD(
        make_schedule(config, steps),
        momentum=float(config.momentum),
        nesterov=config.nesterov,
        l2=config.weight_decay,
        rescale_momentum=config.rescale_momentum and has_drops,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema is not None,
        **arguments,
    )


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` with what the paper's code has and Keras has not.

    Without `l2` and `rescale_momentum` the results are those of Keras, in less
    memory: an update begins with the product of momentum and velocity. In a
    TensorFlow graph nothing keeps this product, of the size of the weight, from
    being computed when a step begins; with `keras.optimizers.SGD` those of all
    weights then wait through the forward and the backward pass. Here they wait
    for the gradient.

    Gradients are clipped before `l2` is added, as `torch.optim.SGD` has it
    after `clip_grad_norm_`. On several replicas what is clipped is their sum;
    `keras.optimizers.SGD` clips the part of each.

    Args:
        learning_rate: As of `keras.optimizers.SGD`.
        momentum: As of `keras.optimizers.SGD`.
        l2: Share of a weight that is added to its gradient: the gradient of
            `l2 / 2 * sum(weight ** 2)`. Variables that are called `gamma` or
            `beta`, the scales and shifts of norms, are left out; biases are
            not. (`weight_decay` of Keras is another thing: it does not go
            through the momentum.)
        rescale_momentum: Whether, at a step whose rate is less than 0.9 of the
            one before, velocities are multiplied by the ratio of the two: they
            are sums of gradients times rates, and Keras goes on with those of
            the old rate. `torch.optim.SGD`, whose velocities know no rate,
            does the same thing implicitly.
        bias_rate: Factor of the rate for biases (variables that are called
            `bias`); Caffe2's Detectron takes 2.
        decay_biases: Whether `l2` is for biases too; in Detectron it is not.
        **kwargs: Of `keras.optimizers.SGD`.

    Raises:
        ValueError: If `l2` or `bias_rate` is negative, or if `rescale_momentum`
            is to go with `gradient_accumulation_steps`, which would miss drops.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model.compile(SGD(0.1, momentum=0.9, l2=1e-4), loss="mse")
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        *,
        l2: float = 0.0,
        rescale_momentum: bool = False,
        bias_rate: float = 1.0,
        decay_biases: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, momentum, **kwargs)
        for name, value in (("l2", l2), ("bias_rate", bias_rate)):
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"`{name}` must be 0 or positive. Received: {value!r}"
                )
        if rescale_momentum and self.gradient_accumulation_steps:
            raise ValueError(
                "`rescale_momentum` does not go with "
                "`gradient_accumulation_steps`. Received: "
                f"{self.gradient_accumulation_steps}"
            )
        self.l2 = l2
        self.rescale_momentum = rescale_momentum
        self.bias_rate = bias_rate
        self.decay_biases = decay_biases
        self._is_decayed: tuple[bool, ...] = ()
        self._is_bias: tuple[bool, ...] = ()
        if rescale_momentum:
            self._last_rate = self._add_number("last_rate", "zeros")
            self._ratio = self._add_number("ratio", "ones")

    def _add_number(self, name: str, initializer: str) -> keras.Variable:
        return self.add_variable(
            shape=(),
            initializer=initializer,
            dtype="float32",
            aggregation="only_first_replica",
            name=name,
        )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes a velocity for each variable."""
        if self.built:
            return
        super().build(variables)
        self._is_bias = tuple(variable.name == _BIAS for variable in variables)
        kept = _NOT_DECAYED if self.decay_biases else (*_NOT_DECAYED, _BIAS)
        self._is_decayed = tuple(
            variable.name not in kept for variable in variables
        )

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Updates the variables by their gradients."""
        if self.rescale_momentum:
            rate = ops.cast(self.learning_rate, "float32")
            has_dropped = rate < _DROP * self._last_rate
            ratio = ops.where(has_dropped, rate / self._last_rate, 1.0)
            self._ratio.assign(ratio)
            self._last_rate.assign(rate)
        super().apply(grads, trainable_variables)

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates one variable."""
        index = self._get_variable_index(variable)
        with _after(gradient):
            if self.l2 and self._is_decayed[index]:
                gradient = ops.cast(gradient, variable.dtype)
                gradient = ops.add(gradient, ops.multiply(variable, self.l2))
            if self.rescale_momentum and self.momentum:
                velocity = self.momentums[index]
                ratio = ops.cast(self._ratio, velocity.dtype)
                self.assign(velocity, ops.multiply(velocity, ratio))
            if self.bias_rate != 1.0 and self._is_bias[index]:
                learning_rate = ops.multiply(learning_rate, self.bias_rate)
            super().update_step(gradient, variable, learning_rate)

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        # Keras does this before the replicas' gradients are summed, which
        # clips each replica's part of the gradient as if it were the whole.
        clips = self.clipnorm or self.global_clipnorm or self.clipvalue
        replicas = _replicas()
        if not clips or replicas == 1:
            return super()._clip_gradients(grads)
        context = tf.distribute.get_replica_context()
        grads = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        # They will be summed again.
        return [grad / replicas for grad in super()._clip_gradients(grads)]

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "l2": self.l2,
            "rescale_momentum": self.rescale_momentum,
            "bias_rate": self.bias_rate,
            "decay_biases": self.decay_biases,
        }


def _after(gradient: Any) -> contextlib.AbstractContextManager:
    """Lets TensorFlow compute what follows not before the gradient."""
    if keras.backend.backend() == "tensorflow":
        return tf.control_dependencies([gradient])
    return contextlib.nullcontext()


def _replicas() -> int:
    if keras.backend.backend() == "tensorflow":
        return tf.distribute.get_strategy().num_replicas_in_sync
    return 1
