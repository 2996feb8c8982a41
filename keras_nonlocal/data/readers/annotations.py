"""What the readers of annotation files share: text, rows, problems, places."""

import csv
import dataclasses
import math
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList

Path = str | os.PathLike[str]
Row = TypeVar("Row")
Parsed = TypeVar("Parsed")

# The largest official file, Something-Something's, has about 40 MB.
MAX_BYTES = 2**28
# Half a million videos of 2000 classes; 4 GB.
_MAX_LABELS = 10**9
_MAX_SHOWN = 200


class RowError(Exception):
    """A row that cannot be used; becomes a `Problem`.

    Args:
        kind: As of `Problem`.
        detail: As of `Problem`.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video of an annotation file.

    Attributes:
        path: File name, as a rule relative to a root.
        labels: Class number; a tuple of any number of them if the list has
            several classes for a video.
        segment: Start and end in seconds, `None` as an end for that of the
            file; `None` for all of the file.
        actions: Class number, start and end in seconds of each.
        mended: Kind and detail of what was wrong and is not any more.
    """

    path: str
    labels: int | tuple[int, ...]
    segment: tuple[float, float | None] | None = None
    actions: tuple[tuple[int, float, float], ...] | None = None
    mended: tuple[tuple[str, str], ...] = ()


class Collector:
    """Gathers the videos of one annotation file and what is wrong with it.

    Args:
        source: Name of the file, for messages.
        expected: What its rows should be, for messages.
        text: Content, for messages.
    """

    def __init__(self, source: str, expected: str, text: str = "") -> None:
        self.source = source
        self.expected = expected
        self.first_line = next(lines(text, source), ("", ""))[1]
        self.problems: list[Problem] = []
        self._entries: dict[tuple, tuple[str, Entry]] = {}

    def parsed(
        self,
        rows: Iterable[tuple[str, Row]],
        parse: Callable[[Row], Parsed],
    ) -> Iterator[tuple[str, Parsed]]:
        """Where each row is and what `parse` makes of it, without failures."""
        for where, row in rows:
            try:
                yield where, parse(row)
            except RowError as error:
                self.problem(error.kind, where, error.detail)

    def all_parsed(
        self,
        rows: Iterable[tuple[str, Row]],
        parse: Callable[[Row], Parsed],
    ) -> list[tuple[str, Parsed]]:
        """What `parsed` gives; raises `ValueError` if that is nothing."""
        parsed = list(self.parsed(rows, parse))
        if not parsed:
            raise self.error(self.problems)
        return parsed

    def collect(
        self, rows: Iterable[tuple[str, Row]], parse: Callable[[Row], Entry]
    ) -> None:
        """Adds the video of every row; the first of several equal ones."""
        for where, entry in self.parsed(rows, parse):
            if leaves_root(entry.path):
                self.problem("path outside the root", where, entry.path)
                continue
            for kind, detail in entry.mended:
                self.problem(kind, where, detail)
            key = (entry.path, entry.segment)
            first, kept = self._entries.setdefault(key, (where, entry))
            if kept is not entry:
                self._duplicate(where, entry, first, kept)

    def problem(self, kind: str, where: str, detail: str = "") -> None:
        """Counts something that is not as it should be."""
        self.problems.append(Problem(kind, where, detail[:_MAX_SHOWN]))

    def videos(self, class_names: Iterable[str], fps: float = 0.0) -> VideoList:
        """The list of all that was collected.

        Args:
            class_names: The name of every class, in the order of the numbers.
            fps: Of folders of pictures.

        Returns:
            The videos, in the order of the file.

        Raises:
            ValueError: If no row could be used.
        """
        if not self._entries:
            raise self.error(self.problems)
        names = tuple(class_names)
        entries = [entry for _, entry in self._entries.values()]
        actions = [entry.actions for entry in entries]
        return VideoList(
            tuple(entry.path for entry in entries),
            _labels(entries, len(names)),
            names,
            _segments(entries),
            None if None in actions else tuple(map(_rows_of_three, actions)),
            tuple(self.problems),
            fps,
        )

    def error(self, problems: Iterable[Problem]) -> ValueError:
        """What to raise where nothing of the file can be used."""
        reasons = "".join(f" ({problem})" for problem in list(problems)[:1])
        line = self.first_line[:_MAX_SHOWN]
        return ValueError(
            f"{self.source} must have {self.expected}. Received no usable "
            f"row{reasons}; first line: {line!r}"
        )

    def _duplicate(
        self, where: str, entry: Entry, first: str, kept: Entry
    ) -> None:
        same = entry.labels == kept.labels and entry.actions == kept.actions
        self.problem(
            "duplicate row" if same else "contradicting rows",
            where,
            f"{entry.path}; kept that of {first}",
        )


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The content of an annotation file.

    Args:
        path: A regular file of UTF-8 text, with or without a byte-order mark.
        limit: Largest number of bytes.

    Returns:
        The text.

    Raises:
        ValueError: If there is no such file, or it is too large or not UTF-8.
    """
    check_file(path, limit)
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8 text. Received: {error}"
        ) from error


def check_file(path: Path, limit: int = MAX_BYTES) -> None:
    """Raises `ValueError` if `path` is not a file of at most `limit` bytes."""
    # Reading a pipe could wait for ever: regular files only.
    if not os.path.isfile(path):
        reason = "not a file" if os.path.exists(path) else "does not exist"
        raise ValueError(
            f"`path` must be an annotation file. Received: {path} ({reason})"
        )
    size = os.path.getsize(path)
    if size > limit:
        raise ValueError(
            f"{path} must have at most {limit} bytes. Received: {size}"
        )


def lines(text: str, source: str) -> Iterator[tuple[str, str]]:
    r"""Where each line that is not blank is, and the line, stripped.

    >>> list(lines("a 1\r\n\nb 2", "train.txt"))
    [('train.txt, line 1', 'a 1'), ('train.txt, line 3', 'b 2')]
    """
    start, number = 0, 1
    # One line at a time: frame lists have millions.
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].strip()
        if line:
            yield f"{source}, line {number}", line
        start, number = end + 1, number + 1


def csv_rows(
    text: str, source: str, required: Iterable[str]
) -> tuple[Iterator[tuple[str, str]], Callable[[str], dict[str, str]]]:
    r"""The lines of a csv file below its header, and what splits them.

    A row is one line: a quotation mark that is left open spoils one row and
    not the rest of the file.

    Args:
        text: The content of the file.
        source: Its name, for messages.
        required: Columns that it must have, in small letters.

    Returns:
        Pairs of place and line, and a function from a line to its cells by
        the name of their column; it raises `RowError`.

    Raises:
        ValueError: If a required column is missing.

    >>> rows, split = csv_rows("Path,label\na.mp4,run", "x.csv", ["path"])
    >>> [(where, split(line)) for where, line in rows]
    [('x.csv, line 2', {'path': 'a.mp4', 'label': 'run'})]
    """
    rows = lines(text, source)
    first = next(rows, ("", ""))[1]
    # Never a name in two lines: quotation marks are none of a name's.
    header = [name.strip(' "').lower() for name in first.split(",")]
    wrong = [name for name in required if header.count(name) != 1]
    if wrong:
        raise ValueError(
            f"{source} must have a header with the columns {', '.join(wrong)}, "
            f"each once. Received: {first[:_MAX_SHOWN]!r}"
        )

    def split(line: str) -> dict[str, str]:
        cells = [cell.strip() for cell in _cells(line)]
        if len(cells) != len(header):
            raise RowError(
                "malformed row",
                f"{len(header)} columns expected, {len(cells)} found: {line}",
            )
        return dict(zip(header, cells, strict=True))

    return rows, split


def with_number(line: str) -> tuple[str, str]:
    """A path and the digits behind it, "" if there are none.

    >>> with_number("my videos/a.avi 1"), with_number("my videos/a.avi")
    (('my videos/a.avi', '1'), ('my videos/a.avi', ''))
    """
    path, *last = line.rsplit(maxsplit=1)
    if last and last[0].isdecimal():
        return path, last[0]
    return line, ""


def filled(row: Mapping[str, str], *columns: str) -> tuple[str, ...]:
    """The cells of `columns`; raises `RowError` if one is empty."""
    for column in columns:
        if not row[column]:
            raise RowError("malformed row", f"no {column}")
    return tuple(row[column] for column in columns)


def seconds(text: str) -> float:
    """A finite time; raises `RowError` if it is not.

    >>> seconds("11.90")
    11.9
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RowError("malformed row", f"not a time in seconds: {text!r}")
    return value


