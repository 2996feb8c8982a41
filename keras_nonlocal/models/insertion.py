"""Non-local blocks for networks that already exist (paper, section 4.1)."""

import difflib
import re

import keras

from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models.graph import copy_layer
from keras_nonlocal.models.graph import copy_state
from keras_nonlocal.models.graph import functional_graph
from keras_nonlocal.models.graph import rebuild


def insert_nonlocal(model, after, share_weights=False, name=None, **arguments):
    """Puts fresh non-local blocks into any functional model.

    A block takes the output of a layer, and everything that took this output
    takes that of the block: other layers, and the model's own outputs. A fresh
    block is the identity, so that the result gives what `model` gives, bit for
    bit, until it is trained. `model` itself stays as it is.

    The block after the layer `res4_1` is called `nonlocal_res4_1`; every other
    layer, the inputs and the model keep their names (but that the record in
    a network of this package, which would no longer be true, is left out).
    `nonlocal_layers` lists where the blocks are.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`, with
            any inputs, outputs, branches, shared layers and nested models.
        after: The layers to put blocks after, inputs excepted. One of:

            - A name. A layer of a nested model has the names of both,
              `"resnet50/conv4_block6_out"`.
            - A regular expression, a string or compiled, for whole names. A
              string that is the name of a layer is nothing but that name.
            - A list of these, each of which must find a layer.
            - A function of a layer, true where a block goes. It sees the
              layers of nested models too.
        share_weights: Whether the result is made of the layers of `model`
            instead of copies; training one of the two then trains both. The
            `output` of a shared layer remains its output in `model`; to cut
            the result between layers, which `count_macs` does too, copy.
        name: Of the result. Default: that of `model`.
        **arguments: Of `NonLocal`. By default `dtype` is what keeps the type
            of the layer's output, and `data_format` that of the layer or, if
            it has none, of the others.

    Returns:
        A `keras.Model`, not compiled. A Sequential becomes functional. Layers
        keep their `trainable`; the blocks are trainable. A layer called at
        several places has one block, called after each.

    Raises:
        ValueError: If no layer is found; if a layer's output is not one
            tensor of rank 3, 4 or 5, has a mask, or does not suit `NonLocal`;
            if the model has a layer of a block's name; or if the model cannot
            be taken apart, or a layer not copied.

    Example:

    >>> inputs = keras.Input((32, 32, 3))
    >>> x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = insert_nonlocal(keras.Model(inputs, x), after="conv")
    >>> nonlocal_layers(model)
    {'nonlocal_conv': 'conv'}
    """
    if functional_graph(model) is None:
        raise ValueError(
            "`model` must be a functional model or a built Sequential; of "
            f"others Keras does not know the graph. Received: {model!r}"
        )
    paths = _select(dict(_layers(model)), after)
    insertion = _Insertion(paths, share_weights, arguments)
    result = insertion.rebuild(model, name=name)
    if not share_weights:
        insertion.copy_state()
        _check_ties(functional_graph(model), result, insertion.blocks)
    return result


def nonlocal_layers(model):
    """Where the non-local blocks of a functional model are.

    Args:
        model: A functional `keras.Model` or a built `keras.Sequential`:
            what `insert_nonlocal` returns, a network of this package, or
            either of them reloaded.

    Returns:
        A dict from the name of each `NonLocal` layer to the name of the layer
        it follows, in the order of the graph. Names in nested models are as
        for `insert_nonlocal`.

    Example:

    >>> inputs = keras.Input((32, 3), name="sequence")
    >>> nonlocal_layers(keras.Model(inputs, NonLocal(name="block")(inputs)))
    {'block': 'sequence'}
    """
    found = {}
    for path, layer in _layers(model):
        if isinstance(layer, NonLocal):
            followed = layer.input._keras_history.operation.name
            found[path] = path.removesuffix(layer.name) + followed
    return found


class _Insertion:
    """A rebuilding of a model and of those nested in it."""

    def __init__(self, paths, share_weights, arguments):
        self.paths = paths
        self.share_weights = share_weights
        self.arguments = arguments
        # A layer may be in several of the models, and is copied once.
        self.copies = {}
        self.blocks = []

    def rebuild(self, model, prefix="", name=None):
        """The model with blocks after those of its layers that are asked."""
        graph = functional_graph(model, name)
        blocks = {}

        def call(layer, *args, **kwargs):
            # The result is another network than the one on record.
            is_record = isinstance(layer, NetworkRecord)
            outputs = args[0] if is_record else layer(*args, **kwargs)
            path = prefix + layer.name
            if path not in self.paths:
                return outputs
            if path not in blocks:
                blocks[path] = self._block(path, layer, outputs, graph)
            return _apply(blocks[path], path, outputs)

        return rebuild(
            model, lambda layer: self._take(layer, prefix), call, name
        )

    def copy_state(self):
        for source, target in self.copies.values():
            if isinstance(source, keras.layers.Layer):
                copy_state(source, target)

    def _take(self, layer, prefix):
        """What stands for a layer in the result."""
        path = f"{prefix}{layer.name}/"
        if any(target.startswith(path) for target in self.paths):
            return self.rebuild(layer, path)
        if self.share_weights:
            return layer
        if id(layer) not in self.copies:
            self.copies[id(layer)] = (layer, copy_layer(layer))
        return self.copies[id(layer)][1]

    def _block(self, path, layer, outputs, graph):
        _check_output(path, outputs)
        name = f"nonlocal_{layer.name}"
        if any(other.name == name for other in graph.operations):
            raise ValueError(
                f"`after`: the block after {path!r} would be called {name!r}, "
                "which is the name of another layer. To put a block after that "
                "one, name it instead."
            )
        is_half = outputs.dtype in ("float16", "bfloat16")
        defaults = {"dtype": f"{'mixed_' * is_half}{outputs.dtype}"}
        if "data_format" not in self.arguments:
            defaults["data_format"] = _data_format(path, layer, graph)
        block = NonLocal(name=name, **{**defaults, **self.arguments})
        self.blocks.append(block)
        return block


