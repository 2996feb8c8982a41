"""Pictures of objects: boxes, masks and names over an image."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.visualization.figures import COLOURS
from keras_nonlocal.visualization.figures import as_text
from keras_nonlocal.visualization.figures import require_matplotlib

# Longer sides of pictures; smaller and larger images are scaled.
_MIN_SIDE, _MAX_SIDE = 640, 1280
_DPI = 100
_FONT_SIZE = 9.0
_PADDING = 2.0
_OPACITY = 0.35
_MAX_NAME = 24
_QUALITY = 85
_FORMATS = ("png", "jpeg")


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    *,
    dashed: np.ndarray | None = None,
    file_format: str = "png",
) -> bytes:
    """Objects over an image: boxes, outlined masks, names and scores.

    Classes have Okabe and Ito's colours in turn, the same in every picture;
    names tell apart those that share one. Names are moved to where they cover
    none of the others, as far as there is space.

    Args:
        image: uint8 RGB `(H, W, 3)`.
        boxes: x1, y1, x2, y2 in its pixels, `(n, 4)`; pixel i covers
            [i, i + 1].
        classes: Indices, `(n,)`.
        scores: Written behind the names, `(n,)`.
        masks: bool `(n, H, W)`.
        class_names: By index; without them numbers are written.
        dashed: Boxes to draw dashed, bool `(n,)`.
        file_format: `"png"`, or `"jpeg"`, a fifth of the size.

    Returns:
        A file of the picture. Its longer side is that of the image, at least
        640 and at most 1280 pixels.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If an argument is not as described.

    >>> image = np.zeros((32, 48, 3), "uint8")
    >>> draw_objects(image, np.array([[4, 4, 20, 30]]), np.array([0]))[1:4]
    b'PNG'
    """
    image, boxes, classes = _check(image, boxes, classes, scores, masks, dashed)
    if file_format not in _FORMATS:
        raise ValueError(
            f"`file_format` must be one of {_FORMATS}. "
            f"Received: {file_format!r}"
        )
    require_matplotlib()
    # Large ones first, so that small ones are not hidden; names of the surest
    # find their place first.
    sizes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    by_size = np.argsort(-sizes, kind="stable")
    by_score = by_size if scores is None else np.argsort(-np.asarray(scores))
    colours = [COLOURS[number % len(COLOURS)] for number in classes]
    texts = _texts(classes, scores, class_names)
    if masks is not None:
        image = _with_masks(image, masks, colours, by_size)
    figure, panel, scale = _canvas(image)
    for number in by_size.tolist():
        is_dashed = dashed is not None and bool(dashed[number])
        _draw_box(panel, boxes[number] * scale, colours[number], is_dashed)
    bounds = scale * np.array([image.shape[1], image.shape[0]])
    with warnings.catch_warnings():
        # Names may have letters that the font has not: boxes are drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        _draw_names(panel, boxes * scale, texts, colours, by_score, bounds)
        return _file(figure, file_format)


def place_label(
    size: np.ndarray, box: np.ndarray, taken: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Where a box's label stands: inside the picture, over few others.

    Args:
        size: Its width and height.
        box: x1, y1, x2, y2, rows counted down.
        taken: Places of earlier labels, `(n, 4)`.
        bounds: The picture's width and height.

    Returns:
        x1, y1, x2, y2: the first of several places at the box that covers the
        least of others.

    >>> place = place_label(
    ...     np.array([20, 10]),
    ...     np.array([5, 30, 60, 90]),
    ...     np.zeros((0, 4)),
    ...     np.array([100, 100]),
    ... )
    >>> place.tolist()  # Above the box.
    [5.0, 20.0, 25.0, 30.0]
    """
    left, top, right, bottom = box
    width, height = size
    corners = np.array(
        [
            (left, top - height),
            (left, top),
            (left, bottom),
            (left, bottom - height),
            (right - width, top - height),
            (right - width, bottom),
            (right - width, top),
            (right - width, bottom - height),
            ((left + right - width) / 2, (top + bottom - height) / 2),
        ],
        "float64",
    )
    corners = np.clip(corners, 0, np.maximum(bounds - size, 0))
    places = np.concatenate([corners, corners + size], axis=1)
    low = np.maximum(places[:, None, :2], taken[None, :, :2])
    high = np.minimum(places[:, None, 2:], taken[None, :, 2:])
    covered = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return places[covered.argmin()]


def _canvas(image: np.ndarray) -> tuple[Any, Any, float]:
    """A figure that is the image, its axes in pixels, and their scale."""
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    side = max(height, width)
    scale = float(np.clip(side, _MIN_SIDE, _MAX_SIDE)) / side
    width, height = (max(1, round(scale * x)) for x in (width, height))
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_axis_off()
    panel.imshow(image, extent=(0, width, height, 0), aspect="auto")
    panel.set_xlim(0, width)
    panel.set_ylim(height, 0)
    return figure, panel, scale


