import dataclasses
import io
import pathlib

import matplotlib.image
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

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


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are before they become PNGs."""
    monkeypatch.setattr(attention_figures, "png", lambda figure: figure)
    return attention_figures


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


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


def test_arrows_are_the_wider_the_larger_the_weight(drawn, clip, maps):
    figure = drawn.attention_arrows(clip, maps)
    thin, wide = (
        arrow.get_linewidth() for arrow in figure.findobj(FancyArrowPatch)
    )
    assert wide > 1.3 * thin


@pytest.mark.parametrize("num_keys, arrows", [(64, 16), (9, 2), (3, 1)])
def test_says_how_many_of_which_positions(drawn, clip, maps, num_keys, arrows):
    """By default no more than a quarter of the keys of the query's window."""
    even = np.full((1, 4, 4, 4), 1 / num_keys, "float32")
    maps = dataclasses.replace(maps, weights=even, num_keys=num_keys)
    figure = drawn.attention_arrows(clip, maps)
    assert len(figure.findobj(FancyArrowPatch)) == arrows
    share = arrows / num_keys
    said = (
        f"Arrows lead to the {arrows} strongest of the {num_keys} positions "
        f"that the query sees, which have {share:.0%} of the weight "
        f"({share:.1%} if all were alike)."
    )
    assert said in [text.replace("\n", " ") for text in texts(figure)]


@pytest.mark.parametrize("time, label", [(0.5, "0.50 s"), (2.5, "1.50 s")])
def test_halfway_between_frames_is_the_later(drawn, clip, maps, time, label):
    asked = dataclasses.replace(maps, queries=np.array([[time, 30, 20]]))
    assert f"{label} (query)" in texts(drawn.attention_arrows(clip, asked))
    said = texts(drawn.attention_overlay(clip, asked))
    assert f"{label} (query)" in said
    assert f"Query: {label}, row 30, column 20 of 40 x 40." in said


def test_asks_one_of_several_queries(drawn, clip, maps):
    two = dataclasses.replace(
        maps,
        queries=np.array([[0.0, 30, 20], [2, 10, 5]]),
        positions=np.array([[0, 3, 2], [2, 1, 0]]),
        weights=np.concatenate([maps.weights, 0 * maps.weights]),
    )
    for draw in (drawn.attention_arrows, drawn.attention_overlay):
        assert "0.00 s (query)" in texts(draw(clip, two))
        assert "1.00 s (query)" in texts(draw(clip, two, 1))
    assert not drawn.attention_arrows(clip, two, 1).findobj(FancyArrowPatch)


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
    assert np.abs(found - stored).mean() < 2


def test_heat_is_brighter_the_hotter():
    frames = np.full((1, 4, 101, 3), 100, "uint8")
    heat = np.broadcast_to(np.linspace(0, 8, 101), (1, 4, 101))
    found = attention_figures.heat_overlay(frames, heat)[0, 0].astype(int)
    light = found @ [0.299, 0.587, 0.114]
    assert (np.diff(light[20:]) > -0.8).all() and light[-1] > 160
    # Without heat there is the frame, a bit darker.
    assert np.ptp(found[0]) == 0 and 70 < found[0, 0] < 100
    assert found[-1, 2] < 150 < found[-1, 0]
    half = attention_figures.heat_overlay(frames, heat / 2, limit=8.0)[0, 0]
    np.testing.assert_array_equal(half[-1], found[50])


@pytest.mark.parametrize("signed", [False, True])
def test_frames_are_seen_through_the_hottest_heat(signed):
    frames = np.zeros((1, 2, 2, 3), "uint8")
    frames[:, 0] = 255
    heat = np.full((1, 2, 2), 3.0)
    above, below = attention_figures.heat_overlay(frames, heat, signed)[0]
    assert (above.astype(int) - below > 70).all()


def test_signed_heat_is_red_above_and_blue_below(rng):
    frames = rng.integers(0, 256, (2, 4, 21, 3), "uint8")
    heat = np.broadcast_to(np.linspace(-3, 3, 21), (2, 4, 21))
    found = attention_figures.heat_overlay(frames, heat, signed=True)
    found = found.astype(int)
    assert (found[..., 0, 2] > found[..., 0, 0] + 20).all()
    assert (found[..., -1, 0] > found[..., -1, 2] + 20).all()
    none = attention_figures.heat_overlay(frames, np.zeros(heat.shape))
    np.testing.assert_array_equal(found[..., 10, :], none[..., 10, :])


def test_overlay_marks_the_query_and_where_it_looks(clip, maps):
    maps = dataclasses.replace(maps, queries=np.array([[2.0, 30, 20]]))
    plain = decode(attention_figures.attention_overlay(clip, maps))
    ring = where(plain, QUERY).mean(axis=0)
    np.testing.assert_allclose(ring, in_picture(2, 30, 20), atol=2)
    place = tuple(in_picture(3, 4.5, 14.5).astype(int))
    cold = plain[tuple(in_picture(1, 20, 20).astype(int))]
    assert plain[place][0] > plain[place][2] + 30 and np.ptp(cold) == 0
    signed = of_mode(maps, "dot_product", -maps.weights)
    below = decode(attention_figures.attention_overlay(clip, signed))[place]
    assert below[2] > below[0] + 30


