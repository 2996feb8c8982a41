"""Golden outputs of other implementations, and their weights under our names.

The fixtures are in the folder `parity` of the shared material; its README
says how they were made.
"""

import functools
import importlib.util
import re
import sys

import numpy as np

# Leaves of a source name, and the attribute of our layer that holds them.
_LEAVES = {
    "s": "gamma",
    "b": "beta",
    "rm": "moving_mean",
    "riv": "moving_variance",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_CAFFE2 = (
    (r"conv1_w", "conv1 kernel"),
    (r"res_conv1_bn_(\w+)", r"conv1_bn \1"),
    (r"(res\d_\d+_branch\w+)_bn_(\w+)", r"\1_bn \2"),
    (r"(res\d_\d+_branch\w+)_w", r"\1 kernel"),
    (r"nonlocal_conv(\d_\d+)_bn_(\w+)", r"nonlocal_res\1.out_norm \2"),
    (r"nonlocal_conv(\d_\d+)_(\w+)_w", r"nonlocal_res\1.\2 kernel"),
    (r"nonlocal_conv(\d_\d+)_(\w+)_b", r"nonlocal_res\1.\2 bias"),
    (r"pred_w", "logits kernel"),
    (r"pred_b", "logits bias"),
)
_SLOWFAST = (
    (r"s1\.pathway0_stem\.conv\.weight", "conv1 kernel"),
    (r"s1\.pathway0_stem\.bn\.(\w+)", r"conv1_bn \1"),
    (
        r"s(\d)\.pathway0_res(\d+)\.branch1\.weight",
        r"res\1_\2_branch1 kernel",
    ),
    (r"s(\d)\.pathway0_res(\d+)\.branch1_bn\.(\w+)", r"res\1_\2_branch1_bn \3"),
    (
        r"s(\d)\.pathway0_res(\d+)\.branch2\.(\w)\.weight",
        r"res\1_\2_branch2\3 kernel",
    ),
    (
        r"s(\d)\.pathway0_res(\d+)\.branch2\.(\w)_bn\.(\w+)",
        r"res\1_\2_branch2\3_bn \4",
    ),
    (
        r"s(\d)\.pathway0_nonlocal(\d+)\.bn\.(\w+)",
        r"nonlocal_res\1_\2.out_norm \3",
    ),
    (
        r"s(\d)\.pathway0_nonlocal(\d+)\.conv_(\w+)\.(\w+)",
        r"nonlocal_res\1_\2.\3 \4",
    ),
    (r"head\.projection\.(\w+)", r"logits \1"),
)


def _mmaction2_block(match):
    stage, block, layer = int(match[1]) + 1, match[2], match[3]
    part = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "downsample": "1"}
    norm = "_bn" if match[4] == "bn" else ""
    return f"res{stage}_{block}_branch{part[layer]}{norm} {match[5]}"


def _mmaction2_nonlocal(match):
    stage, block, layer = int(match[1]) + 1, match[2], match[3]
    return f"nonlocal_res{stage}_{block}.{layer} {match[4]}"


_MMACTION2 = (
    (r"backbone\.conv1\.conv\.weight", "conv1 kernel"),
    (r"backbone\.conv1\.bn\.(\w+)", r"conv1_bn \1"),
    (
        r"backbone\.layer(\d)\.(\d+)\.(conv\d|downsample)\.(conv|bn)\.(\w+)",
        _mmaction2_block,
    ),
    (
        r"backbone\.layer(\d)\.(\d+)\.non_local_block\.(theta|phi|g|conv_out)"
        r"(?:\.0)?\.conv\.(\w+)",
        _mmaction2_nonlocal,
    ),
    (
        r"backbone\.layer(\d)\.(\d+)\.non_local_block\.conv_out\.(bn)\.(\w+)",
        _mmaction2_nonlocal,
    ),
    (r"cls_head\.fc_cls\.(\w+)", r"logits \1"),
)
_FAMILIES = {
    "video-nonlocal-net": _CAFFE2,
    "slowfast": _SLOWFAST,
    "mmaction2": _MMACTION2,
}


@functools.cache
def weights_module(folder):
    """The module that regenerates a fixture's weights from their names."""
    spec = importlib.util.spec_from_file_location(
        "parity_weights", folder / "weights.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def fixture(shared, name):
    """A fixture with its parameters and input regenerated."""
    module = weights_module(shared / "parity")
    data = module.load(shared / "parity" / f"{name}.json.gz")
    data["values"] = module.make_params(data)
    for name, expected in data["check"].items():
        np.testing.assert_allclose(
            data["values"][name].ravel()[:2], expected, rtol=1e-6
        )
    # (N, C, T, H, W) to (N, T, H, W, C).
    data["clip"] = np.moveaxis(module.make_input(data), 1, -1)
    return data


def load_into(model, data):
    """Fills a network; every tensor is used and every variable filled."""
    targets = {}
    for layer in model.layers:
        for variable in layer.weights:
            targets[variable.path] = variable
    for name, value in data["values"].items():
        if name.endswith("num_batches_tracked"):
            continue
        owner, leaf = _target(name, data["family"])
        layer, _, attribute = owner.partition(".")
        layer = model.get_layer(layer)
        attribute = {"conv_out": "out", "bn": "out_norm"}.get(
            attribute, attribute
        )
        holder = getattr(layer, attribute) if attribute else layer
        variable = getattr(holder, _leaf(leaf, holder))
        variable.assign(channels_last(value, len(variable.shape)))
        targets.pop(variable.path)
    assert not targets, sorted(targets)


def _target(name, family):
    for pattern, replacement in _FAMILIES[family]:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if callable(replacement):
            return replacement(match).split(" ")
        return match.expand(replacement).split(" ")
    raise KeyError(f"no rule for {name}")


def _leaf(leaf, holder):
    if leaf in ("weight", "bias"):
        is_norm = hasattr(holder, "gamma")
        norm, plain = {
            "weight": ("gamma", "kernel"),
            "bias": ("beta", "bias"),
        }[leaf]
        return norm if is_norm else plain
    return _LEAVES.get(leaf, leaf)


def channels_last(kernel, rank):
    """(O, I, ...) to (..., I, O), without the ones that a Dense has not."""
    if kernel.ndim == 1:
        return kernel
    kernel = np.moveaxis(kernel, (0, 1), (-1, -2))
    return kernel.reshape(kernel.shape[kernel.ndim - rank :])


def distance(actual, expected):
    """max |difference| in units of the reference's standard deviation."""
    expected = np.asarray(expected, "float64")
    return np.max(np.abs(np.asarray(actual) - expected)) / np.std(expected)
