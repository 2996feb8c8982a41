import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"epochs": -1},
        {"learning_rate": float("nan")},
        {"warmup": 1.0},
        {"rematerialize": "layers"},
    ],
)
def test_wrong_settings(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        TrainConfig(ClipSpec(8), **changes)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="learning_rat"):
        TrainConfig(ClipSpec(8), learning_rat=0.1)
