import keras
import numpy as np
import pytest

from keras_nonlocal import NonLocal
from keras_nonlocal.ops.algorithms import ALGORITHMS
from tests import checks
from tests import reference

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
IN_MODE = [(mode, name) for mode in MODES for name in ALGORITHMS[mode]]
NUM_WEIGHTS = dict(zip(MODES, (8, 12, 12, 13), strict=True))
SHAPES = {5: (2, 4, 5, 7, 6), 4: (2, 5, 7, 6), 3: (2, 9, 6)}


def random_clip(rng, shape=SHAPES[5]):
    return rng.normal(size=shape).astype("float32")


def parameters(layer):
    """The layer's weights under the names of the reference."""
    params = {}
    for name in ("theta", "phi", "g", "out"):
        dense = getattr(layer, name, None)
        if dense is not None:
            params[f"{name}_kernel"] = checks.numpy(dense.kernel)
            params[f"{name}_bias"] = (
                np.zeros(dense.units)
                if dense.bias is None
                else checks.numpy(dense.bias)
            )
    if layer.mode == "concatenation":
        params["w_f"] = checks.numpy(layer.w_f)[:, 0]
    if layer.norm is not None:
        params["gamma"] = checks.numpy(layer.out_norm.gamma)
        params["beta"] = checks.numpy(layer.out_norm.beta)
    if layer.norm == "batch":
        params["mean"] = checks.numpy(layer.out_norm.moving_mean)
        params["variance"] = checks.numpy(layer.out_norm.moving_variance)
    return params


def expected(layer, x, pool):
    """The reference's answer; a clip of rank 5 and its pooling window."""
    return reference.non_local(
        x,
        parameters(layer),
        layer.mode,
        layer.attention_axes,
        layer.sub_sample,
        pool,
        layer.use_scale,
        layer.temporal_group,
    )


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_basics(mode, rank, rng, tmp_path):
    x = random_clip(rng, SHAPES[rank])
    checks.run_layer_test(
        NonLocal,
        init_kwargs={"mode": mode},
        inputs=x,
        expected_output_shape=x.shape,
        expected_num_weights=NUM_WEIGHTS[mode],
        expected_num_trainable_weights=NUM_WEIGHTS[mode] - 2,
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm": "affine"},
        {"norm": None, "out_bias": False},
        {"attention_axes": "time", "data_format": "channels_first"},
        {"temporal_group": 2, "sub_sample": "projection"},
        {
            "inter_channels": 5,
            "kernel_initializer": "he_normal",
            "pool_size": (2, 3, 1),
            "use_scale": False,
        },
        {"algorithm": "chunked", "chunk_size": 16},
    ],
)
def test_arguments_survive_config_and_files(arguments, rng, tmp_path):
    shape = (2, 6, 4, 5, 7) if "data_format" in arguments else (2, 4, 5, 7, 6)
    norm = arguments.get("norm", "batch")
    bias = arguments.get("out_bias", True)
    weights = 7 + bias + {"batch": 4, "affine": 2, None: 0}[norm]
    checks.run_layer_test(
        NonLocal,
        init_kwargs=arguments,
        inputs=random_clip(rng, shape),
        expected_output_shape=shape,
        expected_num_weights=weights,
        expected_num_trainable_weights=weights
        - {"batch": 2, "affine": 2, None: 0}[norm],
        tmp_path=tmp_path,
    )


@pytest.mark.parametrize("sub_sample", ["input", "projection", None])
@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_the_equations(mode, axes, sub_sample, rng):
    x = random_clip(rng)
    layer = NonLocal(mode=mode, attention_axes=axes, sub_sample=sub_sample)
    layer.build(x.shape)
    checks.randomize(layer)
    z = expected(layer, x, pool=(1, 2, 2))
    np.testing.assert_allclose(checks.numpy(layer(x)), z, rtol=1e-4, atol=1e-4)
    assert np.max(np.abs(z - x)) > 0.1


