"""Trained models, with what they say of the clips that they take."""

import dataclasses
import hashlib
import operator
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation.views import published_clip
from keras_nonlocal.export.saved_model import read_about
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.models import labels
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.inception_i3d import InceptionVariant
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.catalogue import WeightsEntry

_NETWORK, _EXPORTED = "model.keras", "saved_model"
# "Quo Vadis, Action Recognition?", section 3: what its I3D was trained on.
_INCEPTION_CLIP, _INCEPTION_CROP = ClipSpec(64, fps=25.0), 224


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model to evaluate or to predict with.

    Attributes:
        model: A Keras model or a function, as `evaluate` takes them.
        name: Its name.
        clip: Its clips; `None` if it does not say.
        crop_size: Side of its training clips in pixels; `None` if it does not
            say.
        class_names: Of its scores; `None` if it does not say.
        digest: What tells a function from others; `None` for a Keras model.
        short_side: Short side of the rescaled videos in pixels; `None` if it
            does not say.
    """

    model: keras.Model | Callable[..., Any]
    name: str
    clip: ClipSpec | None = None
    crop_size: int | None = None
    class_names: tuple[str, ...] | None = None
    digest: str | None = None
    short_side: int | None = None


@dataclasses.dataclass(frozen=True)
class ClipInput:
    """How clips for a model are taken from a video.

    Attributes:
        clip: Frames of a clip.
        crop_size: Height and width of the centre crop, in pixels.
        short_side: Short side of the rescaled video, in pixels.
    """

    clip: ClipSpec
    crop_size: int
    short_side: int


def open_model(path: str | os.PathLike[str]) -> OpenedModel:
    """Loads a trained model, with what is known of its clips and classes.

    Args:
        path: A `.keras` file; a folder that `export_saved_model` wrote; the
            folder of a trained network, with `model.keras` and perhaps
            `saved_model` in it, or of a run of one network; or the name of
            published weights, as `list_weights()` prints them. A file or
            folder of that name comes before published weights. Class names,
            clips and sizes of a `model.keras`, and of no other file, are those
            that the `saved_model` beside it says.

    Returns:
        The `OpenedModel`: of a Keras model wherever there is one, which can
        also be taken apart, and else of the function of the exported model.

    Raises:
        ValueError: If it is none of these or cannot be loaded.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _folder(path)
    if path.is_file() and path.suffix == ".keras":
        opened = describe(_load(path))
        if path.name != _NETWORK:  # What is beside it may be of another one.
            return opened
        return _with_about(opened, path.with_name(_EXPORTED))
    if os.fspath(path) in CATALOGUE and not path.exists():
        return _published(CATALOGUE[os.fspath(path)])
    raise ValueError(
        "The model must be a .keras file or the folder of an exported model "
        "or of a run, or a name that list_weights() prints. "
        f"Received: {path}"
    )


def as_opened(model: Any) -> OpenedModel:
    """A model in any of the forms in which one may be given.

    Args:
        model: An `OpenedModel`, a `keras.Model`, a function from uint8 clips
            `(batch, T, H, W, 3)` to scores `(batch, classes)`, as the `serve`
            of an exported model, or what `open_model` takes.

    Raises:
        ValueError: If it is none of these, or as `open_model`.
    """
    if isinstance(model, OpenedModel):
        return model
    if isinstance(model, keras.Model):
        return describe(model)
    if isinstance(model, (str, os.PathLike)):
        return open_model(model)
    if callable(model):
        return OpenedModel(model, str(getattr(model, "__name__", "model")))
    raise ValueError(
        "`model` must be a Keras model, a function of clips, or what "
        f"open_model takes. Received: {model!r}"
    )


def describe(model: keras.Model) -> OpenedModel:
    """A Keras model, with what a network of this package says of itself."""
    records = [x for x in model.layers if isinstance(x, NetworkRecord)]
    training = records[0].trained_with if records else {}
    if "num_frames" not in training:
        return OpenedModel(model, model.name)
    clip = ClipSpec(training["num_frames"], training["sampling_rate"])
    return OpenedModel(model, model.name, clip, training["crop_size"])


