"""The block against golden outputs and gradients of other code bases."""

import keras
import numpy as np
import pytest

from keras_nonlocal import NonLocal
from tests import checks
from tests import parity
from tests.layers.test_non_local import expected

FILES = {
    "block_slowfast_nonlocal": 14,
    "block_mmcv_nonlocal1d": 25,
    "block_mmcv_nonlocal2d": 25,
    "block_mmcv_nonlocal3d": 25,
}
CASES = [(file, case) for file, count in FILES.items() for case in range(count)]
SLOWFAST_MODES = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}


def slowfast_arguments(args):
    return {
        "mode": SLOWFAST_MODES[args["instantiation"]],
        "inter_channels": args["dim_inner"],
        "sub_sample": "input" if args["pool_size"] else None,
        "pool_size": args["pool_size"],
        "attention_axes": args.get("axes", "spacetime"),
    }


def mmcv_arguments(args):
    has_norm = "norm_cfg" in args
    return {
        "mode": args["mode"],
        "inter_channels": args["in_channels"] // args["reduction"],
        "sub_sample": "projection" if args.get("sub_sample") else None,
        # mmcv's own default.
        "use_scale": args.get("use_scale", True),
        "norm": "batch" if has_norm else None,
        "out_bias": not has_norm,
    }


def variable(layer, name):
    """Our variable for a parameter of a source block."""
    name = name.removeprefix("block.").replace("conv_theta", "theta")
    name = name.replace("conv_phi", "phi").replace("conv_g", "g")
    if name.startswith("concat_project"):
        return layer.w_f
    *owners, leaf = name.split(".")
    if owners[-1] == "bn":
        holder = layer.out_norm
        attribute = {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }[leaf]
    else:
        holder = getattr(layer, owners[0].replace("conv_out", "out"))
        attribute = {"weight": "kernel", "bias": "bias"}[leaf]
    return getattr(holder, attribute)


def in_our_layout(variable, value, shape):
    value = np.reshape(np.asarray(value, "float64"), shape)
    if variable.name == "w_f":
        return value.reshape(-1, 1)
    return parity.channels_last(value, len(variable.shape))


def load(data, case):
    args = case["args"]
    make = slowfast_arguments if "instantiation" in args else mmcv_arguments
    shape = case["input"]["shape"]
    x = np.reshape(data["inputs"][case["input"]["values_at"]], shape)
    x = np.moveaxis(x, 1, -1).astype("float32")
    layer = NonLocal(**make(args))
    layer.build(x.shape)
    filled = set()
    for name, shape in case["params"]:
        if not name.endswith("num_batches_tracked"):
            target = variable(layer, name)
            target.assign(in_our_layout(target, case["values"][name], shape))
            filled.add(target.path)
    assert filled == {weight.path for weight in layer.weights}
    return layer, x


def gradients(layer, x, cotangent):
    """Of `sum(output * cotangent)`, for the input and for each weight."""
    backend = keras.backend.backend()
    weights = layer.trainable_weights
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            x = tf.Variable(x)
            loss = tf.reduce_sum(layer(x) * cotangent)
        values = [weight.value for weight in weights]
        of_x, of_weights = tape.gradient(
            loss, [x, values], unconnected_gradients="zero"
        )
    elif backend == "jax":
        import jax

        def loss_of(x, values):
            y, _ = layer.stateless_call(
                values, [v.value for v in layer.non_trainable_variables], x
            )
            return (y * cotangent).sum()

        of_x, of_weights = jax.grad(loss_of, (0, 1))(
            x, [weight.value for weight in weights]
        )
    else:
        import torch

        x = torch.tensor(x, requires_grad=True)
        (layer(x) * torch.tensor(cotangent)).sum().backward()
        of_x = x.grad
        of_weights = [
            torch.zeros_like(weight.value)
            if weight.value.grad is None
            else weight.value.grad
            for weight in weights
        ]
    by_path = {
        weight.path: checks.numpy(gradient)
        for weight, gradient in zip(weights, of_weights, strict=True)
    }
    return checks.numpy(of_x), by_path


def error(actual, expected):
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


@pytest.fixture(scope="module")
def blocks(shared):
    module = parity.weights_module(shared / "parity")
    return {
        name: module.load(shared / "parity" / f"{name}.json.gz")
        for name in FILES
    }


def test_all_cases_are_listed(blocks):
    counts = {name: len(data["cases"]) for name, data in blocks.items()}
    assert counts == FILES


@pytest.mark.parametrize(("file", "index"), CASES)
def test_outputs_and_gradients(shared, blocks, file, index):
    case = blocks[file]["cases"][index]
    layer, x = load(blocks[file], case)
    shape = case["input"]["shape"]
    golden = np.moveaxis(np.reshape(case["output"], shape), 1, -1)
    assert error(checks.numpy(layer(x)), golden) < 1e-5
    if case["grad"] is None:
        # mmcv's concatenation cannot be differentiated; see the test below.
        assert layer.mode == "concatenation"
        return
    module = parity.weights_module(shared / "parity")
    cotangent = module.draw(case["grad"]["cotangent_seed"], shape)
    cotangent = np.ascontiguousarray(np.moveaxis(cotangent, 1, -1))
    of_x, of_weights = gradients(layer, x, cotangent)
    golden = np.reshape(case["grad"]["input"], shape)
    assert error(of_x, np.moveaxis(golden, 1, -1)) < 1e-5
    shapes = dict(case["params"])
    largest = max(np.max(np.abs(g)) for g in case["grad"]["params"].values())
    for name, values in case["grad"]["params"].items():
        target = variable(layer, name)
        golden = in_our_layout(target, values, shapes[name])
        # Some are exactly 0 (the bias of phi under a softmax).
        difference = np.max(np.abs(of_weights[target.path] - golden))
        assert difference < 1e-5 * largest, name


def test_gradient_of_concatenation_by_finite_differences(rng):
    x = rng.normal(size=(1, 2, 3, 4, 6)).astype("float32")
    layer = NonLocal("concatenation", norm=None)
    layer.build(x.shape)
    checks.randomize(layer)
    cotangent = rng.normal(size=x.shape).astype("float32")
    of_x, of_weights = gradients(layer, x, cotangent)

    def loss(x):
        z = expected(layer, x, pool=(1, 2, 2))
        return float(np.sum(z * cotangent))

    for seed in range(3):
        step = np.random.default_rng(seed).normal(size=x.shape) * 1e-6
        numeric = (loss(x + step) - loss(x - step)) / 2
        assert abs(np.sum(of_x * step) / numeric - 1) < 1e-4
    assert np.max(np.abs(of_weights[layer.w_f.path])) > 1e-3