def leaves_root(path: str) -> bool:
    """Whether a relative path names no place inside the folder it is joined to.

    Absolute paths are looked at where the root is known, by `located`.

    >>> [leaves_root(path) for path in ("a/../b.mp4", "../b.mp4", "a/..")]
    [False, True, True]
    """
    if os.path.isabs(path):
        return False
    return os.path.normpath(path).split(os.sep)[0] in (os.curdir, os.pardir)


def located(videos: VideoList, path: Path, root: Path | None) -> VideoList:
    """The videos of a list that are on disk, under their full names.

    Args:
        videos: What an annotation file lists.
        path: That file.
        root: Folder of the videos: relative names are joined to it, and
            absolute names must lie in it. `None`: relative names are joined to
            the folder of `path`, and absolute ones stand as they are.

    Returns:
        The videos that exist; the others are among the problems.

    Raises:
        ValueError: If none of them exists.
    """
    base = os.path.dirname(path) if root is None else os.fspath(root)
    inside = [
        not os.path.isabs(name) or root is None or lies_in(name, base)
        for name in videos.paths
    ]
    outside = tuple(
        Problem("path outside the root", name)
        for name, fine in zip(videos.paths, inside, strict=True)
        if not fine
    )
    kept = videos.subset(np.flatnonzero(inside))
    found = dataclasses.replace(
        kept,
        paths=tuple(os.path.join(base, name) for name in kept.paths),
        problems=videos.problems + outside,
    ).existing()
    if not len(found):
        # Those of the list come before those of the disk.
        example = found.problems[len(videos.problems)]
        raise ValueError(
            f"At least one of the {len(videos)} videos of {path} must exist in "
            f"`root`. Received: root={root}, and none does, for example "
            f"{example}"
        )
    return found