def test_legend_says_what_colours_mean(drawn, clip, maps):
    def legend(maps):
        figure = drawn.attention_overlay(clip, maps)
        _, bar = figure.axes
        return bar.get_xlim(), bar.texts[0].get_text()

    largest = pytest.approx(maps.on_clip().max())
    (low, high), label = legend(maps)
    assert (low, high / 64) == (0, largest)
    assert label == "weight, as a multiple of what it is if all are alike"
    (low, high), label = legend(of_mode(maps, "dot_product", maps.weights))
    assert (-low, high) == (largest, largest)
    assert label == "weight, signed and not normalised"
    (low, high), label = legend(of_mode(maps, "concatenation", maps.weights))
    assert (low, high) == (0, largest)
    assert label == "weight, not normalised"


def test_grad_cam_has_heat_where_the_class_is(clip, maps):
    heat = maps.weights[0]
    cam = GradCam(2, 0.5, "conv", heat, maps.keys)
    picture = decode(attention_figures.grad_cam_strip(clip, cam, "$a_1$ \0"))
    hot = picture[tuple(in_picture(3, 4.5, 14.5).astype(int))]
    cold = picture[tuple(in_picture(1, 20, 20).astype(int))]
    assert hot[0] > hot[2] + 30 and np.ptp(cold) == 0
    nothing = dataclasses.replace(cam, heat=0 * heat)
    picture = decode(attention_figures.grad_cam_strip(clip, nothing))
    for frame in range(4):
        row, column = in_picture(frame, 20, 20).astype(int)
        part = picture[row - 50 : row + 50, column - 50 : column + 50]
        assert len(np.unique(part)) == 1


@pytest.fixture
def statistics(maps, rng):
    """Each value is another."""
    space = DistanceHistogram(
        np.array([0.0, 10, 20]), np.array([0.7, 0.3]), np.full(2, 0.5), 8, 10
    )
    time = DistanceHistogram(
        np.array([0, 0.5, 1.5]), np.array([0.4, 0.6]), np.array([0.2, 0.8]),
        0.6, 0.8,
    )  # fmt: skip
    # Keys of the last row are seen by no query, those before by some.
    uniform = np.broadcast_to([[0.01], [0.02], [0.03], [0]], (4, 4, 4))
    return AttentionStatistics(
        block="block",
        mode="dot_product",
        is_distribution=False,
        num_clips=1,
        num_queries=10,
        num_empty=0,
        num_keys=64,
        keys=maps.keys,
        mean_map=uniform * rng.uniform(0, 2, (4, 4, 4)),
        uniform_map=uniform,
        space=space,
        time=time,
        entropy=2.0,
        relative_entropy=0.5,
        same_frame=0.25,
        uniform_same_frame=0.1,
        similarity=None,
        information=0.1,
    )


def test_plots_show_the_statistics(drawn, statistics):
    figure = drawn.attention_plots(statistics)
    places, space, time, shares = figure.axes[:4]
    for panel, found in ((space, statistics.space), (time, statistics.time)):
        bars, line = panel.containers[0], panel.patches[-1]
        assert [bar.get_height() for bar in bars] == list(found.share)
        assert [bar.get_x() for bar in bars] == list(found.edges[:-1])
        assert line.get_data().values.tolist() == list(found.uniform)
    bars = [bar.get_width() for bar in shares.containers[0]]
    assert bars == [0.5, 0.25, 0]
    assert [text.get_text() for text in shares.texts] == [
        "0.50",
        "0.25",
        "not known",
    ]
    (mark,) = shares.collections
    assert mark.get_paths()[0].vertices[:, 0].tolist() == [0.1, 0.1]


def test_map_compares_places_with_attention_that_prefers_none(
    drawn, statistics
):
    def shown(uniform, weights):
        found = dataclasses.replace(
            statistics, uniform_map=uniform, mean_map=weights
        )
        panel = drawn.attention_plots(found).axes[0]
        # From one end of the clip to the other, the first row above.
        assert panel.get_xlim() == (-0.5, 39.5)
        assert panel.get_ylim() == (39.5, -0.5)
        assert panel.get_xlabel() == "column (pixels)"
        (mesh,) = panel.collections
        ends = mesh.get_coordinates()[[0, -1], [0, -1]]
        assert ends.tolist() == [[-0.5, -0.5], [39.5, 39.5]]
        return np.ma.filled(mesh.get_array(), np.nan)

    uniform, weights = statistics.uniform_map, statistics.mean_map
    found = shown(uniform, weights)
    expected = weights.sum(axis=0)[:3] / uniform.sum(axis=0)[:3]
    np.testing.assert_allclose(found[:3], expected)
    assert np.isnan(found[3]).all()
    # However queries were drawn, attention that prefers none has no pattern.
    np.testing.assert_allclose(shown(uniform, uniform)[:3], 1)


def test_plots_of_several_blocks(statistics):
    several = {"a": statistics, "b": statistics}
    one = decode(attention_figures.attention_plots(statistics))
    two = decode(attention_figures.attention_plots(several))
    assert two.shape[0] == 2 * one.shape[0]
    for picture in (two[: len(one)], two[len(one) :]):
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
    for number in (-1, 1):
        with pytest.raises(ValueError, match="0 to 0. Received: query=-?1"):
            attention_figures.attention_arrows(clip, maps, number)
        with pytest.raises(ValueError, match="0 to 0. Received: query=-?1"):
            attention_figures.attention_overlay(clip, maps, number)
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
