"""A tiny data set of real H.264 files, made once."""

import pytest

from keras_nonlocal.data import synthetic


@pytest.fixture(scope="session")
def relation(tmp_path_factory):
    """(train, test) lists of 12 and 6 videos, 16 frames of 32x32 pixels."""
    return synthetic.make_relation_dataset(
        tmp_path_factory.mktemp("relation"),
        num_train=12,
        num_test=6,
        num_frames=16,
        size=32,
        progress=False,
    )