@pytest.mark.parametrize("arguments", [{}, {"temporal_group": 2}])
@pytest.mark.parametrize(("mode", "algorithm"), IN_MODE)
def test_algorithms_agree(mode, algorithm, arguments, rng):
    # One width for all, as a fused kernel needs.
    arguments = {"mode": mode, "inter_channels": 6, **arguments}
    layer = NonLocal(algorithm=algorithm, **arguments)
    x = random_clip(rng)
    layer.build(x.shape)
    checks.randomize(layer)
    z = expected(layer, x, pool=(1, 2, 2))
    np.testing.assert_allclose(checks.numpy(layer(x)), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rank", "arguments", "lift", "pool"),
    [
        (5, {"temporal_group": 2}, (0, 1, 2, 3), (1, 2, 2)),
        (5, {"use_scale": False}, (0, 1, 2, 3), (1, 2, 2)),
        (5, {"pool_size": (2, 1, 3)}, (0, 1, 2, 3), (2, 1, 3)),
        (5, {"norm": "affine"}, (0, 1, 2, 3), (1, 2, 2)),
        (5, {"norm": None, "out_bias": False}, (0, 1, 2, 3), (1, 2, 2)),
        (4, {}, (0, 2, 3), (1, 2, 2)),
        (4, {"attention_axes": "space"}, (0, 2, 3), (1, 2, 2)),
        (3, {}, (0, 1), (2, 1, 1)),
        (3, {"attention_axes": "time"}, (0, 1), (2, 1, 1)),
    ],
)
def test_arguments_and_ranks(rank, arguments, lift, pool, rng):
    x = random_clip(rng, SHAPES[rank])
    layer = NonLocal(**arguments)
    layer.build(x.shape)
    checks.randomize(layer)
    missing = tuple(axis for axis in range(4) if axis not in lift)
    z = expected(layer, np.expand_dims(x, missing), pool)
    np.testing.assert_allclose(
        checks.numpy(layer(x)), z.reshape(x.shape), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("norm", ["batch", "affine", None])
@pytest.mark.parametrize("mode", MODES)
def test_fresh_block_is_the_identity(mode, norm, rng):
    x = random_clip(rng) * 100
    layer = NonLocal(mode=mode, norm=norm)
    np.testing.assert_array_equal(checks.numpy(layer(x)), x)
    np.testing.assert_array_equal(checks.numpy(layer(x, training=True)), x)


def test_projections_do_not_start_equal(rng):
    layer = NonLocal()
    layer.build(SHAPES[5])
    theta, phi = checks.numpy(layer.theta.kernel), layer.phi.kernel
    assert np.max(np.abs(theta - checks.numpy(phi))) > 1e-3
    assert 0.005 < np.std(theta) < 0.02


def test_channels_first_is_a_transposition(rng):
    x = random_clip(rng)
    last = NonLocal()
    last.build(x.shape)
    checks.randomize(last)
    first = NonLocal(data_format="channels_first")
    moved = np.moveaxis(x, -1, 1)
    first.build(moved.shape)
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(
        np.moveaxis(checks.numpy(first(moved)), 1, -1),
        checks.numpy(last(x)),
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("rank", "arguments"),
    [
        (5, {}),
        (5, {"attention_axes": "space"}),
        (5, {"attention_axes": "time"}),
        (5, {"temporal_group": 2, "sub_sample": "projection"}),
        (4, {}),
        (3, {}),
    ],
)
def test_attention_is_what_the_block_sums_with(mode, rank, arguments, rng):
    """Weights of all queries times g, then W_z, give the block's output."""
    x = random_clip(rng, SHAPES[rank])
    layer = NonLocal(mode=mode, norm=None, **arguments)
    layer.build(x.shape)
    checks.randomize(layer)
    sizes = x.shape[1:-1]
    query = np.stack(
        [axis.ravel() for axis in np.indices(sizes)], axis=1
    ).astype("int32")
    weights = checks.numpy(layer.attention(x, query))
    keys = np.prod(weights.shape[2:], dtype=int)
    weights = weights.reshape(2, len(query), keys)
    clip = np.expand_dims(x, {5: (), 4: (1,), 3: (2, 3)}[rank])
    _, g = layer._keys(clip, rank)
    y = weights @ checks.numpy(g).reshape(2, keys, -1)
    out = parameters(layer)
    z = y @ out["out_kernel"] + out["out_bias"]
    np.testing.assert_allclose(
        x + z.reshape(x.shape), checks.numpy(layer(x)), rtol=1e-4, atol=1e-4
    )
    if "gaussian" in mode:
        np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)


def test_half_precision_sums_in_float32(rng):
    """Affinities past the range of float16 neither overflow nor vanish."""
    x = np.full((1, 2, 8, 8, 4), 200.0, "float16")
    layer = NonLocal("gaussian", norm=None, dtype="mixed_float16")
    layer.build(x.shape)
    checks.randomize(layer, scale=0.05)
    result = checks.numpy(layer(x)).astype("float32")
    assert np.all(np.isfinite(result))
    weights = checks.numpy(layer.attention(x, [[0, 0, 0]]))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, 1 / 32, rtol=1e-5)


@pytest.mark.parametrize(
    ("mode", "algorithm"),
    [case for case in IN_MODE if case[1] != "fused"],  # Not ours.
)
def test_half_precision_multiplies_in_float32(
    mode, algorithm, rng, monkeypatch
):
    """Affinities and sums; the projections are of rank 2."""
    layer = NonLocal(mode, algorithm=algorithm, dtype="mixed_bfloat16")
    layer.build(SHAPES[5])
    dtypes = []
    matmul = keras.ops.matmul

    def recorded(a, b):
        if len(a.shape) > 2:
            dtypes.extend(
                keras.backend.standardize_dtype(x.dtype) for x in (a, b)
            )
        return matmul(a, b)

    monkeypatch.setattr(keras.ops, "matmul", recorded)
    layer(random_clip(rng))
    assert len(dtypes) >= 4 and set(dtypes) == {"float32"}


