"""Kinetics-400, -600 and -700: the official csv files."""

import collections
import os
import pathlib
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import csv_rows
from keras_nonlocal.data.readers.annotations import filled
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import label_of_name
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.readers.folder import EXTENSIONS
from keras_nonlocal.data.videos import VideoList

_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_EXPECTED = "rows of label,youtube_id,time_start,time_end,split"
_ID = re.compile(r"[\w-]+", re.ASCII)
_TIME = re.compile(r"\d{1,6}", re.ASCII)
# Files in folders of folders: SPLIT/CLASS/FILE.
_DEPTH = 2


def read_kinetics(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
    trimmed: bool = True,
) -> VideoList:
    """Reads an official csv file and finds its videos in a folder.

    A video is found by its file's name, `ID_000417_000427` or `ID` with any
    ending of a video, in `root` itself or in folders of at most two levels:
    the layout of the CVDF copy (`train/ID_000417_000427.mp4`,
    `replacement/replacement_for_corrupted_k400/ID_000417_000427.mp4`) and
    `CLASS/ID.mp4` among them. A folder named after another class is passed by.
    Where several files fit, the one with times in its name comes first, then
    one in a `replacement` folder, in a folder of the class, of the split.

    Args:
        path: The csv file, with the columns `label`, `youtube_id`,
            `time_start`, `time_end` and `split`.
        root: Folder of the videos; that of the csv file if `None`.
        class_names: Names of the classes, in the order of their numbers, or a
            file of them: a label map, `classids.json`. `None`: the labels of
            the csv file in alphabetical order, which is the official order if
            every class occurs in it, and is not in an excerpt.
        trimmed: Whether files without times in their names are the clips.
            `False`: they are the whole videos, and the times are `segments`.

    Returns:
        The videos that exist, in the order of the file. The others are among
        the problems, as are rows that cannot be used.

    Raises:
        ValueError: If the file is not as described or none of the videos
            exists.
    """
    videos = parse_kinetics(
        read_text(path),
        list(_files(os.path.dirname(path) if root is None else root)),
        class_names=resolved_names(class_names),
        trimmed=trimmed,
        source=os.path.basename(path),
    )
    return located(videos, path, root)


def parse_kinetics(
    text: str,
    files: Iterable[str] = (),
    *,
    class_names: Sequence[str] | None = None,
    trimmed: bool = True,
    source: str = "annotations",
) -> VideoList:
    r"""The videos of a csv file, without looking at the disk.

    Args:
        text: Content of the csv file.
        files: Names of the files below the root, with "/" between folders.
        class_names: As in `read_kinetics`.
        trimmed: As in `read_kinetics`.
        source: Name of the csv file, for messages.

    Returns:
        The videos under the names of `files`; under the name of the CVDF
        layout where none of them fits.

    Raises:
        ValueError: If the text is not as described.

    >>> videos = parse_kinetics(
    ...     "label,youtube_id,time_start,time_end,split\n"
    ...     "zumba,0wR5jVB-WPk,417,427,val\n"
    ...     "archery,3caPS4FHFF8,36,46,val\n",
    ...     ["val/zumba/0wR5jVB-WPk.mkv"],
    ... )
    >>> videos.paths
    ('val/zumba/0wR5jVB-WPk.mkv', 'val/3caPS4FHFF8_000036_000046.mp4')
    >>> videos.labels.tolist(), videos.class_names
    ([1, 0], ('archery', 'zumba'))
    """
    _check_labelled(text, source)
    rows, split = csv_rows(text, source, _COLUMNS)
    found = Collector(source, _EXPECTED, text)
    cells = found.all_parsed(rows, lambda line: _checked(split(line)))
    names = class_names or sorted({row["label"] for _, row in cells})
    numbers, finder = numbered(names), _Finder(files, names)

    def entry(row: Mapping[str, str]) -> Entry:
        label = label_of_name(row["label"], numbers)
        file, has_times = finder.find(row)
        segment = None
        if not trimmed and not has_times:
            segment = float(row["time_start"]), float(row["time_end"])
        return Entry(file, label, segment)

    found.collect(cells, entry)
    return found.videos(names)


