"""Sums over rectified pairs without the pairs, by sorting.

`y_i = sum_j relu(a_i + b_j) g_j` depends on `a_i` as a piecewise linear
function. With the knots `s = -b` in ascending order, g in the same order, and
`s_k` the last knot below `a_i`,

    y_i = F_k + (a_i - s_k) G_k,
    F_k = sum_{j <= k} (s_k - s_j) g_j,    G_k = sum_{j <= k} g_j,

two prefix sums over the keys and one row of each for every query. Differences
are taken between neighbours only, so that nothing cancels when `a` and `-b` are
large and close. The gradients are sums of the same kind.

For N queries, M keys and values of width d this takes `(N + M)(log M + d)`
work, up to the size of a block, and `(N + M) d` memory.
"""

import numpy as np
from keras import ops

# Rows that one triangular product sums up. A long `cumsum` is slower and loses
# more digits.
_BLOCK = 128


def relu_sums(a, b, g):
    """`sum_j relu(a_i + b_j) g_j` for every query i.

    Args:
        a: One number a query, `(batch, N)`, float32 or float64.
        b: One number a key, `(batch, M)`.
        g: Values of the keys, `(batch, M, width)`.

    Returns:
        `(batch, N, width)`. Where `a_i + b_j` is 0, so is its gradient, as that
        of `keras.ops.relu`.

    Example:

    >>> a = np.array([[1.0, -4.0]], "float32")
    >>> b = np.array([[0.0, 2.0]], "float32")
    >>> g = np.array([[[1.0], [10.0]]], "float32")
    >>> np.array(relu_sums(a, b, g))
    array([[[31.],
            [ 0.]]], dtype=float32)
    """

    @ops.custom_gradient
    def sums(a, b, g):
        y, _ = _sums_and_slopes(a, b, g)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            _, slopes = _sums_and_slopes(a, b, g)
            da = ops.sum(slopes * dy, axis=-1)
            # To a key the queries are what the keys are to a query.
            dg, slopes = _sums_and_slopes(b, a, dy)
            return da, ops.sum(slopes * g, axis=-1), dg

        return y, gradient

    return sums(*(ops.convert_to_tensor(x) for x in (a, b, g)))


def _sums_and_slopes(a, b, g):
    """`y_i` and `dy_i / da_i = sum_j [a_i + b_j > 0] g_j`."""
    # Numbers that are not finite have no place in an order: without them, and
    # with a result that says so.
    is_finite = ops.isfinite(b)
    knots = ops.where(is_finite, -b, 0.0)
    is_sound = ops.logical_and(
        ops.all(is_finite, axis=1), ops.all(ops.isfinite(g), axis=(1, 2))
    )
    defect = ops.where(is_sound, 0.0, np.nan)[:, None]
    order = ops.argsort(knots, axis=1)
    knots, rows = _pad(_take(knots, order), _take(g, order))
    sums, slopes = _prefix_sums(knots, rows)
    last = _last_below(knots, a)
    defect = ops.cast(defect, a.dtype)
    distance = (a - _take(knots, last) + defect)[..., None]
    slopes = _take(slopes, last)
    return _take(sums, last) + distance * slopes, slopes


def _pad(knots, rows):
    """Zero rows in front, at least one: a query may be below all knots."""
    batch, count = ops.shape(knots)
    extra = _BLOCK - count % _BLOCK
    first = knots[:, :1] * ops.ones((1, extra), knots.dtype)
    zeros = ops.zeros((batch, extra, rows.shape[-1]), rows.dtype)
    return (
        ops.concatenate([first, knots], axis=1),
        ops.concatenate([zeros, rows], axis=1),
    )


def _prefix_sums(knots, rows):
    """F and G of sorted knots, in blocks: products with triangular matrices.

    The first two rows of a block's product are F and G at the end of the block
    before, which all of its rows see.
    """
    batch, count = ops.shape(knots)
    width = rows.shape[-1]
    knots = ops.reshape(knots, (batch, count // _BLOCK, _BLOCK))
    rows = ops.reshape(rows, (batch, count // _BLOCK, _BLOCK, width))
    ends = knots[..., -1]
    before = ops.concatenate([ends[:, :1], ends[:, :-1]], axis=1)
    totals = ops.sum(rows, axis=2)
    steep = ops.cumsum(totals, axis=1) - totals
    weights = (ends[..., None] - knots)[:, :, None]
    gained = ops.matmul(weights, rows)[:, :, 0]
    gained = gained + (ends - before)[..., None] * steep
    high = ops.cumsum(gained, axis=1) - gained
    rows = ops.concatenate([high[:, :, None], steep[:, :, None], rows], axis=2)
    one = ops.ones_like(knots)[..., None]
    above = ops.relu(knots[..., None] - knots[:, :, None])
    to_sums = ops.concatenate(
        [one, (knots - before[..., None])[..., None], above], axis=3
    )
    lower = ops.tril(ops.ones((_BLOCK, _BLOCK), knots.dtype))
    to_slopes = ops.concatenate(
        [0.0 * one, one, ops.broadcast_to(lower, ops.shape(above))], axis=3
    )
    return tuple(
        ops.reshape(ops.matmul(matrix, rows), (batch, count, width))
        for matrix in (to_sums, to_slopes)
    )


def _last_below(knots, points):
    """Index of the last sorted knot below each point, else 0.

    `keras.ops.searchsorted` takes one sorted list; here each clip has one.
    """
    count = ops.shape(knots)[1]
    # Sizes that are not known yet are below 2**31.
    bits = count.bit_length() if isinstance(count, int) else 31
    last = ops.zeros_like(points, dtype="int32")
    for bit in reversed(range(bits)):
        further = last + 2**bit
        inside = ops.minimum(further, count - 1)
        is_below = ops.logical_and(
            further < count, _take(knots, inside) < points
        )
        last = ops.where(is_below, further, last)
    return last


def _take(x, index):
    """Rows `x[n, index[n, i]]` of a batch, by one flat gather."""
    batch, count = ops.shape(x)[:2]
    start = ops.arange(batch, dtype="int32")[:, None] * count
    flat = ops.reshape(x, (batch * count, *x.shape[2:]))
    return ops.take(flat, ops.cast(index, "int32") + start, axis=0)
