"""The non-local block in plain numpy, one position at a time, in float64.

Written from the equations of the paper, not from the package: nothing is
folded, batched or re-associated.
"""

import itertools
import math

import numpy as np


def non_local(x, params, mode, axes, sub_sample, pool, use_scale, group=None):
    """z for a clip `(batch, T, H, W, C)`.

    Args:
        x: The clip.
        params: Arrays by name: `theta_kernel` (C, d), `theta_bias` (d,) and so
            on for phi, g and out; `w_f` (2d,); optionally `gamma`, `beta`,
            `mean`, `variance` of the norm.
        mode: Pairwise function.
        axes: "space", "time" or "spacetime".
        sub_sample: "input", "projection" or None.
        pool: (t, h, w) of the sub-sampling.
        use_scale: Whether the embedded Gaussian is scaled.
        group: Frames that see each other.

    Returns:
        Array of the shape of `x`, float64.
    """
    x = np.asarray(x, "float64")
    params = {k: np.asarray(v, "float64") for k, v in params.items()}
    if axes == "time":
        sub_sample = None
    return np.stack(
        [
            _one_clip(
                clip, params, mode, axes, sub_sample, pool, use_scale, group
            )
            for clip in x
        ]
    )


def _one_clip(x, params, mode, axes, sub_sample, pool, use_scale, group):
    keys = _max_pool(x, pool) if sub_sample == "input" else x
    g = _project(keys, params, "g")
    if mode == "gaussian":
        theta, phi = x, keys
    else:
        theta = _project(x, params, "theta")
        phi = _project(keys, params, "phi")
    if sub_sample == "projection":
        phi, g = _max_pool(phi, pool), _max_pool(g, pool)
    z = np.empty_like(x)
    for i in _positions(x):
        seen = [j for j in _positions(phi) if _sees(i, j, axes, group)]
        y = _respond(
            theta[i],
            [phi[j] for j in seen],
            [g[j] for j in seen],
            mode,
            use_scale,
            params,
        )
        z[i] = x[i] + _out(y, params)
    return z


def _respond(theta_i, phi, g, mode, use_scale, params):
    """y_i, equation 1."""
    if mode in ("gaussian", "embedded_gaussian"):
        scale = 1.0
        if mode == "embedded_gaussian" and use_scale:
            scale = 1.0 / math.sqrt(len(theta_i))
        logits = [scale * _dot(theta_i, phi_j) for phi_j in phi]
        largest = max(logits)
        f = [math.exp(logit - largest) for logit in logits]
        normaliser = sum(f)
    elif mode == "dot_product":
        f = [_dot(theta_i, phi_j) for phi_j in phi]
        normaliser = len(phi)
    else:
        f = [
            max(0.0, _dot(params["w_f"], np.concatenate([theta_i, phi_j])))
            for phi_j in phi
        ]
        normaliser = len(phi)
    y = np.zeros_like(g[0])
    for f_j, g_j in zip(f, g, strict=True):
        y += f_j / normaliser * g_j
    return y


def _out(y, params):
    """W_z y and its norm."""
    u = y @ params["out_kernel"] + params["out_bias"]
    if "mean" in params:
        u = (u - params["mean"]) / np.sqrt(params["variance"] + 1e-5)
    if "gamma" in params:
        u = u * params["gamma"] + params["beta"]
    return u


def _dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def _project(x, params, name):
    result = np.empty((*x.shape[:3], params[f"{name}_bias"].size))
    for i in _positions(x):
        result[i] = x[i] @ params[f"{name}_kernel"] + params[f"{name}_bias"]
    return result


def _positions(x):
    return list(itertools.product(*(range(n) for n in x.shape[:3])))


def _sees(i, j, axes, group):
    if axes == "space":
        return i[0] == j[0]
    if axes == "time":
        return i[1:] == j[1:]
    return group is None or i[0] // group == j[0] // group


def _max_pool(x, pool):
    sizes = [n // p for n, p in zip(x.shape[:3], pool, strict=True)]
    result = np.empty((*sizes, x.shape[3]))
    for i in _positions(result):
        window = tuple(
            slice(k * p, (k + 1) * p) for k, p in zip(i, pool, strict=True)
        )
        result[i] = x[window].reshape(-1, x.shape[3]).max(axis=0)
    return result
