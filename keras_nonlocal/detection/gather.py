"""Choosing rows and highest scores, alike on every backend."""

from keras import config
from keras import ops


def best(scores, number):
    """The highest scores, in falling order.

    Equal scores stay in the order they stand in; those that are not a number
    come last, as minus infinity.

    Args:
        scores: `(..., N)`, any float dtype.
        number: How many, an integer of at most N.

    Returns:
        The scores and their positions (int32), `(..., number)`.

    Example:

    >>> scores, index = best(np.array([0.1, 0.7, 0.7, 0.2], "float32"), 3)
    >>> np.array(index)
    array([1, 2, 3], dtype=int32)
    """
    # A comparison with what is not a number is false.
    scores = ops.where(scores > float("-inf"), scores, float("-inf"))
    if config.backend() == "torch":  # Its top_k swaps equal scores.
        index = ops.argsort(-scores, axis=-1)[..., :number]
        return ops.take_along_axis(scores, index, axis=-1), index
    return ops.top_k(scores, number)


def take_rows(x, index):
    """Rows of every image of a batch.

    Args:
        x: `(..., N, C)`.
        index: Which rows, `(..., S)`, integers in 0..N - 1.

    Returns:
        `(..., S, C)`.

    Example:

    >>> x = np.array([[[1.0, 2.0], [3.0, 4.0]]], "float32")
    >>> np.array(take_rows(x, np.array([[1, 1, 0]])))
    array([[[3., 4.],
            [3., 4.],
            [1., 2.]]], dtype=float32)
    """
    return ops.take_along_axis(x, index[..., None], axis=-2)
