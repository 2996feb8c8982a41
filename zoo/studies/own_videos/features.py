"""Feature maps of a frozen network, of one clip a video, kept on disk."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.training.config import TrainConfig

# Clips of a call: enough for a GPU, and little memory.
_BATCH = 4


def inception(layer: str, weights: str | None = "kinetics400") -> keras.Model:
    """The Inception I3D up to one of its blocks.

    Args:
        layer: Name of an Inception block, "Mixed_5c".
        weights: As for `InceptionI3D`.

    Raises:
        ValueError: If there is no such block, or there are no weights.
    """
    model = InceptionI3D(weights=weights, include_top=False)
    blocks = [
        x.name for x in model.layers if isinstance(x, keras.layers.Concatenate)
    ]
    if layer not in blocks:
        raise ValueError(
            f"--layer must be one of {', '.join(blocks)}. Received: {layer}"
        )
    return keras.Model(model.input, model.get_layer(layer).output, name=layer)


def tiny_trunk() -> keras.Model:
    """A random network of one convolution, to try out everything else."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv3D(16, (2, 8, 8), strides=(2, 8, 8))(x)
    return keras.Model(inputs, keras.layers.ReLU(name="tiny")(x), name="tiny")


def extract(
    trunk: keras.Model,
    videos: VideoList,
    config: TrainConfig,
    folder: pathlib.Path,
    skips: SkipLog,
) -> list[pathlib.Path | None]:
    """Takes the features of the middle clip of every video, once.

    Args:
        trunk: From uint8 clips to maps `(batch, T, H, W, channels)`.
        videos: The videos.
        config: Says which clips.
        folder: Where the features are kept, float16, under names that change
            with all that they depend on.
        skips: Where to count what cannot be read.

    Returns:
        For each video the file of its features, `(T, H, W, channels)`, or
        `None` if it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"weights": _digest_of(trunk), **_about_clips(config)}
    files = [
        folder / f"{_key(about, videos, number)}.npy"
        for number in range(len(videos))
    ]
    missing = [n for n, file in enumerate(files) if not _is_complete(file)]
    if missing:
        print(f"Features of {len(missing)} videos", flush=True)
        chosen = [files[number] for number in missing]
        _fill(trunk, videos.subset(missing), config, chosen, skips)
    return [file if _is_complete(file) else None for file in files]


def stamp(path: str) -> list:
    """What changes when a file is replaced: name, size and time."""
    about = os.stat(path)
    return [os.path.abspath(path), about.st_size, about.st_mtime_ns]


def digest(values: object) -> str:
    """A short name of values that JSON can hold."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def numbered(videos: VideoList, numbers: Sequence[int]) -> VideoList:
    """Videos of a list whose labels are their numbers in that list."""
    count = int(max(numbers, default=0)) + 1
    return dataclasses.replace(
        videos.subset(np.asarray(numbers, "int64")),
        labels=np.asarray(numbers, "int64"),
        class_names=tuple(str(number) for number in range(count)),
    )


def _fill(
    trunk: keras.Model,
    videos: VideoList,
    config: TrainConfig,
    files: Sequence[pathlib.Path],
    skips: SkipLog,
) -> None:
    dataset = clip_dataset(
        numbered(videos, range(len(videos))),
        config.clip,
        batch_size=_BATCH,
        training=False,
        crop_size=config.crop_size,
        short_side=config.short_side,
        num_workers=config.num_workers,
        skips=skips,
    )
    bar = keras.utils.Progbar(len(videos), unit_name="video")
    try:
        for clips, numbers in dataset:
            maps = trunk.predict_on_batch(clips).astype("float16")
            for number, features in zip(numbers.numpy(), maps, strict=True):
                _save(files[number], features)
            bar.add(len(maps))
    except tf.errors.InvalidArgumentError:
        # What the pipeline says where not one could be read.
        if skips.count < len(videos):
            raise


def _about_clips(config: TrainConfig) -> dict:
    return {
        "clip": str(config.clip),
        "clip_fields": dataclasses.asdict(config.clip),
        "crop_size": config.crop_size,
        "short_side": config.short_side[0],
    }


def _key(about: dict, videos: VideoList, number: int) -> str:
    segment = [str(end) for end in videos.segment(number) or ()]
    file = stamp(videos.paths[number])
    return digest([about, file, segment, videos.fps])


def _digest_of(model: keras.Model) -> str:
    """A name of a network's last layer and of its weights."""
    found = hashlib.sha256(model.layers[-1].name.encode())
    for values in model.get_weights():
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _save(path: pathlib.Path, values: np.ndarray) -> None:
    with replacing(path) as file:
        np.save(file, values, allow_pickle=False)


def _is_complete(path: pathlib.Path) -> bool:
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True
