"""Published weights: found, fetched, converted and loaded."""

from keras_nonlocal.models import pretrained
from keras_nonlocal.weights import lookup

pretrained.register(lookup)
