import dataclasses

import pytest

from keras_nonlocal.training.detector_config import DetectorConfig
from keras_nonlocal.training.detector_recipes import coco
from keras_nonlocal.training.schedules import make_schedule

# detectron2's 1x schedule, read in its Base-RCNN-FPN.yaml and defaults.py.
DETECTRON2 = DetectorConfig(
    batch_size=16,
    steps=90_000,
    drops=(60_000 / 90_000, 80_000 / 90_000),
    warmup=1000 / 90_000,
)


def rates(config, steps):
    schedule = make_schedule(config, config.num_steps(count=117_266))
    return [float(schedule(step)) for step in steps]


def test_the_rate_is_detectron2s():
    steps = (0, 500, 1000, 59_999, 60_000, 80_000)
    expected = [0.00002, 0.01001, 0.02, 0.02, 0.002, 0.0002]
    assert rates(DETECTRON2, steps) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("trunk", "schedule", "peak", "drops", "end"),
    [
        ("r50", "1x", 0.02, (60_000, 80_000), 90_000),
        ("r101", "3x", 0.02, (210_000, 250_000), 270_000),
        ("x152", "1x", 0.01, (200_000, 240_000), 260_000),
        ("x152", "3x", 0.01, (420_000, 500_000), 540_000),
    ],
)
def test_the_rate_of_the_recipes_is_detectrons(
    trunk, schedule, peak, drops, end
):
    config = coco("mine", trunk, schedule).config
    assert config.num_steps(count=117_266) == end
    steps = (0, 250, 500, drops[0] - 1, drops[0], drops[1] - 1, drops[1])
    shares = [1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.01]
    expected = [share * peak for share in shares]
    assert rates(config, steps) == pytest.approx(expected, rel=1e-5)


def test_rate_length_and_warm_up_follow_the_batch():
    config = dataclasses.replace(DETECTRON2, batch_size=2)
    assert config.num_steps(count=117_266) == 720_000
    found = rates(config, (0, 4000, 8000, 480_000))
    assert found == pytest.approx([2.5e-6, 0.00125125, 0.0025, 0.00025])


@pytest.mark.parametrize(
    "changes",
    [
        {"short_side": ()},
        {"short_side": (640, 2000)},
        {"short_side": 640},
        {"test_every": 0},
        {"test_images": -1},
        {"bias_rate": 0.0},
        {"pad_to": 800},
        {"clip_norm": 0.0},
        {"learning_rate": float("inf")},
        {"weights": "one", "backbone_weights": "other"},
    ],
)
def test_wrong_settings(changes):
    with pytest.raises(
        ValueError, match=f"DetectorConfig.*{next(iter(changes))}"
    ):
        DetectorConfig(**changes)


def test_unknown_trunks_and_schedules_are_named():
    with pytest.raises(ValueError, match="`trunk` must be.*'r152'"):
        coco("mine", "r152")
    with pytest.raises(ValueError, match="`schedule` must be.*'2x'"):
        coco("mine", "r50", "2x")