class _Finder:
    """Finds the file of a row among those of a folder.

    Args:
        files: Their names, relative to the folder.
        class_names: Names that folders may have.
    """

    def __init__(
        self, files: Iterable[str], class_names: Sequence[str]
    ) -> None:
        self._by_stem: dict[str, list[str]] = collections.defaultdict(list)
        # Of two files that fit equally, the one in fewer folders.
        for file in sorted(files, key=lambda file: (file.count("/"), file)):
            # "9EnSwbXxu5g.mp4.webm" is a name of the authors' own copy.
            self._by_stem[os.path.basename(file).split(".")[0]].append(file)
        self._class_folders = set().union(*map(_folders_of, class_names))

    def find(self, row: Mapping[str, str]) -> tuple[str, bool]:
        """The file's name, and whether it has the times."""
        name = row["youtube_id"]
        start, end = int(row["time_start"]), int(row["time_end"])
        with_times = f"{name}_{start:06d}_{end:06d}"
        for stem in (with_times, name):
            files = [
                file
                for file in self._by_stem.get(stem, ())
                if self._may_hold(os.path.dirname(file), row["label"])
            ]
            if files:
                return min(files, key=lambda x: _rank(x, row)), stem != name
        return f"{_split_folder(row)}/{with_times}.mp4", True

    def _may_hold(self, folder: str, label: str) -> bool:
        classes = self._class_folders.intersection(folder.split("/"))
        return not classes or bool(classes & _folders_of(label))


def _rank(file: str, row: Mapping[str, str]) -> tuple[bool, bool, bool]:
    folders = set(os.path.dirname(file).split("/"))
    return (
        not any(folder.startswith("replacement") for folder in folders),
        not folders & _folders_of(row["label"]),
        _split_folder(row) not in folders,
    )


def _split_folder(row: Mapping[str, str]) -> str:
    # Kinetics-600 and -700 call the split "validate", the copies' folder not.
    return "val" if row["split"] == "validate" else row["split"]


def _folders_of(label: str) -> set[str]:
    return {label, label.replace(" ", "_")}


def _check_labelled(text: str, source: str) -> None:
    header = text.partition("\n")[0].lower()
    if "youtube_id" in header and "label" not in header:
        raise ValueError(
            f"{source} must have a column `label`. Received: "
            f"{header.strip()}, the header of a test list without labels"
        )


def _checked(row: dict[str, str]) -> dict[str, str]:
    _, name, start, end, _ = filled(row, *_COLUMNS)
    if not _ID.fullmatch(name):
        raise RowError("malformed row", f"not an id of YouTube: {name!r}")
    if not (_TIME.fullmatch(start) and _TIME.fullmatch(end)):
        raise RowError(
            "malformed row", f"times not in whole seconds: {start!r}, {end!r}"
        )
    if int(end) <= int(start):
        raise RowError("malformed row", f"ends before it starts: {start}-{end}")
    return row


def _files(root: Path) -> Iterator[str]:
    folder = pathlib.Path(root)
    if not folder.is_dir():
        raise ValueError(
            "`root` must be the folder of the videos. "
            f"Received: {root}, which is not a folder"
        )
    yield from _files_below(str(folder), "", _DEPTH)


def _files_below(folder: str, prefix: str, depth: int) -> Iterator[str]:
    # Through links as well, as data sets on several disks have them; the depth
    # keeps circles finite.
    with os.scandir(folder) as members:
        for member in members:
            if member.name.startswith("."):
                continue
            if member.name.lower().endswith(EXTENSIONS):
                yield prefix + member.name
            elif depth and member.is_dir():
                yield from _files_below(
                    member.path, f"{prefix}{member.name}/", depth - 1
                )
