"""Sides that look regions up on the four levels of a pyramid.

Each assigns the levels and aligns; torchvision's rules, in its order of axes
and in ours. What is compared has the axes of ours.
"""

import numpy as np

from benchmarks import inputs

STRIDES = (4, 8, 16, 32)


def boxes(number, height, width):
    """Regions of 16 to 700 pixels, up to twice as high as wide; `(N, 4)`."""
    rng = np.random.default_rng(0)
    side = np.exp(rng.uniform(np.log(16), np.log(700), number))
    shape = np.exp(rng.uniform(-0.35, 0.35, number))
    size = np.stack([side * shape, side / shape], axis=1)
    limit = np.array([width, height])
    size = np.minimum(size, limit - 1)
    start = rng.uniform(0, limit - size)
    return np.concatenate([start, start + size], axis=1).astype("float32")


def maps(height, width, channels):
    """Noise on each level, channels last, batch 1."""
    return [
        inputs.normal((1, height // k, width // k, channels), k)
        for k in STRIDES
    ]


def our_regions(
    regions,
    size,
    sampling_ratio,
    backward,
    height,
    width,
    channels,
    jit_compile,
):
    """The package's, in a graph."""
    import tensorflow as tf

    from keras_nonlocal.detection.roi_align import assign_levels
    from keras_nonlocal.detection.roi_align import roi_align

    def align(features, regions):
        levels = assign_levels(regions, epsilon=1e-6, rule="level") - 2
        return roi_align(
            features, STRIDES, regions, size, sampling_ratio, False, levels
        )

    @tf.function(jit_compile=jit_compile, autograph=False)
    def forward(features, regions, _):
        return align(features, regions)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def forward_and_backward(features, regions, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(features)
            y = align(features, regions)
        return [y, *tape.gradient(y, features, cotangent)]

    arguments = (
        [tf.constant(x) for x in maps(height, width, channels)],
        tf.constant(boxes(regions, height, width)[None]),
        tf.constant(inputs.normal((1, regions, size, size, channels))),
    )
    run = forward_and_backward if backward else forward
    return lambda: run(*arguments)


def torchvision_regions(
    regions, size, sampling_ratio, backward, height, width, channels
):
    """The pooler of a pyramid in torchvision's Mask R-CNN."""
    import torch
    from torchvision.ops import MultiScaleRoIAlign

    def channels_first(x):
        return torch.from_numpy(np.moveaxis(x, -1, -3).copy())

    features = {
        str(level): channels_first(x)
        for level, x in enumerate(maps(height, width, channels))
    }
    pooler = MultiScaleRoIAlign(list(features), size, sampling_ratio)
    found = torch.from_numpy(boxes(regions, height, width))
    cotangent = channels_first(
        inputs.normal((1, regions, size, size, channels))
    )[0]

    def align():
        return pooler(features, [found], [(height, width)])

    def forward():
        with torch.no_grad():
            return align().permute(0, 2, 3, 1)

    def forward_and_backward():
        sources = [x.requires_grad_(True) for x in features.values()]
        y = align()
        gradients = torch.autograd.grad(y, sources, cotangent)
        return [x.detach().movedim(-3, -1) for x in (y, *gradients)]

    return forward_and_backward if backward else forward
