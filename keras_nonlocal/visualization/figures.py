"""Figures as PNG bytes; those of attention are in `attention_figures`."""

import io
import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

# Okabe and Ito's colours, distinct to colour-blind eyes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":")
# Values that are marked: more of them would run together.
_MARKED = 40
# Classes of a confusion matrix whose shares, and whose names, can be read.
_MAX_CELLS = 12
_MAX_NAMES = 60


def require_matplotlib() -> ModuleType:
    """The matplotlib package, or an error that says how to get it.

    Call it before long work whose result will be drawn.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: pip install 'keras-nonlocal[plot]'"
        ) from error
    return matplotlib


def training_curves(
    histories: Mapping[str, Mapping[str, list[float]]],
) -> bytes:
    """The loss and each metric over epochs, for each network.

    Args:
        histories: For each network the `history` of `fit` with validation
            data; of the same metrics.

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    names = next(iter(histories.values()))
    # What is also measured on the held-out videos, the loss first.
    drawn = sorted(
        (name for name in names if f"val_{name}" in names),
        key=lambda name: name != "loss",
    )
    figure = Figure(figsize=(4.5 * len(drawn), 3.4), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for panel, metric in zip(panels, drawn, strict=True):
        for number, (name, history) in enumerate(histories.items()):
            colour = COLOURS[number % len(COLOURS)]
            epochs = np.arange(1, len(history[metric]) + 1)
            panel.plot(
                epochs,
                history[metric],
                "--",
                color=colour,
                linewidth=1,
                label=f"{name}, training",
            )
            panel.plot(
                epochs,
                history[f"val_{metric}"],
                color=colour,
                linewidth=2,
                label=f"{name}, held out",
            )
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_xlabel("epoch")
        panel.set_ylabel(metric)
        panel.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    for panel in panels[1:]:
        panel.set_ylim(0, 1.02)
    panels[-1].legend(fontsize=8, loc="lower right")
    return png(figure)


def epoch_curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
) -> bytes:
    """Lines over epochs, a panel for each kind of measure, side by side.

    Args:
        panels: For the title of each panel its lines by their names: a value
            for every epoch, NaN where nothing was measured.

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(panels), 3.8), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, lines) in zip(grid, panels.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            measured = np.asarray(values, "float64")
            epochs = 1 + np.flatnonzero(np.isfinite(measured))
            panel.plot(
                epochs,
                measured[epochs - 1],
                # Beside the colours, for who cannot tell them apart.
                _STYLES[number % len(_STYLES)],
                marker="." if len(epochs) <= _MARKED else None,
                color=COLOURS[number % len(COLOURS)],
                label=name,
            )
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(bottom=0)
        panel.set(xlabel="epoch", title=title)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    return png(figure)


def film_strip(frames: np.ndarray, gap: int = 2) -> bytes:
    """Frames side by side.

    Args:
        frames: uint8 `(T, H, W, 3)`.
        gap: White pixels between frames.

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.image import imsave

    margins = ((0, 0), (0, 0), (0, gap), (0, 0))
    padded = np.pad(frames, margins, constant_values=255)
    strip = np.concatenate(list(padded), axis=1)[:, : -gap or None]
    buffer = io.BytesIO()
    imsave(buffer, strip, format="png")
    return buffer.getvalue()


