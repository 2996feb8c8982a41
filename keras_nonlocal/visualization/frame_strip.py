"""Frames side by side, with heat over them and arrows from one to another.

For `attention_figures`, which says what of a network is drawn.
"""

import dataclasses
import textwrap
from typing import Any

import numpy as np

from keras_nonlocal.visualization.figures import COLOURS
from keras_nonlocal.visualization.figures import as_text
from keras_nonlocal.visualization.video_clip import VideoClip

Point = tuple[float, float]

# The whole strip and one frame are at most so wide and so high, in inches.
_STRIP_WIDTH, _FRAME_HEIGHT = 13.0, 2.6
_MIN_WIDTH = 7.0
# Between frames, as a share of their height.
_GAP = 0.04
_MARGIN = 0.12
_LINE_HEIGHT = 0.2
# How much of a frame's colours and brightness is left below heat.
_COLOUR_LEFT, _LIGHT_LEFT = 0.35, 0.85
# How much of a frame the hottest place hides: less than what it shows of it
# would be lost in the very places that are looked for.
_MAX_OPACITY = 0.6
# From the middle of an arrow's ends to where its curve is drawn to, as a share
# of its length. Little: arrows to a row of frames stay apart.
_BEND = 0.12
_QUERY = "#FFFFFF"
_ARROW = "#F0E442"
_NEGATIVE = COLOURS[5]


@dataclasses.dataclass(frozen=True)
class Legend:
    """What colours of heat mean: `limit` is the strongest one."""

    label: str
    limit: float
    signed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
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
    ) -> "Strip":
        """Some frames of a clip."""
        labels = tuple(time_text(clip, number) for number in numbers)
        return cls(clip.frames[numbers], numbers, labels, own)

    @property
    def step(self) -> float:
        """From the left edge of a frame to that of the next."""
        height, width = self.frames.shape[1:3]
        return width + _GAP * height

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        height, width = self.frames.shape[1:3]
        return (len(self.frames) - 1) * self.step + width, height

    def point(self, frame: int, place: np.ndarray) -> Point:
        """Across and down to a row and a column of a frame of the clip."""
        (index,) = np.flatnonzero(self.numbers == frame)
        y, x = place
        return float(index * self.step + x), float(y)


def draw(
    strip: Strip, title: str, text: str, legend: Legend | None = None
) -> tuple[Any, Any]:
    """A figure of a strip, and its axes: those of the strip's pixels."""
    from matplotlib.figure import Figure

    width, height = strip.size
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
    for index in range(len(strip.frames)):
        _draw_frame(panel, strip, index)
    # Setting a picture sets limits as well.
    panel.set(
        xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="auto"
    )
    panel.axis("off")
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
        bar = (left, 1.75 * _LINE_HEIGHT / total, 3 / full, 0.12 / total)
        _draw_legend(figure.add_axes(bar), legend)
    return figure, panel


def ring(panel: Any, point: Point) -> None:
    """Marks the query."""
    for size, colour in ((11, "#000000"), (8.5, _QUERY), (5.5, COLOURS[1])):
        panel.plot(*point, "o", markersize=size, color=colour, zorder=4)


def arrow(
    panel: Any, start: Point, end: Point, strength: float, is_negative: bool
) -> None:
    """From the query to where it looks, `strength` being at most 1."""
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
            connectionstyle=f"arc3,rad={_bend(panel, start, end)}",
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


def blend(frames: np.ndarray, heat: np.ndarray, signed: bool) -> np.ndarray:
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
    opacity = _MAX_OPACITY * np.abs(heat)[..., np.newaxis] ** 0.8
    values = frames.astype("float32") / 255
    grey = values @ np.array([0.299, 0.587, 0.114], "float32")
    base = _COLOUR_LEFT * values + (1 - _COLOUR_LEFT) * grey[..., np.newaxis]
    mixed = (1 - opacity) * _LIGHT_LEFT * base + opacity * colours[..., :3]
    return np.rint(255 * mixed).astype("uint8")


def time_text(clip: VideoClip, frame: int) -> str:
    """When a frame of a clip is shown."""
    seconds = clip.seconds[frame]
    return f"frame {frame}" if np.isnan(seconds) else f"{seconds:.2f} s"


def _draw_frame(panel: Any, strip: Strip, index: int) -> None:
    frame = strip.frames[index]
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


def _draw_legend(panel: Any, legend: Legend) -> None:
    """A scale of the colours that heat has over grey."""
    grey = np.full((1, 1, 256, 3), 128, "uint8")
    low = -1 if legend.signed else 0
    heat = np.linspace(low, 1, 256, dtype="float32")[None, None]
    panel.imshow(
        blend(grey, heat, legend.signed)[0],
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


def _bend(panel: Any, start: Point, end: Point) -> float:
    """The `rad` of an arrow's arc: towards the middle, and not beyond an edge.

    The curve stays in the triangle of its ends and the point that it is drawn
    to, which is `rad` times `aside` from the middle of the ends.
    """
    limits = np.sort([panel.get_xlim(), panel.get_ylim()])
    across, down = np.subtract(end, start)
    aside = np.array([-down, across])
    half = (limits[:, 1] - limits[:, 0]) / 2
    # From the middle of the ends to that of the panel.
    inwards = limits.mean(axis=1) - np.add(start, end) / 2
    side = 1 if np.sum(aside * inwards / half**2) > 0 else -1
    room = half + inwards * np.sign(side * aside)
    reach = _BEND * np.abs(aside)
    return float(side * _BEND * min(1.0, *(room / np.maximum(reach, 1e-6))))