def _draw_box(
    panel: Any, box: np.ndarray, colour: str, is_dashed: bool
) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    corner, size = (left, top), (right - left, bottom - top)
    # White below: seen on any picture, also between dashes.
    for line, width, style in (("white", 3.2, "-"), (colour, 2.0, "--")):
        panel.add_patch(
            Rectangle(
                corner,
                *size,
                fill=False,
                edgecolor=line,
                linewidth=width,
                linestyle=style if is_dashed else "-",
            )
        )


def _draw_names(
    panel: Any,
    boxes: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[str],
    order: np.ndarray,
    bounds: np.ndarray,
) -> None:
    from matplotlib.patches import Rectangle

    taken = np.zeros((0, 4))
    for number in order.tolist():
        label = panel.text(
            0,
            0,
            texts[number],
            fontsize=_FONT_SIZE,
            color=_readable_on(colours[number]),
            va="center",
            zorder=4,
        )
        extent = label.get_window_extent()
        size = np.array([extent.width, extent.height]) + 2 * _PADDING
        place = place_label(size, boxes[number], taken, bounds)
        taken = np.concatenate([taken, place[None]])
        label.set_position((place[0] + _PADDING, place[[1, 3]].mean()))
        panel.add_patch(
            Rectangle(
                tuple(place[:2]),
                *size,
                facecolor=colours[number],
                linewidth=0,
                zorder=3,
            )
        )


def _with_masks(
    image: np.ndarray,
    masks: np.ndarray,
    colours: Sequence[str],
    order: np.ndarray,
) -> np.ndarray:
    """The image with masks in their colours, outlined."""
    from matplotlib.colors import to_rgb

    pixels = image.astype("float32")
    thickness = max(1, round(max(image.shape) / _MIN_SIDE))
    for number in order.tolist():
        mask = np.asarray(masks[number], bool)
        colour = 255 * np.array(to_rgb(colours[number]), "float32")
        opacity = np.where(_outline(mask, thickness), 1, _OPACITY)[mask, None]
        pixels[mask] = (1 - opacity) * pixels[mask] + opacity * colour
    return np.rint(pixels).astype("uint8")


def _outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """What of a mask is nearer to its edge than `thickness` pixels."""
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1)
        inner = (
            inner
            & padded[2:, 1:-1]
            & padded[:-2, 1:-1]
            & padded[1:-1, 2:]
            & padded[1:-1, :-2]
        )
    return mask & ~inner


def _texts(
    classes: np.ndarray,
    scores: np.ndarray | None,
    class_names: Sequence[str],
) -> list[str]:
    texts = [
        class_names[number] if number < len(class_names) else str(number)
        for number in classes.tolist()
    ]
    texts = [
        text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 3]}..."
        for text in texts
    ]
    if scores is not None:
        texts = [
            f"{text} {score:.2f}"
            for text, score in zip(texts, scores, strict=True)
        ]
    return [as_text(" ".join(text.split()) or "-") for text in texts]


def _readable_on(colour: str) -> str:
    """Black or white, whichever has the better contrast (WCAG 2)."""
    from matplotlib.colors import to_rgb

    linear = np.array(to_rgb(colour)) ** 2.2
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _file(figure: Any, file_format: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": _QUALITY} if file_format == "jpeg" else {}
    figure.savefig(buffer, format=file_format, dpi=_DPI, pil_kwargs=options)
    return buffer.getvalue()


def _check(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray | None,
    masks: np.ndarray | None,
    dashed: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.asarray(image)
    is_picture = image.ndim == 3 and image.shape[-1] == 3 and image.size
    if not is_picture or image.dtype != np.uint8:
        raise ValueError(
            "`image` must be uint8 of shape (H, W, 3), none of them 0. "
            f"Received: {image.dtype} of shape {image.shape}"
        )
    boxes = np.asarray(boxes, "float64").reshape(-1, 4)
    count = len(boxes)
    shapes = {
        "classes": (classes, (count,)),
        "scores": (scores, (count,)),
        "masks": (masks, (count, *image.shape[:2])),
        "dashed": (dashed, (count,)),
    }
    for name, (value, shape) in shapes.items():
        if value is not None and np.shape(value) != shape:
            raise ValueError(
                f"`{name}` must have the shape {shape}, for {count} boxes. "
                f"Received: {np.shape(value)}"
            )
    if not np.isfinite(boxes).all():
        raise ValueError("`boxes` must be finite. Received: NaN or infinity")
    return image, boxes, np.asarray(classes, "int64")
