"""Videos as folders of pictures: SlowFast's frame lists of AVA and others."""

import collections
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from keras_nonlocal.data.readers.annotations import Collector
from keras_nonlocal.data.readers.annotations import Entry
from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import lines
from keras_nonlocal.data.readers.annotations import located
from keras_nonlocal.data.readers.annotations import read_text
from keras_nonlocal.data.readers.classes import ClassNames
from keras_nonlocal.data.readers.classes import label_of_number
from keras_nonlocal.data.readers.classes import names_of_numbers
from keras_nonlocal.data.readers.classes import numbered
from keras_nonlocal.data.readers.classes import resolved_names
from keras_nonlocal.data.videos import VideoList

PICTURES = (".jpg", ".jpeg", ".png")
# SlowFast spells it so.
FRAME_LIST = re.compile(r"original_vide?o_id\s+video_id\s+frame_id\s+path\s")
UNLABELLED = "unlabelled"
# The six million frames of AVA take some 400 MB.
_MAX_BYTES = 2**30
_EXPECTED = "rows of `original_vido_id video_id frame_id path labels`"
_Frame = tuple[str, int, str, tuple[int, ...]]


def read_ava_frames(
    path: Path,
    root: Path | None = None,
    *,
    class_names: ClassNames | None = None,
    fps: float = 30.0,
) -> VideoList:
    """Reads a frame list of SlowFast, or a folder of folders of pictures.

    Args:
        path: A frame list as for AVA, Charades and others: below the header
            `original_vido_id video_id frame_id path labels` one picture a
            line, its class numbers in quotation marks with commas between
            them. Or a folder of videos `VIDEO/*.jpg` without labels, or with
            them as `CLASS/VIDEO/*.jpg`.
        root: Folder of the paths in a frame list; that of the list if `None`.
        class_names: Names of the classes, in the order of their numbers, or a
            file of them. `None`: the numbers are the names; a list without
            any labels, as that of AVA is, has the one class "unlabelled",
            which no video belongs to.
        fps: Pictures a second, with which the times of actions are
            reckoned from the first picture: 30 for AVA, 24 for Charades.

    Returns:
        The folders that exist, in alphabetical order or in that of the list.
        From a list with `actions`: the stretches of pictures that have a class.

    Raises:
        ValueError: If an argument or the file is not as described, or none of
            the folders exists.
    """
    if os.path.isdir(path):
        if root is not None or class_names is not None:
            raise ValueError(
                "`root` and `class_names` are for a frame list. Received: "
                f"path={path}, a folder, root={root}, class_names={class_names}"
            )
        return _frame_folders(path, fps)
    videos = parse_frame_list(
        read_text(path, _MAX_BYTES),
        class_names=resolved_names(class_names),
        fps=fps,
        source=os.path.basename(path),
    )
    return located(videos, path, root)


