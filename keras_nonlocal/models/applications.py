"""What the constructors of `keras.applications` form have in common."""

import dataclasses
import functools

import keras
from keras import layers

from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.models import pretrained

POOLINGS = (None, "avg", "max")
# Fields of a network that may be chosen anew for the same weights.
TRAINING_FIELDS = frozenset(
    {
        "norm",
        "nonlocal_norm",
        "dropout_rate",
        "num_frames",
        "sampling_rate",
        "crop_size",
    }
)


def check_arguments(include_top, pooling, classes):
    """Refuses what no constructor takes."""
    if pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {POOLINGS}. Received: {pooling!r}"
        )
    if include_top and pooling is not None:
        raise ValueError(
            "`pooling` is for include_top=False; the classifier has a pooling "
            f"of its own. Received: include_top=True, pooling={pooling!r}"
        )
    if include_top and (not isinstance(classes, int) or classes < 1):
        raise ValueError(
            f"`classes` must be a positive integer. Received: {classes!r}"
        )


def look_up(variant, table):
    """The network that a constructor's first argument means.

    Args:
        variant: A network, its name in `table`, or `None`: the one to which
            the weights belong.
        table: Networks by name.
    """
    if isinstance(variant, str):
        if variant not in table:
            raise ValueError(
                f"`variant` must be one of {sorted(table)}. "
                f"Received: {variant!r}"
            )
        return table[variant]
    kind = type(next(iter(table.values())))
    if variant is not None and not isinstance(variant, kind):
        raise ValueError(
            f"`variant` must be a {kind.__name__}, a name or None. "
            f"Received: {variant!r}"
        )
    return variant


def find_weights(weights, variant, kind, activation=None):
    """The checkpoint of a `weights` argument, and the network to build.

    Args:
        weights: The constructor's argument.
        variant: The network asked for, or `None`.
        kind: The class of networks that the constructor builds.
        activation: What it puts on the logits; `None` for nothing.
    """
    checkpoint = pretrained.find(weights, variant)
    pinned = getattr(checkpoint, "network", None)
    if variant is None and not isinstance(pinned, kind):
        raise ValueError(
            "`variant` may be left out where `weights` tell the "
            f"{kind.__name__}: an entry of `list_weights()`, or a file that "
            f"this package wrote. Received: weights={weights!r}, of {pinned}"
        )
    wanted = getattr(checkpoint, "activation", None)
    if wanted and activation not in (None, "linear", wanted):
        raise ValueError(
            f"weights={weights!r} were trained with {wanted} scores: pass "
            f"classifier_activation={wanted!r} (or None, for logits). "
            f"Received: {activation!r}"
        )
    return checkpoint, pinned if variant is None else variant


def make_input(input_tensor, input_shape, default, name, check):
    """The tensor that a network begins with.

    Args:
        input_tensor: The constructor's argument.
        input_shape: The constructor's argument.
        default: Input shape if neither is given.
        name: Of a new input.
        check: Is called with the shape and refuses what does not fit.
    """
    if input_tensor is None:
        shape = tuple(input_shape or default)
        check(shape)
        return layers.Input(shape, name=name)
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            "`input_tensor` must be a Keras tensor, for example a "
            f"`keras.Input`. Received: {type(input_tensor).__name__}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape not in (None, shape):
        raise ValueError(
            "`input_shape` contradicts `input_tensor`. Received: "
            f"{input_shape} and {shape}"
        )
    check(shape)
    return input_tensor


def describe(network):
    """A network as a dict that JSON can hold.

    Args:
        network: A `Variant`, `ImageVariant` or `InceptionVariant`.
    """
    return {"kind": type(network).__name__, **dataclasses.asdict(network)}


def record(x, network):
    """Lets the model, and its files of weights, say which network it is."""
    fields = describe(network)
    training = {key: fields.pop(key) for key in TRAINING_FIELDS & fields.keys()}
    return NetworkRecord(fields, training, name="network")(x)


def same_network(one, other):
    """Whether two networks differ in nothing but how they are trained."""
    if type(one) is not type(other):
        return False
    fields, others = describe(one), describe(other)
    return all(
        value == others[key]
        for key, value in fields.items()
        if key not in TRAINING_FIELDS
    )


def outside_remat_scope(function):
    """Makes what a function builds ignore a `keras.RematScope` around it.

    In such a scope only non-local blocks are to be computed again. A
    convolution or a norm keeps its input in any case, so that computing it
    again alone saves nothing; several layers of Keras fail there.
    """

    @functools.wraps(function)
    def build(*args, **kwargs):
        with keras.RematScope(mode=None):
            return function(*args, **kwargs)

    return build


def pool(x, pooling):
    """What follows the trunk of a network without top."""
    if pooling is None:
        return x
    rank = len(x.shape) - 2
    kind = {"avg": "Average", "max": "Max"}[pooling]
    layer = getattr(layers, f"Global{kind}Pooling{rank}D")
    return layer(name=f"{pooling}_pool")(x)


@outside_remat_scope
def make_model(inputs, outputs, name, checkpoint=None, variant=None):
    """The model from the user's input to the network's output, filled.

    Args:
        inputs: Where the network begins; other layers may stand before it.
        outputs: Where it ends.
        name: Of the model.
        checkpoint: What `find_weights` gave.
        variant: The network, for the checkpoint to compare with.
    """
    sources = keras.utils.get_source_inputs(inputs)
    model = keras.Model(
        sources[0] if len(sources) == 1 else sources, outputs, name=name
    )
    if checkpoint is not None:
        # Only the network's own layers.
        checkpoint.fill(keras.Model(inputs, outputs), variant)
    return model
