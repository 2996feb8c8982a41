"""Pictures of what a network looks at in a clip."""

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_nonlocal.visualization import frame_strip
from keras_nonlocal.visualization.attention import AttentionMaps
from keras_nonlocal.visualization.attention_statistics import (
    AttentionStatistics,
)
from keras_nonlocal.visualization.attention_statistics import DistanceHistogram
from keras_nonlocal.visualization.figures import COLOURS
from keras_nonlocal.visualization.figures import as_text
from keras_nonlocal.visualization.figures import png
from keras_nonlocal.visualization.figures import require_matplotlib
from keras_nonlocal.visualization.frame_strip import Legend
from keras_nonlocal.visualization.frame_strip import Strip
from keras_nonlocal.visualization.grad_cam import GradCam
from keras_nonlocal.visualization.video_clip import VideoClip

# Of figure 3.
_MAX_ARROWS = 20
# Frames with arrows, or without if there are fewer with.
_MIN_FRAMES = 5


def attention_arrows(
    clip: VideoClip,
    maps: AttentionMaps,
    query: int = 0,
    *,
    count: int | None = None,
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
        count: How many arrows, at most. Default: 20, as in the paper, but not
            more than a quarter of the keys that the query sees.
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
    maps, own = _asked(clip, maps, query, max_frames)
    if count is None:
        count = min(_MAX_ARROWS, max(maps.num_keys // 4, 1))
    (ends,) = maps.strongest(count)
    at = _nearest_frames(ends[:, 0], len(clip.frames))
    strengths = np.abs(ends[:, 3])
    shown = _busiest(at, strengths, own, max_frames)
    if len(shown) < _MIN_FRAMES:
        most = min(_MIN_FRAMES, max_frames)
        shown = _filled(shown, len(clip.frames), most)
    is_shown = np.isin(at, shown)
    strip = Strip.of(clip, shown, own)
    text = _arrow_text(maps, ends, int((~is_shown).sum()))
    figure, panel = frame_strip.draw(strip, _title(maps), text)
    query_point = strip.point(own, maps.queries[0, 1:])
    # The strongest last, on top.
    for index in np.flatnonzero(is_shown)[::-1]:
        frame_strip.arrow(
            panel,
            query_point,
            strip.point(at[index], ends[index, 1:3]),
            strengths[index] / strengths[0],
            is_negative=ends[index, 3] < 0,
        )
    frame_strip.ring(panel, query_point)
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
    return frame_strip.blend(frames, heat / limit, signed)


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
    maps, own = _asked(clip, maps, query, max_frames)
    (heat,) = maps.on_clip()
    (place,) = maps.queries
    signed = is_signed(maps)
    strip, limit = _heated(clip, heat, signed, own, max_frames)
    unit = maps.num_keys if maps.is_distribution else 1
    legend = Legend(_weight_label(maps), limit * unit, signed)
    text = (
        f"Query: {frame_strip.time_text(clip, own)}, row {place[1]:.0f}, "
        f"column {place[2]:.0f} of {clip.frames.shape[1]} x "
        f"{clip.frames.shape[2]}."
    )
    figure, panel = frame_strip.draw(strip, _title(maps), text, legend)
    frame_strip.ring(panel, strip.point(own, place[1:]))
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
    _check(clip, cam.keys.clip_size, max_frames)
    heat = cam.on_clip()
    strip, _ = _heated(clip, heat, False, None, max_frames)
    name = class_name or f"class {cam.class_index}"
    title = f"Grad-CAM: {_printable(name)} (score {cam.score:.2f})"
    text = f"Features of {_printable(cam.layer)}, weighted by the gradient."
    if not heat.any():
        text += " None of them speaks for this class."
    legend = Legend("heat, relative to the largest of the clip", 1.0, False)
    figure, _ = frame_strip.draw(strip, title, text, legend)
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
    """Sums over time; each pixel has the value of the nearest position."""
    weights, uniform = found.mean_map.sum(axis=0), found.uniform_map.sum(axis=0)
    # Places that no query sees stay empty.
    unknown = np.full(uniform.shape, np.nan)
    values = np.divide(weights, uniform, out=unknown, where=uniform > 0)
    keys = found.keys
    _, height, width = keys.clip_size
    image = panel.pcolormesh(
        _borders(keys.columns, width),
        _borders(keys.rows, height),
        values,
        cmap="inferno",
        vmin=0,
    )
    panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect=1)
    panel.set_facecolor("#CCCCCC")
    bar = panel.figure.colorbar(image, ax=panel, shrink=0.85)
    bar.ax.tick_params(labelsize=8)
    panel.set_title("mean weight of a place (1: all alike)", fontsize=9)
    panel.set_xlabel("column (pixels)", fontsize=9)
    panel.set_ylabel("row (pixels)", fontsize=9)
    panel.tick_params(labelsize=8)


def _borders(centres: np.ndarray, size: int) -> np.ndarray:
    """Where pixels that are nearest to one centre begin and end."""
    between = (centres[:-1] + centres[1:]) / 2
    borders = np.concatenate([[-0.5], between, [size - 0.5]])
    return np.clip(borders, -0.5, size - 0.5)


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
        "entropy\n(1: all alike)": found.relative_entropy,
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


def _heated(
    clip: VideoClip,
    heat: np.ndarray,
    signed: bool,
    own: int | None,
    max_frames: int,
) -> tuple[Strip, float]:
    """Frames at even distances with their heat, and its limit in the clip."""
    shown = _even(len(heat), max_frames, own)
    limit = _limit(heat)
    strip = Strip.of(clip, shown, own)
    frames = heat_overlay(strip.frames, heat[shown], signed, limit)
    return dataclasses.replace(strip, frames=frames), limit


def _limit(heat: np.ndarray) -> float:
    """The largest absolute heat, or 1 where there is none."""
    return float(np.abs(heat).max()) or 1.0


def _busiest(
    at: np.ndarray, strengths: np.ndarray, own: int, most: int
) -> np.ndarray:
    """Frames with the largest sums of strengths, in order, and one's own."""
    # Without strengths these are integers, which know no infinity.
    totals = np.bincount(at, strengths, minlength=own + 1).astype("float64")
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
    """Frames that times in a clip are nearest to; of two the later."""
    return np.clip(np.floor(times + 0.5), 0, total - 1).astype(int)


def _title(maps: AttentionMaps) -> str:
    return f"{_printable(maps.block)} ({_words(maps.mode)})"


def _words(mode: str) -> str:
    return mode.replace("_", " ")


def _arrow_text(maps: AttentionMaps, ends: np.ndarray, hidden: int) -> str:
    text = (
        f"Arrows lead to the {len(ends)} strongest of the {maps.num_keys:,} "
        "positions that the query sees"
    )
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


def _printable(text: str) -> str:
    """Names may hold bytes that are no text, and letters that are no sign."""
    kept = "".join(
        x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in text
    )
    return textwrap.shorten(kept, 80, placeholder="...")


def _asked(
    clip: VideoClip, maps: AttentionMaps, query: int, max_frames: int
) -> tuple[AttentionMaps, int]:
    """The maps of one query alone, and the frame that it is in."""
    _check(clip, maps.clip_size, max_frames)
    number = len(maps.queries)
    if not 0 <= query < number:
        raise ValueError(
            f"`query` must be the number of one of {number} queries, from 0 to "
            f"{number - 1}. Received: query={query}"
        )
    one = slice(query, query + 1)
    maps = dataclasses.replace(
        maps,
        queries=maps.queries[one],
        positions=maps.positions[one],
        weights=maps.weights[one],
    )
    (own,) = _nearest_frames(maps.queries[:, 0], len(clip.frames))
    return maps, int(own)


def _check(
    clip: VideoClip, size: tuple[int, int, int], max_frames: int
) -> None:
    require_matplotlib()
    if clip.frames.shape[:3] != tuple(size):
        raise ValueError(
            "`clip` must be the one that the network was given, of size "
            f"{tuple(size)}. Received: frames of shape {clip.frames.shape}"
        )
    if max_frames < 1:
        raise ValueError(
            "`max_frames` must be at least 1. Received: "
            f"max_frames={max_frames}"
        )
