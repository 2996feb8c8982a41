"""What is wrong with a data set, before a training run finds out."""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.auditing import checks
from keras_nonlocal.data.auditing import page
from keras_nonlocal.data.auditing.checks import Finding
from keras_nonlocal.data.auditing.video import DECODE
from keras_nonlocal.data.auditing.video import VideoFacts
from keras_nonlocal.data.jobs import Journal
from keras_nonlocal.data.jobs import run_jobs
from keras_nonlocal.data.jobs import stamp
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.data.worker import WorkerDied
from keras_nonlocal.data.worker import WorkerTimeout

# What the faults are called that show only from outside.
TOO_SLOW = "time limit"
CRASHED = "decoder crashes"
UNREAD = "cannot be read"

_VIDEO = "keras_nonlocal.data.auditing.video"
_MAX_THUMBNAILS = 300
# Of the lines of the journal: another number, and files are looked at again.
_FORMAT = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What an audit has found.

    Attributes:
        splits: The lists that were looked at.
        videos: What is known of each file, by its path.
        findings: What is wrong, the severe first.
    """

    splits: Mapping[str, VideoList]
    videos: Mapping[str, VideoFacts]
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        """Number of findings of a severity: "error", "warning" or "note"."""
        return sum(x.severity == severity for x in self.findings)

    def kinds(self) -> dict[tuple[str, str], int]:
        """Number of findings by severity and kind, the severe first."""
        pairs = ((x.severity, x.kind) for x in self.findings)
        return dict(collections.Counter(pairs))

    def summary(self) -> dict[str, Any]:
        """All of it but the pictures, for a file."""
        return {
            "splits": {
                split: {
                    "videos": len(videos),
                    "classes": checks.class_counts(videos),
                }
                for split, videos in self.splits.items()
            },
            "counts": {
                severity: self.count(severity) for severity in checks.SEVERITIES
            },
            "findings": [dataclasses.asdict(x) for x in self.findings],
            "videos": {
                path: _without_pictures(video)
                for path, video in self.videos.items()
            },
        }

    def save(
        self,
        folder: str | os.PathLike[str],
        thumbnails: Mapping[str, bytes] | None = None,
    ) -> None:
        """Writes `audit.json` and `audit.html`, one page without links.

        Args:
            folder: Where to; made if missing.
            thumbnails: JPEGs for the page, by path.
        """
        target = pathlib.Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write_json(target / "audit.json", self.summary())
        html = page.make(
            self.splits, self.videos, self.findings, thumbnails or {}
        )
        write_text(target / "audit.html", html)


def audit(
    splits: Mapping[str, VideoList],
    out: str | os.PathLike[str] | None = None,
    *,
    decode: str = "all",
    clip: ClipSpec | str = "32x2",
    group_of: Callable[[str], str] | None = None,
    num_workers: int | None = None,
    time_limit: float = 120.0,
    progress: bool = True,
    resume: bool = True,
) -> Audit:
    """Looks at every file and every label of a data set.

    Finds files that are missing, broken, cut off, blank or no videos at all,
    that hang or crash the decoder, copies (of the file, and with
    `decode="all"` of all its pictures in another size or quality, but not of
    a part of them), the same video in two splits or with two labels, segments
    that are not in the file, videos shorter than a clip, classes without
    videos. Files are opened in worker processes, which are killed when the
    time for a file is up.

    Args:
        splits: Lists of videos by the name of the split. Do not leave out
            missing files, which are a finding.
        out: Folder to write `audit.json` and `audit.html` to, and
            `audit.jsonl`, from which an audit that was interrupted goes on.
        decode: How much of each file to decode: "all" of it, which takes as
            long as an epoch of all frames; its "ends"; or none ("headers").
        clip: The clips of the training to come, for what is too short.
        group_of: From a path to the name of what must not be in two splits,
            such as a person or a recording.
        num_workers: Processes; by default one for each processor.
        time_limit: Seconds for a file.
        progress: Whether to count on standard error, if it is a terminal.
        resume: Whether to believe `audit.jsonl` about files that have not
            changed since. Those that crashed the decoder or could not be
            read from the disk are always looked at again.

    Returns:
        The `Audit`.

    Raises:
        ValueError: If an argument is out of range, or another process audits
            to `out`.

    >>> videos = VideoList(("nowhere.mp4",), [0], ("run",))
    >>> for finding in audit({"train": videos}).findings:
    ...     print(finding.severity, finding.kind, finding.where)
    error missing file nowhere.mp4
    """
    splits = dict(splits)
    if not splits:
        raise ValueError("`splits` must be one or more lists. Received: none")
    if decode not in DECODE:
        raise ValueError(
            f"`decode` must be one of {DECODE}. Received: decode={decode!r}"
        )
    clip = ClipSpec.parse(clip) if isinstance(clip, str) else clip
    options = {
        "num_workers": num_workers,
        "time_limit": time_limit,
        "progress": progress,
    }
    listed = (path for videos in splits.values() for path in videos.paths)
    paths = list(dict.fromkeys(listed))
    if out is None:
        videos = _inspect(paths, decode, options, None)
        return Audit(
            splits, videos, checks.check(splits, videos, clip, group_of)
        )
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "audit.jsonl", resume) as journal:
        videos = _inspect(paths, decode, options, journal)
        findings = checks.check(splits, videos, clip, group_of)
        result = Audit(splits, videos, findings)
        result.save(folder, _thumbnails(result, options))
    return result


def _inspect(
    paths: list[str],
    decode: str,
    options: dict[str, Any],
    journal: Journal | None,
) -> dict[str, VideoFacts]:
    keys = {
        path: [_FORMAT, os.path.abspath(path), decode, *stamp(path)]
        for path in paths
    }
    known: dict[str, VideoFacts] = {}
    for path, key in keys.items():
        facts = (
            None if journal is None else _restored(journal.get(key), options)
        )
        if facts is not None:
            known[path] = facts
    left = [path for path in paths if path not in known]
    jobs = run_jobs(
        f"{_VIDEO}:inspect", [(path, decode) for path in left], **options
    )
    with contextlib.closing(jobs):
        for number, result in jobs:
            path = left[number]
            facts = _facts(result)
            known[path] = facts
            if journal is not None and not _may_pass(result):
                value = dataclasses.asdict(facts)
                value["time_limit"] = options["time_limit"]
                journal.add(keys[path], value)
    return {path: known[path] for path in paths}


def _restored(value: Any, options: dict[str, Any]) -> VideoFacts | None:
    """Facts from the journal; none where more time is allowed now."""
    try:
        values = dict(value)
        limit = values.pop("time_limit")
        facts = VideoFacts(**values)
    except (KeyError, TypeError, ValueError):
        return None  # Nothing, or of another version of this package.
    out_of_time = facts.fault == TOO_SLOW and limit < options["time_limit"]
    return None if out_of_time else facts


def _facts(result: VideoFacts | Exception) -> VideoFacts:
    if isinstance(result, VideoFacts):
        return result
    fault = CRASHED
    if isinstance(result, WorkerTimeout):
        fault = TOO_SLOW
    elif isinstance(result, OSError):
        fault = UNREAD
    detail = str(result)
    if not isinstance(result, WorkerTimeout | WorkerDied):
        detail = f"{type(result).__name__}: {detail}"
    return VideoFacts(fault=fault, detail=detail)


def _may_pass(result: VideoFacts | Exception) -> bool:
    """Whether it may be the machine's fault: its memory, disk or network."""
    # To be out of time is an `OSError` as well, and is the file's.
    is_of_file = isinstance(result, WorkerTimeout)
    return isinstance(result, WorkerDied | OSError) and not is_of_file


def _without_pictures(video: VideoFacts) -> dict[str, Any]:
    values = dataclasses.asdict(video)
    del values["pictures"]
    return values


def _thumbnails(result: Audit, options: dict[str, Any]) -> dict[str, bytes]:
    paths = _worth_showing(result)
    jobs = run_jobs(
        f"{_VIDEO}:thumbnail", paths, **{**options, "unit": "thumbnails"}
    )
    with contextlib.closing(jobs):
        return {
            paths[number]: picture
            for number, picture in jobs
            if isinstance(picture, bytes)
        }


def _worth_showing(result: Audit) -> list[str]:
    """Videos for the page: those with findings, and some of the others."""
    videos = result.videos

    def shown(paths: Iterable[str]) -> list[str]:
        # What has hung or crashed would again.
        skipped = (TOO_SLOW, CRASHED)
        return [
            path
            for path in dict.fromkeys(paths)
            if path in videos
            and videos[path].num_frames
            and videos[path].fault not in skipped
        ]

    found = shown(x.where for x in result.findings)[: _MAX_THUMBNAILS // 2]
    others = [path for path in shown(videos) if path not in set(found)]
    step = -(-len(others) // (_MAX_THUMBNAILS - len(found))) or 1
    return found + others[::step]
