"""Softmax-weighted sums without storing the weights of all pairs."""

from keras import ops

from keras_nonlocal.ops.chunks import chunk_rows


def softmax_sums(theta, phi, g, size):
    """`sum_j softmax_j(theta_i . phi_j) g_j`, chunk by chunk of the queries.

    The same numbers as of the whole matrix of weights, of which `size` rows
    exist at a time. The gradient computes these rows anew from theta and phi;
    of the forward pass it keeps nothing but the arguments and the result.

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
        phi_rows = ops.transpose(phi, (0, 2, 1))

        def forward(totals, chunks):
            weights = _weights(chunks[0], phi_rows)
            return totals, [ops.matmul(weights, g)]

        zero = ops.zeros((), theta.dtype)
        _, (y,) = chunk_rows(forward, [zero], [theta], size)
        # With its own place in the graph: PyTorch would see a circle, from y
        # to its gradient and back, and keep both.
        result = ops.stop_gradient(y)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            g_rows = ops.transpose(g, (0, 2, 1))

            def backward(totals, chunks):
                """Adds to dphi and dg; gives the dtheta of a chunk."""
                dphi, dg = totals
                theta, y, dy = chunks
                weights = _weights(theta, phi_rows)
                dg = dg + _transposed_matmul(weights, dy)
                # The mean of the change, sum_j f_ij (dy_i . g_j).
                mean = ops.sum(y * dy, axis=-1, keepdims=True)
                change = weights * (ops.matmul(dy, g_rows) - mean)
                dphi = dphi + _transposed_matmul(change, theta)
                return [dphi, dg], [ops.matmul(change, phi)]

            zeros = [ops.zeros_like(phi), ops.zeros_like(g)]
            (dphi, dg), (dtheta,) = chunk_rows(
                backward, zeros, [theta, result, dy], size
            )
            return dtheta, dphi, dg

        return y, gradient

    return sums(*(ops.convert_to_tensor(x) for x in (theta, phi, g)))


def _weights(theta, phi_rows):
    return ops.softmax(ops.matmul(theta, phi_rows), axis=-1)


def _transposed_matmul(x, y):
    return ops.matmul(ops.transpose(x, (0, 2, 1)), y)
