"""Reads files of weights that Keras saved, as hostile as any other.

Keras numbers what it saves: layers by class and order, the variables of a
layer by theirs. The names of the layers, which it writes too, give each array
the path of its variable.
"""

import dataclasses
import io
import json
import os
import zipfile
from typing import Any

import h5py
import numpy as np

from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.weights.content import OWN
from keras_nonlocal.weights.content import CheckpointFile

# Attribute with the catalogue entry that a converted file was.
ABOUT = "keras_nonlocal"
_DETECTOR = "keras_nonlocal>MaskRCNN"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_MAX_TEXT = 2**16
_MAX_DEPTH = 8
_MAX_VISITS = 20_000
_FLOATS = ("float16", "float32", "float64")
_ERRORS = (
    AttributeError,
    KeyError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


def is_keras(path: str) -> bool:
    """Whether a file is what `keras.Model.save` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _WEIGHTS in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read_keras(path: str) -> CheckpointFile:
    """Reads a `.keras` file.

    Raises:
        ValueError: If it is not one of a functional model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [archive.getinfo(name) for name in (_CONFIG, _WEIGHTS)]
            # Keras does not compress; a bomb does.
            if sum(member.file_size for member in members) > (
                os.path.getsize(path)
            ):
                raise ValueError("its members are larger than the file")
            settings = _settings(json.loads(archive.read(_CONFIG)))
            weights = io.BytesIO(archive.read(_WEIGHTS))
    except _ERRORS as error:
        raise _broken(path, error) from error
    return dataclasses.replace(read_h5(path, weights), settings=settings)


def read_h5(path: str, source: Any) -> CheckpointFile:
    """Reads a `.weights.h5` file.

    Args:
        path: Of the file, for messages and to bound what is read.
        source: The path, or an open file.

    Raises:
        ValueError: If it is not such a file of a functional model.
    """
    try:
        with h5py.File(source, "r") as file:
            reader = _Reader(os.path.getsize(path))
            about = reader.text(file.attrs.get(ABOUT, "{}"))
            reader.read_model(file)
    except _ERRORS as error:
        raise _broken(path, error) from error
    if reader.network is not None:
        about["network"] = reader.network
    sources = {target: [target] for target in reader.tensors}
    return CheckpointFile(path, OWN, reader.tensors, sources, about=about)


def _broken(path: str, error: Exception) -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(
        f"{path!r} is not a file of weights that Keras saved of one of these "
        f"networks: {reason}"
    )


def _settings(network: Any) -> dict[str, Any] | None:
    """The layers' settings; `None` for a class of this package.

    Its configuration is the description of the network, which the weights
    hold too.
    """
    if network.get("registered_name") == _DETECTOR:
        return None
    return {
        layer["name"]: _layer(layer) for layer in network["config"]["layers"]
    }


def _layer(layer: Any) -> dict[str, Any]:
    """A layer's entry in the configuration, if it is one."""
    if not isinstance(layer["config"], dict):
        raise ValueError(f"layer {layer['name']!r} has no settings")
    return {"class_name": str(layer["class_name"]), "config": layer["config"]}


class _Reader:
    """Collects the arrays of a file, of bounded depth and size.

    Attributes:
        tensors: Arrays by the path of their variable.
        network: What a `NetworkRecord` says.
    """

    def __init__(self, size: int) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self.network: dict[str, Any] | None = None
        self._room = size
        self._visits = 0

    def text(self, text: Any) -> dict[str, Any]:
        """A dict that was written as JSON."""
        content = json.loads(text) if len(text) <= _MAX_TEXT else None
        if not isinstance(content, dict):
            raise ValueError("what it says of itself is not a short JSON dict")
        return content

    def child(self, parent: h5py.Group, name: str) -> Any:
        """What stands in a group under a name, and not elsewhere."""
        if name not in parent:
            raise ValueError(f"it has no {name!r} in {parent.name!r}")
        if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link to elsewhere")
        # One group may stand in many places.
        self._visits += 1
        if self._visits > _MAX_VISITS:
            raise ValueError(f"it has more than {_MAX_VISITS} parts")
        return parent[name]

    def groups(self, parent: h5py.Group) -> list[h5py.Group]:
        """The groups in a group."""
        children = [self.child(parent, name) for name in parent]
        return [child for child in children if isinstance(child, h5py.Group)]

    def read_model(self, file: h5py.File) -> None:
        """Reads all layers, of a detector those of its models.

        Keras saves attributes in the order of their names, `layers` among
        them, and nothing twice: a model stands beside the layers or in them.
        """
        # A detector says in its own place which network it is.
        if "vars" in file:
            self._read_record(self.child(file, "vars"))
        layers = self.groups(self.child(file, "layers"))
        models = [g for g in layers + self.groups(file) if "layers" in g]
        for model in models:
            layers += self.groups(self.child(model, "layers"))
        for layer in layers:
            if layer not in models:
                self.read(layer)
        kind = (self.network or {}).get("kind")
        if models and kind != DetectorVariant.__name__:
            raise ValueError(
                f"{models[0].name!r} is not a layer but a model in it"
            )

    def read(self, group: h5py.Group, prefix: str = "", depth: int = 0) -> None:
        """Reads a layer and its parts."""
        if depth > _MAX_DEPTH:
            raise ValueError("its layers are nested too deeply")
        if "vars" not in group:
            raise ValueError(f"{group.name!r} is not a layer but a model in it")
        own = self.child(group, "vars")
        path = prefix + str(own.attrs.get("name", ""))
        if not self._read_record(own):
            arrays = [
                self._array(self.child(own, str(number)), _FLOATS)
                for number in range(len(own))
            ]
            names = _names_of(group, arrays)
            if len(names) != len(arrays):
                raise ValueError(f"{path!r} has {len(arrays)} variables")
            for name, array in zip(names, arrays, strict=True):
                if f"{path}/{name}" in self.tensors:
                    raise ValueError(f"it has two arrays {path}/{name}")
                self.tensors[f"{path}/{name}"] = array
        for part in self.groups(group):
            # The state of dropout is not a weight.
            if part.name.rpartition("/")[2] not in ("vars", "seed_generator"):
                self.read(part, f"{path}/", depth + 1)

    def _read_record(self, own: h5py.Group) -> bool:
        """Reads what a `NetworkRecord` wrote; whether there is such."""
        if "network" not in own:
            return False
        record = self._array(self.child(own, "network"), ("uint8",))
        self.network = self.text(record.tobytes())
        return True

    def _array(self, dataset: Any, dtypes: tuple[str, ...]) -> np.ndarray:
        """An array of certain dtypes, if the file has room for it."""
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{dataset.name!r} is not an array")
        is_bfloat16 = dataset.attrs.get("dtype") == "bfloat16"
        if not is_bfloat16 and dataset.dtype.name not in dtypes:
            raise ValueError(f"{dataset.name!r} is of {dataset.dtype}")
        if dataset.external or dataset.is_virtual or dataset.chunks:
            raise ValueError(f"{dataset.name!r} is not stored in one piece")
        self._room -= dataset.nbytes
        if self._room < 0:
            raise ValueError("its arrays are larger than the file")
        array = dataset[()]
        if is_bfloat16:
            import ml_dtypes

            array = array.view(ml_dtypes.bfloat16).astype("float32")
        return array


def _names_of(group: h5py.Group, arrays: list[np.ndarray]) -> tuple[str, ...]:
    """What Keras numbers: the variables of one layer, in their order."""
    if "non_local" in group.name.rpartition("/")[2]:
        return ("w_f",)[: len(arrays)]
    if arrays and arrays[0].ndim > 1:
        return ("kernel", "bias")[: len(arrays)]
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    # Batch norms of Inception networks have no gamma.
    return norm[1:] if len(arrays) == 3 else norm[: len(arrays)]
