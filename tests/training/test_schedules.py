import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal.training.schedules import StepDecay
from keras_nonlocal.training.schedules import make_schedule

CONFIG = TrainConfig(ClipSpec(8, 8))
PAPER = dataclasses.replace(
    CONFIG, schedule="steps", drops=(0.375, 0.75), warmup=0.0
)


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_cosine_is_that_of_keras():
    schedule = make_schedule(CONFIG, 205)
    assert type(schedule) is keras.optimizers.schedules.CosineDecay
    expected = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=185, warmup_target=0.01, warmup_steps=20
    )
    assert schedule.get_config() == expected.get_config()
    plain = make_schedule(dataclasses.replace(CONFIG, warmup=0.0), 200)
    expected = keras.optimizers.schedules.CosineDecay(0.01, 200)
    assert plain.get_config() == expected.get_config()


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warm_up_rises_in_equal_steps(schedule):
    config = dataclasses.replace(CONFIG, schedule=schedule, warmup_start=0.2)
    warm = rates(make_schedule(config, 100), range(11))
    np.testing.assert_allclose(warm, np.linspace(0.002, 0.01, 11), rtol=1e-6)


def test_the_rate_is_scaled_with_the_batch():
    config = dataclasses.replace(PAPER, batch_size=8, reference_batch=64)
    assert float(make_schedule(config, 10)(0)) == pytest.approx(0.00125)


def test_drops_of_the_paper():
    """150k and 300k of 400k; the step at a drop has the new rate."""
    schedule = make_schedule(PAPER, 400_000)
    steps = [0, 149_999, 150_000, 299_999, 300_000, 399_999, 10**7]
    expected = np.float32([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4])
    np.testing.assert_array_equal(rates(schedule, steps), expected)


def test_drops_in_a_long_training_are_exact():
    """Neighbours that float32 does not tell apart."""
    schedule = StepDecay(1.0, drops=[2**25 + 1])
    values = rates(schedule, [2**25, 2**25 + 1])
    np.testing.assert_array_equal(values, np.float32([1.0, 0.1]))


def test_few_steps_begin_with_the_peak():
    assert float(make_schedule(PAPER, 1)(0)) == pytest.approx(0.01)


def test_warm_up_and_drops_go_together():
    config = dataclasses.replace(PAPER, warmup=0.25)
    schedule = make_schedule(config, 8)
    expected = [0, 0.005, 0.01, 0.001, 0.001, 0.001, 0.0001, 0.0001]
    np.testing.assert_allclose(rates(schedule, range(8)), expected, rtol=1e-6)


@pytest.mark.parametrize("config", [CONFIG, PAPER])
def test_round_trip_and_in_a_graph(config):
    config = dataclasses.replace(config, warmup=0.1)
    schedule = make_schedule(config, 50)
    written = keras.optimizers.schedules.serialize(schedule)
    copy = keras.optimizers.schedules.deserialize(written)
    assert copy.get_config() == schedule.get_config()
    compiled = tf.function(lambda step: copy(step))
    found = [float(compiled(tf.constant(n, tf.int64))) for n in range(50)]
    np.testing.assert_array_equal(found, rates(schedule, range(50)))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="`steps` must be 1 or more.*: 0"):
        make_schedule(CONFIG, 0)
