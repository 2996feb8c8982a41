"""Non-local neural networks for video, in Keras 3."""

from keras_nonlocal.version import __version__

__all__ = [
    "__version__",
]
