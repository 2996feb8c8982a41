"""Training in less memory: computing again what a backward pass needs."""

import keras
from keras import layers

from keras_nonlocal.models.graph import fresh_input
from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.models.macs import KERNEL_LAYERS

UNITS = ("norms", "blocks")

_PADDINGS = (
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_ACTIVATIONS = (layers.Activation, layers.ReLU)


def rematerialize(model, units="blocks"):
    """A model that trains in less memory, of the same layers.

    What the backward pass needs from inside a unit is not kept but computed
    again from the unit's inputs. Results, gradients and moving statistics are
    those of `model`, whose layers and variables these are: train what is
    returned, then use or save `model`.

    `keras.RematScope` recomputes each layer by itself. That saves little in a
    network of convolutions and norms, where the input of one layer is what the
    layer before it would have kept.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`, which
            calls each layer once.
        units: What is computed again:

            - `"norms"`: each batch norm, activation and zero padding that
              leads to one convolution, dense layer or pooling. No convolution
              runs twice.
            - `"blocks"`: everything between the places where the network
              forks, which for residual networks are the blocks with the
              non-local blocks that follow them. Only what enters a block is
              kept.

    Returns:
        A functional `keras.Model`, not compiled.

    Raises:
        ValueError: If `units` or `model` are not as described, or if the model
            has no such units.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3)(inputs)
    >>> x = keras.layers.BatchNormalization()(x)
    >>> x = keras.layers.Conv2D(4, 3)(keras.layers.ReLU()(x))
    >>> model = keras.Model(inputs, x)
    >>> training_model = rematerialize(model, "norms")
    >>> training_model.output_shape
    (None, 4, 4, 4)
    """
    graph = functional_graph(model)
    if graph is None:
        raise ValueError(
            "`model` must be a functional model or a built Sequential. "
            f"Received: {model!r}"
        )
    groups = find_units(graph, units)
    if not groups:
        raise ValueError(f"`model` has no {units} to compute again")
    return _rebuild(graph, groups)


def find_units(graph, units):
    """Groups of operations that are computed again together.

    Args:
        graph: A functional model.
        units: As for `rematerialize`.

    Returns:
        A list of lists of operations in the order of the graph; only the
        output of the last of a list is used outside of it.
    """
    if units not in UNITS:
        raise ValueError(f"`units` must be one of {UNITS}. Received: {units!r}")
    consumers = count_consumers(graph)
    if units == "blocks":
        return _blocks(graph, consumers)
    producers = {id(op.output): op for op in graph.operations}
    chains = (
        _leading_chain(op, producers, consumers)
        for op in graph.operations
        if isinstance(op, KERNEL_LAYERS) or _is_pooling(op)
    )
    return [chain for chain in chains if len(chain) > 1]


def count_consumers(graph):
    """How often each tensor of a functional model is used, by its id.

    Raises:
        ValueError: If a layer has other tensors than those of this model, or
            an operation several outputs.
    """
    for op in graph.operations:
        count = len(keras.tree.flatten(op.output))
        if count != 1:
            raise ValueError(
                "`model` must have operations of one output each. Received: "
                f"{op.name!r} with {count}"
            )
    consumers = {
        id(tensor): 0
        for op in graph.operations
        for tensor in keras.tree.flatten(op.output)
    }
    used = [tensor for op in graph.operations for tensor in input_tensors(op)]
    for tensor in [*used, *graph.outputs]:
        if id(tensor) not in consumers:
            raise ValueError(
                "`model` must call each layer once, and have layers that no "
                "other model had before. Received: a model in which this is "
                f"not so for {tensor._keras_history.operation.name!r}"
            )
        consumers[id(tensor)] += 1
    return consumers


def input_tensors(op):
    """What an operation of a functional model takes, a list."""
    is_entry = isinstance(op, layers.InputLayer)
    return [] if is_entry else keras.tree.flatten(op.input)


def group_inputs(group):
    """The tensors that a group of operations takes from outside, a list."""
    produced = {id(op.output) for op in group}
    entries = {
        id(tensor): tensor
        for op in group
        for tensor in input_tensors(op)
        if id(tensor) not in produced
    }
    return list(entries.values())


def _is_pooling(op):
    # Ours, and those of Keras.
    return type(op).__name__.startswith("MaxPooling")


def _blocks(graph, consumers):
    """What lies between forks at which nothing else is alive.

    What follows the last fork is left out: it would be computed again at once.
    """
    waiting = dict(consumers)
    groups, group = [], []
    alive = set()
    for op in graph.operations:
        for tensor in input_tensors(op):
            waiting[id(tensor)] -= 1
            if not waiting[id(tensor)]:
                alive.discard(id(tensor))
        outputs = {id(tensor) for tensor in keras.tree.flatten(op.output)}
        alive |= outputs
        if not isinstance(op, layers.InputLayer):
            group.append(op)
        if alive == outputs == {id(op.output)} and waiting[id(op.output)] > 1:
            groups.append(group)
            group = []
    return [group for group in groups if len(group) > 1]


def _leading_chain(op, producers, consumers):
    """An operation and what is cheap to compute again before it.

    Batch norms keep their input in any case; without one at its beginning, a
    chain would only keep another tensor.
    """
    chain, start = [op], 1
    while len(input_tensors(chain[0])) == 1:
        tensor = input_tensors(chain[0])[0]
        before = producers[id(tensor)]
        is_norm = isinstance(before, layers.BatchNormalization)
        is_cheap = is_norm or isinstance(before, (*_PADDINGS, *_ACTIVATIONS))
        if not is_cheap or consumers[id(tensor)] > 1:
            break
        chain.insert(0, before)
        only_pads = all(isinstance(other, _PADDINGS) for other in chain[:-1])
        if is_norm or only_pads:
            start = len(chain)
    return chain[len(chain) - start :]


def _rebuild(graph, groups):
    """The model with each group as one layer."""
    inside = {id(op) for group in groups for op in group}
    last = {id(group[-1]): group for group in groups}
    inputs = keras.tree.map_structure(fresh_input, graph.input)
    fresh = {
        id(old): new
        for old, new in zip(
            graph.inputs, keras.tree.flatten(inputs), strict=True
        )
    }

    def call(op, *args, **kwargs):
        if id(op) in last:
            output = _recomputed(last[id(op)], fresh)
        elif id(op) in inside:
            # Nothing outside of the group sees it.
            output = op.output
        else:
            output = op(*args, **kwargs)
        fresh[id(op.output)] = output
        return output

    return keras.models.clone_model(
        graph,
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=call,
    )


def _recomputed(group, fresh):
    entries = {id(tensor): tensor for tensor in group_inputs(group)}
    segment = keras.Model(list(entries.values()), group[-1].output)
    layer = Recomputed(segment, name=f"recomputed_{group[-1].name}")
    return layer([fresh[key] for key in entries])


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class Recomputed(layers.Layer):
    """A model whose inner tensors are not kept for the backward pass.

    Args:
        segment: A functional `keras.Model` with one output.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, segment, **kwargs):
        # Each layer of the segment casts for itself.
        super().__init__(**{"autocast": False, **kwargs})
        self.segment = segment

    def call(self, inputs, training=None):
        if not training:
            return self.segment(inputs, training=False)
        # All state goes in and out as tensors: written where it is computed,
        # moving statistics would be updated by the second run too, and a
        # dropout would draw another mask.
        trainable = list(self.segment.trainable_variables)
        others = list(self.segment.non_trainable_variables)
        num_trainable = len(trainable)
        num_state = num_trainable + len(others)
        # Regularizers of weights come last; the segment answers for them.
        num_regularizers = sum(
            variable.regularizer is not None for variable in trainable
        )

        def run(*tensors):
            output, state, losses = self.segment.stateless_call(
                list(tensors[:num_trainable]),
                list(tensors[num_trainable:num_state]),
                list(tensors[num_state:]),
                training=True,
                return_losses=True,
            )
            losses = losses[: len(losses) - num_regularizers]
            return output, *state, *losses

        # Copies of what is written to below: PyTorch writes in place.
        state = [variable.value for variable in trainable]
        state += [keras.ops.copy(variable.value) for variable in others]
        output, *others_and_losses = keras.remat(run)(*state, *inputs)
        for variable, value in zip(others, others_and_losses, strict=False):
            variable.assign(value)
        for loss in others_and_losses[len(others) :]:
            self.add_loss(loss)
        return output

    def compute_output_spec(self, inputs, training=None):
        return self.segment.compute_output_spec(inputs)

    def get_config(self):
        segment = keras.saving.serialize_keras_object(self.segment)
        return {**super().get_config(), "segment": segment}

    @classmethod
    def from_config(cls, config):
        segment = keras.saving.deserialize_keras_object(config["segment"])
        return cls(**{**config, "segment": segment})
