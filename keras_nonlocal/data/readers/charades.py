"""Charades: several actions a video, each with its times."""

import os
import re
from collections.abc import Sequence

from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import csv_rows
from keras_nonlocal.data.readers.annotations import filled
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.annotations import seconds
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.videos import VideoList

NUM_CLASSES = 157
# Of `Charades_v1_rgb`, the folders of frames.
FRAMES_PER_SECOND = 24.0
_EXPECTED = "rows of id,...,actions,length"
_ACTION = re.compile(r"(c\d+) +(\d+(?:\.\d*)?) +(\d+(?:\.\d*)?)", re.ASCII)
_Action = tuple[int, float, float]


def read_charades(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
    extension: str = ".mp4",
) -> VideoList:
    """Reads `Charades_v1_train.csv` or `Charades_v1_test.csv`.

    Actions that end after the video are cut at its length. Of those that start
    after it, or end before they start, only the class is kept, for the video
    as a whole. Videos without actions have no class and are kept; the official
    scores of classification leave them out, as
    `videos.subset(videos.labels.any(axis=1))` does. All of these are counted
    among the problems.

    Args:
        path: The csv file, with the columns `id`, `actions` and `length`.
        root: Folder of the videos; that of the csv file if `None`.
        class_names: Names of the classes `c000`, `c001` and so on, or the file
            of them, `Charades_v1_classes.txt`. `None`: the 157 codes are the
            names.
        extension: How the files end, behind the id; "" for the folders of
            frames of `Charades_v1_rgb`.

    Returns:
        The videos that exist, with `actions`, in the order of the file.
        The others are among the problems, as are rows that cannot be used.

    Raises:
        ValueError: If the file is not as described or none of the videos
            exists.
    """
    videos = parse_charades(
        read_text(path),
        class_names=resolved_names(class_names),
        extension=extension,
        source=os.path.basename(path),
    )
    return located(videos, path, root)


def parse_charades(
    text: str,
    *,
    class_names: Sequence[str] | None = None,
    extension: str = ".mp4",
    source: str = "annotations",
) -> VideoList:
    r"""The videos of a csv file, without looking at the disk.

    Args:
        text: Content of the csv file.
        class_names: As in `read_charades`.
        extension: As in `read_charades`.
        source: Name of the csv file, for messages.

    Returns:
        The videos, with `actions`.

    Raises:
        ValueError: If the text is not as described.

    >>> videos = parse_charades(
    ...     "id,actions,length\nYSKX3,c001 0.00 5.50;c000 2.10 9.00,8.40",
    ...     class_names=["Holding some clothes", "Putting clothes somewhere"],
    ... )
    >>> videos.paths, videos.labels.tolist()
    (('YSKX3.mp4',), [[1.0, 1.0]])
    >>> videos.actions[0].tolist()
    [[1.0, 0.0, 5.5], [0.0, 2.1, 8.4]]
    >>> videos.problem_counts()
    {'action ends after the video': 1}
    """
    codes = [
        f"c{number:03d}"
        for number in range(len(class_names) if class_names else NUM_CLASSES)
    ]
    numbers = numbered(codes)
    rows, split = csv_rows(text, source, ("id", "actions", "length"))

    def entry(line: str) -> Entry:
        row = split(line)
        name, length = filled(row, "id", "length")
        return _entry(
            name + extension, row["actions"], seconds(length), numbers
        )

    found = Collector(source, _EXPECTED, text)
    found.collect(rows, entry)
    return found.videos(class_names or codes, FRAMES_PER_SECOND)


def _entry(
    path: str, actions: str, length: float, numbers: dict[str, int]
) -> Entry:
    kept, mended, classes = [], [], set()
    for text in filter(None, actions.split(";")):
        try:
            number, start, end = _action(text, numbers)
        except RowError as error:
            mended.append((error.kind, error.detail))
            continue
        # Classification asks whether, not when: as in the official scripts.
        classes.add(number)
        if end <= start:
            mended.append(("action ends before it starts", text))
        elif start >= length:
            mended.append(("action outside the video", text))
        else:
            kept.append((number, start, min(end, length)))
            if end > length:
                mended.append(("action ends after the video", text))
    if not classes:
        mended.append(("no actions", path))
    return Entry(
        path, tuple(sorted(classes)), actions=tuple(kept), mended=tuple(mended)
    )


def _action(text: str, numbers: dict[str, int]) -> _Action:
    """Class number, start and end of `c092 11.90 21.20`."""
    match = _ACTION.fullmatch(text.strip())
    if not match:
        raise RowError("malformed action", text)
    code, start, end = match[1], float(match[2]), float(match[3])
    if code not in numbers:
        raise RowError("unknown label", text)
    return numbers[code], start, end
