"""The images and objects of `make_golden`, and the size of its network.

Every object is 32 pixels wide and high, and so is its mask: the mask in the
image and the mask in its box have the same pixels.
"""

import numpy as np

NETWORK = {
    "width": 8,
    "channels": 8,
    "units": 16,
    "mask_channels": 8,
    "classes": 3,
    "anchor_sizes": (32, 64, 128, 256, 512),
    "pre_nms": 200,
    "post_nms": 100,
    "detections": 20,
}
SIDE = 32
SIZES = ((128, 96), (112, 128))
BOXES = (
    ((10, 20, 42, 52), (50, 60, 82, 92), (60, 9, 92, 41)),
    ((3, 5, 35, 37), (70, 40, 102, 72)),
)
CLASSES = ((0, 2, 1), (1, 1))


def images():
    """Blurred noise, uint8, one array `(height, width, 3)` for each image."""
    rng = np.random.default_rng(0)
    made = []
    for height, width in SIZES:
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3))
        fine = rng.integers(-20, 20, (height, width, 3))
        image = coarse.repeat(8, axis=0).repeat(8, axis=1) + fine
        made.append(image.clip(0, 255).astype("uint8"))
    return made


def masks(number):
    """Masks of an image's objects, `(objects, 32, 32)`: box, disc, half."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    shapes = [np.ones_like(x), x**2 + y**2 < 200.0, x < 0]
    return np.array(shapes[: len(BOXES[number])], "uint8")
