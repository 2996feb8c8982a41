"""What there is to know of any Keras model that has a graph."""

import keras


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
