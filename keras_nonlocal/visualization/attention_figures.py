"""Pictures of what a network looks at in a clip."""

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_nonlocal.visualization.attention import AttentionMaps
from keras_nonlocal.visualization.attention_statistics import (
    AttentionStatistics,
)
from keras_nonlocal.visualization.attention_statistics import DistanceHistogram
from keras_nonlocal.visualization.figures import COLOURS
from keras_nonlocal.visualization.figures import as_text
from keras_nonlocal.visualization.figures import png
from keras_nonlocal.visualization.figures import require_matplotlib
from keras_nonlocal.visualization.grad_cam import GradCam
from keras_nonlocal.visualization.video_clip import VideoClip

# The whole strip and one frame are at most so wide and so high, in inches.
_STRIP_WIDTH, _FRAME_HEIGHT = 13.0, 2.6
_MIN_WIDTH = 7.0
# Frames with arrows, or without if there are fewer with.
_MIN_FRAMES = 5
# Between frames, as a share of their height.
_GAP = 0.04
_MARGIN = 0.12
_LINE_HEIGHT = 0.2
# How much of a frame's colours and brightness is left below heat.
_COLOUR_LEFT, _LIGHT_LEFT = 0.35, 0.85
_QUERY = "#FFFFFF"
_ARROW = "#F0E442"
_NEGATIVE = COLOURS[5]


def attention_arrows(
    clip: VideoClip,
    maps: AttentionMaps,
    query: int = 0,
    *,
    count: int = 20,
    max_frames: int = 8,
) -> bytes:
    """Where a query looks, as in the paper's figure 3.

    Frames side by side, in order of time; a ring marks the query, and arrows
    lead from it to the positions of the largest weights, the wider the larger.
    A negative weight of a dot product has another colour and a dashed line.

    Args:
        clip: What the network was given.
        maps: Of a block.
        query: Which of its queries.
        count: How many arrows, at most; the paper draws 20.
        max_frames: How many frames, at most. Shown are the query's and those
            in which the arrows end, if these are too many the ones with the
            most weight (how many arrows are left out is said), and if they are
            fewer than 5 others as well.

    Returns:
        A PNG.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is not as described or `maps` are of a clip
            of another size.
    """
    require_matplotlib()
    _check_size(clip.frames, maps.clip_size)
    _check_at_least("max_frames", max_frames, 1)
    place = maps.queries[query]
    ends = maps.strongest(count)[query]
    at = _nearest_frames(ends[:, 0], len(clip.frames))
    own = int(_nearest_frames(place[:1], len(clip.frames))[0])
    shown = _busiest(at, np.abs(ends[:, 3]), own, max_frames)
    if len(shown) < _MIN_FRAMES:
        most = min(_MIN_FRAMES, max_frames)
        shown = _filled(shown, len(clip.frames), most)
    is_shown = np.isin(at, shown)
    strip = _Strip.of(clip, shown, own)
    text = _arrow_text(maps, query, ends, int((~is_shown).sum()))
    figure, panel = _draw(strip, _title(maps), text)
    start = strip.point(own, place[1:])
    largest = np.abs(ends[:, 3]).max(initial=0)
    # The strongest last, on top.
    for frame, end in zip(
        at[is_shown][::-1], ends[is_shown][::-1], strict=True
    ):
        _arrow(
            panel,
            start,
            strip.point(int(frame), end[1:3]),
            abs(end[3]) / largest,
            end[3] < 0,
        )
    _ring(panel, start)
    return png(figure)


def heat_overlay(
    frames: np.ndarray,
    heat: np.ndarray,
    signed: bool = False,
    limit: float | None = None,
) -> np.ndarray:
    """Frames with heat over them.

    Frames lose most of their colour, so that what is coloured is heat: from
    dark purple to yellow (matplotlib's "inferno", even to the eye and distinct
    to colour-blind ones), and the more opaque the hotter. Signed heat is red
    above 0 and blue below ("RdBu").

    Args:
        frames: uint8 RGB `(T, H, W, 3)`.
        heat: `(T, H, W)`; at least 0 if not `signed`.
        signed: Whether heat below 0 has a meaning.
        limit: The absolute heat that gets the strongest colour. Default: the
            largest there is.

    Returns:
        uint8 RGB `(T, H, W, 3)`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is not as described.
    """
    require_matplotlib()
    frames, heat = np.asarray(frames), np.asarray(heat, "float32")
    if frames.dtype != np.uint8 or frames.shape != (*heat.shape, 3):
        raise ValueError(
            "`frames` must be uint8 (T, H, W, 3) and `heat` (T, H, W) of the "
            f"same size. Received: {frames.dtype} of shape {frames.shape} and "
            f"shape {heat.shape}"
        )
    if not np.isfinite(heat).all() or (not signed and (heat < 0).any()):
        raise ValueError(
            "`heat` must be finite and, if not `signed`, at least 0. Received: "
            f"values from {heat.min()} to {heat.max()}"
        )
    limit = _limit(heat) if limit is None else limit
    if not limit > 0:
        raise ValueError(f"`limit` must be positive. Received: limit={limit}")
    return _blend(frames, heat / limit, signed)


