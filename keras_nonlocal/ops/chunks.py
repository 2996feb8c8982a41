"""Loops over chunks of rows that hold one chunk at a time."""

from keras import config
from keras import ops


def chunk_rows(function, totals, arrays, size, num_results=1):
    """Applies a function to one chunk of rows after the other.

    Args:
        function: From a list of totals and a list of chunks `(batch, size,
            width)` to the new totals and a list of results, the chunks
            `(batch, size, any width)` of as many arrays.
        totals: Initial values of what is summed up over the chunks, at least
            one tensor.
        arrays: Tensors `(batch, N, width)` of one dtype. N may be unknown;
            where it is not a multiple of `size`, rows of zeros fill the last
            chunk, and their results are dropped.
        size: Rows of a chunk.
        num_results: Number of results.

    Returns:
        The totals and the results, `(batch, N, width)`, two lists.
    """
    rows = ops.shape(arrays[0])[1]
    count = -(-rows // size)
    arrays = [_split(x, count, size) for x in arrays]
    loop = _tensorflow_loop if config.backend() == "tensorflow" else _scan
    totals, results = loop(function, totals, arrays, count, num_results)
    return totals, [_join(x, rows) for x in results]


def _split(x, count, size):
    """`(batch, count, size, width)`, with rows of zeros at the end."""
    batch, rows, width = ops.shape(x)
    missing = count * size - rows
    if not isinstance(missing, int) or missing:
        zeros = ops.zeros((batch, missing, width), x.dtype)
        x = ops.concatenate([x, zeros], axis=1)
    return ops.reshape(x, (batch, count, size, width))


def _join(x, rows):
    """Undoes `_split` for `(count, batch, size, width)`."""
    count, batch, size, _ = ops.shape(x)
    x = ops.reshape(
        ops.transpose(x, (1, 0, 2, 3)), (batch, count * size, x.shape[-1])
    )
    is_even = isinstance(rows, int) and rows == count * size
    return x if is_even else x[:, :rows]


def _scan(function, totals, arrays, count, num_results):
    del count, num_results
    return ops.scan(function, totals, [ops.moveaxis(x, 1, 0) for x in arrays])


def _tensorflow_loop(function, totals, arrays, count, num_results):
    """The loop of TensorFlow, one step at a time.

    Those of `keras.ops` run up to ten steps at once and hold the chunks of all
    of them: three times the memory, at no gain in time.
    """
    import tensorflow as tf

    def step(number, totals, results):
        chunks = [x[:, number] for x in arrays]
        totals, new = function(totals, chunks)
        written = [
            result.write(number, chunk)
            for result, chunk in zip(results, new, strict=True)
        ]
        return number + 1, totals, written

    results = [
        tf.TensorArray(arrays[0].dtype, size=count) for _ in range(num_results)
    ]
    _, totals, results = tf.while_loop(
        lambda number, *_: number < count,
        step,
        (tf.constant(0), totals, results),
        parallel_iterations=1,
    )
    return totals, [result.stack() for result in results]
