"""`read_videos`: the reader for a data set, by what its files look like."""

import csv
import inspect
import itertools
import os
import re
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from keras_nonlocal.data.readers import ava
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import check_file
from keras_nonlocal.data.readers.charades import read_charades
from keras_nonlocal.data.readers.folder import EXTENSIONS
from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.readers.hmdb51 import SPLIT_FILE
from keras_nonlocal.data.readers.hmdb51 import read_hmdb51
from keras_nonlocal.data.readers.hmdb51 import read_hmdb51_list
from keras_nonlocal.data.readers.kinetics import read_kinetics
from keras_nonlocal.data.readers.lists import read_kinetics_list
from keras_nonlocal.data.readers.something import read_something
from keras_nonlocal.data.readers.table import PARQUET_MAGIC
from keras_nonlocal.data.readers.table import read_table
from keras_nonlocal.data.readers.ucf101 import read_ucf101
from keras_nonlocal.data.videos import VideoList

# The one list of formats.
READERS: dict[str, Callable[..., VideoList]] = {
    "folder": read_folder,
    "kinetics": read_kinetics,
    "list": read_kinetics_list,
    "charades": read_charades,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "hmdb51_list": read_hmdb51_list,
    "something": read_something,
    "frames": ava.read_ava_frames,
    "table": read_table,
}
_HEAD_BYTES = 2**16
_MAX_BYTES = 2**30
# Data sets have millions of pictures; a part shows of what kind they are.
_MAX_FILES = 10**5
_MAX_LINE = 4096
_HEADERS = {
    # Without a label it is a test list: `read_kinetics` says so.
    "kinetics": {"youtube_id", "time_start", "time_end"},
    "charades": {"id", "actions", "length"},
    "table": {"path", "label"},
}
_LINES = {
    "list": re.compile(r".*[^\s,;|][\s,;|]+\d+", re.ASCII),
    "hmdb51_list": re.compile(r".*_[fhlu]_[cn]m_np\d_\w+(\.avi)?([\s,]+\d+)+"),
    "ucf101": re.compile(r"[^/\s]+/v_\w+_g\d+_c\d+\.avi(\s+\d+)?"),
}
_SOMETHING = re.compile(r'\s*\[\s*\{\s*"(id|label|template|placeholders)"')


def read_videos(
    path: Path,
    root: Path | None = None,
    format: str | None = None,
    **arguments: Any,
) -> VideoList:
    """Reads a data set in any of the known formats.

    | format | `path` | reader |
    |---|---|---|
    | "folder" | `CLASS/*.mp4` below it | `read_folder` |
    | "kinetics" | official csv file | `read_kinetics` |
    | "list" | `PATH LABEL` a line | `read_kinetics_list` |
    | "charades" | official csv file | `read_charades` |
    | "ucf101" | official list | `read_ucf101` |
    | "hmdb51" | folder of the split files | `read_hmdb51` |
    | "hmdb51_list" | list of frame folders | `read_hmdb51_list` |
    | "something" | JSON file | `read_something` |
    | "frames" | frame list, folders of pictures | `read_ava_frames` |
    | "table" | csv or parquet with `path,label` | `read_table` |

    Lists of UCF101 and HMDB51 look alike whichever way their classes are
    numbered: for them `format` must be given.

    Args:
        path: An annotation file or a folder.
        root: Folder of the videos; that of the annotation file if `None`.
        format: One of the names above; `None`: found out from the content.
        **arguments: Further arguments of the reader: `class_names`.

    Returns:
        The videos that exist, with the others and all that was wrong as its
        `problems`.

    Raises:
        ValueError: If the content fits no format or more than one, is not as
            the format has it, or the reader takes other arguments.
    """
    if format is None:
        format = recognize(path)
    if format not in READERS:
        raise ValueError(
            f"`format` must be one of {', '.join(READERS)}. Received: {format}"
        )
    if root is not None:
        arguments["root"] = root
    if format == "folder" and arguments:
        raise ValueError(
            "A folder of classes is read as it is: `path` alone. Received: "
            f"{', '.join(arguments)} for {path}"
        )
    reader = READERS[format]
    try:
        inspect.signature(reader).bind(path, **arguments)
    except TypeError as error:
        raise ValueError(
            f"`arguments` must be those of `{reader.__name__}` for "
            f"format={format!r}. Received for {path}: {error}"
        ) from error
    return reader(path, **arguments)


def recognize(path: Path) -> str:
    """The format of a data set, a name of `READERS`.

    Args:
        path: An annotation file or a folder.

    Returns:
        The one format that the content fits; "folder" for a folder that fits
            none, whose reader says what was expected.

    Raises:
        ValueError: If a file fits none, or anything fits several.
    """
    if os.path.isdir(path):
        fitting, seen = _formats_of_folder(path), "a folder"
    else:
        head = _head(path)
        fitting = _formats_of_file(head)
        seen = f"a file that begins with {head[:200]!r}"
    if len(fitting) != 1:
        raise ValueError(
            f"`format` must be given for {path}: it could be "
            f"{' or '.join(fitting or READERS)}. Received: format=None, {seen}"
        )
    return fitting[0]


def _formats_of_folder(path: Path) -> list[str]:
    names = os.listdir(path)
    if any(SPLIT_FILE.fullmatch(name) for name in names):
        return ["hmdb51"]
    endings_of = {"folder": EXTENSIONS, "frames": ava.PICTURES}
    files = list(itertools.islice(_files_below(path), _MAX_FILES))
    fitting = [
        name
        for name, endings in endings_of.items()
        if any(file.endswith(endings) for file in files)
    ]
    return fitting or ["folder"]


def _files_below(path: Path) -> Iterator[str]:
    """Names of files in folders of a folder, in small letters."""
    for folder, _, names in os.walk(path):
        if folder != os.fspath(path):
            yield from (x.lower() for x in names if not x.startswith("."))


def _head(path: Path) -> bytes:
    check_file(path, _MAX_BYTES)
    with open(path, "rb") as file:
        return file.read(_HEAD_BYTES)


def _formats_of_file(head: bytes) -> list[str]:
    if head.startswith(PARQUET_MAGIC):
        return ["table"]
    text = head.decode("utf-8-sig", errors="replace")
    if _SOMETHING.match(text):
        return ["something"]
    if ava.FRAME_LIST.match(text):
        return ["frames"]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # The last line may be cut.
    lines = lines[:-1] or lines
    header = next(csv.reader(lines[:1]), [])
    columns = {name.strip().lower() for name in header}
    by_header = [x for x, required in _HEADERS.items() if required <= columns]
    return by_header or [
        name
        for name, row in _LINES.items()
        if any(row.fullmatch(line[:_MAX_LINE]) for line in lines[:10])
    ]