def attention_overlay(
    clip: VideoClip,
    maps: AttentionMaps,
    query: int = 0,
    *,
    max_frames: int = 8,
) -> bytes:
    """Where a query looks, as heat over frames, with a legend.

    Args:
        clip: What the network was given.
        maps: Of a block.
        query: Which of its queries.
        max_frames: How many frames, at most: the query's, and others at even
            distances.

    Returns:
        A PNG.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is not as described or `maps` are of a clip
            of another size.
    """
    require_matplotlib()
    _check_size(clip.frames, maps.clip_size)
    place = maps.queries[query]
    own = int(_nearest_frames(place[:1], len(clip.frames))[0])
    heat = maps.on_clip()[query]
    strip, limit = _heated(clip, heat, is_signed(maps), own, max_frames)
    unit = maps.num_keys if maps.is_distribution else 1
    legend = _Legend(_weight_label(maps), limit * unit, is_signed(maps))
    figure, panel = _draw(strip, _title(maps), _query_text(clip, place), legend)
    _ring(panel, strip.point(own, place[1:]))
    return png(figure)


def grad_cam_strip(
    clip: VideoClip,
    cam: GradCam,
    class_name: str | None = None,
    *,
    max_frames: int = 8,
) -> bytes:
    """What speaks for a class, as heat over frames, with a legend.

    Args:
        clip: What the network was given.
        cam: Of one class.
        class_name: Its name. Default: its number.
        max_frames: How many frames, at most, at even distances.

    Returns:
        A PNG.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is not as described or `cam` is of a clip of
            another size.
    """
    require_matplotlib()
    _check_size(clip.frames, cam.keys.clip_size)
    heat = cam.on_clip()
    strip, _ = _heated(clip, heat, False, None, max_frames)
    name = class_name or f"class {cam.class_index}"
    title = f"Grad-CAM: {_printable(name)} (score {cam.score:.2f})"
    text = f"Features of {_printable(cam.layer)}, weighted by the gradient."
    if not heat.any():
        text += " None of them speaks for this class."
    legend = _Legend("heat, relative to the largest of the clip", 1.0, False)
    figure, _ = _draw(strip, title, text, legend)
    return png(figure)


