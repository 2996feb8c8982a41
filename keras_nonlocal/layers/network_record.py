"""A network's description inside the network."""

import json

import keras
import numpy as np

_KEY = "network"


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class NetworkRecord(keras.layers.Layer):
    """Passes its input on and keeps the description of the network around it.

    Weights do not determine a network: strides, paddings and the order of
    pooling have none. So that a file of weights can say which network it is
    of, this layer writes the description into it, and refuses the weights of a
    network that is described otherwise.

    Args:
        network: What makes it another network, a dict that JSON can hold.
        training: What may be chosen differently for the same weights, alike.
        **kwargs: Of `keras.layers.Layer`.

    Example:

    >>> NetworkRecord({"depth": 50})(np.ones((1, 2), "float32")).shape
    TensorShape([1, 2])
    """

    def __init__(self, network, training=None, **kwargs):
        super().__init__(**kwargs)
        # By way of JSON: tuples become lists, as in what is read back.
        self.network = json.loads(json.dumps(network))
        # PyTorch's modules have a `training` of their own.
        self.trained_with = json.loads(json.dumps(training or {}))

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def save_own_variables(self, store):
        text = json.dumps({**self.network, **self.trained_with})
        store[_KEY] = np.frombuffer(text.encode(), "uint8")

    def load_own_variables(self, store):
        # Files of versions without this layer have nothing here.
        if _KEY not in store.keys():
            return
        found = json.loads(np.asarray(store[_KEY]).tobytes())
        # A field that came later is not in files of before.
        found = {key: found[key] for key in self.network if key in found}
        if found != {key: self.network[key] for key in found}:
            raise ValueError(
                f"The weights are of another network, {found}; this one is "
                f"{self.network}."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "network": self.network,
            "training": self.trained_with,
        }
