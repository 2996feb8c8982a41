"""Trained models, with what they say of the clips that they take."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.export import read_about
from keras_nonlocal.layers.network_record import NetworkRecord


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model to evaluate.

    Attributes:
        model: A Keras model or a function, as `evaluate` takes them.
        name: Its name.
        clip: Its clips; `None` if it does not say.
        crop_size: Side of its training clips in pixels; `None` if it does not
            say.
        class_names: Of its scores; `None` if it does not say.
        digest: What tells a function from others; `None` for a Keras model.
    """

    model: keras.Model | Callable[..., Any]
    name: str
    clip: ClipSpec | None = None
    crop_size: int | None = None
    class_names: tuple[str, ...] | None = None
    digest: str | None = None


def open_model(path: str | os.PathLike[str]) -> OpenedModel:
    """Loads a `.keras` file, or a folder that `export_saved_model` wrote.

    Raises:
        ValueError: If it is neither.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _exported(path)
    if not path.is_file() or path.suffix != ".keras":
        raise ValueError(
            "The model must be a .keras file or the folder of an exported "
            f"model. Received: {path}"
        )
    return describe(keras.models.load_model(path))


def describe(model: keras.Model) -> OpenedModel:
    """A Keras model, with what a network of this package says of itself."""
    records = [x for x in model.layers if isinstance(x, NetworkRecord)]
    training = records[0].training if records else {}
    if "num_frames" not in training:
        return OpenedModel(model, model.name)
    clip = ClipSpec(training["num_frames"], training["sampling_rate"])
    return OpenedModel(model, model.name, clip, training["crop_size"])


def _exported(path: pathlib.Path) -> OpenedModel:
    about = read_about(path)
    loaded = tf.saved_model.load(os.fspath(path))
    folder = path.resolve()
    if folder.name == "saved_model":
        folder = folder.parent
    names = about.get("class_names")
    return OpenedModel(
        # Not the function alone, which does not hold its variables.
        lambda clips: loaded.serve(clips),
        folder.name,
        _clip(about.get("clip")),
        about.get("crop_size"),
        names and tuple(names),
        _digest(path),
    )


def _clip(about: dict | str | None) -> ClipSpec | None:
    if isinstance(about, str):  # Of earlier versions.
        return ClipSpec.parse(about)
    return None if about is None else ClipSpec(**about)


def _digest(folder: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256")
            digest.update(content.digest())
    return digest.hexdigest()
