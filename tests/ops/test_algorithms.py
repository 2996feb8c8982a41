"""Every algorithm computes what the plain form does."""

import keras
import numpy as np
import pytest

from keras_nonlocal.ops import algorithms
from keras_nonlocal.ops import pairwise
from tests.checks import numpy
from tests.gradients import gradients

FRUGAL = [
    (mode, algorithm)
    for mode in pairwise.MODES
    for algorithm in algorithms.ALGORITHMS[mode][1:]
]
# keras.ops multiplies in float64 on TensorFlow only, which alone has graphs
# of unknown sizes.
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
needs_graphs = pytest.mark.skipif(
    not ON_TENSORFLOW, reason="only TensorFlow has unknown sizes"
)


def draw(rng, mode, queries=37, keys=11, dtype="float32", width=6):
    """Arguments of `sums`, and a gradient of its value."""
    shapes = [
        (2, queries, 6),
        (2, keys, 6),
        (2, keys, width),
        (2, queries, width),
    ]
    if mode == "concatenation":
        shapes.insert(3, (12, 1))
    *inputs, cotangent = (rng.normal(size=x).astype(dtype) for x in shapes)
    return inputs, cotangent


def sums(mode, algorithm, chunk_size=None):
    def function(theta, phi, g, w_f=None):
        return pairwise.pairwise_sums(
            mode,
            theta,
            phi,
            g,
            scale=0.7,
            w_f=w_f,
            algorithm=algorithm,
            chunk_size=chunk_size if algorithm == "chunked" else None,
        )

    return function


def reference(mode, *inputs):
    """Position by position, in float64."""
    theta, phi, g, *w_f = (x.astype("float64") for x in inputs)
    y = np.zeros((*theta.shape[:2], g.shape[-1]))
    for n, i in np.ndindex(*theta.shape[:2]):
        if mode == "concatenation":
            pairs = [np.concatenate([theta[n, i], key]) for key in phi[n]]
            f = np.maximum([pair @ w_f[0][:, 0] for pair in pairs], 0)
        else:
            f = phi[n] @ theta[n, i]
        if algorithms.has_softmax(mode):
            f = np.exp(0.7 * (f - f.max()))
            y[n, i] = f @ g[n] / f.sum()
        else:
            y[n, i] = f @ g[n] / len(f)
    return y


def assert_close(actual, expected, tolerance):
    scale = max(np.max(np.abs(expected)), 1e-30)
    np.testing.assert_allclose(actual / scale, expected / scale, 0, tolerance)


@pytest.mark.parametrize("mode", pairwise.MODES)
def test_plain_form(mode, rng):
    inputs, _ = draw(rng, mode)
    y = numpy(sums(mode, "plain")(*inputs))
    assert_close(y, reference(mode, *inputs), 1e-6)


@pytest.mark.parametrize("mode, algorithm", FRUGAL)
@pytest.mark.parametrize("queries, keys", [(37, 11), (32, 1), (5, 150)])
def test_values_and_gradients(mode, algorithm, queries, keys, rng):
    dtype, tolerance = (
        ("float64", 1e-12) if ON_TENSORFLOW else ("float32", 2e-6)
    )
    inputs, cotangent = draw(rng, mode, queries, keys, dtype)
    expected = gradients(sums(mode, "plain"), inputs, cotangent)
    actual = gradients(sums(mode, algorithm, 8), inputs, cotangent)
    assert_close(actual[0], expected[0], tolerance)
    for one, other in zip(actual[1], expected[1], strict=True):
        assert_close(one, other, tolerance)


@pytest.mark.parametrize("mode, algorithm", FRUGAL)
def test_large_activations_in_half_precision(mode, algorithm, rng):
    inputs, _ = draw(rng, mode)
    halves = [(1e4 * x).astype("float16") for x in inputs]
    y = numpy(sums(mode, algorithm, 8)(*halves))
    assert y.dtype == "float32"
    assert_close(y, reference(mode, *halves), 1e-5)


@pytest.mark.parametrize("mode, algorithm", FRUGAL)
def test_what_is_not_a_number_stays_seen(mode, algorithm, rng):
    for culprit in range(3):
        inputs, _ = draw(rng, mode)
        inputs[culprit][1, 3] = np.nan
        y = numpy(sums(mode, algorithm, 8)(*inputs))
        assert np.all(np.isfinite(y[0]))
        # One query, or all that see a key.
        rows = slice(3, 4) if culprit == 0 else slice(None)
        assert np.all(np.isnan(y[1, rows]))


def test_sorting_keeps_the_digits_of_large_offsets(rng):
    inputs, _ = draw(rng, "concatenation", 200, 300)
    theta, phi, _, w_f = inputs
    theta += 3000 * w_f[:6, 0]
    phi -= (
        np.mean(theta @ w_f[:6]) / np.sum(w_f[6:] ** 2) * w_f[6:, 0]
    ).astype("float32")
    expected = reference("concatenation", *inputs)
    plain = numpy(sums("concatenation", "plain")(*inputs))
    y = numpy(sums("concatenation", "sorted")(*inputs))
    # What is left is the rounding of w_f . theta, for both alike.
    error = np.max(np.abs(plain - expected))
    assert np.max(np.abs(y - expected)) < 2 * error
    assert error < 0.01 * np.max(np.abs(expected))


