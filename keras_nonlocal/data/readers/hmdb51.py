"""HMDB51: one file `CLASS_test_split1.txt` for every class and split."""

import dataclasses
import os
import re
from collections.abc import Mapping
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
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.readers.lists import read_kinetics_list
from keras_nonlocal.data.videos import VideoList

SPLIT_FILE = re.compile(r"(?P<label>.+)_test_split(?P<split>[123])\.txt")
_MARKS = {"train": "1", "test": "2"}
_EXPECTED = "rows of VIDEO.avi and 0, 1 (train) or 2 (test)"


def read_hmdb51(
    path: Path,
    root: Path | None = None,
    *,
    split: int = 1,
    subset: str = "train",
) -> VideoList:
    """Reads the official split files of HMDB51.

    Args:
        path: Folder of the 153 files `CLASS_test_split1.txt` and so on.
        root: Folder of the videos `CLASS/VIDEO.avi`; `path` if `None`.
        split: Number of the split: 1, 2 or 3.
        subset: "train" or "test".

    Returns:
        The videos that exist, class after class in alphabetical order. The
        others are among the problems, as are rows that cannot be used.

    Raises:
        ValueError: If an argument or the files are not as described or none
            of the videos exists.
    """
    names = os.listdir(path) if os.path.isdir(path) else []
    matches = [SPLIT_FILE.fullmatch(name) for name in sorted(names)]
    files = {
        match["label"]: os.path.join(path, match[0])
        for match in matches
        if match and match["split"] == str(split)
    }
    if not files:
        raise ValueError(
            f"`path` must be a folder with files CLASS_test_split{split}.txt. "
            f"Received: {path}, which has none"
        )
    texts = {label: read_text(file) for label, file in files.items()}
    videos = parse_hmdb51(texts, split=split, subset=subset)
    # The folder of a file in `path`: that is what `root=None` stands for.
    return located(videos, os.path.join(path, "*_test_split*.txt"), root)


def read_hmdb51_list(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames,
    prefix: str | None = None,
) -> VideoList:
    """Reads a list of HMDB51 as two-stream networks use them.

    It has a path, as a rule of a folder of frames, the number of frames and a
    class number a line. Lists of different origin number the classes
    differently: some have `kick_ball` before `kick`. So the class is that in
    the name of the video, `..._kick_l_cm_np1_le_med_33`, whatever the number.

    Args:
        path: The list.
        root: As of `read_kinetics_list`.
        class_names: Names of the classes, in the order of the numbers that
            the labels are to be, or a file of them.
        prefix: As of `read_kinetics_list`.

    Returns:
        The videos that exist, in the order of the list. The others are among
        the problems, as are rows that cannot be used.

    Raises:
        ValueError: If a file is not as described, none of the videos exists or
            none has a class in its name.
    """
    names = resolved_names(class_names)
    videos = read_kinetics_list(path, root, prefix=prefix)
    return labelled_by_name(videos, names or ())


def labelled_by_name(
    videos: VideoList, class_names: Sequence[str]
) -> VideoList:
    """The same videos of HMDB51 with the classes that their names say.

    Args:
        videos: Videos, with any labels.
        class_names: Names of the classes, in the order of their numbers.

    Returns:
        The videos that have a class in their name.

    Raises:
        ValueError: If none has.

    >>> videos = VideoList(["a/American_kick_l_cm_np1_le_med_3"], [0], ["21"])
    >>> labelled_by_name(videos, ["hug", "kick", "kick_ball"]).labels.tolist()
    [1]
    """
    numbers = numbered(class_names)
    found = Collector("The list", "paths of videos with a class in their names")

    def entry(path: str) -> Entry:
        # The leftmost match is the longest: draw_sword, not sword.
        match = in_name.search(os.path.basename(path))
        if not match:
            raise RowError("unknown label")
        return Entry(path, numbers[match[1]])

    names = "|".join(map(re.escape, numbers))
    in_name = re.compile(rf"_({names})_[fhlu]_[cn]m_np\d")
    found.collect(zip(videos.paths, videos.paths, strict=True), entry)
    labelled = found.videos(numbers)
    problems = videos.problems + labelled.problems
    return dataclasses.replace(labelled, problems=problems)


def parse_hmdb51(
    texts: Mapping[str, str], *, split: int = 1, subset: str = "train"
) -> VideoList:
    r"""The videos of a split, without looking at the disk.

    Args:
        texts: Content of the split's file of every class, by class name.
        split: Number of the split, for messages.
        subset: "train" or "test".

    Returns:
        The videos, class after class in alphabetical order.

    Raises:
        ValueError: If `subset` is none of the two or no row can be used.

    >>> videos = parse_hmdb51({"wave": "a.avi 1\nb.avi 2", "clap": "c.avi 1"})
    >>> videos.paths, videos.labels.tolist(), videos.class_names
    (('clap/c.avi', 'wave/a.avi'), [0, 1], ('clap', 'wave'))
    """
    if subset not in _MARKS:
        raise ValueError(
            f"`subset` must be one of {list(_MARKS)}. Received: {subset!r}"
        )
    numbers = numbered(sorted(texts))
    found = Collector(
        f"*_test_split{split}.txt", _EXPECTED, "\n".join(texts.values())
    )
    rows = [
        (where, (label, line))
        for label in numbers
        for where, line in lines(texts[label], f"{label}_test_split{split}.txt")
    ]

    def marked(row: tuple[str, str]) -> tuple[str, Entry]:
        label, line = row
        name, mark = with_number(line)
        if mark not in ("0", *_MARKS.values()):
            raise RowError("malformed row", line)
        return mark, Entry(f"{label}/{name}", numbers[label])

    wanted = [
        (where, entry)
        for where, (mark, entry) in found.parsed(rows, marked)
        if mark == _MARKS[subset]
    ]
    found.collect(wanted, lambda entry: entry)
    return found.videos(numbers)
