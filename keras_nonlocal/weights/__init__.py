"""Published weights: found, fetched, converted and loaded."""

from keras_nonlocal.models import pretrained
from keras_nonlocal.weights.lookup import find
from keras_nonlocal.weights.lookup import pinned_network

pretrained.register(find, pinned_network)
