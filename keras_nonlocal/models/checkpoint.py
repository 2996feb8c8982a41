"""Strict loading of the project's own weight files.

Keras finds a layer's weights in a file by the layer's class and its position,
so that another network of equal shapes loads without a word. Here the names
and shapes of all layers must agree first.
"""

import json
import os
import zipfile

import h5py
import keras

SUFFIXES = (".weights.h5", ".keras")
_CLASSIFIER = "logits"
# Settings that may differ from those a file was saved with: they belong to
# training, or to what is made of the logits.
_FREE = {
    "activation",
    "dtype",
    "name",
    "norm",
    "rate",
    "seed",
    "synchronized",
    "trainable",
    "units",
}
# Layers that an argument of the constructors adds or leaves out.
_FREE_LAYERS = {"normalize", "avg_pool", "max_pool"}


def load(model, path):
    """Loads a `.weights.h5` or `.keras` file into a functional model.

    Args:
        model: The `keras.Model` to fill.
        path: Of a file saved from the same network by `save_weights` or
            `save`.

    Raises:
        ValueError: If there is no such file, if it cannot be read, or if its
            layers are not exactly the model's; the message lists what is
            missing, what is left over and what has another shape.
    """
    found = _read(path)
    wanted = {
        layer.name: sorted(tuple(weight.shape) for weight in layer.weights)
        for layer in model.layers
        if layer.weights
    }
    if found != wanted:
        raise ValueError(_difference(path, found, wanted))
    if os.fspath(path).endswith(".keras"):
        _check_settings(model, path)
    model.load_weights(path)


def num_classes(path):
    """Number of classes of the classifier in a file; `None` without one.

    Raises:
        ValueError: If there is no such file, or if it cannot be read.
    """
    shapes = _read(path).get(_CLASSIFIER)
    return None if shapes is None else _length_of_bias(shapes)


def _length_of_bias(shapes):
    return min(shapes, key=len)[0]


def _check_settings(model, path):
    """Compares how the layers are set; shapes alone show little of it."""
    with zipfile.ZipFile(path) as archive:
        saved = json.loads(archive.read("config.json"))["config"]["layers"]
    theirs = {
        layer["name"]: _settings(layer)
        for layer in saved
        if layer["class_name"] != "InputLayer"
    }
    names = {
        layer.name
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    }
    # Layers without weights count too: one of them pads pool1.
    different = [
        f"{name}: only {'here' if name in names else 'in the file'}"
        for name in sorted((names ^ theirs.keys()) - _FREE_LAYERS)
    ]
    for layer in model.layers:
        if layer.name not in theirs:
            continue
        config = keras.saving.serialize_keras_object(layer)
        # By way of JSON, as the file: tuples become lists.
        ours = _settings(json.loads(json.dumps(config)))
        known = theirs[layer.name]
        different += [
            f"{layer.name}: {key} is {known.get(key)!r} in the file, "
            f"{value!r} here"
            for key, value in ours.items()
            if known.get(key) != value
        ]
    if different:
        raise ValueError(
            f"{os.fspath(path)!r} is of a network that is set differently.\n"
            + "\n".join(different)
        )


def _settings(layer):
    """Of a serialised layer, what changes its results."""
    return {
        key: value
        for key, value in layer["config"].items()
        if key not in _FREE and not key.endswith("_initializer")
    }


def _read(path):
    """`{layer name: its sorted weight shapes}` of a file."""
    path = os.fspath(path)
    if not path.endswith(SUFFIXES):
        raise ValueError(
            "`weights` must be None or the path of a file that ends in "
            f"{' or '.join(SUFFIXES)}. Received: {path!r}"
        )
    if not os.path.isfile(path):
        raise ValueError(f"`weights`: there is no file {path!r}.")
    try:
        if path.endswith(".keras"):
            with zipfile.ZipFile(path) as archive:
                with archive.open("model.weights.h5") as file:
                    return _layers(h5py.File(file, "r"))
        with h5py.File(path, "r") as file:
            return _layers(file)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path!r} is not a Keras weights file: {error}"
        ) from error


def _layers(file):
    layers = {}
    for group in file["layers"].values():
        shapes: list[tuple[int, ...]] = []

        def visit(name, item, shapes=shapes):
            is_weight = isinstance(item, h5py.Dataset)
            # The state of dropout is not a weight.
            if is_weight and "seed_generator" not in name:
                shapes.append(tuple(item.shape))

        group.visititems(visit)
        if shapes:
            layers[group["vars"].attrs["name"]] = sorted(shapes)
    return layers


def _difference(path, found, wanted):
    ours, theirs = wanted.get(_CLASSIFIER), found.get(_CLASSIFIER)
    if ours and theirs and {**found, _CLASSIFIER: ours} == wanted:
        return (
            f"{os.fspath(path)!r} holds {_length_of_bias(theirs)} classes but "
            f"classes={_length_of_bias(ours)} was asked for. Take "
            f"classes={_length_of_bias(theirs)}, or include_top=False and a "
            "classifier of your own."
        )
    shapes = [n for n in wanted if n in found and found[n] != wanted[n]]
    return (
        f"{os.fspath(path)!r} is of another network.\n"
        f"Missing: {sorted(wanted.keys() - found.keys()) or 'nothing'}\n"
        f"Left over: {sorted(found.keys() - wanted.keys()) or 'nothing'}\n"
        f"Of another shape: {shapes or 'nothing'}"
    )
