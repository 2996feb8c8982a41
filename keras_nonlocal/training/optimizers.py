"""Optimizers that take no more memory than they need."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, whose update waits for the gradient.

    The update begins with the product of momentum and velocity. In a TensorFlow
    graph nothing keeps this product, of the size of the weight, from being
    computed when a step begins; with `keras.optimizers.SGD` those of all
    weights then wait through the forward and the backward pass. Here they do
    not. Results are the same.

    Args:
        **kwargs: Of `keras.optimizers.SGD`.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model.compile(SGD(0.1, momentum=0.9), loss="mse")
    """

    def update_step(
        self,
        gradient: tf.Tensor,
        variable: keras.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        with tf.control_dependencies([gradient]):
            super().update_step(gradient, variable, learning_rate)
