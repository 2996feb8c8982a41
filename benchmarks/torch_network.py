"""The non-local I3D ResNet of the paper, in plain PyTorch.

Written from the paper and its table of layers, as one would for PyTorch; the
layers have the names of the Keras network so that its weights can be copied.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-5
# PyTorch counts the share of the new value.
MOMENTUM = 0.1


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What differs between the networks compared here.

    Attributes:
        blocks: Residual blocks of res2 to res5.
        inflated: For each of them, whether its first kernel spans 3 frames.
        non_local: Blocks, as ("res3", 1), that a non-local block follows.
        width: Channels of conv1.
        classes: Of the classifier.
        window: Side of the last pooling.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    inflated: tuple[tuple[bool, ...], ...] = (
        (True, True, True),
        (True, False, True, False),
        (True, False, True, False, True, False),
        (False, True, False),
    )
    non_local: tuple[tuple[str, int], ...] = (
        ("res3", 1),
        ("res3", 3),
        ("res4", 1),
        ("res4", 3),
        ("res4", 5),
    )
    width: int = 64
    classes: int = 400
    window: int = 7


class ConvNorm(nn.Module):
    """Convolution, batch norm and perhaps a ReLU."""

    def __init__(
        self, channels, filters, kernel, stride=(1, 1, 1), activation=True
    ):
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        self.conv = nn.Conv3d(
            channels, filters, kernel, stride, padding, bias=False
        )
        self.bn = nn.BatchNorm3d(filters, EPSILON, MOMENTUM)
        self.activation = activation

    def forward(self, x):
        x = self.bn(self.conv(x))
        return functional.relu(x, inplace=True) if self.activation else x


class Bottleneck(nn.Module):
    """1x1x1 or 3x1x1, 1x3x3 and 1x1x1, around which the input is added."""

    def __init__(self, channels, inner, stride, inflated, projected):
        super().__init__()
        strides = (1, stride, stride)
        ones = (1, 1, 1)
        self.branch2a = ConvNorm(
            channels, inner, (3, 1, 1) if inflated else ones
        )
        self.branch2b = ConvNorm(inner, inner, (1, 3, 3), strides)
        self.branch2c = ConvNorm(inner, 4 * inner, ones, activation=False)
        self.branch1 = (
            ConvNorm(channels, 4 * inner, ones, strides, activation=False)
            if projected
            else None
        )

    def forward(self, x):
        y = self.branch2c(self.branch2b(self.branch2a(x)))
        if self.branch1 is not None:
            x = self.branch1(x)
        return functional.relu(x + y, inplace=True)


class NonLocal(nn.Module):
    """The embedded Gaussian block, keys pooled in space."""

    def __init__(self, channels):
        super().__init__()
        inner = channels // 2
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.norm = nn.BatchNorm3d(channels, EPSILON, MOMENTUM)

    def forward(self, x):
        pooled = functional.max_pool3d(x, (1, 2, 2))
        y = functional.scaled_dot_product_attention(
            _as_one_head(self.theta(x)),
            _as_one_head(self.phi(pooled)),
            _as_one_head(self.g(pooled)),
        )
        y = y.squeeze(1).transpose(1, 2)
        y = y.reshape(x.shape[0], -1, *x.shape[2:])
        return x + self.norm(self.out(y))


def _as_one_head(x):
    """As (batch, 1, positions, channels)."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1)


class Network(nn.Module):
    """From RGB in 0..255, (batch, 3, frames, height, width), to logits."""

    def __init__(self, architecture=Architecture()):
        super().__init__()
        width, channels = architecture.width, architecture.width
        self.window = architecture.window
        self.conv1 = ConvNorm(3, width, (5, 7, 7), (1, 2, 2))
        self.stages = nn.ModuleDict()
        for number, blocks in enumerate(architecture.blocks):
            stage = f"res{number + 2}"
            inner = width * 2**number
            layers = nn.Sequential()
            for block in range(blocks):
                first = block == 0
                layers.add_module(
                    f"{stage}_{block}",
                    Bottleneck(
                        channels,
                        inner,
                        stride=2 if first and number else 1,
                        inflated=architecture.inflated[number][block],
                        projected=first,
                    ),
                )
                channels = 4 * inner
                if (stage, block) in architecture.non_local:
                    layers.add_module(
                        f"nonlocal_{stage}_{block}", NonLocal(channels)
                    )
            self.stages[stage] = layers
        self.dropout = nn.Dropout(0.5)
        self.logits = nn.Linear(channels, architecture.classes)

    def forward(self, x):
        x = (x - 114.75) / 57.375
        x = functional.max_pool3d(self.conv1(x), (1, 3, 3), (1, 2, 2))
        for name, stage in self.stages.items():
            x = stage(x)
            if name == "res2":
                x = functional.max_pool3d(x, (2, 1, 1))
        x = x.mean(2)
        window = [min(size, self.window) for size in x.shape[2:]]
        x = functional.avg_pool2d(x, window, 1)
        x = self.dropout(x).permute(0, 2, 3, 1)
        return self.logits(x).mean((1, 2))


def copy_weights(network, weights):
    """Fills the network, in place.

    Args:
        network: A `Network`.
        weights: Arrays of the Keras network by path, as
            "res2_0_branch2a_bn/gamma"; each is used once.

    Raises:
        ValueError: If there are others than the network needs.
    """
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = tensor
            continue
        path = _keras_path(name)
        if path not in weights:
            raise ValueError(f"The weights have no {path} for {name}.")
        state[name] = _torch_layout(weights[path], tensor)
    used = {_keras_path(name) for name in state if not name.endswith("tracked")}
    if set(weights) != used:
        raise ValueError(f"Left over: {sorted(set(weights) - used)}")
    network.load_state_dict(state)


_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_KERNEL = {"weight": "kernel", "bias": "bias"}


def _keras_path(name):
    """Where the Keras network has what is `name` here.

    "stages.res2.res2_0.branch2a.bn.weight" is "res2_0_branch2a_bn/gamma", and
    "stages.res3.nonlocal_res3_1.g.bias" is "nonlocal_res3_1/g/bias".
    """
    *layer, kind, parameter = name.split(".")
    layer = layer[2:] if layer[:1] == ["stages"] else layer
    if kind == "bn":
        return f"{'_'.join(layer)}_bn/{_NORM[parameter]}"
    parameter = (_NORM if kind == "norm" else _KERNEL)[parameter]
    if kind == "conv":
        return f"{'_'.join(layer)}/{parameter}"
    return "/".join([*layer, kind, parameter])


def _torch_layout(value, like):
    """A kernel with its output channels first, in the shape of `like`."""
    value = torch.from_numpy(value)
    if value.ndim == 5:
        value = value.permute(4, 3, 0, 1, 2)
    elif value.ndim == 2:
        value = value.T
    return value.reshape(like.shape).contiguous()
