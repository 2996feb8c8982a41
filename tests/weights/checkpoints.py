"""Small checkpoints of other code bases, made from our own networks."""

import re

import numpy as np

from keras_nonlocal.weights import load
from tests import checks

_NORM = {
    "caffe2": ("s", "b", "rm", "riv"),
    "torch": ("weight", "bias", "running_mean", "running_var"),
}
_OURS = ("gamma", "beta", "moving_mean", "moving_variance")


def tensors_of(model, name_of):
    """`{source name: array in the source's layout}` of a model."""
    return {
        name_of(path): source_layout(path, checks.numpy(variable))
        for path, variable in load.variables(model).items()
    }


def source_layout(path, array):
    """Ours to (O, I, T, H, W); the classifier stays a matrix."""
    if array.ndim == 1:
        return array
    array = np.moveaxis(array, (-1, -2), (0, 1))
    if "nonlocal" in path:
        array = array[..., None, None, None]
    return np.ascontiguousarray(array)


def caffe2_name(path):
    layer, *parts, leaf = path.split("/")
    norm = dict(zip(_OURS, _NORM["caffe2"], strict=True))
    plain = {"kernel": "w", "bias": "b"}
    if layer == "logits":
        return f"pred_{plain[leaf]}"
    if layer == "conv1_bn":
        return f"res_conv1_bn_{norm[leaf]}"
    if layer.startswith("nonlocal_res"):
        block = layer.replace("nonlocal_res", "nonlocal_conv")
        if parts == ["norm"]:
            return f"{block}_bn_{norm[leaf]}"
        return f"{block}_{parts[0]}_{plain[leaf]}"
    return f"{layer}_{norm.get(leaf) or plain[leaf]}"


def pytorchvideo_name(path):
    layer, leaf = path.split("/")
    norm = dict(zip(_OURS, _NORM["torch"], strict=True))
    leaf = norm.get(leaf) or {"kernel": "weight", "bias": "bias"}[leaf]
    if layer == "logits":
        return f"blocks.6.proj.{leaf}"
    kind = "norm" if layer.endswith("_bn") else "conv"
    if layer.startswith("conv1"):
        return f"blocks.0.{kind}.{leaf}"
    stage, block, branch = re.match(
        r"res(\d)_(\d+)_branch(\w\w?)", layer
    ).groups()
    branch = branch.removesuffix("_")
    place = f"blocks.{1 if stage == '2' else stage}.res_blocks.{block}"
    if branch == "1":
        return f"{place}.branch1_{kind}.{leaf}"
    return f"{place}.branch2.{kind}_{branch[1]}.{leaf}"
