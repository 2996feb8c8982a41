"""The maps and regions of `tests/golden/roi_align_torchvision.npz`."""

import numpy as np

HEIGHT, WIDTH = 64, 96
STRIDES = (4, 8, 16, 32)
REGIONS = 7
# (size, sampling ratio, aligned, whether the gradient is kept).
CASES = (
    *((7, ratio, True, True) for ratio in (0, 1, 2, 3)),
    *((7, ratio, False, False) for ratio in (0, 1, 2, 3)),
    (14, 0, False, True),
    (14, 2, True, True),
)


def maps():
    """One channel of noise on each level, two images."""
    rng = np.random.default_rng(1)
    return [
        rng.normal(size=(2, HEIGHT // k, WIDTH // k, 1)).astype("float32")
        for k in STRIDES
    ]


def regions():
    """Boxes of all sizes, one of two partly or wholly outside, and levels."""
    rng = np.random.default_rng(2)
    size = np.exp(rng.uniform(0, np.log(100), (2, REGIONS, 2)))
    start = rng.uniform(-40, 120, (2, REGIONS, 2))
    boxes = np.concatenate([start, start + size], -1).astype("float32")
    inside = np.clip(boxes, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes[:, ::2] = inside[:, ::2]
    levels = rng.integers(0, len(STRIDES), (2, REGIONS)).astype("int32")
    return boxes.astype("float32"), levels


def cotangent(size):
    """The gradient by the result."""
    shape = (2, REGIONS, size, size, 1)
    return np.random.default_rng(3).normal(size=shape).astype("float32")


def key(size, ratio, aligned):
    """Of a case in the file; `_gradient_LEVEL` follows for a gradient."""
    return f"{size}_{ratio}_{'aligned' if aligned else 'legacy'}"


def sides():
    """Sides of regions over all levels, many just beside a limit."""
    rng = np.random.default_rng(4)
    limits = np.array([112, 224, 448]) * (1 + rng.normal(0, 1e-5, (20, 3)))
    return np.concatenate(
        [np.exp(rng.uniform(1, 7, 60)), limits.ravel()]
    ).astype("float32")