def test_count_macs_by_hand():
    # N = 4 * 6 * 8 = 192 queries, M = 4 * 3 * 4 = 48 keys, C = 6, d = 3.
    block = NonLocal()
    expected = 18 * (2 * 192 + 2 * 48) + 2 * 192 * 48 * 3
    assert block.count_macs((None, 4, 6, 8, 6)) == expected
    assert block.count_macs((2, 4, 6, 8, 6)) == 2 * expected
    space = NonLocal(attention_axes="space")
    assert space.count_macs((1, 4, 6, 8, 6)) == 18 * 480 + 2 * 192 * 12 * 3
    time = NonLocal(attention_axes="time")
    assert time.count_macs((1, 4, 6, 8, 6)) == 18 * 768 + 2 * 192 * 4 * 3
    gaussian = NonLocal("gaussian")
    assert gaussian.count_macs((1, 4, 6, 8, 6)) == 18 * 240 + 192 * 48 * 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "softmax"}, "mode"),
        ({"attention_axes": "channels"}, "attention_axes"),
        ({"sub_sample": True}, "sub_sample"),
        ({"norm": "layer"}, "norm"),
        ({"inter_channels": 0}, "inter_channels"),
        ({"temporal_group": 2, "attention_axes": "space"}, "temporal_group"),
        ({"data_format": "NHWC"}, "data_format"),
        ({"pool_size": (0, 2, 2)}, "pool_size"),
        ({"algorithm": "sorted"}, "mode='embedded_gaussian'"),
        ({"algorithm": "plain", "chunk_size": 4}, "chunk_size"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NonLocal(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, (1, 8), "rank 3"),
        ({}, (1, 4, 6, 6, None), "channels"),
        ({"attention_axes": "time"}, (1, 6, 6, 4), "no such axis"),
        ({"attention_axes": "space"}, (1, 6, 4), "no such axis"),
        ({"temporal_group": 4}, (1, 6, 6, 6, 4), "multiple"),
        ({"temporal_group": 4}, (1, 6, 6, 4), "for clips"),
        ({"pool_size": (2, 2)}, (1, 6, 6, 6, 4), "3 numbers"),
        (
            {"pool_size": (2, 2, 2), "temporal_group": 2},
            (1, 4, 6, 6, 4),
            "pools over frames",
        ),
        (
            {"pool_size": (2, 2, 2), "attention_axes": "space"},
            (1, 4, 6, 6, 4),
            "pools over frames",
        ),
    ],
)
def test_wrong_inputs(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        NonLocal(**arguments).build(shape)


def test_too_small_to_sub_sample():
    with pytest.raises(ValueError, match="does not fit"):
        NonLocal()(np.ones((1, 4, 1, 1, 4), "float32"))


@pytest.mark.parametrize(
    "query",
    [[[0, 5, 0]], [[-1, 0, 0]], [[4, 0, 0]], [[0.0, 1.0, 1.0]], [0, 0, 0]],
)
def test_queries_must_be_positions(query, rng):
    with pytest.raises(ValueError, match="query"):
        NonLocal().attention(random_clip(rng), query)


def test_attention_of_channels_first_and_pooled_frames(rng):
    x = random_clip(rng)
    arguments = {"pool_size": (2, 2, 3), "norm": None}
    last = NonLocal(**arguments)
    last.build(x.shape)
    checks.randomize(last)
    first = NonLocal(**arguments, data_format="channels_first")
    moved = np.moveaxis(x, -1, 1)
    first.build(moved.shape)
    first.set_weights(last.get_weights())
    query = [[3, 4, 6], [0, 1, 2]]
    weights = checks.numpy(last.attention(x, query))
    assert weights.shape == (2, 2, 2, 2, 2)
    np.testing.assert_allclose(
        checks.numpy(first.attention(moved, query)), weights, atol=1e-6
    )
    np.testing.assert_allclose(weights.sum((2, 3, 4)), 1, rtol=1e-5)
    assert first.count_macs(moved.shape) == last.count_macs(x.shape)


def test_a_function_initializes(rng):
    layer = NonLocal(
        kernel_initializer=lambda shape, dtype=None: keras.ops.full(
            shape, 0.25, dtype
        )
    )
    layer.build(SHAPES[5])
    assert np.all(checks.numpy(layer.theta.kernel) == 0.25)


def test_groups_that_do_not_divide_unknown_lengths_fail(rng):
    entry = keras.Input((None, 4, 4, 6))
    model = keras.Model(entry, NonLocal(temporal_group=4)(entry))
    assert model.predict(random_clip(rng, (2, 8, 4, 4, 6)), verbose=0).any()
    # Twice 6 frames would fill three groups, mixing the two clips.
    with pytest.raises(Exception, match=r"(?i)reshape|shape"):
        model.predict(random_clip(rng, (2, 6, 4, 4, 6)), verbose=0)