def attention_plots(
    statistics: AttentionStatistics | Mapping[str, AttentionStatistics],
) -> bytes:
    """What blocks attend to on average.

    A row for each block: the mean weight of each place in the picture, as a
    multiple of what it is if all are alike; how far in the picture and in time
    the weight is from the query, with a line for attention that weighs all
    alike; and three shares from 0 to 1, entropy, weight in the query's own
    frame (with a mark for attention that weighs all alike) and how similar
    the maps of different queries are.

    Args:
        statistics: Of one block, or of several by name.

    Returns:
        A PNG.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there are no statistics.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    if isinstance(statistics, AttentionStatistics):
        statistics = {statistics.block: statistics}
    if not statistics:
        raise ValueError("`statistics` must be of a block. Received: none")
    figure = Figure(figsize=(13, 3.1 * len(statistics)), layout="constrained")
    rows = figure.subfigures(len(statistics), 1, squeeze=False)[:, 0]
    for row, (name, found) in zip(rows, statistics.items(), strict=True):
        _plot_block(row, name, found)
    return png(figure)


def _plot_block(row: Any, name: str, found: AttentionStatistics) -> None:
    about = (
        f"{found.num_queries:,} queries of {found.num_clips:,} "
        f"clip{'s' * (found.num_clips > 1)}, {found.num_keys:,} keys"
    )
    if not found.is_distribution:
        about += ", absolute weights, normalised"
    row.suptitle(
        as_text(f"{_printable(name)} ({_words(found.mode)}): {about}"),
        fontsize=10,
        fontweight="bold",
    )
    mean, space, time, shares = row.subplots(
        1, 4, width_ratios=(1.1, 1.2, 1.2, 1.2)
    )
    _plot_mean_map(mean, found)
    _plot_distances(space, found.space, "distance in the picture (pixels)")
    _plot_distances(time, found.time, "distance in time (frames)")
    space.set_ylabel("share of the weight", fontsize=9)
    _plot_shares(shares, found)


def _plot_mean_map(panel: Any, found: AttentionStatistics) -> None:
    """Mean over time; positions lie where they are in the picture."""
    values = found.mean_map.mean(axis=0) * found.mean_map.size
    keys = found.keys
    down, across = keys.stride[1] / 2, keys.stride[2] / 2
    image = panel.imshow(
        values,
        cmap="inferno",
        vmin=0,
        extent=(
            keys.columns[0] - across,
            keys.columns[-1] + across,
            keys.rows[-1] + down,
            keys.rows[0] - down,
        ),
    )
    bar = panel.figure.colorbar(image, ax=panel, shrink=0.85)
    bar.ax.tick_params(labelsize=8)
    panel.set_title("mean weight of a place (1: all alike)", fontsize=9)
    panel.tick_params(labelsize=8)


def _plot_distances(panel: Any, found: DistanceHistogram, label: str) -> None:
    panel.bar(
        found.edges[:-1],
        found.share,
        np.diff(found.edges),
        align="edge",
        color=COLOURS[0],
        edgecolor="white",
        linewidth=0.5,
        label=f"block (mean {found.mean:.3g})",
    )
    panel.stairs(
        found.uniform,
        found.edges,
        color=COLOURS[1],
        linewidth=1.6,
        label=f"all alike ({found.uniform_mean:.3g})",
    )
    panel.set_xlabel(label, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.legend(
        fontsize=8,
        frameon=False,
        ncols=2,
        loc="lower left",
        bbox_to_anchor=(-0.04, 0.98),
        handlelength=1.2,
        columnspacing=1,
    )
    panel.spines[["top", "right"]].set_visible(False)


def _plot_shares(panel: Any, found: AttentionStatistics) -> None:
    similarity = found.similarity
    bars = {
        "entropy,\nof the largest": found.relative_entropy,
        "in the\nsame frame": found.same_frame,
        "similarity of\nqueries' maps": similarity,
    }
    places = np.arange(len(bars))[::-1]
    values = [0.0 if value is None else value for value in bars.values()]
    panel.barh(places, values, 0.55, color=COLOURS[0])
    for place, value in zip(places, bars.values(), strict=True):
        text = "not known" if value is None else f"{value:.2f}"
        panel.text(1.04, place, text, va="center", fontsize=9)
    panel.vlines(
        found.uniform_same_frame,
        places[1] - 0.38,
        places[1] + 0.38,
        color=COLOURS[1],
        linewidth=2,
    )
    panel.set_xlim(0, 1)
    panel.set_yticks(places, list(bars), fontsize=8)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def is_signed(maps: AttentionMaps) -> bool:
    """Whether weights below 0 have a meaning: those of a dot product."""
    return maps.mode == "dot_product"


@dataclasses.dataclass(frozen=True)
class _Legend:
    """What colours of heat mean: `limit` is the strongest one."""

    label: str
    limit: float
    signed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class _Strip:
    """Frames side by side, as one picture; lengths are pixels of frames.

    Attributes:
        frames: uint8 `(n, H, W, 3)`.
        numbers: Which frames of the clip they are.
        labels: What is written below each.
        own: The frame of the query, `None` if there is none.
    """

    frames: np.ndarray
    numbers: np.ndarray
    labels: tuple[str, ...]
    own: int | None

    @classmethod
    def of(
        cls, clip: VideoClip, numbers: np.ndarray, own: int | None
    ) -> "_Strip":
        labels = tuple(_time(clip, number) for number in numbers)
        return cls(clip.frames[numbers], numbers, labels, own)

    @property
    def step(self) -> float:
        """From the left edge of a frame to that of the next."""
        height, width = self.frames.shape[1:3]
        return width + _GAP * height

    @property
    def size(self) -> tuple[float, float]:
        """Height and width."""
        height, width = self.frames.shape[1:3]
        return height, (len(self.frames) - 1) * self.step + width

    def point(self, frame: int, place: np.ndarray) -> tuple[float, float]:
        """Across and down to a row and a column of a frame of the clip."""
        (index,) = np.flatnonzero(self.numbers == frame)
        y, x = place
        return float(index * self.step + x), float(y)


def _heated(
    clip: VideoClip,
    heat: np.ndarray,
    signed: bool,
    own: int | None,
    max_frames: int,
) -> tuple[_Strip, float]:
    """Frames at even distances with their heat, and its limit in the clip."""
    _check_at_least("max_frames", max_frames, 1)
    shown = _even(len(heat), max_frames, own)
    limit = _limit(heat)
    strip = _Strip.of(clip, shown, own)
    frames = heat_overlay(strip.frames, heat[shown], signed, limit)
    return dataclasses.replace(strip, frames=frames), limit


def _draw(
    strip: _Strip, title: str, text: str, legend: _Legend | None = None
) -> tuple[Any, Any]:
    """A figure of a strip, and its axes: those of the strip's pixels."""
    from matplotlib.figure import Figure

    height, width = strip.size
    scale = min(_STRIP_WIDTH / width, _FRAME_HEIGHT / height)
    full = max(scale * width, _MIN_WIDTH) + 2 * _MARGIN
    lines = textwrap.wrap(text, int(15 * full))
    above = _LINE_HEIGHT * (len(lines) + 1.7)
    below = _LINE_HEIGHT * (1.4 if legend is None else 3.7)
    total = above + scale * height + below
    figure = Figure(figsize=(full, total), facecolor="white")
    left, bottom = _MARGIN / full, below / total
    panel = figure.add_axes(
        (left, bottom, scale * width / full, scale * height / total)
    )
    panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    panel.axis("off")
    for index, frame in enumerate(strip.frames):
        _frame(panel, strip, index, frame)
    top = 1 - 0.3 * _LINE_HEIGHT / total
    figure.text(
        left, top, as_text(title), va="top", fontsize=11, fontweight="bold"
    )
    figure.text(
        left,
        top - 1.25 * _LINE_HEIGHT / total,
        as_text("\n".join(lines)),
        va="top",
        fontsize=9,
        color="#333333",
        linespacing=1.35,
    )
    if legend is not None:
        _bar(figure, legend, left, full, total)
    return figure, panel


