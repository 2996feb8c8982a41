"""Something-Something v2: JSON files of templates and a JSON file of labels."""

import os
from collections.abc import Sequence
from typing import Any

from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import label_of_name
from keras_nonlocal.data.readers.classes import load_json
from keras_nonlocal.data.readers.classes import names_beside
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.videos import VideoList

_LABEL_FILES = ("labels.json", "something-something-v2-labels.json")
_EXPECTED = 'a JSON list of objects with "id" and "template"'


def read_something(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
    extension: str = ".webm",
) -> VideoList:
    """Reads `train.json` or `validation.json` of Something-Something v2.

    Args:
        path: A JSON list of objects with an `id` and a `template`, the name of
            the class with brackets around what it leaves open.
        root: Folder of the videos; that of the JSON file if `None`.
        class_names: Names of the classes, in the order of their numbers, or
            a file of them. `None`: `labels.json` or
            `something-something-v2-labels.json` beside the file.
        extension: How the files end, behind the id; "" for folders of frames.

    Returns:
        The videos that exist, in the order of the file. The others are among
        the problems, as are entries that cannot be used.

    Raises:
        ValueError: If a file is not as described, such as `test.json`, which
            has no templates, or none of the videos exists.
    """
    videos = parse_something(
        read_text(path),
        resolved_names(class_names) or names_beside(path, _LABEL_FILES),
        extension=extension,
        source=os.path.basename(path),
    )
    return located(videos, path, root)


def parse_something(
    text: str,
    class_names: Sequence[str],
    *,
    extension: str = ".webm",
    source: str = "annotations",
) -> VideoList:
    """The videos of a JSON file, without looking at the disk.

    Args:
        text: Content of the file.
        class_names: Names of the classes, in the order of their numbers.
        extension: As in `read_something`.
        source: Name of the file, for messages.

    Returns:
        The videos, in the order of the file.

    Raises:
        ValueError: If the text is not as described.

    >>> parse_something(
    ...     '[{"id": "78687", "template": "Holding [something]"}]',
    ...     ["Closing something", "Holding something"],
    ... ).labels.tolist()
    [1]
    """
    rows = load_json(text, source)
    found = Collector(source, _EXPECTED, text)
    if not isinstance(rows, list):
        raise found.error(())
    if not any(isinstance(row, dict) and "template" in row for row in rows):
        raise ValueError(
            f"{source} must have {_EXPECTED}. Received: {len(rows)} entries, "
            "none with a template, as in a test list without labels"
        )
    numbers = numbered(class_names)

    def entry(row: Any) -> Entry:
        if not isinstance(row, dict) or not {"id", "template"} <= row.keys():
            raise RowError("malformed row", str(row))
        template = str(row["template"]).replace("[", "").replace("]", "")
        return Entry(
            f"{row['id']}{extension}", label_of_name(template, numbers)
        )

    places = (f"{source}, entry {number}" for number in range(1, len(rows) + 1))
    found.collect(zip(places, rows, strict=True), entry)
    return found.videos(class_names)
