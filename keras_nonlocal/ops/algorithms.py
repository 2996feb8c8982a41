"""Which algorithm computes the non-local operation: a choice by counting."""

import numbers

from keras import config
from keras import ops

# The first of each stores the weights of all pairs, the others do not.
ALGORITHMS = {
    "gaussian": ("plain", "chunked", "fused"),
    "embedded_gaussian": ("plain", "chunked", "fused"),
    "dot_product": ("plain", "reassociated"),
    "concatenation": ("plain", "sorted"),
}
# Pairs of a clip (or of a window, if it has several) up to which the weights of
# a softmax are stored, 150 MiB in float32 on TensorFlow: computing them anew
# for the gradient would take longer. Measured on CPUs, where PyTorch has a
# fused kernel and JAX stores nothing fast.
_STORED_PAIRS = {"tensorflow": 40e6, "jax": 0, "torch": 4e6}
# Multiply-adds of the sorted form for each position and channel: two products
# with blocks of 128.
_SORTED_WORK = 256
# Pairs of a chunk of a clip, 4 MiB in float32: several such arrays fit into a
# cache.
_CHUNK_PAIRS = 2**20
_CHUNK_QUERIES = (128, 1024)
# Queries of a chunk where the number of keys is not known.
_CHUNK_SIZE = 512


def has_softmax(mode):
    """Whether a mode is one of the two Gaussians."""
    return "chunked" in ALGORITHMS[mode]


def check_algorithm(mode, algorithm, chunk_size):
    """Raises a ValueError if a mode does not have an algorithm.

    Args:
        mode: A key of `ALGORITHMS`.
        algorithm: `"auto"` or one of `ALGORITHMS[mode]`.
        chunk_size: Queries of a chunk, or `None`.
    """
    allowed = ("auto", *ALGORITHMS[mode])
    if algorithm not in allowed:
        raise ValueError(
            f"`algorithm` must be one of {allowed} with mode={mode!r}. "
            f"Received: {algorithm!r}"
        )
    if chunk_size is None:
        return
    is_int = isinstance(chunk_size, numbers.Integral)
    if not is_int or isinstance(chunk_size, bool) or chunk_size < 1:
        raise ValueError(
            "`chunk_size` must be a positive integer or None. "
            f"Received: {chunk_size!r}"
        )
    if algorithm not in ("auto", "chunked"):
        raise ValueError(
            '`chunk_size` is for algorithm="chunked" (or "auto"). '
            f"Received: algorithm={algorithm!r}, chunk_size={chunk_size}"
        )


def choose(mode, queries, keys, depth, width):
    """The algorithm of least work.

    Args:
        mode: A key of `ALGORITHMS`.
        queries: Their number, an int or an integer tensor.
        keys: Their number, an int or an integer tensor.
        depth: Channels of theta and phi.
        width: Channels of g.

    Returns:
        The name of an algorithm, and whether it is better than the plain form:
        `True`, unless a number is a tensor. Then it is one as well.

    Example:

    >>> choose("dot_product", 12544, 3136, 256, 256)
    ('reassociated', True)
    >>> choose("dot_product", 784, 196, 512, 512)
    ('plain', True)
    """
    algorithm = ALGORITHMS[mode][1]
    if has_softmax(mode) and config.backend() == "torch" and depth == width:
        algorithm = "fused"
    if isinstance(queries, int) and isinstance(keys, int):
        is_better = _is_better(algorithm, queries, keys, depth, width)
        return algorithm if is_better else "plain", True
    # In floats: a product of sizes can exceed an int32.
    queries, keys = (ops.cast(size, "float32") for size in (queries, keys))
    return algorithm, _is_better(algorithm, queries, keys, depth, width)


def default_chunk(queries, keys):
    """Queries of a chunk. What is no int is not known.

    A divisor of the queries, if there is one: nothing is padded then.

    Example:

    >>> default_chunk(12544, 3136)
    256
    """
    if not isinstance(keys, int):
        return _CHUNK_SIZE
    least, most = _CHUNK_QUERIES
    size = min(max(_CHUNK_PAIRS // keys, least), most)
    if not isinstance(queries, int):
        return size
    first = -(-queries // size)
    even = (n for n in range(first, 2 * first) if queries % n == 0)
    return -(-queries // next(even, first))


def _is_better(algorithm, queries, keys, depth, width):
    """Whether an algorithm is less work than the plain form."""
    if algorithm in ("chunked", "fused"):
        return queries * keys > _STORED_PAIRS[config.backend()]
    if algorithm == "reassociated":
        work = (queries + keys) * depth * width
        return queries * keys * (depth + width) > work
    return queries * keys > (queries + keys) * _SORTED_WORK
