"""The four pairwise functions of the non-local operation (paper, section 3.2).

All take queries `theta` `(batch, N, d)` and keys `phi` `(batch, M, d)` and give
the normalised weights `f(x_i, x_j) / C(x)` of equation 1, `(batch, N, M)`.
Affinities, softmax and sums are computed in float32 (float64 for float64
inputs, where `keras.ops` has it), whatever the dtype of the inputs.
"""

from keras import backend
from keras import ops

MODES = (
    "gaussian",
    "embedded_gaussian",
    "dot_product",
    "concatenation",
)


def pairwise_weights(mode, theta, phi, scale=1.0, w_f=None, mask=None):
    """Normalised pairwise weights, `f(x_i, x_j) / C(x)`.

    The Gaussian modes are a softmax over the keys (equations 2 and 3). The dot
    product and the concatenation (equation 4 and the one after it) divide by
    the number of keys.

    Args:
        mode: One of `MODES`. The two Gaussians differ only in what is passed
            as `theta` and `phi`.
        theta: Queries, `(batch, N, d)`.
        phi: Keys, `(batch, M, d)`.
        scale: Factor on the affinities before the softmax. The dot product
            and the concatenation do not use it.
        w_f: `(2 * d, 1)`, the vector of the concatenation mode, theta's half
            first.
        mask: Boolean, broadcastable to `(batch, N, M)`: which keys a query
            sees. By default all. Every query must see at least one.

    Returns:
        `(batch, N, M)`, float32 (float64 for float64 inputs).

    Example:

    >>> x = np.array([[[1.0, 0.0], [0.0, 2.0]]], "float32")
    >>> np.array(pairwise_weights("dot_product", x, x))
    array([[[0.5, 0. ],
            [0. , 2. ]]], dtype=float32)
    """
    theta, phi = as_accumulator(theta), as_accumulator(phi)
    if mode == "concatenation":
        affinity = _concatenation_affinity(theta, phi, as_accumulator(w_f))
    else:
        affinity = ops.matmul(theta, ops.transpose(phi, (0, 2, 1)))
    if mode in ("gaussian", "embedded_gaussian"):
        if mask is not None:
            affinity = ops.where(mask, affinity, float("-inf"))
        if affinity.shape[-1] == 1:  # Keras takes this for a mistake.
            return ops.ones_like(affinity)
        return ops.softmax(affinity * scale, axis=-1)
    if mask is None:
        return affinity / ops.cast(ops.shape(phi)[1], affinity.dtype)
    mask = ops.cast(mask, affinity.dtype)
    return affinity * mask / ops.sum(mask, axis=-1, keepdims=True)


def as_accumulator(x):
    """`x` in the dtype of the sums: float32, or float64 if it is float64."""
    x = ops.convert_to_tensor(x)
    is_double = backend.standardize_dtype(x.dtype) == "float64"
    return x if is_double else ops.cast(x, "float32")


def _concatenation_affinity(theta, phi, w_f):
    """`relu(w_f . [theta_i, phi_j])` without forming the pairs.

    The product splits into one number a query and one a key, so nothing larger
    than `(batch, N, M)` is made.
    """
    depth = theta.shape[-1]
    of_queries = ops.matmul(theta, w_f[:depth])
    of_keys = ops.matmul(phi, w_f[depth:])
    return ops.relu(of_queries + ops.transpose(of_keys, (0, 2, 1)))