def error_curves(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
) -> bytes:
    """Training and validation errors over epochs, as in the paper's figure 3.

    Training is dashed and validation solid. Lines are means over runs, bands
    reach from the lowest run to the highest.

    Args:
        panels: For each panel's title and each network in it the training and
            the validation errors, `(runs, epochs)`, in 0..1.

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9, 3.2 * rows), layout="constrained")
    grid = list(figure.subplots(rows, 2, sharey=True, squeeze=False).flat)
    for panel in grid[len(panels) :]:
        panel.set_visible(False)
    for panel, (title, networks) in zip(grid, panels.items(), strict=False):
        for number, (name, errors) in enumerate(networks.items()):
            colour = COLOURS[number % len(COLOURS)]
            for values, style in zip(errors, ("--", "-"), strict=True):
                epochs = np.arange(1, values.shape[1] + 1)
                panel.plot(
                    epochs,
                    100 * values.mean(axis=0),
                    style,
                    color=colour,
                    linewidth=2 if style == "-" else 1,
                    label=name if style == "-" else None,
                )
                panel.fill_between(
                    epochs,
                    100 * values.min(axis=0),
                    100 * values.max(axis=0),
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("epoch")
        panel.set_ylabel("error (%)")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        if networks:
            panel.legend(fontsize=8)
    return png(figure)


def accuracy_by_distance(
    distances: Sequence[float],
    panels: Mapping[str, Mapping[str, np.ndarray]],
    xlabel: str,
) -> bytes:
    """Accuracies over a distance with intervals, panels side by side.

    Args:
        distances: Where the accuracies belong.
        panels: For each panel's title and each network in it the mean and both
            ends of its interval at each distance, `(distances, 3)`, in 0..1.
        xlabel: What the distances are.

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False).flat
    # Distances may be far from even: each gets a place of its own.
    places = np.arange(len(distances))
    for panel, (title, networks) in zip(grid, panels.items(), strict=True):
        for number, (name, points) in enumerate(networks.items()):
            # Beside each other, so that intervals stay apart.
            shift = 0.06 * (number - (len(networks) - 1) / 2)
            mean, low, high = 100 * np.asarray(points).T
            panel.errorbar(
                places + shift,
                mean,
                np.maximum([mean - low, high - mean], 0),
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=1.5,
                color=COLOURS[number % len(COLOURS)],
                label=name,
            )
        panel.set_title(title, fontsize=10)
        panel.set_xticks(places, [f"{distance:g}" for distance in distances])
        panel.set_xlabel(xlabel)
        panel.set_ylim(top=102)
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy (%)")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=3, fontsize=8
    )
    return png(figure)


