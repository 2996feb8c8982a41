"""The non-local operation and its four pairwise functions (section 3.2).

All take queries `theta` `(batch, N, d)` and keys `phi` `(batch, M, d)`.
Affinities, softmax and sums are computed in float32 (float64 for float64
inputs, where `keras.ops` has it), whatever the dtype of the inputs.
"""

from keras import backend
from keras import ops

from keras_nonlocal.ops.algorithms import check_algorithm
from keras_nonlocal.ops.algorithms import choose
from keras_nonlocal.ops.algorithms import default_chunk
from keras_nonlocal.ops.algorithms import has_softmax
from keras_nonlocal.ops.relu_sums import relu_sums
from keras_nonlocal.ops.softmax_sums import softmax_sums

MODES = (
    "gaussian",
    "embedded_gaussian",
    "dot_product",
    "concatenation",
)


def pairwise_sums(
    mode,
    theta,
    phi,
    g,
    scale=1.0,
    w_f=None,
    algorithm="auto",
    chunk_size=None,
):
    """The non-local operation, `sum_j f(x_i, x_j) g_j / C(x)` (equation 1).

    All algorithms give the same numbers up to rounding; none approximates. For
    N queries, M keys, d channels of theta and phi, d' of g:

    | algorithm | mode | multiply-adds | stored between |
    |---|---|---|---|
    | `"plain"` | all | N M (d + d') | N M |
    | `"chunked"` | Gaussian | N M (d + d') | chunk_size M |
    | `"fused"` | Gaussian | N M (d + d') | what the backend's kernel does |
    | `"reassociated"` | dot product | (N + M) d d' | d d' |
    | `"sorted"` | concatenation | (N + M) 256 d' | (N + M) d' |

    For its gradient, `"chunked"` computes the weights anew: a sixth more work
    in training. `"fused"` is `keras.ops.dot_product_attention`: a kernel of its
    own on PyTorch and on some devices of JAX, the plain form on TensorFlow.

    `"auto"` counts. A dot product is re-associated and a concatenation sorted
    where that is less work. A softmax is plain up to a number of pairs that was
    measured to pay (40 million on TensorFlow, 4 on PyTorch, none on JAX), and
    chunked above, or fused on PyTorch if d equals d'. Where N or M is known
    only in the run, so is the choice.

    Args:
        mode: One of `MODES`.
        theta: Queries, `(batch, N, d)`.
        phi: Keys, `(batch, M, d)`.
        g: Values of the keys, `(batch, M, d')`.
        scale: As of `pairwise_weights`.
        w_f: As of `pairwise_weights`.
        algorithm: `"auto"` or one of `ALGORITHMS[mode]`.
        chunk_size: Queries of a chunk. By default about a million pairs
            of each clip or window.

    Returns:
        `(batch, N, d')`, float32 (float64 for float64 inputs).

    Raises:
        ValueError: If the mode does not have the algorithm.

    Example:

    >>> x = np.array([[[1.0, 0.0], [0.0, 2.0]]], "float32")
    >>> np.array(pairwise_sums("dot_product", x, x, x))
    array([[[0.5, 0. ],
            [0. , 4. ]]], dtype=float32)
    """
    check_algorithm(mode, algorithm, chunk_size)
    theta, phi, g = (as_accumulator(x) for x in (theta, phi, g))
    compute = {
        "plain": lambda: _plain(mode, theta, phi, g, scale, w_f),
        "chunked": lambda: _chunked(theta, phi, g, scale, chunk_size),
        "fused": lambda: _fused(theta, phi, g, scale),
        "reassociated": lambda: _reassociated(theta, phi, g),
        "sorted": lambda: _sorted(theta, phi, g, w_f),
    }
    if has_softmax(mode) and phi.shape[1] == 1:
        algorithm = "plain"  # One key: there is nothing to weigh.
    if algorithm != "auto":
        return compute[algorithm]()
    algorithm, is_better = choose(
        mode,
        ops.shape(theta)[1],
        ops.shape(phi)[1],
        theta.shape[-1],
        g.shape[-1],
    )
    if is_better is True:
        return compute[algorithm]()
    return ops.cond(is_better, compute[algorithm], compute["plain"])


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
        of_queries, of_keys = _halves(theta, phi, w_f)
        affinity = ops.relu(of_queries[..., None] + of_keys[:, None])
    else:
        phi = phi * scale if has_softmax(mode) else phi
        affinity = ops.matmul(theta, ops.transpose(phi, (0, 2, 1)))
    if has_softmax(mode):
        if mask is not None:
            affinity = ops.where(mask, affinity, float("-inf"))
        if affinity.shape[-1] == 1:  # Keras takes a softmax for a mistake.
            return 1.0 + (affinity - affinity)
        return ops.softmax(affinity, axis=-1)
    if mask is None:
        return affinity / _count(phi)
    mask = ops.cast(mask, affinity.dtype)
    return affinity * mask / ops.sum(mask, axis=-1, keepdims=True)


def as_accumulator(x):
    """`x` in the dtype of the sums: float32, or float64 if it is float64."""
    x = ops.convert_to_tensor(x)
    is_double = backend.standardize_dtype(x.dtype) == "float64"
    return x if is_double else ops.cast(x, "float32")


def _plain(mode, theta, phi, g, scale, w_f):
    weights = pairwise_weights(mode, theta, phi, scale, w_f)
    return ops.matmul(weights, g)


def _reassociated(theta, phi, g):
    summed = ops.matmul(ops.transpose(phi, (0, 2, 1)), g)
    return ops.matmul(theta, summed / _count(phi))


def _sorted(theta, phi, g, w_f):
    a, b = _halves(theta, phi, w_f)
    return relu_sums(a, b, g / _count(phi))


def _fused(theta, phi, g, scale):
    if theta.shape[-1] != g.shape[-1]:
        raise ValueError(
            'algorithm="fused" takes phi and g of one width. '
            f"Received: {theta.shape[-1]} and {g.shape[-1]}"
        )
    heads = (x[:, :, None] for x in (theta, phi * scale, g))
    y = ops.dot_product_attention(*heads, scale=1.0)[:, :, 0]
    # PyTorch's kernel gives 0 where an affinity is not a number; x - x says so.
    of_queries = ops.sum(theta - theta, axis=-1, keepdims=True)
    of_keys = ops.sum(phi - phi, axis=(1, 2), keepdims=True)
    return y + (of_queries + of_keys)


def _chunked(theta, phi, g, scale, size):
    size = size or default_chunk(theta.shape[1], phi.shape[1])
    return softmax_sums(theta, phi * scale, g, size)


def _count(phi):
    return ops.cast(ops.shape(phi)[1], phi.dtype)


def _halves(theta, phi, w_f):
    """`w_f . [theta_i, phi_j]` as one number a query and one a key.

    Adding these makes nothing larger than `(batch, N, M)`.
    """
    depth = theta.shape[-1]
    w_f = as_accumulator(w_f)
    of_queries = ops.matmul(theta, w_f[:depth])
    of_keys = ops.matmul(phi, w_f[depth:])
    return of_queries[..., 0], of_keys[..., 0]
