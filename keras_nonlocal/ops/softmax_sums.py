"""Softmax-weighted sums without storing the weights of all pairs."""

from keras import ops

from keras_nonlocal.ops.chunks import chunk_rows


def softmax_sums(theta, phi, g, size):
    """`sum_j softmax_j(theta_i . phi_j) g_j`, chunk by chunk of the queries.

    The same numbers as of the whole matrix of weights, of which `size` rows
    exist at a time. The gradient computes these rows anew: of the forward pass
    it keeps nothing but the arguments.

    Args:
        theta: Queries, `(batch, N, depth)`, float32 or float64.
        phi: Keys, `(batch, M, depth)`.
        g: Values of the keys, `(batch, M, width)`.
        size: Queries of a chunk.

    Returns:
        `(batch, N, width)`.

    Example:

    >>> x = np.random.rand(1, 10, 4).astype("float32")
    >>> softmax_sums(x, x, x, size=4).shape
    TensorShape([1, 10, 4])
    """

    @ops.custom_gradient
    def sums(theta, phi, g):
        # Laid out once, not for every chunk: the products are faster.
        phi_columns = _transposed(phi)

        def forward(totals, chunks):
            weights = _weights(chunks[0], phi_columns)
            return totals, [ops.matmul(weights, g)]

        zero = ops.zeros((), theta.dtype)
        _, (y,) = chunk_rows(forward, [zero], [theta], size)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            # Anew, lest they be kept from the forward pass.
            phi_columns, g_columns = _transposed(phi), _transposed(g)

            def backward(totals, chunks):
                """Adds to dphi and dg; gives the dtheta of a chunk."""
                dphi, dg = totals
                theta, dy = chunks
                weights = _weights(theta, phi_columns)
                dg = dg + ops.matmul(_transposed(weights), dy)
                change = weights * ops.matmul(dy, g_columns)
                mean = ops.sum(change, axis=-1, keepdims=True)
                change = change - weights * mean
                dphi = dphi + ops.matmul(_transposed(change), theta)
                return [dphi, dg], [ops.matmul(change, phi)]

            zeros = [ops.zeros_like(phi), ops.zeros_like(g)]
            (dphi, dg), (dtheta,) = chunk_rows(
                backward, zeros, [theta, dy], size
            )
            return dtheta, dphi, dg

        return y, gradient

    return sums(*(ops.convert_to_tensor(x) for x in (theta, phi, g)))


def _weights(theta, phi_columns):
    return ops.softmax(ops.matmul(theta, phi_columns), axis=-1)


def _transposed(x):
    return ops.transpose(x, (0, 2, 1))