def png(figure: Any) -> bytes:
    """A matplotlib figure as PNG, 110 dots an inch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names may have letters that the font has not: boxes are drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def as_text(name: str) -> str:
    r"""What makes matplotlib draw a name as it is, and not as a formula.

    >>> print(as_text("under $5"))
    under \$5
    """
    return name.replace("$", r"\$")


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """For what videos of each class were taken, as shares of its videos.

    Up to 12 classes the cells also show the shares, in per cent; up to 60 the
    axes show the names of the classes, and else numbers.

    Args:
        matrix: Counts `(classes, classes)`, rows of true classes.
        class_names: The name of every class.

    Returns:
        A PNG. Rows of classes without videos are grey.
    """
    require_matplotlib()
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    count = len(matrix)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(
        matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0
    )
    side = min(4 + 0.2 * count, 11)
    figure = Figure(figsize=(side + 1.5, side), layout="constrained")
    panel = figure.subplots()
    panel.set_facecolor("#cccccc")
    # Rare confusions are seen as well: shares are shown by their root.
    image = panel.imshow(
        shares,
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0, vmax=1),
        interpolation="nearest",
    )
    bar = figure.colorbar(image, ax=panel, shrink=0.8)
    bar.set_ticks(
        [0, 0.01, 0.05, 0.2, 0.5, 1], labels=["0", "1", "5", "20", "50", "100"]
    )
    bar.set_label("% of the videos of the class")
    _label_classes(panel, class_names)
    if count <= _MAX_CELLS:
        for (row, column), share in np.ndenumerate(shares):
            if not np.isnan(share):
                colour = "white" if share > 0.3 else "black"
                panel.text(
                    column,
                    row,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    color=colour,
                )
    return png(figure)


def _label_classes(panel: Any, class_names: Sequence[str]) -> None:
    """Names or numbers of classes along both axes of a matrix."""
    panel.set_xlabel("taken for")
    panel.set_ylabel("class")
    if len(class_names) > _MAX_NAMES:
        return
    names = [_short(name) for name in class_names]
    size = 9 if len(names) <= 30 else 7
    places = range(len(names))
    rotation = 0 if len(names) <= 2 else 90
    panel.set_xticks(places, names, rotation=rotation, fontsize=size)
    panel.set_yticks(places, names, fontsize=size)


def _short(name: str) -> str:
    """A name that fits beside an axis."""
    return as_text(name if len(name) < 28 else f"{name[:26]}...")


def prediction_strip(
    spans: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    thumbnails: Sequence[tuple[float, np.ndarray]] = (),
) -> bytes:
    """Scores of classes over time, a lane for each, below frames.

    The area of a lane is as high as the score; where there is no span, it is
    empty.

    Args:
        spans: Start and end of each stretch in seconds, `(n, 2)`, rising and
            without overlap.
        scores: Of the classes in it, 0..1, `(n, classes)`.
        class_names: Those of the lanes, from the top.
        thumbnails: Frames, uint8 `(H, W, 3)`, and their times in seconds. As
            many are shown as there is space for.

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter
    from matplotlib.ticker import MaxNLocator

    width, lane, strip, below = 10.0, 0.42, 0.9 if thumbnails else 0.0, 0.55
    height = strip + lane * len(class_names) + below + 0.1
    figure = Figure(figsize=(width, height))
    left, across = 0.22, 0.75
    panel = figure.add_axes(
        (left, below / height, across, lane * len(class_names) / height)
    )
    limits = float(spans[0, 0]), float(max(spans[-1, 1], spans[0, 0] + 1e-3))
    edges = spans.reshape(-1)
    for number, values in enumerate(np.asarray(scores).T):
        base = len(class_names) - 1 - number
        # Between a span and the next one there is nothing.
        tops = np.zeros(len(edges) - 1)
        tops[::2] = values
        panel.stairs(
            base + 0.9 * tops,
            edges,
            baseline=base,
            fill=True,
            color=COLOURS[number % len(COLOURS)],
        )
        panel.axhline(base, color="#999999", linewidth=0.5)
    panel.set_xlim(*limits)
    panel.set_ylim(0, len(class_names))
    panel.set_yticks(
        np.arange(len(class_names))[::-1] + 0.45,
        [_short(name) for name in class_names],
        fontsize=9,
    )
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 5, 6, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(clock_time))
    panel.set_xlabel("time (the height of a lane is 100 %)")
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    if thumbnails:
        row = figure.add_axes(
            (left, 1 - strip / height, across, (strip - 0.1) / height)
        )
        _thumbnail_row(row, limits, thumbnails, width * across / (strip - 0.1))
    return png(figure)


def _thumbnail_row(
    panel: Any,
    limits: tuple[float, float],
    thumbnails: Sequence[tuple[float, np.ndarray]],
    places: float,
) -> None:
    """Frames near their times, as many as there are places side by side."""
    panel.set_axis_off()
    slot = (limits[1] - limits[0]) / max(int(places), 1)
    times = np.array([seconds for seconds, _ in thumbnails])
    shown = limits[0] + slot * (np.arange(max(int(places), 1)) + 0.5)
    used = set()
    for middle in shown:
        number = int(np.abs(times - middle).argmin())
        if number in used or abs(times[number] - middle) > slot:
            continue
        used.add(number)
        half = slot / 2 * 0.96
        panel.imshow(
            thumbnails[number][1],
            extent=(middle - half, middle + half, 0, 1),
            aspect="auto",
        )
    panel.set_xlim(*limits)
    panel.set_ylim(0, 1)


def clock_time(seconds: float, _: object = None) -> str:
    """Seconds as on a clock; tenths where they matter.

    >>> clock_time(3725), clock_time(62.5)
    ('1:02:05', '1:02.5')
    """
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:04.1f}".removesuffix(".0")
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"