def _layers(model, prefix=""):
    """Pairs of path and layer, nested models before what is in them."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        yield prefix + layer.name, layer
        if functional_graph(layer) is not None:
            yield from _layers(layer, f"{prefix}{layer.name}/")


def _select(layers, after):
    """The paths of the layers that `after` finds."""
    if callable(after) and not isinstance(after, keras.layers.Layer):
        found = {path for path, layer in layers.items() if after(layer)}
    else:
        found = set()
        for entry in _entries(after):
            found |= _matching(layers, entry)
    if not found:
        raise ValueError(
            f"`after` must find a layer of the model. Received: {after!r}, "
            f"which finds none of {len(layers)} layers"
        )
    return found


def _entries(after):
    entries = after if isinstance(after, (list, tuple, set)) else [after]
    for entry in entries:
        if not isinstance(entry, (str, re.Pattern)):
            raise ValueError(
                "`after` must be the name of a layer, a regular expression, a "
                f"list of them or a function. Received: {entry!r}"
            )
    return entries


def _matching(paths, entry):
    if entry in paths:
        return {entry}
    pattern = getattr(entry, "pattern", entry)
    try:
        found = {path for path in paths if re.compile(entry).fullmatch(path)}
    except re.error:
        found = set()
    if not found:
        inner = [path for path in paths if path.endswith(f"/{pattern}")]
        close = difflib.get_close_matches(pattern, paths, cutoff=0)
        raise ValueError(
            "`after` must name layers of the model, inputs excepted. Received: "
            f"{pattern!r}, which no layer matches. Close: {inner or close}"
        )
    return found


def _check_ties(model, result, blocks):
    added = sum(len(block.variables) for block in blocks)
    before, after = len(model.variables), len(result.variables) - added
    if before != after:
        raise ValueError(
            "`model`: layers have variables in common in a way that copying "
            f"undoes, {after} variables in place of {before}. Pass "
            "`share_weights=True`."
        )


def _apply(block, path, inputs):
    axis = 1 if block.data_format == "channels_first" else -1
    if block.built and block.input.shape[axis] != inputs.shape[axis]:
        raise ValueError(
            f"`after`: one block does not fit after all calls of {path!r}, of "
            f"{block.input.shape[axis]} and {inputs.shape[axis]} channels"
        )
    try:
        block.compute_output_shape(inputs.shape)
    except ValueError as error:
        raise ValueError(
            f"`after`: no block fits after {path!r}: {error}"
        ) from error
    outputs = block(inputs)
    if outputs.dtype != inputs.dtype:
        raise ValueError(
            f"`dtype` must keep the output of {path!r}, {inputs.dtype}. "
            f"Received: {block.dtype_policy.name}, which gives {outputs.dtype}"
        )
    return outputs


def _check_output(path, outputs):
    if not isinstance(outputs, keras.KerasTensor):
        problem = f"{type(outputs).__name__} of tensors"
    elif len(outputs.shape) not in (3, 4, 5):
        problem = f"shape {outputs.shape}"
    elif not keras.backend.is_float_dtype(outputs.dtype):
        problem = f"dtype {outputs.dtype}"
    elif getattr(outputs, "_keras_mask", None) is not None:
        problem = "a mask, which NonLocal does not heed"
    else:
        return
    raise ValueError(
        "`after` must find layers whose output is one float tensor of rank 3, "
        f"4 or 5, without a mask. Received: {path!r}, with {problem}"
    )


def _data_format(path, layer, graph):
    """That of a layer or, if it has none, of all others."""
    sources = [layer]
    if not hasattr(layer, "data_format"):
        sources = [other for _, other in _layers(graph)]
    formats = {
        source.data_format
        for source in sources
        if hasattr(source, "data_format")
    }
    if len(formats) > 1:
        raise ValueError(
            f"`data_format` must be given: {path!r} has none, and the other "
            f"layers have {sorted(formats)}."
        )
    return formats.pop() if formats else "channels_last"
