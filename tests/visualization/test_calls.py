import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal.visualization import calls


def test_values_that_integers_do_not_have_are_refused():
    entry = keras.Input((2, 2, 3), dtype="uint8")
    model = keras.Model(entry, layers.Rescaling(1 / 255)(entry))
    whole = np.full((2, 2, 3), 255.0)
    assert calls.one_clip(model, whole).dtype == np.uint8
    for value in (0.5, 300.0, -1, np.nan):
        with pytest.raises(ValueError, match=r"that uint8 has.*64 from"):
            calls.one_clip(model, np.full((2, 2, 3), value))
    # Floats take everything, to their precision.
    entry = keras.Input((2, 2, 3))
    model = keras.Model(entry, layers.ReLU()(entry))
    assert calls.one_clip(model, np.full((2, 2, 3), 0.1)).dtype == np.float32


def test_a_nested_model_must_be_given_its_own_rank():
    """Keras would add the axis of the channels unseen."""
    entry = keras.Input((8, 8, 1))
    inner = keras.Model(entry, layers.ReLU()(entry), name="inner")
    entry = keras.Input((8, 8))
    model = keras.Model(entry, inner(entry))
    assert model(np.zeros((1, 8, 8))).shape == (1, 8, 8, 1)
    with pytest.raises(ValueError, match="'inner', which is nested"):
        calls.run(model, [None], lambda path, node, given: [None])
