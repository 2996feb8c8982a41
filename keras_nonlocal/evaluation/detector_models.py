"""Trained detectors, with what they say of their classes and images."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import keras

from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.models import labels
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.weights.catalogue import CATALOGUE

_NETWORK, _ABOUT = "model.keras", "config.json"
_LARGEST_ABOUT = 2**26
# What published detectors are tested with.
SHORT_SIDE, MAX_SIDE = 800, 1333


@dataclasses.dataclass(frozen=True)
class OpenedDetector:
    """A detector to evaluate or to predict with.

    Attributes:
        model: A `MaskRCNN`.
        name: Its name.
        class_names: Of its classes; `None` if it does not say.
        short_side: Short side of the images it was tested with, in pixels.
        max_side: What their long side was at most.
    """

    model: keras.Model
    name: str
    class_names: tuple[str, ...] | None = None
    short_side: int = SHORT_SIDE
    max_side: int = MAX_SIDE


def open_detector(path: str | os.PathLike[str]) -> OpenedDetector:
    """Loads a trained detector, with what is known of classes and images.

    Args:
        path: A `.keras` file; the folder of a run, with `model.keras` in it; or
            the name of published weights, as `list_weights()` prints them.
            Class names and sizes of a `model.keras`, and of no other file, are
            those that the `config.json` beside it says.

    Returns:
        The `OpenedDetector`.

    Raises:
        ValueError: If it is none of these or cannot be loaded.
    """
    name = given = os.fspath(path)
    path = pathlib.Path(path)
    if path.is_dir():
        name, path = path.resolve().name, path / _NETWORK
    if path.is_file() and path.suffix == ".keras":
        opened = OpenedDetector(_load(path), name)
        return _with_about(opened, path) if path.name == _NETWORK else opened
    entry = CATALOGUE.get(name)
    if entry is not None and isinstance(entry.network, DetectorVariant):
        names = labels.class_names("coco") if entry.dataset == "coco" else None
        return OpenedDetector(MaskRCNN(None, weights=name), name, names)
    raise ValueError(
        "The model must be a .keras file of a detector, the folder of a run "
        "with model.keras in it, or the name of a published detector that "
        f"list_weights() prints. Received: {given}"
    )


def _load(path: pathlib.Path) -> keras.Model:
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:
        # Keras raises anything, with pages of text about it.
        reason = str(error).partition("\n")[0][:300]
        raise ValueError(
            f"{path} must be a model that Keras can load. Received: {reason}"
        ) from error
    if not isinstance(model, MaskRCNN):
        raise ValueError(
            f"{path} must be a detector, a MaskRCNN. "
            f"Received: {type(model).__name__}"
        )
    return model


def _with_about(opened: OpenedDetector, path: pathlib.Path) -> OpenedDetector:
    """The detector with what the settings of its run say."""
    about = _about(path.with_name(_ABOUT))
    names, config = about.get("class_names"), about.get("config")
    changes: dict[str, Any] = {}
    if (
        isinstance(names, list)
        and len(names) == opened.model.variant.classes
        and all(isinstance(text, str) for text in names)
    ):
        changes["class_names"] = tuple(names)
    if isinstance(about.get("name"), str):
        changes["name"] = about["name"]
    for field, key in (("short_side", "test_short_side"), ("max_side",) * 2):
        side = config.get(key) if isinstance(config, dict) else None
        if isinstance(side, int) and side > 0:
            changes[field] = side
    return dataclasses.replace(opened, **changes)


def _about(path: pathlib.Path) -> dict[str, Any]:
    """The settings of a run; nothing where there are none."""
    try:
        if path.stat().st_size > _LARGEST_ABOUT:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
