import keras
import pytest

from keras_nonlocal import NonLocal
from keras_nonlocal import count_macs


def test_layers_by_hand():
    x = entry = keras.Input((None, None, 4))
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = NonLocal(sub_sample=None)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5)(x)
    model = keras.Model(entry, x)
    conv, depthwise = 5 * 5 * 9 * 4 * 6, 5 * 5 * 9 * 6
    block = 25 * 6 * 3 * 4 + 2 * 25 * 25 * 3
    macs = conv + depthwise + block + 6 * 5
    assert count_macs(model, (10, 10, 4)) == macs
    # The model itself is as before: each layer still has one output.
    assert model.layers[1].output.shape == (None, None, None, 6)


def test_refuses_what_it_cannot_count():
    entry = keras.Input((8, 4))
    model = keras.Model(entry, keras.layers.LSTM(3)(entry))
    with pytest.raises(ValueError, match="lstm"):
        count_macs(model, (8, 4))
    outer = keras.Model(entry, model(entry))
    with pytest.raises(ValueError, match="flat"):
        count_macs(outer, (8, 4))
    with pytest.raises(ValueError, match="unknown"):
        count_macs(model, (None, 4))
