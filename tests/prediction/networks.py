"""A network that takes hardly any time."""

import keras

from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.preprocessing import ClipNormalization
from tests import checks


def tiny():
    """Few layers, for clips of 4 frames, every second one, of 28 pixels."""
    training = {"num_frames": 4, "sampling_rate": 2, "crop_size": 28}
    clip = keras.Input((None, None, None, 3), name="clip")
    x = ClipNormalization(name="normalize")(clip)
    x = NetworkRecord({"depth": 1}, training)(x)
    x = keras.layers.Conv3D(5, 3, (1, 3, 3), "same", name="res")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.GlobalAveragePooling3D(name="pool")(x)
    x = keras.layers.Dropout(0.5)(x)
    scores = keras.layers.Dense(3, "softmax", name="scores")(x)
    model = keras.Model(clip, scores, name="tiny")
    checks.randomize(model, scale=0.2)
    return model
