"""UCF101: `classInd.txt`, `trainlist01.txt`, `testlist01.txt` and so on."""

import os
from collections.abc import Sequence

from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import lines
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.annotations import with_number
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import label_of_name
from keras_nonlocal.data.readers.classes import names_beside
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.videos import VideoList

_EXPECTED = "rows of CLASS/VIDEO, with or without a class number from 1"


def read_ucf101(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
) -> VideoList:
    """Reads an official list of videos of UCF101.

    The folder in a path gives the class, whether in small letters or capitals:
    `HandStandPushups` of `classInd.txt` is `HandstandPushups` elsewhere. A row
    whose class number, counted from 1, says something else is left out and is
    among the problems: lists of other code bases, which count from 0, are for
    `read_kinetics_list`.

    Args:
        path: `trainlist01.txt`, `testlist01.txt` or another of them.
        root: Folder of the class folders; that of the list if `None`.
        class_names: Names of the classes, in the order of their numbers, or
            the file of them. `None`: `classInd.txt` beside the list.

    Returns:
        The videos that exist, in the order of the list. The others are among
        the problems, as are rows that cannot be used.

    Raises:
        ValueError: If a file is not as described or none of the videos exists.
    """
    videos = parse_ucf101(
        read_text(path),
        resolved_names(class_names) or names_beside(path, ["classInd.txt"]),
        source=os.path.basename(path),
    )
    return located(videos, path, root)


def parse_ucf101(
    text: str, class_names: Sequence[str], *, source: str = "annotations"
) -> VideoList:
    r"""The videos of a list, without looking at the disk.

    Args:
        text: Content of the list.
        class_names: Names of the classes, in the order of their numbers.
        source: Name of the list, for messages.

    Returns:
        The videos, in the order of the list.

    Raises:
        ValueError: If no row is as described.

    >>> videos = parse_ucf101(
    ...     "Archery/v_Archery_g08_c01.avi 1\nBiking/v_Biking_g01_c01.avi",
    ...     ["Archery", "Biking"],
    ... )
    >>> videos.labels.tolist()
    [0, 1]
    """
    # HandStandPushups and HandstandPushups.
    numbers = numbered([name.lower() for name in class_names])

    def entry(line: str) -> Entry:
        path, number = with_number(line)
        folder, _, name = path.partition("/")
        if not (folder and name):
            raise RowError("malformed row", line)
        label = label_of_name(folder.lower(), numbers)
        if number not in ("", str(label + 1)):
            raise RowError(
                "contradicting label", f"class {label + 1} expected: {line}"
            )
        return Entry(path, label)

    found = Collector(source, _EXPECTED, text)
    found.collect(lines(text, source), entry)
    return found.videos(class_names)
