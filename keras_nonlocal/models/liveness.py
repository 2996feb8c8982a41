"""Following the tensors of a graph from where they are made to their last use.

What is said here of layers is what they do on TensorFlow without XLA.
"""

import dataclasses
import math

import keras
from keras import layers

from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.pooling import MaxPooling
from keras_nonlocal.layers.pooling import PositionAverage
from keras_nonlocal.layers.pooling import PositionPooling
from keras_nonlocal.layers.pooling import WindowAverage
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models.macs import KERNEL_LAYERS
from keras_nonlocal.models.rematerialization import count_consumers
from keras_nonlocal.models.rematerialization import find_units
from keras_nonlocal.models.rematerialization import group_inputs
from keras_nonlocal.models.rematerialization import input_tensors

_NUM_LARGEST = 5

_KERNELS = (*KERNEL_LAYERS, layers.SeparableConv1D, layers.SeparableConv2D)
# The gradient of these takes their input.
_KEEP_INPUT = (
    *_KERNELS,
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Multiply,
    layers.PReLU,
)
# The gradient of these takes their output.
_KEEP_OUTPUT = (layers.ReLU, layers.Softmax, layers.LeakyReLU, layers.ELU)
_BY_OUTPUT = ("relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "selu")
_KEEP_BOTH = (
    MaxPooling,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
_KEEP_NOTHING = (
    Affine,
    ClipNormalization,
    PositionAverage,
    PositionPooling,
    WindowAverage,
    layers.Add,
    layers.Average,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.Concatenate,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.Normalization,
    layers.Permute,
    layers.Rescaling,
    layers.Subtract,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_RANDOM = (layers.Dropout, layers.SpatialDropout2D, layers.SpatialDropout3D)
_VIEWS = (
    NetworkRecord,
    layers.Flatten,
    layers.Identity,
    layers.InputLayer,
    layers.Reshape,
)
# These write over their input where nothing else needs it, and their gradient
# over that of the output.
_IN_PLACE = (
    layers.Activation,
    layers.Add,
    layers.ELU,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Softmax,
    layers.Subtract,
    *_RANDOM,
)


def weight_bytes(weight):
    return math.prod(weight.shape) * _itemsize(weight.dtype)


def _itemsize(dtype):
    if dtype in ("bool", "int8", "uint8"):
        return 1
    return {"16": 2, "32": 4, "64": 8}[dtype[-2:]]


@dataclasses.dataclass
class _Costs:
    """What an operation needs, in bytes, and what it does with its tensors."""

    keeps_input: bool = False
    keeps_output: bool = False
    kept: int = 0
    forward: int = 0
    backward: int = 0
    is_view: bool = False
    in_place: bool = False


class _Ledger:
    """Which buffers exist, and what existed at the largest moment."""

    def __init__(self):
        self.buffers = {}
        self.users = {}
        self.live = 0
        self.peak = 0
        self.at_peak = {}

    def add(self, key, size, owner, tag, users=1):
        """A new buffer, with a number of users who will drop it."""
        self.buffers[key] = (size, owner, tag)
        self.users[key] = users
        self.live += size
        if self.live > self.peak:
            self.peak = self.live
            self.at_peak = dict(self.buffers)
        if not users:
            self._free(key)

    def drop(self, key):
        self.users[key] -= 1
        if not self.users[key]:
            self._free(key)

    def touch(self, size, owner):
        """A buffer that is gone at once."""
        self.add(("touched",), size, owner, "transient", users=0)

    def _free(self, key):
        self.live -= self.buffers.pop(key)[0]


class Step:
    """A call or a training step of a graph, for any batch.

    Args:
        graph: A functional model.
        shape: Of the input, without the batch.
        dtype: To compute in, if not the model's own.
        training: Whether there is a backward pass.
        units: What is computed again in it, or `None`.
        momentum: Whether the weights' momentum exists from the beginning.
    """

    def __init__(self, graph, shape, dtype, training, units, momentum):
        self.graph = graph
        self.operations = graph.operations
        self.training = training
        self.momentum = momentum
        self.consumers = count_consumers(graph)
        # Whoever calls the model holds its input.
        self.consumers[id(graph.inputs[0])] += 1
        self.assumed = []
        self.groups = find_units(graph, units) if training and units else []
        tensors = [
            tensor
            for op in self.operations
            for tensor in keras.tree.flatten(op.output)
        ]
        ends = keras.Model(graph.inputs, tensors)
        shapes = ends.compute_output_shape((1, *shape))
        self.shapes = {
            id(tensor): shape
            for tensor, shape in zip(tensors, shapes, strict=True)
        }
        self.dtypes = {id(tensor): tensor.dtype for tensor in tensors}
        self.compute = {
            id(op): getattr(op, "compute_dtype", None) for op in self.operations
        }
        if dtype is not None:
            self._plan_for(dtype)
        self.has_gradient = self._find_gradients()

    def _plan_for(self, dtype):
        """Puts another compute dtype in the place of the most common one."""
        kernels = [op for op in self.operations if isinstance(op, _KERNELS)]
        found = [self.compute[id(op)] for op in kernels or self.operations]
        own = max(set(found), key=found.count)
        for known in (self.dtypes, self.compute):
            for key, value in known.items():
                known[key] = dtype if value == own else value
        # The model is still fed with what it was fed with.
        entry = self.graph.inputs[0]
        self.dtypes[id(entry)] = entry.dtype

    def _find_gradients(self):
        """The tensors whose gradient a training step computes."""
        found = set()
        for op in self.operations if self.training else ():
            is_trained = bool(getattr(op, "trainable_weights", ()))
            if is_trained or any(id(x) in found for x in input_tensors(op)):
                found |= {id(x) for x in keras.tree.flatten(op.output)}
        return found

    def peak(self, batch):
        return self._simulate(batch).peak

    def run(self, batch):
        """The figures of a `MemoryPlan`."""
        ledger = self._simulate(batch)
        tags = {"gradients": 0, "kept": 0, "transient": 0}
        owners: dict[str, int] = {}
        for size, owner, tag in ledger.at_peak.values():
            tags[tag] += size
            if tag != "gradients":
                owners[owner] = owners.get(owner, 0) + size
        largest = sorted(owners.items(), key=lambda item: -item[1])
        return {
            **tags,
            "largest": tuple(largest[:_NUM_LARGEST]),
            "assumed": tuple(self.assumed),
        }

    def _simulate(self, batch):
        self.batch = batch
        self.ledger = _Ledger()
        self.buffer = {}
        self.kept = {}
        self.held = {}
        self.gradient = {}
        self.tag = "kept" if self.training else "transient"
        self._prepare_weights()
        grouped = {id(op): group for group in self.groups for op in group}
        last = {id(group[-1]): group for group in self.groups}
        for op in self.operations:
            group = grouped.get(id(op))
            if group:
                self._hold_entries(op, group)
            self._forward(op, keep=self.training and group is None)
        self.tag = "transient"
        for op in reversed(self.operations) if self.training else ():
            if id(op) in last:
                self._recompute(last[id(op)])
            self._backward(op)
        return self.ledger

    def _bytes(self, tensor):
        first, *others = self.shapes[id(tensor)]
        size = math.prod(others) * self.batch * first
        return size * _itemsize(self.dtypes[id(tensor)])

    def _costs(self, op):
        kept, forward, backward = self._count_inside(op)
        costs = _Costs(kept=kept, forward=forward, backward=backward)
        costs.is_view = isinstance(op, _VIEWS) or (
            isinstance(op, _RANDOM) and not self.training
        )
        costs.in_place = isinstance(op, _IN_PLACE)
        name = getattr(getattr(op, "activation", None), "__name__", "linear")
        is_kernel = isinstance(op, _KEEP_INPUT)
        is_activation = isinstance(op, layers.Activation) and name != "linear"
        if isinstance(op, _KEEP_BOTH):
            costs.keeps_input = costs.keeps_output = True
        elif is_kernel or hasattr(op, "count_memory"):
            costs.keeps_input = True
            costs.keeps_output = name in _BY_OUTPUT
        elif is_activation:
            costs.keeps_output = name in _BY_OUTPUT
            costs.keeps_input = not costs.keeps_output
        elif isinstance(op, _KEEP_OUTPUT):
            costs.keeps_output = True
        elif not isinstance(
            op, (*_VIEWS, *_RANDOM, *_KEEP_NOTHING, layers.Activation)
        ):
            costs.keeps_input = costs.keeps_output = True
            if op.name not in self.assumed:
                self.assumed.append(op.name)
        return costs

    def _count_inside(self, op):
        if hasattr(op, "count_memory"):
            first, *others = self.shapes[id(op.input)]
            shape = (first * self.batch, *others)
            return op.count_memory(shape, _itemsize(self.compute[id(op)]))
        if isinstance(op, _RANDOM) and self.training:
            return self._bytes(op.output), 0, 0  # The mask.
        return 0, 0, 0

    def _prepare_weights(self):
        """What waits for nothing and is made first."""
        for op in self.operations:
            size = sum(map(weight_bytes, getattr(op, "trainable_weights", ())))
            if self.momentum and size:
                key = (id(op), "momentum")
                self.ledger.add(key, size, op.name, "transient")
            dtype = self.compute[id(op)]
            size = 0
            for weight in getattr(op, "weights", ()):
                is_kernel = len(weight.shape) > 1 and weight.dtype != dtype
                size += is_kernel * math.prod(weight.shape)
            if size:
                size *= _itemsize(dtype)
                self.ledger.add((id(op), "cast"), size, op.name, "transient")

    def _forward(self, op, keep, users=None):
        ledger, costs = self.ledger, self._costs(op)
        keep = keep and any(
            id(x) in self.has_gradient for x in keras.tree.flatten(op.output)
        )
        entries = [self.buffer[id(x)] for x in input_tensors(op)]
        self._make_outputs(op, costs, entries, keep * costs.keeps_output, users)
        kept = []
        if keep and costs.kept:
            kept.append((id(op), "inside"))
            ledger.add(kept[0], costs.kept, op.name, self.tag)
        ledger.touch(max(costs.forward - keep * costs.kept, 0), op.name)
        if keep and costs.keeps_output:
            kept.append(self.buffer[id(op.output)])
        if keep and costs.keeps_input:
            for key in entries:
                ledger.users[key] += 1
                kept.append(key)
        if not self.training:
            self._drop_cast(op)
        self.kept[id(op)] = kept
        for key in entries:
            ledger.drop(key)

    def _make_outputs(self, op, costs, entries, keepers, users):
        ledger = self.ledger
        for tensor in keras.tree.flatten(op.output):
            count = self.consumers[id(tensor)] if users is None else users
            count += keepers
            size = self._bytes(tensor)
            free = [
                key
                for key in entries
                if costs.is_view
                or costs.in_place
                and ledger.users[key] == 1
                and ledger.buffers[key][0] == size
            ]
            if free:
                self.buffer[id(tensor)] = free[0]
                ledger.users[free[0]] += count
            else:
                key = (self.tag, id(tensor))
                self.buffer[id(tensor)] = key
                ledger.add(key, size, op.name, self.tag, count)

    def _drop_cast(self, op):
        if (id(op), "cast") in self.ledger.buffers:
            self.ledger.drop((id(op), "cast"))

    def _hold_entries(self, op, group):
        """Keeps what a group is computed again from."""
        held = self.held.setdefault(id(group[-1]), {})
        outer = {id(tensor) for tensor in group_inputs(group)}
        for tensor in input_tensors(op):
            if id(tensor) in outer - held.keys():
                held[id(tensor)] = self.buffer[id(tensor)]
                self.ledger.users[held[id(tensor)]] += 1

    def _recompute(self, group):
        """The second run of a group, from copies that TensorFlow makes."""
        ledger, last, entries = self.ledger, group[-1], group_inputs(group)
        for op in group:
            self._copy_weights(op)
        # What the last operation gives is needed only if its gradient takes it.
        costs = self._costs(last)
        is_needed = costs.keeps_output or costs.kept > 0
        used = [id(x) for op in group for x in input_tensors(op)]
        for tensor in entries:
            copy = ("copy", id(tensor), id(last))
            users = used.count(id(tensor))
            ledger.add(copy, self._bytes(tensor), last.name, self.tag, users)
            self.buffer[id(tensor)] = copy
            ledger.drop(self.held[id(last)][id(tensor)])
        for op in group if is_needed else group[:-1]:
            self._forward(op, keep=True, users=None if op is not last else 0)
        if is_needed:
            return
        inputs = [self.buffer[id(tensor)] for tensor in input_tensors(last)]
        self.kept[id(last)] = inputs * costs.keeps_input
        for key in inputs if not costs.keeps_input else ():
            ledger.drop(key)

    def _copy_weights(self, op):
        size = sum(map(weight_bytes, getattr(op, "trainable_weights", ())))
        if size:
            self.ledger.add((id(op), "copy"), size, op.name, self.tag)

    def _backward(self, op):
        gradient = self._take_gradient(op)
        if gradient is not None:
            costs = self._costs(op)
            self._input_gradients(op, costs, gradient)
            for number, weight in enumerate(
                getattr(op, "trainable_weights", ())
            ):
                key = ("gradient", id(op), number)
                self.ledger.add(key, weight_bytes(weight), op.name, "gradients")
            self.ledger.touch(costs.backward, op.name)
            self.ledger.drop(gradient)
        for key in self.kept[id(op)]:
            self.ledger.drop(key)
        for kind in ("cast", "copy", "momentum"):
            if (id(op), kind) in self.ledger.buffers:
                self.ledger.drop((id(op), kind))

    def _take_gradient(self, op):
        """The gradient of the output; the loss gives those of the model's."""
        output = keras.tree.flatten(op.output)[0]
        if id(output) not in self.has_gradient:
            return None
        if id(output) not in self.gradient:
            key = ("gradient", id(output))
            self.ledger.add(key, self._bytes(output), op.name, "transient")
            self.gradient[id(output)] = key
        return self.gradient.pop(id(output))

    def _input_gradients(self, op, costs, gradient):
        ledger = self.ledger
        for number, tensor in enumerate(input_tensors(op)):
            if id(tensor) not in self.has_gradient:
                continue
            if costs.is_view or costs.in_place:
                key = gradient
                ledger.users[key] += 1
            else:
                key = ("gradient", id(tensor), id(op), number)
                ledger.add(key, self._bytes(tensor), op.name, "transient")
            self._accumulate(op, tensor, key)

    def _accumulate(self, op, tensor, key):
        """Adds to what other uses of a tensor gave, in place if possible."""
        ledger = self.ledger
        other = self.gradient.get(id(tensor))
        if other is not None and ledger.users[key] > 1 < ledger.users[other]:
            total = ("sum", id(tensor), id(op))
            ledger.add(total, self._bytes(tensor), op.name, "transient")
            ledger.drop(key)
            ledger.drop(other)
            key = total
        elif other is not None:
            # The one that nothing else needs takes the sum.
            first, second = sorted(
                (key, other), key=lambda user: ledger.users[user]
            )
            ledger.drop(second)
            key = first
        self.gradient[id(tensor)] = key
