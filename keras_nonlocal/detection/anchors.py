"""Anchors: the boxes that a region proposal network starts from.

Every cell of a feature map has the same few, moved by the stride of the map
(Ren et al. 2015, "Faster R-CNN", section 3.1.1).
"""

import numpy as np
from keras import ops

STYLES = ("exact", "rounded", "detectron")


def base_anchors(stride, size, ratios=(0.5, 1.0, 2.0), style="exact"):
    """Anchors of the first cell.

    Published weights expect those of the code that trained them:

    | style | whose | size 32, ratio 0.5 at stride 4 |
    |---|---|---|
    | `"exact"` | Detectron2 | -22.63, -11.31, 22.63, 11.31 |
    | `"rounded"` | torchvision: to whole pixels | -23, -11, 23, 11 |
    | `"detectron"` | Detectron: the smallest anchor rounded, then enlarged | \
-22, -10, 25, 13 |

    Detectron's are centred in the middle of the cell, and their sides count
    pixels (`offset=1.0`); the others' have their centre in its corner.

    Args:
        stride: Pixels from one cell to the next.
        size: Side of the square anchor in pixels, or several.
        ratios: Heights over widths. The areas are those of the squares.
        style: One of `STYLES`.

    Returns:
        `(A, 4)`, numpy float32. With several sizes, `"exact"` has all ratios of
        the first size first, the others all sizes of the first ratio.

    Raises:
        ValueError: If there is no such style, or if a size or ratio is not
            positive.

    Example:

    >>> base_anchors(4, 32, ratios=(1.0,)).tolist()
    [[-16.0, -16.0, 16.0, 16.0]]
    """
    make = {"exact": _exact, "rounded": _rounded, "detectron": _detectron}
    if style not in make:
        raise ValueError(f"`style` must be one of {STYLES}. Received: {style}")
    sizes = np.atleast_1d(np.asarray(size, "float64"))
    ratios = np.asarray(ratios, "float64")
    for name, values in (("size", sizes), ("ratios", ratios)):
        if not (values.size and np.all(values > 0)):
            raise ValueError(
                f"`{name}` must be positive. Received: {values.tolist()}"
            )
    return make[style](stride, sizes, ratios).astype("float32")


def make_anchors(
    height, width, stride, size, ratios=(0.5, 1.0, 2.0), style="exact"
):
    """Anchors of all cells of a feature map.

    None is clipped or left out: those across the border of the image are there.

    Args:
        height: Rows of the feature map, an integer or a scalar tensor.
        width: Columns, likewise.
        stride: As of `base_anchors`; or two, along y and x, each an integer or
            a scalar tensor. torchvision divides the image's height and width by
            the map's, which gives 61 and 64 where 13 by 21 cells of stride 64
            cover 800 by 1344 pixels.
        size: As of `base_anchors`.
        ratios: As of `base_anchors`.
        style: As of `base_anchors`.

    Returns:
        `(height * width * A, 4)`, float32: row by row, cell by cell, the
        anchors of a cell together.

    Raises:
        ValueError: If there is no such style, or if it is `"detectron"`, whose
            anchors depend on the stride, and there are two strides.

    Example:

    >>> np.array(make_anchors(1, 2, stride=4, size=8, ratios=(1.0,)))
    array([[-4., -4.,  4.,  4.],
           [ 0., -4.,  8.,  4.]], dtype=float32)
    """
    has_two = isinstance(stride, tuple | list)
    if has_two and style == "detectron":
        raise ValueError(
            '`stride` must be one integer with style="detectron". '
            f"Received: {stride}"
        )
    strides = stride if has_two else (stride, stride)
    base = ops.convert_to_tensor(base_anchors(stride, size, ratios, style))
    y, x = (
        ops.cast(ops.arange(cells, dtype="int32") * step, "float32")
        for cells, step in zip((height, width), strides, strict=True)
    )
    y, x = ops.meshgrid(y, x, indexing="ij")
    shifts = ops.stack([x, y, x, y], axis=-1)
    return ops.reshape(shifts[:, :, None] + base, (-1, 4))


def _exact(stride, sizes, ratios):
    del stride
    widths = sizes[:, None] / np.sqrt(ratios)
    return _around(0.0, widths.ravel(), (widths * ratios).ravel())


def _rounded(stride, sizes, ratios):
    return (
        _exact(stride, sizes, ratios)
        .reshape(len(sizes), len(ratios), 4)
        .swapaxes(0, 1)
        .reshape(-1, 4)
        .round()
    )


def _detectron(stride, sizes, ratios):
    widths = np.round(np.sqrt(stride**2 / ratios))
    heights = np.round(widths * ratios)
    scales = sizes / stride
    widths, heights = (
        (sides[:, None] * scales).ravel() for sides in (widths, heights)
    )
    return _around(0.5 * (stride - 1), widths - 1, heights - 1)


def _around(centre, widths, heights):
    halves = 0.5 * np.stack([widths, heights], axis=-1)
    return np.concatenate([centre - halves, centre + halves], axis=-1)
