"""Sides on PyTorch."""

import numpy as np
import torch
from torch.nn import functional

from benchmarks import inputs
from benchmarks import torch_network


def matmul(size, dtype):
    """A square matrix product."""
    a, b = torch.from_numpy(inputs.normal((2, size, size))).to(
        getattr(torch, dtype)
    )
    return lambda: torch.matmul(a, b)


def plain_operation(mode, queries, keys, depth, width, backward):
    """Equation 1 as one writes it, the affinity stored."""

    def operation(theta, phi, g, w_f):
        if mode == "concatenation":
            of_queries = torch.einsum("bnd,dk->bnk", theta, w_f[:depth])
            of_keys = torch.einsum("bmd,dk->bkm", phi, w_f[depth:])
            weights = torch.relu(of_queries + of_keys) / keys
        else:
            weights = torch.einsum("bnd,bmd->bnm", theta, phi)
            if mode == "dot_product":
                weights = weights / keys
            else:
                weights = torch.softmax(weights * inputs.scale(depth), -1)
        return torch.einsum("bnm,bmd->bnd", weights, g)

    return _operation(operation, mode, queries, keys, depth, width, backward)


def attention_operation(mode, queries, keys, depth, width, backward):
    """PyTorch's own kernel of the softmax modes, one head."""

    def operation(theta, phi, g, _):
        return functional.scaled_dot_product_attention(
            theta[:, None], phi[:, None], g[:, None], scale=inputs.scale(depth)
        )[:, 0]

    return _operation(operation, mode, queries, keys, depth, width, backward)


def _operation(function, mode, queries, keys, depth, width, backward):
    tensors, cotangent = inputs.operation(queries, keys, depth, width)
    tensors = [torch.from_numpy(tensor) for tensor in tensors]
    cotangent = torch.from_numpy(cotangent)
    sources = tensors if mode == "concatenation" else tensors[:3]

    def forward():
        with torch.no_grad():
            return function(*tensors)

    def forward_and_backward():
        for source in sources:
            source.requires_grad_(True)
        y = function(*tensors)
        return [y.detach(), *torch.autograd.grad(y, sources, cotangent)]

    return forward_and_backward if backward else forward


def inference(
    weights, architecture, batch, frames, size, layout, form, precision
):
    """A network's logits.

    Args:
        weights: File of `tensorflow_sides.write_weights`.
        architecture: Fields of `Architecture`.
        batch: Clips of a call.
        frames: Of a clip.
        size: Its height and width.
        layout: "as shipped" or "channels last".
        form: "eager", "compiled", or "frozen": traced and frozen, which folds
            batch norm.
        precision: "float32"; "autocast" to bfloat16; or "bfloat16" throughout.
    """
    network = load(weights, architecture).eval()
    clips = load_clips(batch, frames, size)
    if layout == "channels last":
        network = network.to(memory_format=torch.channels_last_3d)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    if precision == "bfloat16":
        network, clips = network.bfloat16(), clips.bfloat16()
    is_mixed = precision == "autocast"

    def run(function):
        # A trace is of casts too, which a cache would hide from it.
        with (
            torch.no_grad(),
            torch.autocast(
                "cpu",
                torch.bfloat16,
                enabled=is_mixed,
                cache_enabled=form != "frozen",
            ),
        ):
            return function()

    if form == "compiled":
        network = torch.compile(network, dynamic=False)
        run(lambda: network(clips))
    elif form == "frozen":
        network = run(lambda: torch.jit.freeze(torch.jit.trace(network, clips)))
    return lambda: run(lambda: network(clips))


def training(
    weights, architecture, batch, frames, size, layout, form, precision
):
    """A step of stochastic gradient descent; arguments as of `inference`."""
    network = load(weights, architecture).train()
    clips = load_clips(batch, frames, size)
    labels = torch.from_numpy(inputs.labels(batch, network.logits.out_features))
    if layout == "channels last":
        network = network.to(memory_format=torch.channels_last_3d)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    function = network
    if form == "compiled":
        function = torch.compile(network, dynamic=False)

    def step():
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=precision == "autocast"
        ):
            logits = function(clips)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        # At the end, so that gradients count as memory of the step.
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    if form == "compiled":
        step()
    return step


def load(weights, architecture):
    """A `Network` with the weights of a file."""
    network = torch_network.Network(torch_network.Architecture(**architecture))
    with np.load(weights) as values:
        torch_network.copy_weights(network, dict(values))
    return network


def load_clips(batch, frames, size):
    """RGB in 0..255, channels first."""
    clips = torch.from_numpy(inputs.clips(batch, frames, size))
    return clips.permute(0, 4, 1, 2, 3).contiguous()
