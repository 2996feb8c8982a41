import dataclasses
import io
import pathlib

import matplotlib.image
import numpy as np
import pytest

from keras_nonlocal.visualization import attention_figures
from keras_nonlocal.visualization.attention import AttentionMaps
from keras_nonlocal.visualization.attention_statistics import (
    AttentionStatistics,
)
from keras_nonlocal.visualization.attention_statistics import DistanceHistogram
from keras_nonlocal.visualization.grad_cam import GradCam
from keras_nonlocal.visualization.receptive_field import ReceptiveField
from keras_nonlocal.visualization.video_clip import VideoClip

PICTURE = pathlib.Path(__file__).parent / "arrows.png"
QUERY, ARROW, NEGATIVE = (213, 94, 0), (240, 228, 66), (86, 180, 233)
BLUE = (0, 114, 178)
# Lengths of a picture of four frames of 40x40, in its pixels: below a title
# and a line of text, beside a margin.
SCALE = 110 * 2.6 / 40
LEFT, TOP = 110 * 0.12, 110 * 0.2 * 2.7


def decode(png):
    return (matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).round()


def where(picture, colour):
    """Rows and columns of the pixels of a colour."""
    return np.argwhere((picture == colour).all(axis=-1))


def in_picture(frame, y, x):
    """Row and column of a place of a strip."""
    across = frame * 1.04 * 40 + x + 0.5
    return np.array([TOP + SCALE * (y + 0.5), LEFT + SCALE * across])


@pytest.fixture
def clip():
    """Four frames that have none of the colours of the drawings."""
    frames = np.full((4, 40, 40, 3), 90, "uint8")
    seconds = np.arange(4) / 2
    box = (0.0, 0.0, 40.0, 40.0)
    return VideoClip(frames, np.arange(4), seconds, box, "a")


@pytest.fixture
def maps():
    """A query that looks at two places, one of them twice as much."""
    centres = np.arange(4) * 10 + 4.5
    keys = ReceptiveField(
        np.arange(4.0), centres, centres, (1, 10, 10), (1, 10, 10), (4, 40, 40)
    )
    weights = np.zeros((1, 4, 4, 4), "float32")
    weights[0, 3, 0, 1], weights[0, 2, 3, 3] = 2 / 3, 1 / 3
    query = np.array([[0.0, 30.0, 20.0]])
    position = np.array([[0, 3, 2]])
    return AttentionMaps(
        "block", "gaussian", query, position, weights, True, keys, 64
    )


def of_mode(maps, mode, weights):
    return dataclasses.replace(
        maps, mode=mode, weights=weights, is_distribution=False
    )


def test_arrows_lead_from_the_query_to_where_it_looks(clip, maps):
    picture = decode(attention_figures.attention_arrows(clip, maps))
    ring = where(picture, QUERY)
    np.testing.assert_allclose(ring.mean(0), in_picture(0, 30, 20), atol=2)
    arrows = where(picture, ARROW)
    for frame, y, x in ((3, 4.5, 14.5), (2, 34.5, 34.5)):
        distances = np.linalg.norm(arrows - in_picture(frame, y, x), axis=1)
        assert distances.min() < 5
    # Nothing beyond the farthest one.
    assert arrows[:, 1].max() <= in_picture(3, 4.5, 14.5)[1] + 1
    one = attention_figures.attention_arrows(clip, maps, count=1)
    arrows = where(decode(one), ARROW)
    low = in_picture(2, 34.5, 34.5)
    assert np.linalg.norm(arrows - low, axis=1).min() > 20
    assert not len(where(picture, NEGATIVE))


def test_arrows_of_negative_weights_look_different(clip, maps):
    signed = of_mode(maps, "dot_product", maps.weights * [[[[1, 1, 1, -1]]]])
    picture = decode(attention_figures.attention_arrows(clip, signed))
    ends = where(picture, NEGATIVE) - in_picture(2, 34.5, 34.5)
    assert np.linalg.norm(ends, axis=1).min() < 5
    assert len(where(picture, ARROW))


def test_shows_the_frames_with_the_most_weight(clip, maps):
    clip.frames[:] = (np.arange(4) * 10 + 60)[:, None, None, None]
    shown = {
        most: attention_figures.attention_arrows(clip, maps, max_frames=most)
        for most in (1, 2, 3, 8)
    }
    greys = {
        1: {60},
        2: {60, 90},
        3: {60, 80, 90},
        8: {60, 70, 80, 90},
    }
    for most, png in shown.items():
        picture = decode(png)
        counts = {
            grey for grey in (60, 70, 80, 90)
            if len(where(picture, (grey,) * 3)) > 5000
        }  # fmt: skip
        assert counts == greys[most]


def test_looks_as_it_did(clip, maps):
    # The stored picture is that of four of its pixels.
    y, x = np.mgrid[:40, :40]
    clip.frames[..., 0], clip.frames[..., 1] = 5 * y, 4 * x
    found = decode(attention_figures.attention_arrows(clip, maps))
    height, width = (size // 4 for size in found.shape[:2])
    found = found[: 4 * height, : 4 * width]
    found = found.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))
    stored = matplotlib.image.imread(PICTURE)[..., :3] * 255
    assert found.shape == stored.shape
    assert np.abs(found - stored).mean() < 3


