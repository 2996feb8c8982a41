"""Weights that are made from the names of a torchvision Mask R-CNN's tensors.

Both sides of a comparison make them anew, so that no file has to hold them.
"""

import zlib

import numpy as np

# Residual branches do not grow with depth, logits are not all 0 or 1, and
# boxes stay near to where they were.
_FACTORS = {
    "conv3": 0.3,
    "inner_blocks": 0.2,
    "bbox_pred": 0.1,
    "cls": 0.7,
}


def make_tensor(name, shape):
    """A float32 tensor in torchvision's layout; positive where it must be."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape).astype("float32")
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return np.exp(0.2 * values)
    if leaf in ("bias", "running_mean"):
        return 0.1 * values
    if len(shape) == 1:
        return 1.0 + 0.1 * values
    values *= np.sqrt(2.0 / np.prod(shape[1:]))
    factors = (f for part, f in _FACTORS.items() if part in name)
    return values * np.float32(next(factors, 1.0))
