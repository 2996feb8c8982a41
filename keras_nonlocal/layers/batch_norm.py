"""Batch normalisation as the networks of the paper use it."""

import keras
from keras import ops

from keras_nonlocal.ops import normalization

EPSILON = 1e-5
MOMENTUM = 0.9
NORMS = ("batch", "sync_batch", "affine")


def make_norm(norm, gamma_initializer="ones", **kwargs):
    """The layer for a norm's name.

    Args:
        norm: `"batch"`: statistics of the batch on each replica, as the paper.
            `"sync_batch"`: statistics over all replicas (TensorFlow only).
            `"affine"`: a frozen scale and shift, to which batch norm was
            folded.
        gamma_initializer: For the batch norms.
        **kwargs: Of `keras.layers.Layer`.

    Returns:
        A `BatchNormalization` or an `Affine` layer, not yet built.
    """
    if norm not in NORMS:
        raise ValueError(f"`norm` must be one of {NORMS}. Received: {norm!r}")
    if norm == "affine":
        return Affine(**kwargs)
    return BatchNormalization(
        gamma_initializer=gamma_initializer,
        synchronized=norm == "sync_batch",
        **kwargs,
    )


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch norm over the channels of an input of any rank, fused.

    The weights and the results are those of
    `keras.layers.BatchNormalization`, with the constants of the paper's code
    as defaults. On TensorFlow the fused kernel is used through a 4-D view of
    the input, which Keras does not do, and half precision inputs are not
    copied to float32.

    Args:
        momentum: Share of the old moving statistics that is kept.
        epsilon: Added to the variance.
        **kwargs: Of `keras.layers.BatchNormalization`; `axis` must be the
            last one.

    Example:

    >>> BatchNormalization()(np.ones((2, 4, 7, 7, 16), "float32")).shape
    TensorShape([2, 4, 7, 7, 16])
    """

    def __init__(self, momentum=MOMENTUM, epsilon=EPSILON, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        # Keras before 3.13 has no `renorm`.
        renorm = getattr(self, "renorm", False)
        if self.axis != -1 or renorm or not (self.center and self.scale):
            raise ValueError(
                "BatchNormalization takes `axis=-1`, with `center` and "
                "`scale` and without `renorm`. Received: "
                f"axis={self.axis}, center={self.center}, "
                f"scale={self.scale}, renorm={renorm}"
            )

    def call(self, inputs, training=None):
        training = training and self.trainable
        if training and self.synchronized:
            return super().call(inputs, training=True)
        if not training:
            return normalization.batch_norm_apply(
                inputs,
                self.gamma,
                self.beta,
                self.moving_mean,
                self.moving_variance,
                self.epsilon,
            )
        outputs, mean, variance = normalization.batch_norm_train(
            inputs, self.gamma, self.beta, self.epsilon
        )
        self._track(self.moving_mean, mean)
        self._track(self.moving_variance, variance)
        return outputs

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """What Keras runs within `keras.RematScope`: the same as elsewhere.

        A second run would update the moving statistics twice, and nothing would
        be saved: the gradient needs no more than the input.
        """
        return layer_call

    def _track(self, moving, value):
        kept = ops.cast(moving, value.dtype) * self.momentum
        moving.assign(kept + value * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class Affine(keras.layers.Layer):
    """A scale and a shift for each channel, `gamma * x + beta`, both frozen.

    What is left of a batch norm whose statistics have been folded in:
    `gamma' = gamma / sqrt(variance + epsilon)`,
    `beta' = beta - mean * gamma'`. The paper's 128-frame models are trained
    with it (section 4.1, "BN layers frozen"). Neither weight is trainable.

    Example:

    >>> Affine()(np.ones((2, 4, 7, 7, 16), "float32")).shape
    TensorShape([2, 4, 7, 7, 16])
    """

    def build(self, input_shape):
        shape = (input_shape[-1],)
        frozen = {"shape": shape, "trainable": False, "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **frozen)
        self.beta = self.add_weight(name="beta", initializer="zeros", **frozen)

    def call(self, inputs):
        gamma = ops.cast(self.gamma, inputs.dtype)
        return inputs * gamma + ops.cast(self.beta, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape
