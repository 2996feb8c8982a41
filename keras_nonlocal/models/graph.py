"""Taking apart and rebuilding Keras models that have a graph."""

import tempfile

import keras
from keras import ops


def functional_graph(model, name=None):
    """A model as a plain functional one, not compiled.

    Args:
        model: Anything.
        name: Of the result. Default: that of `model`.

    Returns:
        A functional `keras.Model` of the same layers, or `None` if `model` is
        neither functional nor a built `keras.Sequential`.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])
    >>> functional_graph(model).output_shape
    (None, 3)
    """
    if isinstance(model, keras.Sequential) and hasattr(model, "inputs"):
        ends = (model.inputs[0], model.outputs[0])
    elif isinstance(model, keras.Model) and isinstance(model, keras.Function):
        ends = (model.input, model.output)
    else:
        return None
    return keras.Model(*ends, name=name or model.name)


def rebuild(model, copy, call, name=None):
    """A model of the same class and inputs, built anew.

    Args:
        model: A functional model or a built `keras.Sequential`.
        copy: From a layer to the one in its place.
        call: From the latter and its arguments to what it gives.
        name: Of the result. Default: that of `model`.
    """
    graph = functional_graph(model, name)
    clone = keras.models.clone_model(
        graph,
        input_tensors=keras.tree.map_structure(fresh_input, graph.input),
        clone_function=copy,
        call_function=call,
    )
    if type(model) in (type(graph), keras.Sequential):
        return clone
    return _of_class(type(model), clone)


def copy_layer(layer):
    """A layer set up like another, with assets but without its weights."""
    try:
        copy = type(layer).from_config(layer.get_config())
    except Exception as error:
        raise ValueError(
            f"`model`: the layer {layer.name!r} ({type(layer).__name__}) "
            "cannot be copied (insert_nonlocal does without a copy, with "
            f"share_weights=True). Keras says: {error}"
        ) from error
    # Configs that Keras writes for a custom layer may lack it.
    copy.name = layer.name
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)
    return copy


def copy_state(source, target):
    """The variables, and what layers derive from them when loaded."""
    # The config of a Sequential lacks it.
    if target.trainable != source.trainable:
        target.trainable = source.trainable
    for old, new in zip(source.variables, target.variables, strict=True):
        # JAX gives the buffers of variables away when it trains.
        new.assign(ops.copy(old))
    if isinstance(source, keras.Model):
        for old, new in zip(source.layers, target.layers, strict=True):
            copy_state(old, new)
    elif source.variables:
        store: dict = {}
        source.save_own_variables(store)
        target.load_own_variables(
            {key: ops.copy(value) for key, value in store.items()}
        )


def _of_class(cls, model):
    """A functional model as one of a class that extends `keras.Model`."""
    try:
        return cls(inputs=model.input, outputs=model.output, name=model.name)
    except TypeError as error:
        raise ValueError(
            f"`model`: a {cls.__name__} cannot be made of `inputs` and "
            "`outputs`. For a plain functional model, pass "
            "keras.Model(model.inputs, model.outputs)."
        ) from error


def fresh_input(tensor):
    """An input like the one that a tensor is."""
    layer = tensor._keras_history.operation
    # Keras 3.12 leaves `optional` out of the config.
    config = {**layer.get_config(), "optional": layer.optional}
    return keras.layers.InputLayer.from_config(config).output
