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
        {"flip": "false"},
        {"batch_size": True},
        {"steps": 1e5},
        {"short_side": 128},
        {"drops": (0.5, 0.2), "schedule": "steps"},
        {"drops": (0.5,)},
        {"ema": 1.0},
        {"weights_differ_in": ("depth",)},
        {"from_baseline": True},
    ],
)
def test_wrong_settings(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        TrainConfig(ClipSpec(8), **changes)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="learning_rat"):
        TrainConfig(ClipSpec(8), learning_rat=0.1)


def test_rate_and_steps_follow_the_batch():
    config = TrainConfig(
        ClipSpec(8),
        batch_size=16,
        reference_batch=64,
        learning_rate=0.01,
        steps=1000,
    )
    assert config.peak_rate == pytest.approx(0.0025)
    assert config.num_steps(100) == 4000
    passes = TrainConfig(ClipSpec(8), batch_size=8, epochs=3)
    assert passes.num_steps(100) == 36
