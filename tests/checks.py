"""Checks that every layer has to pass, and small helpers for tests."""

import functools
import inspect
import os

import keras
import numpy as np


def numpy(x):
    """A numpy array of any backend's tensor."""
    # By way of a tensor: numpy warns about how variables convert themselves.
    return keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(x))


def outputs(model, inputs):
    """What a model gives, numpy arrays.

    JAX gets the network as one: to compile each operation by itself, as it
    does of a plain call, takes five times as long.
    """
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(functools.partial(model.stateless_call, training=False))
        weights = (
            [weight.value for weight in some]
            for some in (
                model.trainable_variables,
                model.non_trainable_variables,
            )
        )
        result, _ = run(*weights, inputs)
    else:
        result = model(inputs)
    return keras.tree.map_structure(numpy, result)


def randomize(layer, seed=0, scale=0.5):
    """Gives every weight random values, positive ones to variances."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        value = rng.normal(scale=scale, size=weight.shape)
        if "variance" in weight.path or "gamma" in weight.path:
            value = np.exp(value)
        weight.assign(value)


def run_layer_test(
    cls,
    init_kwargs,
    inputs,
    expected_output_shape,
    expected_num_weights,
    expected_num_trainable_weights,
    tmp_path,
):
    """The routine promises of a Keras layer, with random weights.

    Every argument is in the config; the config rebuilds the layer; shapes,
    dtypes and the number of weights are right; a functional model of it with
    unknown sizes gives what an eager call gives; `.keras` and `.weights.h5`
    files bring the same outputs back; half precision runs and stays close.
    """
    layer = cls(**init_kwargs)
    _check_config(cls, layer)
    output = layer(inputs)
    randomize(layer)
    output = numpy(layer(inputs))
    assert output.shape == expected_output_shape
    assert layer.compute_output_shape(inputs.shape) == expected_output_shape
    assert len(layer.weights) == expected_num_weights
    assert len(layer.trainable_weights) == expected_num_trainable_weights
    model = _check_functional(layer, inputs, output)
    _check_files(model, inputs, output, tmp_path)
    for policy in ("mixed_float16", "mixed_bfloat16"):
        _check_policy(cls, init_kwargs, layer, policy, inputs, output)


def _check_config(cls, layer):
    config = layer.get_config()
    arguments = set(inspect.signature(cls.__init__).parameters)
    missing = arguments - {"self", "kwargs"} - set(config)
    assert not missing, f"get_config lacks {missing}"
    assert cls.from_config(config).get_config() == config


def _check_functional(layer, inputs, output):
    # Channels are the last axis, or the second.
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    channels = len(inputs.shape) - 2 if last else 0
    sizes = [
        size if axis == channels else None
        for axis, size in enumerate(inputs.shape[1:])
    ]
    entry = keras.Input(sizes, dtype=str(inputs.dtype))
    model = keras.Model(entry, layer(entry))
    np.testing.assert_allclose(
        model.predict(inputs, verbose=0), output, rtol=1e-5, atol=1e-5
    )
    return model


def _check_files(model, inputs, output, tmp_path):
    path = os.fspath(tmp_path / "model.keras")
    model.save(path)
    reloaded = keras.models.load_model(path)
    np.testing.assert_array_equal(numpy(reloaded(inputs)), numpy(model(inputs)))
    path = os.fspath(tmp_path / "model.weights.h5")
    model.save_weights(path)
    fresh = keras.models.clone_model(model)
    randomize(fresh, seed=1)
    fresh.load_weights(path)
    np.testing.assert_array_equal(numpy(fresh(inputs)), numpy(model(inputs)))


def _check_policy(cls, init_kwargs, layer, policy, inputs, output):
    half = cls(**{**init_kwargs, "dtype": policy})
    half.build(inputs.shape)
    assert all(weight.dtype == "float32" for weight in half.weights)
    for weight, value in zip(half.weights, layer.weights, strict=True):
        weight.assign(value)
    result = half(inputs)
    dtype = keras.backend.standardize_dtype(result.dtype)
    assert dtype == policy.removeprefix("mixed_")
    result = numpy(keras.ops.cast(result, "float32"))
    tolerance = 2e-2 if policy == "mixed_float16" else 1e-1
    assert np.max(np.abs(result - output)) < tolerance * np.max(np.abs(output))