def test_ties_have_no_gradient():
    w_f = np.ones((2, 1), "float32")
    theta = np.array([[[1.0], [2.0], [2.0], [3.0]]], "float32")
    phi = np.array([[[-2.0], [-2.0], [-1.0], [-3.0]]], "float32")
    g = np.array([[[1.0], [10.0], [100.0], [1000.0]]], "float32")
    inputs, cotangent = [theta, phi, g, w_f], np.ones_like(theta)
    expected = gradients(sums("concatenation", "plain"), inputs, cotangent)
    actual = gradients(sums("concatenation", "sorted"), inputs, cotangent)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-6)
    for one, other in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def unknown_sizes(function, mode, jit_compile=False):
    """A graph of a function that knows no more than the channels."""
    import tensorflow as tf

    shapes = [[None, None, channels] for channels in (6, 6, 6)]
    if mode == "concatenation":
        shapes.append([12, 1])
    return tf.function(
        function,
        input_signature=[tf.TensorSpec(shape) for shape in shapes],
        jit_compile=jit_compile,
    )


@needs_graphs
@pytest.mark.parametrize("mode, algorithm", FRUGAL)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_sizes(mode, algorithm, jit_compile, rng):
    run = unknown_sizes(sums(mode, algorithm), mode, jit_compile)
    for queries, keys in ((9, 3), (40, 130)):
        inputs, cotangent = draw(rng, mode, queries, keys)
        expected = gradients(sums(mode, "plain"), inputs, cotangent)
        actual = gradients(run, inputs, cotangent)
        assert_close(actual[0], expected[0], 1e-5)
        for one, other in zip(actual[1], expected[1], strict=True):
            assert_close(one, other, 1e-5)


@needs_graphs
@pytest.mark.parametrize("mode", pairwise.MODES)
def test_choice_in_the_run(mode, rng, monkeypatch):
    monkeypatch.setattr(algorithms, "_STORED_PAIRS", {"tensorflow": 100})
    monkeypatch.setattr(algorithms, "_SORTED_WORK", 4)
    run = unknown_sizes(sums(mode, "auto"), mode)
    chosen = set()
    for queries, keys in ((4, 2), (40, 30)):
        chosen.add(algorithms.choose(mode, queries, keys, 6, 6)[0])
        inputs, _ = draw(rng, mode, queries, keys)
        assert_close(numpy(run(*inputs)), reference(mode, *inputs), 1e-5)
    assert chosen == set(algorithms.ALGORITHMS[mode][:2])


def test_choice_by_size():
    choose, name = algorithms.choose, keras.backend.backend()
    gaussian = "embedded_gaussian"
    small = {"jax": "chunked"}.get(name, "plain")
    large = {"torch": "fused"}.get(name, "chunked")
    assert choose(gaussian, 3136, 784, 256, 256) == (small, True)
    assert choose(gaussian, 25088, 6272, 256, 256) == (large, True)
    # A fused kernel takes one width.
    assert choose("gaussian", 25088, 6272, 512, 256) == ("chunked", True)
    assert choose("concatenation", 784, 196, 256, 256) == ("plain", True)
    assert choose("concatenation", 784, 784, 256, 256) == ("sorted", True)


def test_sizes_beyond_an_int32():
    queries = keras.ops.convert_to_tensor(70000, "int32")
    algorithm, is_better = algorithms.choose("gaussian", queries, 70000, 8, 4)
    assert algorithm == "chunked"
    assert bool(numpy(is_better))


@pytest.mark.parametrize("mode, algorithm", FRUGAL)
def test_values_wider_than_keys(mode, algorithm, rng):
    inputs, _ = draw(rng, mode, width=9)
    if algorithm == "fused":
        with pytest.raises(ValueError, match="of one width. Received: 6 and 9"):
            sums(mode, algorithm)(*inputs)
    else:
        y = numpy(sums(mode, algorithm, 8)(*inputs))
        assert_close(y, reference(mode, *inputs), 1e-6)


@pytest.mark.parametrize(
    "queries, keys, expected",
    [(12544, 3136, 256), (784, 196, 784), (7, 10**9, 7), (1009, 10**5, 127)],
)
def test_chunks(queries, keys, expected):
    assert algorithms.default_chunk(queries, keys) == expected


@pytest.mark.parametrize(
    "algorithm, chunk_size, message",
    [
        ("sorted", None, r"'chunked', 'fused'\) with mode='gaussian'"),
        ("chunked", 0, "positive integer or None. Received: 0"),
        ("chunked", 2.0, "positive integer or None. Received: 2.0"),
        ("chunked", True, "positive integer or None. Received: True"),
        ("chunked", "8", "positive integer or None. Received: '8'"),
        ("plain", 8, "Received: algorithm='plain', chunk_size=8"),
    ],
)
def test_refuses(algorithm, chunk_size, message):
    with pytest.raises(ValueError, match=message):
        algorithms.check_algorithm("gaussian", algorithm, chunk_size)


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only JAX has symbolic sizes"
)
@pytest.mark.parametrize("mode", pairwise.MODES)
def test_exports_with_a_symbolic_batch(mode, rng):
    import jax

    inputs, _ = draw(rng, mode, 300, 400)
    (batch,) = jax.export.symbolic_shape("b")
    shapes = [
        jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in inputs[:3]
    ]
    shapes += [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs[3:]]
    exported = jax.export.export(jax.jit(sums(mode, "auto")))(*shapes)
    y = numpy(exported.call(*inputs))
    assert_close(y, reference(mode, *inputs), 1e-5)
