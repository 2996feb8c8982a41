"""`ShardIndex`: which shards there are, and where in them each video is."""

import concurrent.futures
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.data.transforms import rescaled_size
from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList

INDEX_NAME = "index.json"
VERSION = 1
# What frames a record of a TFRecord file: its length and two checksums.
HEADER_BYTES, FOOTER_BYTES = 12, 4
SHARD_NAME = r"shard-\d{5,}-of-\d{5,}"
# An index of a million videos has half of it.
_MAX_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class ShardSettings:
    """What the frames in shards are like.

    Attributes:
        short_side: Shorter side of larger videos, in pixels; `None` if they
            keep their size.
        quality: Of the JPEG compression, 1 to 100.
        fps: Frames per second of every video; `None` if they keep theirs.
    """

    short_side: int | None
    quality: int
    fps: float | None

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 1:
            raise ValueError(
                "`short_side` must be positive or None. "
                f"Received: short_side={self.short_side}"
            )
        if not 1 <= self.quality <= 100:
            raise ValueError(
                "`quality` must be from 1 to 100. "
                f"Received: quality={self.quality}"
            )
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(
                f"`fps` must be positive or None. Received: fps={self.fps}"
            )

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the stored frames of a video.

        >>> ShardSettings(256, 90, None).stored_size(720, 1280)
        (256, 455)
        >>> ShardSettings(256, 90, None).stored_size(240, 320)
        (240, 320)
        """
        shorter = min(height, width)
        return rescaled_size(
            height, width, min(self.short_side or shorter, shorter)
        )


@dataclasses.dataclass(frozen=True)
class ShardVideo:
    """A video of the list that was written, and where it is in the shards.

    Attributes:
        path: The video's file.
        labels: Numbers of its classes.
        segment: The part of the file, in seconds; `None` for all of it.
        actions: Class number, start and end in seconds of what happens;
            `None` if the list does not say.
        problem: Why it is not in the shards; `None` if it is.
        retry: Whether it may be readable another time: it was missing, took
            too long or ended the process.
        offset: First byte of its record in the file.
        length: Bytes of the record, without its checksums.
        num_frames: Frames of its timeline.
        fps: Frames per second, 0.0 if unknown.
        height: Height of the video's own frames, in pixels.
        width: Width of the video's own frames, in pixels.
    """

    path: str
    labels: tuple[int, ...]
    segment: tuple[float, float | None] | None = None
    actions: tuple[tuple[float, float, float], ...] | None = None
    problem: str | None = None
    retry: bool = False
    offset: int = 0
    length: int = 0
    num_frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records.

    Attributes:
        name: Name of the file, without its folder.
        num_bytes: Its size.
        sha256: Its checksum, in hexadecimal.
        videos: Its part of the list, in order, also what is not in the file.
    """

    name: str
    num_bytes: int
    sha256: str
    videos: tuple[ShardVideo, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Shard":
        """Makes one of what `dataclasses.asdict` gives.

        Raises:
            ValueError: If the rows are not the records of one file.
        """
        videos = tuple(ShardVideo(**video) for video in values["videos"])
        shard = cls(**{**values, "videos": videos})
        if not re.fullmatch(rf"{SHARD_NAME}\.tfrecord", shard.name):
            raise ValueError(f"{shard.name!r} is not the name of a shard")
        shard._check_records()
        return shard

    def _check_records(self) -> None:
        """Every record begins where the one before it ends."""
        end = 0
        for row in self.videos:
            if row.problem is not None:
                continue
            sizes = row.length, row.num_frames, row.height, row.width
            known = min(sizes) > 0 and 0 <= row.fps < math.inf
            if not known or row.offset != end:
                raise ValueError(f"no record of {self.name} is {row}")
            end += HEADER_BYTES + row.length + FOOTER_BYTES
        if end != self.num_bytes:
            raise ValueError(
                f"{self.name} has {self.num_bytes} bytes, its records {end}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class ShardIndex:
    """What `write_shards` has written to a folder.

    Attributes:
        directory: The folder.
        settings: What the frames are like.
        class_names: The name of every class, in the order of the numbers.
        multi_label: Whether a video may have any number of classes.
        shards: The files; their videos in order are the list.
        fps: Frames per second of videos that do not say, as the list had it.
    """

    directory: str
    settings: ShardSettings
    class_names: tuple[str, ...]
    multi_label: bool
    shards: tuple[Shard, ...]
    fps: float = 0.0

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "ShardIndex":
        """Reads the index in a folder.

        Raises:
            ValueError: If there is none, or not one that can be read.
        """
        path = pathlib.Path(directory, INDEX_NAME)
        try:
            values = _read_json(path)
            if values["version"] != VERSION:
                raise ValueError(f"version {values['version']}")
            index = cls(
                os.fspath(directory),
                ShardSettings(**values["settings"]),
                tuple(values["class_names"]),
                values["multi_label"],
                tuple(Shard.from_json(shard) for shard in values["shards"]),
                values["fps"],
            )
            index._check_labels()
            return index
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"`directory` must have an {INDEX_NAME} of version {VERSION} "
                f"that `write_shards` has finished. Received: {path}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """What `load` reads."""
        return {
            "version": VERSION,
            "settings": dataclasses.asdict(self.settings),
            "class_names": self.class_names,
            "multi_label": self.multi_label,
            "fps": self.fps,
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
        }

    def rows(self) -> Iterator[ShardVideo]:
        """The videos in the order of the list."""
        for shard in self.shards:
            yield from shard.videos

    def videos(self) -> VideoList:
        """The list that was written, with those that could not be read.

        These are among its `problems` too, of the kind "unreadable video".
        """
        rows = list(self.rows())
        segments = [row.segment for row in rows if row.segment is not None]
        actions = [row.actions for row in rows if row.actions is not None]
        return VideoList(
            tuple(row.path for row in rows),
            self._labels(rows),
            self.class_names,
            np.array(segments, "float64") if segments else None,
            tuple(map(np.array, actions)) if actions else None,
            tuple(
                Problem(
                    "unreadable video",
                    row.path,
                    row.problem.removeprefix(f"{row.path}: "),
                )
                for row in rows
                if row.problem is not None
            ),
            self.fps,
        )

    def _check_labels(self) -> None:
        numbers = range(len(self.class_names))
        for row in self.rows():
            several = self.multi_label or len(row.labels) == 1
            if not several or not all(x in numbers for x in row.labels):
                raise ValueError(f"{row.path} has labels {row.labels}")

    def _labels(self, rows: Sequence[ShardVideo]) -> np.ndarray:
        if not self.multi_label:
            return np.array([row.labels[0] for row in rows], "int32")
        labels = np.zeros((len(rows), len(self.class_names)), "float32")
        for label, row in zip(labels, rows, strict=True):
            label[list(row.labels)] = 1
        return labels

    def paths(self) -> list[str]:
        """The shards' files, wherever the process goes from here."""
        folder = os.path.abspath(self.directory)
        return [os.path.join(folder, shard.name) for shard in self.shards]

    def check(self, checksums: bool = False) -> None:
        """Looks whether the files are as they were written.

        Args:
            checksums: Whether to read them, and not only look at their sizes.

        Raises:
            ValueError: If one is not.
        """
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            fine = pool.map(
                lambda shard: is_intact(self.directory, shard, checksums),
                self.shards,
            )
            damaged = [
                path
                for path, is_fine in zip(self.paths(), fine, strict=True)
                if not is_fine
            ]
        if damaged:
            raise ValueError(
                f"The {len(self.shards)} shards must be as `write_shards` has "
                f"left them. Received: {len(damaged)} that are missing or "
                f"changed, {damaged[0]} for example. `write_shards` with the "
                "arguments of then writes these again"
            )


def is_intact(
    directory: str | os.PathLike[str], shard: Shard, checksum: bool
) -> bool:
    """Whether a shard's file has its size and, if asked for, its checksum."""
    path = os.path.join(directory, shard.name)
    try:
        if os.path.getsize(path) != shard.num_bytes:
            return False
        return not checksum or file_sha256(path) == shard.sha256
    except OSError:
        return False


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_shard(path: str | os.PathLike[str]) -> Shard | None:
    """Reads what was noted of one finished shard, `None` if nothing was."""
    try:
        return Shard.from_json(_read_json(pathlib.Path(path)))
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _read_json(path: pathlib.Path) -> Any:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES} bytes")
    return json.loads(path.read_text())
