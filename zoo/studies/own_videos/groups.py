"""Which videos must not be on both sides of a test."""

import os
import re

from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.table import read_column
from keras_nonlocal.data.videos import VideoList

FOLDER = "folder"


def groups_of(
    videos: VideoList, how: str, data: Path, root: Path | None = None
) -> tuple[str, ...]:
    """The group of every video.

    Args:
        videos: What was read from `data`.
        how: Where groups are found. `"folder"`: a video's is the name of the
            folder that it is in, so that folders of one name are one group.
            With a parenthesis: a regular expression that is looked for in the
            path below the root, whose first group names the video's. Anything
            else: a column of the table `data`.
        data: The folder or list of the videos.
        root: Folder that the paths of a list are in; that of the list if
            `None`.

    Returns:
        One name for each video, in their order.

    Raises:
        ValueError: If a video has no group; the first such is named. Or if
            `how` is none of the three.
    """
    if how != FOLDER and "(" not in how:
        return _column(videos, how, data, root)
    base = os.path.dirname(data) if os.path.isfile(data) else os.fspath(data)
    base = os.fspath(root or base or os.curdir)
    if how == FOLDER:
        return tuple(_folder(path) for path in videos.paths)
    pattern = _compiled(how)
    return tuple(_matched(pattern, path, base) for path in videos.paths)


def _column(
    videos: VideoList, column: str, data: Path, root: Path | None
) -> tuple[str, ...]:
    if not os.path.isfile(data):
        raise ValueError(
            "--groups must be a regular expression with parentheses around "
            f'what names the group, or "{FOLDER}", where --data is no table. '
            f"Received: {column!r} for {data}"
        )
    try:
        return read_column(data, column, videos, root)
    except ValueError as error:
        raise ValueError(f"--groups={column}: {error}") from error


def _folder(path: str) -> str:
    return os.path.basename(os.path.dirname(os.path.abspath(path)))


def _compiled(text: str) -> re.Pattern:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(
            f"--groups must be a regular expression. Received: {text!r} "
            f"({error})"
        ) from error
    if not pattern.groups:
        raise ValueError(
            "--groups must have parentheses around what names the group. "
            f"Received: {text!r}"
        )
    return pattern


def _matched(pattern: re.Pattern, path: str, base: str) -> str:
    # Not above the root, where a folder may happen to match for all videos.
    inner = os.path.relpath(path, base).replace(os.sep, "/")
    match = pattern.search(inner)
    if match is None or not match[1]:
        raise ValueError(
            f"--groups={pattern.pattern!r} must be found in the path of every "
            f"video, with a group. Received: {inner!r}"
        )
    return match[1]