def parse_frame_list(
    text: str,
    *,
    class_names: Sequence[str] | None = None,
    fps: float = 30.0,
    source: str = "annotations",
) -> VideoList:
    r"""The videos of a frame list, without looking at the disk.

    Args:
        text: Content of the list.
        class_names: As in `read_ava_frames`.
        fps: As in `read_ava_frames`.
        source: Name of the list, for messages.

    Returns:
        The folders of the pictures, with `actions`.

    Raises:
        ValueError: If `fps` or the text is not as described.

    >>> videos = parse_frame_list(
    ...     "original_vido_id video_id frame_id path labels\n"
    ...     'A 0 1 A/A-000001.jpg ""\n'
    ...     'A 0 2 A/A-000002.jpg "0,2"\n'
    ...     'A 0 3 A/A-000003.jpg "2"\n',
    ...     fps=10,
    ... )
    >>> videos.paths, videos.class_names
    (('A',), ('0', '1', '2'))
    >>> videos.actions[0].tolist()
    [[0.0, 0.1, 0.2], [2.0, 0.1, 0.3]]
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"`fps` must be above 0. Received: fps={fps}")
    found = Collector(source, _EXPECTED, text)
    if not FRAME_LIST.match(found.first_line):
        raise found.error(())
    num_classes = None if class_names is None else len(class_names)
    # One tuple for all frames with the same labels: there are millions.
    known: dict[str, tuple[int, ...]] = {}

    def frame(line: str) -> _Frame:
        return _frame(line, num_classes, known)

    videos: dict[str, _Video] = {}
    rows = itertools.islice(lines(text, source), 1, None)
    for where, (name, number, folder, labels) in found.parsed(rows, frame):
        video = videos.setdefault(name, _Video(folder))
        if folder != video.folder:
            found.problem("several folders of a video", where, folder)
        elif number in video.frames:
            found.problem("duplicate row", where, f"frame {number} of {name}")
        else:
            video.frames[number] = labels
    found.collect(
        ((f"{source}, video {name}", video) for name, video in videos.items()),
        lambda video: Entry(
            video.folder, video.classes(), actions=tuple(video.actions(fps))
        ),
    )
    used = list(itertools.chain.from_iterable(known.values()))
    numbers = names_of_numbers(used) if used else [UNLABELLED]
    return found.videos(class_names or numbers, fps)


@dataclasses.dataclass
class _Video:
    """Class numbers of the frames of a video, by frame number."""

    folder: str
    frames: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def classes(self) -> tuple[int, ...]:
        return tuple(sorted(set().union(*set(self.frames.values()))))

    def actions(self, fps: float) -> Iterator[tuple[int, float, float]]:
        """Class, start and end of each stretch of frames that have it."""
        # Not by place in the list: rows may be missing that are no use.
        first = min(self.frames)
        at = collections.defaultdict(list)
        for number in sorted(self.frames):
            for label in self.frames[number]:
                at[label].append(number - first)
        for label, numbers in sorted(at.items()):
            breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
            for stretch in np.split(np.array(numbers), breaks):
                start, end = stretch[0] / fps, (stretch[-1] + 1) / fps
                yield label, float(start), float(end)


def _frame(
    line: str, num_classes: int | None, known: dict[str, tuple[int, ...]]
) -> _Frame:
    """Video, frame number, folder and class numbers of a row."""
    parts = line.split()
    if len(parts) != 5 or not re.fullmatch(r"\d{1,9}", parts[2], re.ASCII):
        raise RowError("malformed row", line)
    name, _, number, path, labels = parts
    if labels not in known:
        known[labels] = tuple(
            label_of_number(label, num_classes)
            for label in labels.replace('"', "").split(",")
            if label
        )
    return name, int(number), os.path.dirname(path), known[labels]


def _frame_folders(root: Path, fps: float) -> VideoList:
    names = _folders(root)
    videos = [(name,) for name in names if _has_pictures(root, name)]
    labelled = [
        (label, name)
        for label in names
        for name in _folders(root, label)
        if _has_pictures(root, label, name)
    ]
    if bool(videos) == bool(labelled):
        raise ValueError(
            "`path` must be a folder with pictures either as VIDEO/*.jpg or "
            f"as CLASS/VIDEO/*.jpg. Received: {root} with {len(videos)} folders"
            f" of the one kind and {len(labelled)} of the other"
        )
    paths = [os.path.join(root, *parts) for parts in videos or labelled]
    if videos:
        labels = np.zeros((len(paths), 1))
        return VideoList(tuple(paths), labels, (UNLABELLED,), fps=fps)
    numbers = numbered(sorted({label for label, _ in labelled}))
    labels = np.array([numbers[label] for label, _ in labelled])
    return VideoList(tuple(paths), labels, tuple(numbers), fps=fps)


def _folders(*parts: Path) -> list[str]:
    with os.scandir(os.path.join(*parts)) as members:
        return sorted(
            member.name
            for member in members
            if member.is_dir() and not member.name.startswith(".")
        )


def _has_pictures(*parts: Path) -> bool:
    with os.scandir(os.path.join(*parts)) as members:
        return any(x.name.lower().endswith(PICTURES) for x in members)
