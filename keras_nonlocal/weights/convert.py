"""Checkpoints of other code bases into files of this package."""

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import h5py
import keras

from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.detector_variants import restore_detector
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.inception_i3d import InceptionVariant
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.resnet2d import ResNet2D
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights import layouts
from keras_nonlocal.weights.content import CheckpointFile
from keras_nonlocal.weights.load import LoadReport
from keras_nonlocal.weights.load import fill
from keras_nonlocal.weights.own_files import ABOUT

_KINDS = {
    kind.__name__: kind for kind in (Variant, ImageVariant, InceptionVariant)
}
# Builders of networks from higher packages, by the class of their networks.
_BUILDERS: dict[type, Callable[[Any, int | None], keras.Model]] = {}


def register(
    kind: type, builder: Callable[[Any, int | None], keras.Model]
) -> None:
    """Lets `build` know networks of a higher package.

    Args:
        kind: The class of the networks.
        builder: From a network and a number of classes to its model.
    """
    _BUILDERS[kind] = builder


def build(network: Any, classes: int | None) -> keras.Model:
    """The model of a network, without weights.

    Args:
        network: A `Variant`, `ImageVariant`, `InceptionVariant` or
            `DetectorVariant`.
        classes: Number of classes; `None` for no classifier. A detector has
            its own number in any case.
    """
    if type(network) in _BUILDERS:
        return _BUILDERS[type(network)](network, classes)
    top: dict[str, Any] = {"include_top": False}
    if classes is not None:
        top = {"classes": classes}
    if isinstance(network, InceptionVariant):
        return InceptionI3D(modality=network.modality, **top)
    if isinstance(network, ImageVariant):
        return ResNet2D(network, **top)
    return ResNet3D(network, **top)


def convert(
    checkpoint: CheckpointFile,
    destination: str | os.PathLike[str],
    network: Any,
    about: dict[str, Any] | None = None,
) -> LoadReport:
    """Writes a checkpoint as a `.weights.h5` file that knows its network.

    Args:
        checkpoint: What `open_checkpoint` gave.
        destination: File to write; what stands there is replaced when all of
            the new file is written.
        network: The network that the checkpoint belongs to.
        about: Written into the file besides the network, JSON.

    Returns:
        What became of the tensors.

    Raises:
        ValueError: If the checkpoint does not fit the network.
    """
    destination = os.fspath(destination)
    if not destination.endswith(".weights.h5"):
        raise ValueError(
            "The file to write must end in .weights.h5. "
            f"Received: {destination!r}"
        )
    model = build(network, layouts.class_count(checkpoint.tensors))
    report = fill(model, checkpoint, network)
    folder = os.path.dirname(destination) or "."
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        written = os.path.join(temporary, os.path.basename(destination))
        model.save_weights(written)
        with h5py.File(written, "r+") as file:
            file.attrs[ABOUT] = json.dumps(about or {})
        os.replace(written, destination)
    return report


def restore(description: dict[str, Any]) -> Any:
    """The network that `applications.describe` described.

    Args:
        description: The dict, also after it was written as JSON.

    Raises:
        ValueError: If it is none, or that of another version.

    >>> restore({"kind": "InceptionVariant", "modality": "flow"})
    InceptionVariant(modality='flow')
    """
    if not isinstance(description, dict):
        raise ValueError(
            f"A network is described by a dict. Received: {description!r}"
        )
    if description.get("kind") == DetectorVariant.__name__:
        return restore_detector(description)
    fields = {key: _as_tuple(value) for key, value in description.items()}
    kind = str(fields.pop("kind", None))
    if kind not in _KINDS:
        raise ValueError(
            "The kind of a network must be one of "
            f"{[*sorted(_KINDS), DetectorVariant.__name__]}. "
            f"Received: {kind!r}"
        )
    try:
        return _KINDS[kind](**fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Not a description of a {kind} of this version: {error}"
        ) from error


def _as_tuple(value: Any) -> Any:
    """JSON has lists where networks have tuples."""
    if isinstance(value, list):
        return tuple(_as_tuple(item) for item in value)
    return value
