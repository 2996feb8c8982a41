import numpy as np
import pytest

from keras_nonlocal.data import transforms

LARGEST = float(np.nextafter(np.float32(1), np.float32(0)))


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((256, 340), 256, (256, 340)),
        ((340, 256), 320, (425, 320)),
        ((240, 320), 257, (257, 342)),  # 342.67, truncated.
        ((1, 1), 224, (224, 224)),
    ],
)
def test_rescaled_size(size, short_side, expected):
    assert transforms.rescaled_size(*size, short_side) == expected


def test_crops_and_flips_every_frame_alike(rng):
    frames = rng.integers(256, size=(3, 10, 12, 3), dtype="uint8")
    crop = transforms.ClipTransform(10, top=2, left=5, crop_size=6)
    np.testing.assert_array_equal(crop(frames), frames[:, 2:8, 5:11])
    flip = transforms.ClipTransform(10, 2, 5, 6, flip=True)
    np.testing.assert_array_equal(flip(frames), frames[:, 2:8, 10:4:-1])
    np.testing.assert_array_equal(flip(frames[1]), flip(frames)[1])


@pytest.mark.parametrize(("top", "left"), [(5, 0), (0, 7), (-1, 0), (0, -1)])
def test_crop_must_be_inside(top, left):
    crop = transforms.ClipTransform(10, top, left, crop_size=6)
    with pytest.raises(ValueError, match="10x12 pixels"):
        crop(np.zeros((3, 10, 12, 3), "uint8"))


def draw(*units, height=256, width=340, flip=True):
    return transforms.random_transform(
        units, height, width, 224, (256, 320), flip
    )


def test_short_sides_are_equally_likely():
    units = (np.arange(650) + 0.5) / 650
    sides = [draw(unit, 0, 0, 0).short_side for unit in units]
    values, counts = np.unique(sides, return_counts=True)
    assert values.tolist() == list(range(256, 321))
    assert set(counts) == {10}


def test_inverse_short_sides_are_equally_likely():
    """Each side has the share of what is rounded to it, as in SlowFast."""
    units = (np.arange(100_000) + 0.5) / 100_000
    sides = [
        transforms.random_transform(
            (unit, 0, 0, 0), 256, 340, 224, (256, 320), True, "inverse"
        ).short_side
        for unit in units.tolist()
    ]
    values, counts = np.unique(sides, return_counts=True)
    assert values.tolist() == list(range(256, 321))
    edges = 1 / np.clip(np.arange(256, 322) - 0.5, 256, 320)
    expected = -np.diff(edges) / (1 / 256 - 1 / 320)
    np.testing.assert_allclose(counts / 100_000, expected, atol=2e-5)


@pytest.mark.parametrize("jitter", transforms.JITTERS)
@pytest.mark.parametrize("short_side", [(256, 320), (224, 224), (333, 1000)])
def test_extreme_short_sides(jitter, short_side):
    for unit, side in zip((0.0, LARGEST), short_side, strict=True):
        transform = transforms.random_transform(
            (unit, 0, 0, 0), 256, 340, 224, short_side, True, jitter
        )
        assert transform.short_side == side


def test_other_jitters_are_refused():
    with pytest.raises(ValueError, match="'uniform', 'inverse'.*'square'"):
        transforms.check_jitter("square")


@pytest.mark.parametrize("size", [(256, 340), (340, 256), (1, 1), (32, 512)])
@pytest.mark.parametrize("side", [0.0, LARGEST])
def test_extreme_crops_touch_the_border(size, side):
    first = draw(side, 0.0, 0.0, 0.0, height=size[0], width=size[1])
    assert (first.top, first.left) == (0, 0)
    last = draw(side, LARGEST, LARGEST, 0.0, height=size[0], width=size[1])
    height, width = transforms.rescaled_size(*size, last.short_side)
    assert (last.top + 224, last.left + 224) == (height, width)


def test_rows_and_columns_have_their_own_numbers():
    transform = draw(0.0, 0.5, 0.25, 0.0)
    assert (transform.top, transform.left) == (16, 29)


def test_flips_half_unless_told_not_to():
    assert draw(0, 0, 0, 0.49).flip
    assert not draw(0, 0, 0, 0.5).flip
    assert not draw(0, 0, 0, 0.0, flip=False).flip


def test_center_rounds_down():
    transform = transforms.center_transform(257, 340, 224, 257)
    assert transform == transforms.ClipTransform(257, 16, 58, 224)
