"""Videos in one folder per class, as Keras's directory utilities expect."""

import itertools
import os
import pathlib

import numpy as np

from keras_nonlocal.data.videos import VideoList

EXTENSIONS = (
    ".mp4",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".gif",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
    ".ts",
)


def read_folder(root: str | os.PathLike[str]) -> VideoList:
    """Lists `root/CLASS/*.mp4` and other videos, at any depth in a class.

    Classes are numbered in alphabetical order of their folders; inside a class
    files are sorted by path. Hidden files and folders (a leading dot) and
    files that do not end like a video (`EXTENSIONS`, in any case) are ignored.

    Args:
        root: The folder with one folder per class.

    Returns:
        The videos, class after class.

    Raises:
        ValueError: If `root` is missing, is not a folder, has no class
            folders, or has class folders without videos.
    """
    folder = pathlib.Path(root)
    expected = f"expected videos as {folder}/CLASS/*.mp4"
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"`root` {problem}, {expected}. Received: {root}")
    names = sorted(path.name for path in folder.iterdir() if _is_class(path))
    if not names:
        raise ValueError(
            f"`root` has no class folders, {expected}. Received: {root}"
        )
    files = {name: _video_files(folder / name) for name in names}
    if not any(files.values()):
        raise ValueError(f"`root` has no videos, {expected}. Received: {root}")
    empty = [name for name in names if not files[name]]
    if empty:
        raise ValueError(
            f"Every class folder must have videos, {expected} or another of "
            f"{', '.join(EXTENSIONS)}. Received no videos in: "
            f"{', '.join(empty)}"
        )
    paths = tuple(itertools.chain.from_iterable(files.values()))
    counts = [len(files[name]) for name in names]
    labels = np.repeat(np.arange(len(names)), counts)
    return VideoList(paths, labels, tuple(names))


def _is_class(path: pathlib.Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _video_files(folder: pathlib.Path) -> tuple[str, ...]:
    found = []
    for parent, subfolders, names in os.walk(folder):
        # In place: os.walk then does not enter the hidden folders.
        subfolders[:] = [n for n in subfolders if not n.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return tuple(sorted(found))
