"""Non-local neural networks for video, in Keras 3."""

from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.batch_norm import BatchNormalization
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.version import __version__

__all__ = [
    "Affine",
    "BatchNormalization",
    "ClipNormalization",
    "NonLocal",
    "__version__",
]
