"""Lists of a path and a class number a line, as many code bases use them."""

import os
import pathlib
import re
from collections.abc import Sequence

from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import lies_in
from keras_nonlocal.data.readers.annotations import lines
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import label_of_number
from keras_nonlocal.data.readers.classes import names_of_numbers
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.readers.folder import EXTENSIONS
from keras_nonlocal.data.videos import VideoList

# Paths have spaces and commas too: the last separator counts.
_ROW = re.compile(r"(?P<path>.*[^\s,;|])[\s,;|]+(?P<label>\d+)", re.ASCII)
_FRAMES = re.compile(r"(?P<folder>.*\S)\s+\d+", re.ASCII)
# Videos that are looked for to find out what to cut off the paths.
_NUM_SAMPLES = 256


def read_kinetics_list(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
    prefix: str | None = None,
) -> VideoList:
    """Reads a list of a path and a class number a line.

    Such are the lists of the paper's code (`trainlist.txt`, `vallist.txt`), of
    mmaction2 and of SlowFast: `PATH LABEL`, with a space, comma, semicolon,
    tab or bar between; and those of frame folders, `FOLDER FRAMES LABEL`,
    where the number of frames is passed over.

    Args:
        path: The list.
        root: Folder of the videos, which no path may leave. `None`: relative
            paths start from the folder of the list, and absolute ones stand
            as they are.
        class_names: Names of the classes, in the order of their numbers, or a
            file of them: a label map, `classids.json`. `None`: the numbers are
            the names.
        prefix: The folders of another machine, with which the paths begin and
            which `root` replaces: "/scratch/kinetics". `None`: as few as it
            takes for some of the videos to exist.

    Returns:
        The videos that exist, in the order of the list. The others are among
        the problems, as are rows that cannot be used.

    Raises:
        ValueError: If the file is not as described or none of the videos
            exists.
    """
    text, source = read_text(path), os.path.basename(path)
    names = resolved_names(class_names)
    if prefix is None:
        listed = parse_list(text, class_names=names, source=source).paths
        prefix = _foreign_prefix(listed, path, root)
    videos = parse_list(text, class_names=names, prefix=prefix, source=source)
    return located(videos, path, root)


def parse_list(
    text: str,
    *,
    class_names: Sequence[str] | None = None,
    prefix: str = "",
    source: str = "annotations",
) -> VideoList:
    r"""The videos of a list, without looking at the disk.

    Args:
        text: Content of the list.
        class_names: Names of the classes; `None`: the numbers are the names.
        prefix: First folders of the paths, which are cut off.
        source: Name of the list, for messages.

    Returns:
        The videos, in the order of the list.

    Raises:
        ValueError: If no row is as described.

    >>> videos = parse_list(
    ...     "/scratch/val/air drumming/a.mp4 1\n/scratch/val/archery/b.mkv,0",
    ...     class_names=["archery", "air drumming"],
    ...     prefix="/scratch/val",
    ... )
    >>> videos.paths, videos.labels.tolist()
    (('air drumming/a.mp4', 'archery/b.mkv'), [1, 0])
    """
    num_classes = None if class_names is None else len(class_names)
    labels = []

    def entry(line: str) -> Entry:
        match = _ROW.fullmatch(line)
        if not match:
            raise RowError("malformed row", line)
        labels.append(label_of_number(match["label"], num_classes))
        return Entry(without_prefix(_path(match["path"]), prefix), labels[-1])

    found = Collector(source, "rows of a path and a class number", text)
    found.collect(lines(text, source), entry)
    return found.videos(class_names or names_of_numbers(labels))


def without_prefix(path: str, prefix: str) -> str:
    """A path without its first folders; the path if it has others.

    >>> without_prefix("/scratch/val/a.mp4", "/scratch")
    'val/a.mp4'
    >>> without_prefix("/scratch/val/a.mp4", "/scra")
    '/scratch/val/a.mp4'
    """
    if not prefix:
        return path
    try:
        return str(pathlib.PurePath(path).relative_to(prefix))
    except ValueError:
        return path


def _path(text: str) -> str:
    """The path of a row, without a number of frames behind a folder's."""
    frames = _FRAMES.fullmatch(text)
    if frames and not text.lower().endswith(EXTENSIONS):
        return frames["folder"]
    return text


def _foreign_prefix(paths: Sequence[str], path: Path, root: Path | None) -> str:
    """The shortest prefix without which some of the paths are in the root."""
    base = os.path.dirname(path) if root is None else os.fspath(root)
    sample = paths[:: max(1, len(paths) // _NUM_SAMPLES)]
    parts = pathlib.PurePath(sample[0]).parts
    prefixes = [os.path.join("", *parts[:count]) for count in range(len(parts))]
    for prefix in prefixes:
        for name in sample:
            full = os.path.join(base, without_prefix(name, prefix))
            allowed = root is None or lies_in(full, base)
            if allowed and os.path.exists(full):
                return prefix
    return ""
