"""Networks for inference, without the norms that arithmetic can remove."""

import collections

import keras
import numpy as np
from keras import layers

from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.batch_norm import BatchNormalization
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models.graph import copy_layer
from keras_nonlocal.models.graph import copy_state
from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.models.graph import rebuild

_NORMS = (layers.BatchNormalization, BatchNormalization, Affine)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_TRANSPOSED = (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
# Only these classes themselves: of one that extends them nobody knows what
# it does with its kernel.
_FOLDING = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    Conv3D,
    layers.Dense,
    *_DEPTHWISE,
    *_SEPARABLE,
    *_TRANSPOSED,
)


def fold_batch_norm(model, name=None):
    """Folds the norms of a model into the layers before them, for inference.

    At inference a batch norm is a scale and a shift for each channel, which
    the kernel and the bias of the layer before it can contain: of a
    convolution (also depthwise, separable or transposed) or a `Dense` without
    activation, whose only output goes to the norm alone and which is called
    once. The norm inside a `NonLocal` goes into its last projection. Any other
    norm stays.

    The result gives what `model` gives at inference, up to rounding. `model`
    itself stays as it is. All other layers keep their names; the features that
    a folded norm gave are now those of the layer before it, so the model's
    output may have another name.

    Trained further, the result is a network without these norms, and drops
    its statistics of the data: train `model` and fold again. Files of weights
    of the one are refused by the other.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`, with
            any inputs, outputs, branches, shared layers and nested models.
        name: Of the result. Default: that of `model`.

    Returns:
        A functional `keras.Model` of copies of the layers, not compiled.

    Raises:
        ValueError: If the model cannot be taken apart, or a layer not copied.

    Example:

    >>> inputs = keras.Input((32, 32, 3))
    >>> x = keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    >>> x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    >>> folded = fold_batch_norm(keras.Model(inputs, x))
    >>> len(folded.weights), folded.get_layer("conv").use_bias
    (2, True)
    """
    graph = functional_graph(model, name)
    if graph is None:
        raise ValueError(
            "`model` must be a functional model or a built Sequential; of "
            f"others Keras does not know the graph. Received: {model!r}"
        )
    folding = _Folding(graph)
    result = folding.rebuild(graph)
    folding.copy_state()
    folding.check_ties(graph, result)
    return result


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class FoldedRecord(NetworkRecord):
    """The record of a network whose norms were folded.

    A network of this package has one in place of its `NetworkRecord`, any
    other model one after its first folded norm. Unlike a `NetworkRecord` it
    refuses weights without a record, because their kernels may fit.
    """

    def load_own_variables(self, store):
        if not store.keys():
            raise ValueError(
                "The weights are of a network whose batch norms were not "
                f"folded; this one is {self.network}. Load them into that "
                "network and fold it."
            )
        super().load_own_variables(store)


class _Calls:
    """What calls what, in a graph and in the models nested in it.

    Attributes:
        nodes: The calls of each graph, by its identity.
        times: How often each operation is called, by its identity.
        uses: How often each tensor is taken, by its identity.
        in_training: Identities of the graphs that are called for training:
            their norms go by the batch.
    """

    def __init__(self, graph):
        self.nodes = {}
        self.times: collections.Counter[int] = collections.Counter()
        self.uses: collections.Counter[int] = collections.Counter()
        self.in_training = set()
        self._visit(graph, in_training=False)

    def _visit(self, model, in_training):
        if in_training:
            self.in_training.add(id(model))
        if id(model) not in self.nodes:
            self._count(model)
        for node in self.nodes[id(model)]:
            if functional_graph(node.operation) is not None:
                self._visit(node.operation, in_training or _is_training(node))

    def _count(self, model):
        graph = functional_graph(model)
        nodes = self.nodes[id(model)] = _nodes(graph)
        self.times.update(id(node.operation) for node in nodes)
        self.uses.update(id(tensor) for tensor in graph.outputs)
        for node in nodes:
            self.uses.update(id(tensor) for tensor in node.input_tensors)


def _nodes(graph):
    """The calls in a graph, those of its inputs excepted."""
    found = {}
    pending = list(graph.outputs)
    while pending:
        history = pending.pop()._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if not node.is_input and id(node) not in found:
            found[id(node)] = node
            pending += node.input_tensors
    return list(found.values())


def _is_training(node):
    """Whether a call asks for training."""
    flags = (*node.arguments.args, node.arguments.kwargs.get("training"))
    return any(flag is True for flag in flags)