def test_heat_is_brighter_the_hotter():
    frames = np.full((1, 4, 101, 3), 100, "uint8")
    heat = np.broadcast_to(np.linspace(0, 8, 101), (1, 4, 101))
    found = attention_figures.heat_overlay(frames, heat)[0, 0].astype(int)
    light = found @ [0.299, 0.587, 0.114]
    assert (np.diff(light[20:]) > -0.8).all() and light[-1] > 200
    # Without heat there is the frame, a bit darker.
    assert np.ptp(found[0]) == 0 and 70 < found[0, 0] < 100
    assert found[-1, 2] < 180 < found[-1, 0]
    half = attention_figures.heat_overlay(frames, heat / 2, limit=8.0)[0, 0]
    np.testing.assert_array_equal(half[-1], found[50])


def test_signed_heat_is_red_above_and_blue_below(rng):
    frames = rng.integers(0, 256, (2, 4, 21, 3), "uint8")
    heat = np.broadcast_to(np.linspace(-3, 3, 21), (2, 4, 21))
    found = attention_figures.heat_overlay(frames, heat, signed=True)
    found = found.astype(int)
    assert (found[..., 0, 2] > found[..., 0, 0] + 50).all()
    assert (found[..., -1, 0] > found[..., -1, 2] + 50).all()
    none = attention_figures.heat_overlay(frames, np.zeros(heat.shape))
    np.testing.assert_array_equal(found[..., 10, :], none[..., 10, :])


def test_overlay_marks_the_query_and_says_what_colours_mean(clip, maps):
    def strip(maps):
        return decode(attention_figures.attention_overlay(clip, maps))

    plain = strip(maps)
    # The legend takes more space than that of arrows, which have none.
    arrows = decode(attention_figures.attention_arrows(clip, maps))
    assert plain.shape[0] > arrows.shape[0] + 40
    ring = where(plain, QUERY).mean(axis=0)
    np.testing.assert_allclose(ring, in_picture(0, 30, 20), atol=2)
    hot = plain[tuple(in_picture(3, 4.5, 14.5).astype(int))]
    cold = plain[tuple(in_picture(1, 20, 20).astype(int))]
    assert hot[0] > 200 and np.ptp(cold) == 0
    signed = strip(of_mode(maps, "dot_product", -maps.weights))
    unsigned = strip(of_mode(maps, "concatenation", maps.weights))
    below = signed[tuple(in_picture(3, 4.5, 14.5).astype(int))]
    assert below[2] > below[0] + 50
    legends = [picture[-60:, 330:700] for picture in (plain, signed, unsigned)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (legends[one] != legends[other]).any()


def test_grad_cam_has_heat_where_the_class_is(clip, maps):
    heat = maps.weights[0]
    cam = GradCam(2, 0.5, "conv", heat, maps.keys)
    picture = decode(attention_figures.grad_cam_strip(clip, cam, "$a_1$ \0"))
    hot = picture[tuple(in_picture(3, 4.5, 14.5).astype(int))]
    cold = picture[tuple(in_picture(1, 20, 20).astype(int))]
    assert hot[0] > 200 and np.ptp(cold) == 0
    nothing = dataclasses.replace(cam, heat=0 * heat)
    picture = decode(attention_figures.grad_cam_strip(clip, nothing))
    for frame in range(4):
        row, column = in_picture(frame, 20, 20).astype(int)
        part = picture[row - 50 : row + 50, column - 50 : column + 50]
        assert len(np.unique(part)) == 1


def test_plots_of_several_blocks(maps):
    histogram = DistanceHistogram(
        np.array([0.0, 10, 20]), np.array([0.7, 0.3]), np.full(2, 0.5), 8, 10
    )
    statistics = AttentionStatistics(
        "block",
        "dot_product",
        False,
        1,
        10,
        0,
        64,
        maps.keys,
        maps.weights[0].astype("float64"),
        histogram,
        histogram,
        2.0,
        0.5,
        0.25,
        0.1,
        None,
        0.1,
    )
    one = decode(attention_figures.attention_plots(statistics))
    two = decode(
        attention_figures.attention_plots({"a": statistics, "b": statistics})
    )
    assert two.shape[0] == 2 * one.shape[0]
    for picture in (one, two[: len(one)], two[len(one) :]):
        assert len(where(picture, BLUE)) > 5000
        assert len(where(picture, QUERY)) > 100


def test_says_what_is_wrong(clip, maps):
    other = dataclasses.replace(clip, frames=clip.frames[:, :20])
    cam = GradCam(0, 0.5, "conv", maps.weights[0], maps.keys)
    for draw, shown in (
        (attention_figures.attention_arrows, maps),
        (attention_figures.attention_overlay, maps),
        (attention_figures.grad_cam_strip, cam),
    ):
        with pytest.raises(ValueError, match="`clip` must be the one"):
            draw(other, shown)
        with pytest.raises(ValueError, match="`max_frames` must be at least"):
            draw(clip, shown, max_frames=0)
    frames, heat = clip.frames, np.zeros((4, 40, 40))
    overlay = attention_figures.heat_overlay
    with pytest.raises(ValueError, match="of the same size"):
        overlay(frames, heat[:2])
    with pytest.raises(ValueError, match="at least 0. Received: values from -"):
        overlay(frames, heat - 1)
    with pytest.raises(ValueError, match="must be finite"):
        overlay(frames, heat + np.nan, signed=True)
    with pytest.raises(ValueError, match="`limit` must be positive"):
        overlay(frames, heat, limit=0.0)
    with pytest.raises(ValueError, match="`statistics` must be of a block"):
        attention_figures.attention_plots({})