def _frame(panel: Any, strip: _Strip, index: int, frame: np.ndarray) -> None:
    height, width = frame.shape[:2]
    left = index * strip.step - 0.5
    panel.imshow(
        frame,
        extent=(left, left + width, height - 0.5, -0.5),
        interpolation="antialiased",
        zorder=0,
    )
    is_own = strip.numbers[index] == strip.own
    panel.text(
        left + width / 2,
        height * 1.03,
        strip.labels[index] + (" (query)" if is_own else ""),
        ha="center",
        va="top",
        fontsize=9,
        fontweight="bold" if is_own else "normal",
    )
    # Setting a picture sets the limits of the axes as well.
    full_height, full_width = strip.size
    panel.set(xlim=(-0.5, full_width - 0.5), ylim=(full_height - 0.5, -0.5))
    panel.set_aspect("auto")


def _bar(
    figure: Any, legend: _Legend, left: float, full: float, total: float
) -> None:
    """A scale of the colours that heat has over grey."""
    grey = np.full((1, 1, 256, 3), 128, "uint8")
    low = -1 if legend.signed else 0
    heat = np.linspace(low, 1, 256, dtype="float32")[None, None]
    panel = figure.add_axes(
        (left, 1.75 * _LINE_HEIGHT / total, 3 / full, 0.12 / total)
    )
    panel.imshow(
        _blend(grey, heat, legend.signed)[0],
        extent=(low * legend.limit, legend.limit, 0, 1),
        aspect="auto",
    )
    panel.set_yticks([])
    panel.tick_params(labelsize=8, length=2)
    panel.locator_params(axis="x", nbins=5)
    panel.text(
        1.03,
        0.5,
        legend.label,
        transform=panel.transAxes,
        va="center",
        fontsize=9,
    )


def _arrow(
    panel: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    strength: float,
    is_negative: bool,
) -> None:
    from matplotlib import patheffects
    from matplotlib.patches import FancyArrowPatch

    width = 0.7 + 1.6 * strength
    colour = _NEGATIVE if is_negative else _ARROW
    panel.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=6 + 5 * strength,
            # Flat: arrows to a row of frames stay apart.
            connectionstyle="arc3,rad=-0.12",
            shrinkA=4,
            shrinkB=0,
            linewidth=width,
            linestyle="--" if is_negative else "-",
            color=colour,
            zorder=2,
            # Seen on any picture.
            path_effects=[
                patheffects.Stroke(linewidth=width + 1.4, foreground="#000000"),
                patheffects.Normal(),
            ],
        )
    )


def _ring(panel: Any, place: tuple[float, float]) -> None:
    for size, colour in ((11, "#000000"), (8.5, _QUERY), (5.5, COLOURS[1])):
        panel.plot(*place, "o", markersize=size, color=colour, zorder=4)