class _Folding:
    """A rebuilding of a model and of those nested in it."""

    def __init__(self, graph):
        # Norms by the identity of the layer that takes them in.
        self.norms = {}
        # Identities of the norms that go, and of the models that change.
        self.gone = set()
        self.changed = set()
        # Originals and copies by the identity of the former; identities of
        # the copies that have taken in a norm.
        self.copies = {}
        self.folded = set()
        calls = _Calls(graph)
        for model, nodes in calls.nodes.items():
            if model not in calls.in_training:
                self._find(model, nodes, calls)
        self._spread(calls)

    def _find(self, model, nodes, calls):
        """The norms of one graph that can be folded."""
        for node in nodes:
            layer = node.operation
            if calls.times[id(layer)] > 1 or _is_training(node):
                continue
            if type(layer) is NonLocal and layer.norm is not None:
                self.norms[id(layer)] = layer.out_norm
                self.changed.add(model)
            elif type(layer) in _NORMS and _is_foldable(node, calls):
                before = node.input_tensors[0]._keras_history.operation
                self.norms[id(before)] = layer
                self.gone.add(id(layer))
                self.changed.add(model)

    def _spread(self, calls):
        """A model that holds one that changes does so too."""
        count = -1
        while count != len(self.changed):
            count = len(self.changed)
            self.changed |= {
                model
                for model, nodes in calls.nodes.items()
                if any(id(node.operation) in self.changed for node in nodes)
            }

    def rebuild(self, model):
        """The model with its norms folded."""
        graph = functional_graph(model)
        has_record = any(isinstance(x, NetworkRecord) for x in graph.layers)

        def call(layer, *args, **kwargs):
            nonlocal has_record
            if id(layer) in self.gone:
                return args[0]
            outputs = layer(*args, **kwargs)
            if id(layer) in self.folded and not has_record:
                has_record = True
                name = _free_name("folded", graph)
                record = _new_record({}, name=name, dtype=layer.dtype_policy)
                return record(outputs)
            return outputs

        return rebuild(model, lambda layer: self._take(layer, model), call)

    def copy_state(self):
        for source, target in self.copies.values():
            if id(target) in self.folded:
                _fold(source, target, self.norms[id(source)])
            elif isinstance(source, layers.Layer) and not self._holds(source):
                copy_state(source, target)

    def check_ties(self, graph, result):
        """Refuses layers that share variables, which copying undoes."""
        expected = len(graph.variables)
        for source, target in self.copies.values():
            if id(target) in self.folded:
                expected += len(target.variables) - len(source.variables)
                if not isinstance(source, NonLocal):
                    expected -= len(self.norms[id(source)].variables)
        if expected != len(result.variables):
            raise ValueError(
                "`model`: layers have variables in common in a way that "
                f"copying undoes, {len(result.variables)} variables in place "
                f"of {expected}."
            )

    def _take(self, layer, model):
        """What stands for a layer of a model in the result."""
        if id(layer) in self.gone:
            return layer  # It is not called.
        if id(layer) not in self.copies:
            self.copies[id(layer)] = (layer, self._copy(layer, model))
        return self.copies[id(layer)][1]

    def _copy(self, layer, model):
        if self._holds(layer):
            return self.rebuild(layer)
        if type(layer) is NetworkRecord and id(model) in self.changed:
            return _new_record(
                layer.network,
                layer.trained_with,
                name=layer.name,
                dtype=layer.dtype_policy,
            )
        if id(layer) not in self.norms:
            return copy_layer(layer)
        config = layer.get_config()
        if isinstance(layer, NonLocal):
            config.update(norm=None, out_bias=True)
        else:
            config.update(use_bias=True)
        copy = type(layer).from_config(config)
        self.folded.add(id(copy))
        return copy

    def _holds(self, layer):
        """Whether it is a nested model that changes."""
        return id(layer) in self.changed


def _is_foldable(node, calls):
    """Whether the layer before a norm can take it in."""
    if len(node.input_tensors) != 1 or len(node.arguments.args) != 1:
        return False
    tensor, norm = node.input_tensors[0], node.operation
    layer = tensor._keras_history.operation
    rank = len(tensor.shape)
    axis = getattr(norm, "axis", -1) % rank
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    return (
        type(layer) in _FOLDING
        and calls.times[id(layer)] == calls.uses[id(tensor)] == 1
        and layer.activation in (None, keras.activations.linear)
        and axis == (1 if channels_first else rank - 1)
        and layer.compute_dtype == norm.compute_dtype
        # Low-rank or quantised kernels are no single array.
        and not getattr(layer, "lora_enabled", False)
        and not getattr(layer, "quantization_mode", None)
    )


def _new_record(network, training=None, **kwargs):
    kind = network.get("kind", "model")
    network = {**network, "kind": f"{kind} with folded batch norms"}
    return FoldedRecord(network, training, **kwargs)


def _free_name(name, graph):
    taken = {op.name for op in graph.operations}
    while name in taken:
        name += "_"
    return name


def _fold(source, target, norm):
    """Fills a copied layer with its own weights and those of a norm."""
    target.trainable = source.trainable
    if isinstance(source, NonLocal):
        for name in ("theta", "phi", "g"):
            if hasattr(source, name):
                copy_state(getattr(source, name), getattr(target, name))
        if hasattr(source, "w_f"):
            target.w_f.assign(source.w_f)
        source, target = source.out, target.out
        target.trainable = source.trainable
    scale, shift = _scale_and_shift(norm)
    if isinstance(source, _SEPARABLE):
        target.depthwise_kernel.assign(source.depthwise_kernel)
        old, new = source.pointwise_kernel, target.pointwise_kernel
    else:
        old, new = source.kernel, target.kernel
    if source.use_bias:
        shift = shift + _float64(source.bias) * scale
    if isinstance(source, _DEPTHWISE):
        scale = np.reshape(scale, old.shape[-2:])
    elif isinstance(source, _TRANSPOSED):
        scale = scale[:, np.newaxis]
    new.assign(_float64(old) * scale)
    target.bias.assign(shift)


def _scale_and_shift(norm):
    """What a norm does to each channel at inference, in float64."""
    if isinstance(norm, Affine):
        return _float64(norm.gamma), _float64(norm.beta)
    scale = 1 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * _float64(norm.gamma)
    shift = -_float64(norm.moving_mean) * scale
    return scale, shift + _float64(norm.beta) if norm.center else shift


def _float64(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")
