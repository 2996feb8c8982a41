"""Going through the calls of a functional model, nested models included."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.models.rematerialization import Recomputed

# From the path of a layer, one call of it (a Keras node) and what stands for
# the tensors that go in, to what stands for those that come out.
Apply = Callable[[str, Any, list[Any]], list[Any]]


def graph_of(model: Any) -> keras.Model:
    """The graph of a model.

    Raises:
        ValueError: If Keras does not know it.
    """
    graph = functional_graph(model)
    if graph is None:
        raise ValueError(
            "`model` must be a functional model or a built Sequential; of "
            f"others Keras does not know the graph. Received: {model!r}"
        )
    return graph


def one_clip(model: Any, clip: np.ndarray) -> np.ndarray:
    """A clip as a batch of one, of the type that the model takes.

    Args:
        model: A functional model with one input.
        clip: Its input, with or without an axis for the batch.

    Raises:
        ValueError: If the model has several inputs, or does not take the clip;
            or if it takes integers and the clip has other values.
    """
    inputs = graph_of(model).inputs
    if len(inputs) != 1:
        raise ValueError(
            f"`model` must have one input. Received: a model of {len(inputs)}"
        )
    expected = tuple(inputs[0].shape)
    found = np.asarray(clip)
    batch = found if found.ndim == len(expected) else found[np.newaxis]
    fits = batch.ndim == len(expected) and len(batch) == 1
    if not fits or any(
        size not in (None, other)
        for size, other in zip(expected[1:], batch.shape[1:], strict=True)
    ):
        raise ValueError(
            "`clip` must be one clip as the model takes it, of shape "
            f"{expected[1:]}. Received: shape {found.shape}"
        )
    dtype = inputs[0].dtype
    with np.errstate(invalid="ignore"):  # It is said below.
        cast = batch.astype(dtype)
    if not keras.backend.is_float_dtype(dtype) and (cast != batch).any():
        raise ValueError(
            f"`clip` must hold values that {dtype} has, as the model takes "
            f"them. Received: {found.dtype} from {found.min()} to {found.max()}"
        )
    return cast


def run(model: Any, inputs: list[Any], apply: Apply, prefix: str = "") -> Any:
    """Goes through a model, call by call, in the order of computing.

    Nested models, and groups of layers that `rematerialize` made, are gone
    through as well. Values are dropped after their last use.

    Args:
        model: A functional model.
        inputs: What stands for each of its inputs.
        apply: Is asked for the outputs of every call of a layer or operation.
            Layers of nested models have the path `"model/layer"`, as for
            `insert_nonlocal`.
        prefix: Of the paths.

    Returns:
        What stands for each of the model's outputs, a list.

    Raises:
        ValueError: If a nested model is given a tensor of another rank than
            its input, to which Keras adds an axis unseen.
    """
    graph = graph_of(model)
    nodes = list(_ordered(graph))
    last = {id(tensor): node for node in nodes for tensor in node.input_tensors}
    kept = {id(tensor) for tensor in graph.outputs}
    values = dict(zip(map(id, graph.inputs), inputs, strict=True))
    for node in nodes:
        given = [values[id(tensor)] for tensor in node.input_tensors]
        path = prefix + node.operation.name
        inner = _inner(node.operation)
        if inner is None:
            results = apply(path, node, given)
        else:
            # What is computed again has the names of the model it was made of.
            _check_ranks(path, node, inner)
            is_group = isinstance(node.operation, Recomputed)
            below = prefix if is_group else f"{path}/"
            results = run(inner, given, apply, below)
        del given
        outputs = map(id, node.outputs)
        values.update(zip(outputs, results, strict=True))
        del results
        for tensor in node.input_tensors:
            if last[id(tensor)] is node and id(tensor) not in kept:
                values.pop(id(tensor), None)
    return [values[id(tensor)] for tensor in graph.outputs]


def arguments(node: Any, tensors: list[Any]) -> tuple[tuple, dict]:
    """Arguments of a call, with others in place of its tensors."""
    other = dict(zip(map(id, node.input_tensors), tensors, strict=True))
    return keras.tree.map_structure(
        lambda value: other.get(id(value), value),
        (node.arguments.args, node.arguments.kwargs),
    )


def operations(model: Any) -> Iterator[Any]:
    """Layers and operations of a model and of those nested in it."""
    for operation in graph_of(model).operations:
        inner = _inner(operation)
        if inner is None:
            yield operation
        else:
            yield from operations(inner)


def _inner(operation: Any) -> Any:
    """The graph inside an operation, or `None`."""
    if isinstance(operation, Recomputed):
        return operation.segment
    return functional_graph(operation)


def _check_ranks(path: str, node: Any, inner: Any) -> None:
    given = [tensor.shape for tensor in node.input_tensors]
    expected = [tensor.shape for tensor in graph_of(inner).inputs]
    if list(map(len, given)) != list(map(len, expected)):
        raise ValueError(
            f"`model` must give the model {path!r}, which is nested in it, "
            f"inputs of its shapes {expected}. Received: {given}"
        )


def _ordered(graph: keras.Model) -> Iterator[Any]:
    """The calls of a graph, each after those whose outputs it takes."""
    given = {id(tensor) for tensor in graph.inputs}
    done: set[int] = set()
    pending = [
        _node(tensor)
        for tensor in reversed(graph.outputs)
        if id(tensor) not in given
    ]
    while pending:
        node = pending[-1]
        before = [
            _node(tensor)
            for tensor in node.input_tensors
            if id(tensor) not in given
        ]
        waiting = [other for other in before if id(other) not in done]
        if waiting:
            pending += reversed(waiting)
            continue
        pending.pop()
        if not node.is_input and id(node) not in done:
            done.add(id(node))
            yield node


def _node(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]
