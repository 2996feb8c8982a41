"""Tables of one's own: csv or parquet with the columns `path` and `label`."""

import contextlib
import itertools
import math
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from keras_nonlocal.data.readers.annotations import MAX_BYTES
from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import check_file
from keras_nonlocal.data.readers.annotations import csv_rows
from keras_nonlocal.data.readers.annotations import filled
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.annotations import seconds
from keras_nonlocal.data.readers.classes import MAX_CLASSES
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import label_of_name
from keras_nonlocal.data.readers.classes import label_of_number
from keras_nonlocal.data.readers.classes import names_of_numbers
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.videos import VideoList

PARQUET_MAGIC = b"PAR1"
_REQUIRED = ("path", "label")
_COLUMNS = (*_REQUIRED, "start", "end")
_EXPECTED = "rows of path,label[,start,end]"
_MAX_ROWS = 10**7


def read_table(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
) -> VideoList:
    """Reads a csv or parquet file with the columns `path` and `label`.

    A label is a name or a number from 0. If any row has several, with ";"
    between them (or, in parquet, a list), the videos have any number of
    classes each, and a row may have none. The optional columns `start` and
    `end` are seconds of the file; an empty cell stands for its start or end.
    Other columns are passed over; `read_column` reads them.

    Args:
        path: The table; parquet is recognised by its content.
        root: Folder of the videos, which no path may leave. `None`: relative
            paths start from the folder of the table, and absolute ones stand
            as they are.
        class_names: Names of the classes, in the order of their numbers, or a
            file of them. `None`: if all labels are numbers, the numbers are
            the names; otherwise the labels in alphabetical order.

    Returns:
        The videos that exist, in the order of the table. The others are among
        the problems, as are rows that cannot be used.

    Raises:
        ValueError: If the file is not as described or none of the videos
            exists.
        ImportError: If the file is parquet and pyarrow is not installed.
    """
    source, names = os.path.basename(path), resolved_names(class_names)
    if is_parquet(path):
        found = Collector(source, _EXPECTED)
        rows = found.all_parsed(_parquet_rows(path), _cells)
        videos = _videos(found, rows, names)
    else:
        videos = parse_table(read_text(path), class_names=names, source=source)
    return located(videos, path, root)


def parse_table(
    text: str,
    *,
    class_names: Sequence[str] | None = None,
    source: str = "annotations",
) -> VideoList:
    r"""The videos of a csv file, without looking at the disk.

    Args:
        text: Content of the csv file.
        class_names: Names of the classes; `None` as in `read_table`.
        source: Name of the csv file, for messages.

    Returns:
        The videos, in the order of the file.

    Raises:
        ValueError: If the text is not as described.

    >>> videos = parse_table("path,label,start,end\na.mp4,run;jump,,2.5")
    >>> videos.class_names, videos.labels.tolist(), videos.segments.tolist()
    (('jump', 'run'), [[1.0, 1.0]], [[0.0, 2.5]])
    """
    rows, split = csv_rows(text, source, _REQUIRED)
    found = Collector(source, _EXPECTED, text)
    return _videos(found, found.all_parsed(rows, split), class_names)


def read_column(
    path: Path, column: str, videos: VideoList, root: Path | None = None
) -> tuple[str, ...]:
    """Reads what a further column of a table says of its videos.

    Args:
        path: The table.
        column: Name of the column; in a csv file small and large letters are
            the same.
        videos: What `read_table` has made of the table, or some of them.
        root: As for `read_table`.

    Returns:
        The cell of every video, in the order of `videos`.

    Raises:
        ValueError: If the table has no such column, or the cell of a video is
            empty or not the same in all of its rows: the first such video is
            named.
        ImportError: If the file is parquet and pyarrow is not installed.
    """
    source, base = os.path.basename(path), _base(path, root)
    name = column if is_parquet(path) else column.strip().lower()
    found: dict[tuple, set[str]] = {}
    rows, parse = _rows(path, name)
    # Other rows that cannot be used are problems of `videos` already.
    for _, row in Collector(source, _EXPECTED).parsed(rows, parse):
        with contextlib.suppress(RowError):
            segment = _segment(row.get("start", ""), row.get("end", ""))
            key = _key(os.path.join(base, row["path"]), segment)
            found.setdefault(key, set()).add(row[name])
    cells = []
    for number, video in enumerate(videos.paths):
        values = sorted(found.get(_key(video, videos.segment(number)), ()))
        if len(values) != 1 or not values[0]:
            raise ValueError(
                f"{source} must have one value in the column {name!r} for "
                f"every video. Received for {video}: {values or 'no row'}"
            )
        cells.append(values[0])
    return tuple(cells)