def clip_input(
    opened: OpenedModel,
    clip: ClipSpec | None = None,
    crop_size: int | None = None,
    short_side: int | None = None,
) -> ClipInput:
    """Clips and sizes for a model: those that are given, and else its own.

    Args:
        opened: The model.
        clip: Frames of a clip.
        crop_size: Height and width of the centre crop, in pixels. Default:
            the model's, and for a Keras model that does not say, the size of
            its input.
        short_side: Short side of the rescaled video, in pixels. Default: the
            model's with the model's crop, and else 256/224 of the crop, the
            paper's proportion.

    Raises:
        ValueError: If one of them is neither given nor known, or not as
            described, or does not fit the model's input.
    """
    clip = clip or opened.clip
    *shape, channels = _input_shape(opened.model)
    own_crop = opened.crop_size or shape[1]
    crop = own_crop if crop_size is None else crop_size
    if not isinstance(clip, ClipSpec):
        raise ValueError(
            f"The model {opened.name!r} does not say which clips it takes: "
            f"give a ClipSpec. Received: {clip!r}"
        )
    if crop is None:
        raise ValueError(
            f"The model {opened.name!r} does not say how large its clips are: "
            "`crop_size` must be given. Received: None"
        )
    # Of numpy too, which cannot be written as JSON.
    crop = _whole("crop_size", crop)
    if short_side is None and crop == own_crop:
        short_side = opened.short_side
    side = crop * 256 // 224 if short_side is None else short_side
    side = _whole("short_side", side)
    if clip.fps is not None:
        clip = dataclasses.replace(clip, fps=float(clip.fps))
    if not 1 <= crop <= side:
        raise ValueError(
            "`crop_size` must be positive and at most `short_side`. "
            f"Received: crop_size={crop}, short_side={side}"
        )
    wanted = (clip.num_frames, crop, crop)
    if any(a not in (None, b) for a, b in zip(shape, wanted, strict=True)):
        raise ValueError(
            f"Clips for the model {opened.name!r} must be of (frames, height, "
            f"width) = {tuple(shape)}. Received: {wanted}"
        )
    if channels not in (None, 3):
        raise ValueError(
            f"The model {opened.name!r} must take RGB, 3 channels. Received: "
            f"{channels}"
        )
    return ClipInput(clip, crop, side)


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(
            f"`{name}` must be a whole number. Received: {name}={value!r}"
        ) from error


def _input_shape(model: Any) -> tuple[int | None, ...]:
    """Frames, height, width, channels that a model takes, `None` for any."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 5:
        return (None, None, None, None)
    return shape[1:]


def _folder(path: pathlib.Path) -> OpenedModel:
    if (path / _NETWORK).is_file():
        return open_model(path / _NETWORK)
    if (path / _EXPORTED).is_dir():
        return _exported(path / _EXPORTED)
    networks = sorted(path.glob(f"*/{_NETWORK}"))
    if len(networks) == 1:
        return open_model(networks[0])
    if networks:
        names = ", ".join(network.parent.name for network in networks)
        raise ValueError(
            f"The model must be one of those in {path}: {names}. "
            f"Received: {path}"
        )
    return _exported(path)


def _load(path: pathlib.Path) -> keras.Model:
    try:
        return keras.models.load_model(path)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path} could not be loaded as a Keras model: {error}"
        ) from error


def _with_about(opened: OpenedModel, exported: pathlib.Path) -> OpenedModel:
    """A network, with what the export beside it says of its clips."""
    try:
        about = read_about(exported)
    except ValueError:  # There is none.
        return opened
    return _say(opened, about)


def _say(opened: OpenedModel, about: dict) -> OpenedModel:
    """A model of which `export_saved_model` was told some more."""
    names = about.get("class_names")
    return dataclasses.replace(
        opened,
        clip=_clip(about.get("clip")) or opened.clip,
        crop_size=about.get("crop_size") or opened.crop_size,
        class_names=tuple(names) if names else opened.class_names,
        short_side=about.get("short_side") or opened.short_side,
    )


def _exported(path: pathlib.Path) -> OpenedModel:
    about = read_about(path)
    loaded = tf.saved_model.load(os.fspath(path))
    folder = path.resolve()
    if folder.name == _EXPORTED:
        folder = folder.parent
    opened = OpenedModel(
        # Not the function alone, which does not hold its variables.
        lambda clips: loaded.serve(clips),
        folder.name,
        digest=_digest(path),
    )
    return _say(opened, about)


def _published(entry: WeightsEntry) -> OpenedModel:
    """The network of published weights, with its classes."""
    arguments: dict[str, Any] = {
        "weights": entry.name,
        "classes": entry.classes,
        "classifier_activation": entry.activation or "softmax",
    }
    if entry.classes is None or not isinstance(
        entry.network, (Variant, InceptionVariant)
    ):
        raise ValueError(
            f"The weights {entry.name!r} are not those of a network that "
            f"classifies videos. Note: {entry.note or 'none'}"
        )
    if isinstance(entry.network, InceptionVariant):
        opened = dataclasses.replace(
            describe(InceptionI3D(**arguments)),
            clip=_INCEPTION_CLIP,
            crop_size=_INCEPTION_CROP,
        )
    else:
        opened = dataclasses.replace(
            describe(ResNet3D(**arguments)), clip=published_clip(entry.name)
        )
    try:
        names = labels.class_names(entry.dataset)
    except ValueError:  # Not packaged.
        return opened
    return dataclasses.replace(opened, class_names=names)


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
