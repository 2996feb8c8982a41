"""Golden outputs of other implementations, in their own file formats.

The fixtures are in the folder `parity` of the shared material; its README
says how they were made.
"""

import functools
import importlib.util
import sys

import numpy as np

from keras_nonlocal import ImageVariant
from keras_nonlocal import Variant

# File formats by the fixtures' family: suffix and wrapper.
_FORMATS = {
    "video-nonlocal-net": ("pkl", None),
    "slowfast": ("pyth", "slowfast"),
    "mmaction2": ("pth", "mmaction2"),
    "gluoncv-torch": ("pth", "plain"),
    "torchvision": ("pth", "plain"),
}
# What a family's networks have in common, as a user would write it down.
_HEADS = {"mmaction2": "feature", "gluoncv-torch": "feature"}
_STEMS = {(1, 1, 1): "stride1", (2, 2, 2): "stride4", (2, 1, 2): "stride4_skip"}


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
    # Channels first to last.
    data["inputs"] = np.moveaxis(module.make_input(data), 1, -1)
    return data


def write(shared, data, folder):
    """Writes the weights as their code base does; gives the path."""
    module = weights_module(shared / "parity")
    suffix, wrapper = _FORMATS[data["family"]]
    path = str(folder / f"checkpoint.{suffix}")
    if wrapper is None:
        module.write_caffe2_pkl(
            path, data["values"], model_iter=400_000, momentum=True
        )
    else:
        module.write_pth(path, data["values"], wrapper)
    return path


def variant(data):
    """The network of a fixture, from its description."""
    arch, family = data["arch"], data["family"]
    if family == "torchvision":
        groups = 32 if "resnext" in data["variant"] else 1
        depth = int(data["variant"].split("_")[0][-3:].lstrip("t"))
        return ImageVariant(depth, groups, 8 if groups > 1 else 64)
    pool1 = arch["pool1"]
    stem = arch["stem_conv"]["stride"][0], pool1["kernel"][0]
    places = tuple(
        (stage, block)
        for stage, blocks in arch["nonlocal"].items()
        for block in blocks
    )
    sub_sample = "projection" if family == "mmaction2" else "input"
    group = arch.get("nl_group_frames", {}).get("res3")
    return Variant(
        depth=arch["depth"],
        inflation=None if arch["conv"] == "c2d" else arch["conv"][4:],
        inflated="all" if "heavy" in data["variant"] else "alternate",
        num_nonlocal=len(places),
        nonlocal_places=places,
        mode=arch.get("mode", "embedded_gaussian"),
        use_scale=arch.get("use_scale", True) is not False,
        sub_sample=sub_sample if arch.get("sub_sample") else None,
        nonlocal_norm="batch" if arch.get("nl_norm", True) else None,
        nonlocal_bias=family != "mmaction2",
        res3_group=group,
        attention_axes="space" if "space" in data["variant"] else "spacetime",
        stem=_STEMS[*stem, pool1["stride"][0]],
        pool1_padding=pool1["pad"][1],
        pool2=bool(arch.get("pool2")),
        norm="affine" if arch.get("affine") else "batch",
        head=_HEADS.get(family, "probability"),
    )


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
