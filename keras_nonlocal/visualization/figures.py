"""Figures as PNG bytes; the only module that draws."""

import io
from collections.abc import Mapping
from types import ModuleType

import numpy as np

# Okabe and Ito's colours, distinct to colour-blind eyes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


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
    """Loss and accuracy over epochs, for each network.

    Args:
        histories: For each network the `history` of `fit` with validation
            data and the metric "accuracy".

    Returns:
        A PNG.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, metric in zip(panels, ("loss", "accuracy"), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            colour = _COLOURS[number % len(_COLOURS)]
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
        panel.set_xlabel("epoch")
        panel.set_ylabel(metric)
        panel.grid(alpha=0.3)
    panels[1].set_ylim(0, 1.02)
    panels[0].set_ylim(bottom=0)
    panels[1].legend(fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


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