def lies_in(path: str, folder: str) -> bool:
    """Whether a path is that of something below a folder, by their names."""
    folder = os.path.join(os.path.abspath(folder), "")
    return os.path.abspath(path).startswith(folder)


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise RowError("malformed row", f"{error}: {line}") from error


def _labels(entries: list[Entry], num_classes: int) -> np.ndarray:
    if all(isinstance(entry.labels, int) for entry in entries):
        return np.array([entry.labels for entry in entries], "int32")
    if len(entries) * num_classes > _MAX_LABELS:
        raise ValueError(
            f"Videos times classes must be at most {_MAX_LABELS} where a video "
            f"may have several. Received: {len(entries)} times {num_classes}"
        )
    labels = np.zeros((len(entries), num_classes), "float32")
    for row, entry in zip(labels, entries, strict=True):
        row[list(np.atleast_1d(entry.labels).astype(int))] = 1
    return labels


def _segments(entries: list[Entry]) -> np.ndarray | None:
    if all(entry.segment is None for entry in entries):
        return None
    # numpy reads `None` as NaN, which is an open end.
    segments = [entry.segment or (0.0, None) for entry in entries]
    return np.array(segments, "float64")


def _rows_of_three(
    actions: tuple[tuple[int, float, float], ...] | None,
) -> np.ndarray:
    return np.reshape(actions or (), (-1, 3)).astype("float64")