def is_parquet(path: Path) -> bool:
    """Whether a file begins like one of parquet."""
    check_file(path)
    with open(path, "rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def _rows(
    path: Path, column: str
) -> tuple[Iterator[tuple[str, Any]], Callable[[Any], dict[str, str]]]:
    """Rows with a further column, and what makes cells of a row."""
    if is_parquet(path):
        return _parquet_rows(path, column), _cells
    source = os.path.basename(path)
    return csv_rows(read_text(path), source, (*_REQUIRED, column))


def _base(path: Path, root: Path | None) -> str:
    """The folder that relative paths of a table start from."""
    return os.path.dirname(path) if root is None else os.fspath(root)


def _key(
    path: str, segment: tuple[float, float | None] | None
) -> tuple[str, float, float]:
    """What tells one video of a list from the others."""
    start, end = segment or (0.0, None)
    if end is None or math.isnan(end):
        end = math.inf
    return path, start, end


def _videos(
    found: Collector,
    rows: Sequence[tuple[str, Mapping[str, str]]],
    class_names: Sequence[str] | None,
) -> VideoList:
    listed = [_split_labels(row["label"]) for _, row in rows]
    several = any(len(labels) > 1 for labels in listed)
    names = class_names or _names(
        {label for labels in listed for label in labels}
    )
    numbers = numbered(names)

    def entry(row: Mapping[str, str]) -> Entry:
        (path,) = filled(row, "path")
        labels = tuple(
            _number(label, numbers) for label in _split_labels(row["label"])
        )
        if not labels and not several:
            raise RowError("malformed row", f"no label of {path}")
        mended = () if labels else (("no labels", path),)
        return Entry(
            path,
            labels if several else labels[0],
            _segment(row.get("start", ""), row.get("end", "")),
            mended=mended,
        )

    found.collect(rows, entry)
    return found.videos(names)


def _split_labels(cell: str) -> list[str]:
    return [label.strip() for label in cell.split(";") if label.strip()]


def _names(labels: set[str]) -> list[str]:
    if not all(label.isdecimal() for label in labels):
        return sorted(labels)
    # What is too large for a number is a problem of its row.
    numbers = [int(label) for label in labels if len(label) < 9]
    return names_of_numbers([n for n in numbers if n < MAX_CLASSES])


def _number(label: str, numbers: dict[str, int]) -> int:
    """The class of that name; if there is none, that of the number."""
    if label in numbers or not label.isdecimal():
        return label_of_name(label, numbers)
    return label_of_number(label, len(numbers))


def _segment(start: str, end: str) -> tuple[float, float | None] | None:
    if not start and not end:
        return None
    first = seconds(start) if start else 0.0
    last = seconds(end) if end else None
    if first < 0 or (last is not None and last <= first):
        raise RowError("malformed row", f"ends before it starts: {start}-{end}")
    return first, last


def _parquet_rows(
    path: Path, *more: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pyarrow: "
            "pip install 'keras-nonlocal[parquet]'"
        ) from error
    with _errors_of_pyarrow(path):
        file = parquet.ParquetFile(path)
    columns = _parquet_columns(path, file, more)
    with file, _errors_of_pyarrow(path):
        batches = file.iter_batches(columns=columns)
        rows = itertools.chain.from_iterable(x.to_pylist() for x in batches)
        for number, row in enumerate(rows, 1):
            yield f"{os.path.basename(path)}, row {number}", row


@contextlib.contextmanager
def _errors_of_pyarrow(path: Path) -> Iterator[None]:
    try:
        yield
    # Of what it raises, all that a file can be the reason of.
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read. Received: {error}") from error


def _parquet_columns(path: Path, file: Any, more: Sequence[str]) -> list[str]:
    about = file.metadata
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if about.num_rows > _MAX_ROWS or size > MAX_BYTES:
        raise ValueError(
            f"{path} must have at most {_MAX_ROWS} rows and {MAX_BYTES} bytes "
            f"unpacked. Received: {about.num_rows} rows, {size} bytes"
        )
    there = file.schema_arrow.names
    required = (*_REQUIRED, *more)
    if not set(required) <= set(there):
        raise ValueError(
            f"{path} must have the columns {', '.join(required)}. "
            f"Received: {', '.join(there)}"
        )
    return [name for name in there if name in (*_COLUMNS, *more)]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {column: _text(value) for column, value in row.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ";".join(_text(item) for item in value)
    # Integers with gaps come from pandas as floats.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value != value else str(value)
