"""Which positions see each other: folding clips into attention windows.

Clips are `(batch, T, H, W, channels)`; a window is a set of positions that
attend to one another, folded into the batch axis.
"""

from keras import ops

AXES = ("space", "time", "spacetime")


def fold(x, axes="spacetime", temporal_group=None):
    """Folds a clip into windows.

    Args:
        x: `(batch, T, H, W, channels)`; T, H, W may be unknown.
        axes: `"spacetime"`: all positions of a clip form one window.
            `"space"`: the positions of one frame. `"time"`: the positions
            at one place over all frames.
        temporal_group: With `"spacetime"`, the number of consecutive frames
            that form a window; T must be a multiple of it.

    Returns:
        `(batch * windows, positions, channels)`.

    Example:

    >>> fold(np.ones((2, 8, 3, 3, 5)), temporal_group=4).shape
    TensorShape([4, 36, 5])
    """
    batch, frames, height, width, channels = ops.shape(x)
    if axes == "time":
        x = ops.transpose(x, (0, 2, 3, 1, 4))
        return ops.reshape(x, (-1, frames, channels))
    if axes == "space":
        return ops.reshape(x, (-1, height * width, channels))
    if temporal_group is None:
        return ops.reshape(x, (batch, -1, channels))
    # All sizes are given: with a -1, frames that do not fill their last group
    # would spill into the next clip of the batch instead of failing here.
    positions = temporal_group * height * width
    num_windows = batch * (frames // temporal_group)
    return ops.reshape(x, (num_windows, positions, channels))


def unfold(y, shape, axes="spacetime"):
    """Undoes `fold` for queries; `shape` is that of the clip, any channels.

    Args:
        y: `(batch * windows, positions, channels)`.
        shape: `(batch, T, H, W)` of the clip that was folded, with no `None`:
            take it from `keras.ops.shape`.
        axes: As given to `fold`.

    Returns:
        `(batch, T, H, W, channels)`.
    """
    batch, frames, height, width = shape
    channels = y.shape[-1]
    if axes == "time":
        y = ops.reshape(y, (batch, height, width, frames, channels))
        return ops.transpose(y, (0, 3, 1, 2, 4))
    return ops.reshape(y, (batch, frames, height, width, channels))


def same_window(query, grid, axes="spacetime", temporal_group=None):
    """Which positions of a grid are in the window of each query.

    Args:
        query: Integers `(Q, 3)`, the (t, y, x) of each query.
        grid: `(T, H, W)` of the keys.
        axes: As given to `fold`.
        temporal_group: As given to `fold`.

    Returns:
        Booleans `(Q, T * H * W)`.
    """
    frames, height, width = grid
    query = ops.convert_to_tensor(query, "int32")
    frame = ops.reshape(ops.arange(frames, dtype="int32"), (1, -1, 1))
    place = ops.reshape(ops.arange(height * width, dtype="int32"), (1, 1, -1))
    seen = ops.logical_and(frame >= 0, place >= 0)
    time = ops.reshape(query[:, 0], (-1, 1, 1))
    if axes == "time":
        here = ops.reshape(query[:, 1] * width + query[:, 2], (-1, 1, 1))
        seen = ops.logical_and(seen, place == here)
    elif axes == "space" or temporal_group is not None:
        group = temporal_group or 1
        seen = ops.logical_and(seen, frame // group == time // group)
    else:
        seen = ops.logical_and(seen, time >= 0)
    return ops.reshape(seen, (ops.shape(query)[0], -1))
