"""Losses of a batch that several devices share.

Under TensorFlow's strategies every device runs the model on its part of the
batch and Keras adds up their gradients. A loss that divides by a count, as of
the regions that were sampled, has to divide by that of all parts to be the
same on any number of devices. On the other backends the model sees the whole
batch already.
"""

from keras import config
from keras import ops


def mean(x):
    """Mean over all devices of a count or another value without gradient.

    Args:
        x: Scalar tensor.

    Returns:
        Scalar tensor, the same on every device; `x` where there is one.
    """
    context = _replica_context()
    if context is None:
        return x
    return context.all_reduce("MEAN", ops.stop_gradient(x))


def share(loss):
    """The part of a loss whose sum over all devices is its mean over them.

    To be returned by `compute_loss`, as Keras adds up the gradients of all
    devices.

    Args:
        loss: Scalar tensor: a sum over this device's part of the batch,
            divided by the `mean` of a count.

    Returns:
        Scalar tensor.
    """
    context = _replica_context()
    return loss if context is None else loss / context.num_replicas_in_sync


def _replica_context():
    """That of TensorFlow, `None` unless several devices share the batch."""
    if config.backend() != "tensorflow":
        return None
    import tensorflow as tf

    # There is none outside of `strategy.run`, where a model is built.
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
