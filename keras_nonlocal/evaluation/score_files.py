"""Files of scores: of finished tests, and of those that are to go on."""

import dataclasses
import json
import os
import zipfile
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.evaluation.protocols import Protocol

# Of the files: another number if an array or a key changes what it means.
_FORMAT = 1
_ARRAYS = ("about", "labels", "segments", "numbers", "scores")


def save(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    fingerprint: str = "",
) -> None:
    """Writes scores and all that they are of, complete or not at all.

    Args:
        evaluation: The scores, perhaps of a part of the videos so far.
        path: An `.npz` file, of arrays without Python objects.
        fingerprint: What another test must have in common to go on from it.
    """
    videos = evaluation.videos
    about = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "name": evaluation.name,
        "dataset": evaluation.dataset,
        "paths": videos.paths,
        "class_names": videos.class_names,
        "fps": videos.fps,
        "clip": dataclasses.asdict(evaluation.clip),
        "protocol": dataclasses.asdict(evaluation.protocol),
        "settings": list(evaluation.scores),
        "skipped": list(evaluation.skipped.items()),
        "about": evaluation.about,
    }
    segments = videos.segments
    arrays: dict[str, Any] = {
        # In ASCII: names of files may hold bytes that are no text.
        "about": np.frombuffer(json.dumps(about).encode("ascii"), "uint8"),
        "labels": videos.labels,
        "segments": np.zeros((0, 2)) if segments is None else segments,
        "numbers": evaluation.numbers,
        "scores": np.stack(list(evaluation.scores.values())),
    }
    with replacing(path) as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike[str]) -> Evaluation:
    """The scores of a finished test.

    Args:
        path: A file that `evaluate` has written.

    Raises:
        ValueError: If it is no such file, or of a test that has not ended.
    """
    evaluation, _ = read(path)
    missing = len(evaluation.videos) - evaluation.tested
    missing -= len(evaluation.skipped)
    if missing:
        raise ValueError(
            f"{os.fspath(path)}: it must be of a test that has ended. "
            f"Received: one that has {missing} of {len(evaluation.videos)} "
            "videos to go"
        )
    return evaluation


def read(path: str | os.PathLike[str]) -> tuple[Evaluation, str]:
    """The scores that a file holds, and its fingerprint.

    Raises:
        ValueError: If it is no file of scores.
    """
    try:
        arrays = _read_arrays(path)
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']}, not {_FORMAT}")
        return _evaluation(arrays, about), str(about["fingerprint"])
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        MemoryError,
        OSError,
        EOFError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{os.fspath(path)}: it must be a file of scores that `evaluate` "
            f"has written. Received: {type(error).__name__}: {error}"
        ) from error


def _read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        # Nothing is larger than it is on the disk.
        packed = [
            entry.filename
            for entry in archive.infolist()
            if entry.compress_type != zipfile.ZIP_STORED
        ]
    if packed:
        raise ValueError(f"compressed arrays {packed}")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in _ARRAYS}


def _evaluation(
    arrays: dict[str, np.ndarray], about: dict[str, Any]
) -> Evaluation:
    segments = arrays["segments"]
    videos = VideoList(
        tuple(about["paths"]),
        arrays["labels"],
        tuple(about["class_names"]),
        segments if len(segments) else None,
        fps=about["fps"],
    )
    scores, numbers = arrays["scores"], arrays["numbers"]
    settings = tuple(about["settings"])
    skipped = {int(number): str(why) for number, why in about["skipped"]}
    shape = (len(settings), len(numbers), len(videos.class_names))
    both = [*numbers.tolist(), *skipped]
    in_order = numbers.tolist() == sorted(numbers.tolist())
    if (
        scores.shape != shape
        or scores.dtype != np.float32
        or not settings
        or not in_order
        or len(set(both)) < len(both)
        or not set(both) <= set(range(len(videos)))
        or not np.isfinite(scores).all()
    ):
        raise ValueError(
            f"scores of shape {scores.shape} for {len(settings)} settings, "
            f"{len(numbers)} of {len(videos)} videos and "
            f"{len(videos.class_names)} classes"
        )
    return Evaluation(
        name=str(about["name"]),
        dataset=str(about["dataset"]),
        videos=videos,
        clip=ClipSpec(**about["clip"]),
        protocol=Protocol(**about["protocol"]),
        numbers=numbers.astype("int64"),
        scores=dict(zip(settings, scores, strict=True)),
        skipped=skipped,
        about=dict(about["about"]),
    )
