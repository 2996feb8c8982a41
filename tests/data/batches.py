"""Small batches, and comparing them."""

import numpy as np

from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.sampling import ClipSpec


def dataset(videos, *, training, **changes):
    """Clips of 4 frames, every second one, of 24 x 24 pixels."""
    arguments = {"batch_size": 4, "crop_size": 24, "short_side": (24, 32)}
    return clip_dataset(
        videos, ClipSpec(4, 2), training=training, **(arguments | changes)
    )


def arrays(batches):
    """(frames, labels) of a whole epoch."""
    frames, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(frames), np.concatenate(labels)


def assert_same(first, second):
    """Two of what `arrays` gives, or parts of them."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