def _blend(frames: np.ndarray, heat: np.ndarray, signed: bool) -> np.ndarray:
    """Frames with heat from 0, or -1, to 1 over them."""
    from matplotlib import colormaps

    heat = np.clip(heat, -1 if signed else 0, 1)
    if signed:
        # Not from white, which would be an edge where the sign changes.
        ends = np.where(heat < 0, heat - 1, heat + 1) / 4
        colours = colormaps["RdBu_r"](0.5 + ends)
    else:
        # The darkest quarter would look like shadows.
        colours = colormaps["inferno"](0.25 + 0.75 * heat)
    opacity = 0.9 * np.abs(heat)[..., np.newaxis] ** 0.8
    values = frames.astype("float32") / 255
    grey = values @ np.array([0.299, 0.587, 0.114], "float32")
    base = _COLOUR_LEFT * values + (1 - _COLOUR_LEFT) * grey[..., np.newaxis]
    mixed = (1 - opacity) * _LIGHT_LEFT * base + opacity * colours[..., :3]
    return np.rint(255 * mixed).astype("uint8")


def _limit(heat: np.ndarray) -> float:
    """The largest absolute heat, or 1 where there is none."""
    return float(np.abs(heat).max()) or 1.0


def _busiest(
    at: np.ndarray, strengths: np.ndarray, own: int, most: int
) -> np.ndarray:
    """Frames with the largest sums of strengths, in order, and one's own."""
    totals = np.bincount(at, strengths, minlength=own + 1)
    totals[own] = np.inf
    best = np.argsort(-totals, kind="stable")[:most]
    return np.sort(best[totals[best] > 0])


def _filled(shown: np.ndarray, total: int, most: int) -> np.ndarray:
    """More frames, for an impression of the clip: those farthest from any."""
    while len(shown) < min(most, total):
        distances = np.abs(np.arange(total)[:, None] - shown).min(axis=1)
        shown = np.append(shown, distances.argmax())
    return np.sort(shown)


def _even(total: int, most: int, own: int | None) -> np.ndarray:
    """Frames at even distances; one's own is in place of its nearest."""
    shown = np.linspace(0, total - 1, min(total, most)).round().astype(int)
    if own is not None:
        shown[np.abs(shown - own).argmin()] = own
    return shown


def _nearest_frames(times: np.ndarray, total: int) -> np.ndarray:
    return np.clip(np.rint(times), 0, total - 1).astype(int)


def _title(maps: AttentionMaps) -> str:
    return f"{_printable(maps.block)} ({_words(maps.mode)})"


def _words(mode: str) -> str:
    return mode.replace("_", " ")


def _arrow_text(
    maps: AttentionMaps, query: int, ends: np.ndarray, hidden: int
) -> str:
    total = int(np.prod(maps.keys.shape))
    text = f"Arrows lead to the {len(ends)} strongest of {total:,} positions"
    if maps.is_distribution:
        share = ends[:, 3].sum()
        even = len(ends) / maps.num_keys
        text += (
            f", which have {share:.0%} of the weight "
            f"({even:.1%} if all were alike)"
        )
    elif is_signed(maps):
        text += "; weights are signed and not normalised, dashed below 0"
    else:
        text += "; weights are not normalised"
    left_out = f"; {hidden} of them are in frames that are not shown"
    return text + (left_out if hidden else "") + "."


def _weight_label(maps: AttentionMaps) -> str:
    if maps.is_distribution:
        return "weight, as a multiple of what it is if all are alike"
    if is_signed(maps):
        return "weight, signed and not normalised"
    return "weight, not normalised"


def _query_text(clip: VideoClip, place: np.ndarray) -> str:
    frame = int(_nearest_frames(place[:1], len(clip.frames))[0])
    return (
        f"Query: {_time(clip, frame)}, row {place[1]:.0f}, column "
        f"{place[2]:.0f} of {clip.frames.shape[1]} x {clip.frames.shape[2]}."
    )


def _time(clip: VideoClip, frame: int) -> str:
    seconds = clip.seconds[frame]
    return f"frame {frame}" if np.isnan(seconds) else f"{seconds:.2f} s"


def _printable(text: str) -> str:
    """Names may hold bytes that are no text, and letters that are no sign."""
    kept = "".join(
        x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in text
    )
    return textwrap.shorten(kept, 80, placeholder="...")


def _check_size(frames: np.ndarray, size: tuple[int, int, int]) -> None:
    if frames.shape[:3] != tuple(size):
        raise ValueError(
            "`clip` must be the one that the network was given, of size "
            f"{tuple(size)}. Received: frames of shape {frames.shape}"
        )


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(
            f"`{name}` must be at least {least}. Received: {name}={value}"
        )
