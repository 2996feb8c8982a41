"""Makes a data set quick to read: small videos that can be entered anywhere."""

import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.jobs import Journal
from keras_nonlocal.data.jobs import run_jobs
from keras_nonlocal.data.jobs import stamp
from keras_nonlocal.data.transcode import TranscodeRequest
from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.data.worker import WorkerDied
from keras_nonlocal.data.worker import WorkerTimeout

_TRANSCODE = "keras_nonlocal.data.transcode:transcode"
_MAX_NAME = 100
# Of videos that do not say, nor their list.
DEFAULT_FPS = 25.0


def prepare(
    videos: VideoList,
    out: str | os.PathLike[str],
    *,
    short_side: int = 256,
    gop: int = 30,
    crf: int = 20,
    num_workers: int | None = None,
    time_limit: float = 600.0,
    progress: bool = True,
) -> VideoList:
    """Encodes every video anew, so that clips of it are quick to read.

    The files are H.264 in mp4 without sound, upright, with a keyframe at least
    every `gop` frames, and hold the same frames at the same times, of the
    segment where the list has one. Each is complete or not there at all. A
    call that was interrupted goes on where it was, and a second call encodes
    what has changed. Videos that cannot be read to their end are left out and
    are among the problems.

    Args:
        videos: The videos.
        out: Folder to write to. Videos of one class go to a folder for each
            class, as `read_folder` takes them; others to `videos`. They keep
            their names, with a suffix where several have the same. There is
            also `prepared.json`, which says what became of each video, and
            `prepared.jsonl`, from which the next call knows what is there.
            The folder is of one list.
        short_side: Shorter side, in pixels; smaller videos stay as they are.
        gop: Most frames from one that can be decoded alone to the next.
        crf: Quality, 0 (best) to 51 (worst).
        num_workers: Processes; by default one for each processor.
        time_limit: Seconds for a video.
        progress: Whether to count on standard error, if it is a terminal.

    Returns:
        The new files with the labels of `videos`, without segments; the times
        of actions are those in the new files.

    Raises:
        ValueError: If an argument is out of range, a video is in `out`
            already, `out` has what earlier calls made of other videos (or of
            other classes), or another process prepares to it.
        OSError: If `out` cannot be written to, as when the disk is full. What
            is finished is not done again by the next call.
    """
    _check_arguments(short_side, gop, crf)
    folder = pathlib.Path(out)
    _check_apart(videos, folder)
    requests = [
        TranscodeRequest(
            path,
            os.fspath(target),
            _part(target),
            videos.segment(number),
            short_side=short_side,
            gop=gop,
            crf=crf,
            fps=videos.fps or DEFAULT_FPS,
        )
        for number, (path, target) in enumerate(
            zip(videos.paths, _targets(videos, folder), strict=True)
        )
    ]
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "num_workers": num_workers,
        "time_limit": time_limit,
        "progress": progress,
    }
    failures = _run(requests, folder, options)
    result = _prepared(videos, requests, failures)
    settings = {"short_side": short_side, "gop": gop, "crf": crf}
    summary = _summary(result, requests, failures)
    write_json(folder / "prepared.json", {**settings, **summary})
    return result


def _check_arguments(short_side: int, gop: int, crf: int) -> None:
    for name, value, least, most in (
        ("short_side", short_side, 2, 4096),
        ("gop", gop, 1, 10_000),
        ("crf", crf, 0, 51),
    ):
        if type(value) is not int or not least <= value <= most:
            raise ValueError(
                f"`{name}` must be an integer from {least} to {most}. "
                f"Received: {name}={value!r}"
            )


def _check_apart(videos: VideoList, folder: pathlib.Path) -> None:
    root = os.path.join(os.path.realpath(folder), "")
    for path in videos.paths:
        if os.path.realpath(path).startswith(root):
            raise ValueError(
                "`out` must be a folder that the videos are not in, or they "
                f"would be listed twice. Received: out={os.fspath(folder)!r} "
                f"and {path}"
            )


def _targets(videos: VideoList, folder: pathlib.Path) -> list[pathlib.Path]:
    """The new files: named as the old ones, so that other lists find them.

    Names that several videos of a folder share get a part that is the same for
    the same video in every call.
    """
    paths = []
    for number, path in enumerate(videos.paths):
        parent = "videos"
        if not videos.multi_label:
            parent = _folder_name(videos.class_names[videos.labels[number]])
        paths.append(folder / parent / f"{_safe(pathlib.Path(path).stem)}.mp4")
    # Some disks do not tell "A" from "a".
    counts = collections.Counter(str(path).lower() for path in paths)
    return [
        path
        if counts[str(path).lower()] == 1
        else path.with_stem(f"{path.stem}-{_digest(videos, number)}")
        for number, path in enumerate(paths)
    ]


def _digest(videos: VideoList, number: int) -> str:
    path = os.path.abspath(videos.paths[number])
    identity = repr((os.fsencode(path), videos.segment(number)))
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _part(target: pathlib.Path) -> str:
    # Hidden, so that nobody takes it for a video.
    return os.fspath(target.with_name(f".{target.name}.part"))


def _folder_name(class_name: str) -> str:
    safe = _safe(class_name)
    if safe == class_name:
        return safe
    # Two names must not become one.
    digest = hashlib.sha256(class_name.encode("utf-8", "replace")).hexdigest()
    return f"{safe}-{digest[:6]}"


def _safe(name: str) -> str:
    """A name that is one on every disk, and no hidden file or other folder."""
    name = re.sub(r"[^\w. ()+-]", "_", name, flags=re.ASCII)
    return name[:_MAX_NAME].strip(". ") or "_"


def _run(
    requests: list[TranscodeRequest],
    folder: pathlib.Path,
    options: dict[str, Any],
) -> dict[str, str]:
    """Encodes what is not there.

    Returns:
        The reasons of failures by new file.
    """
    distinct = {request.target: request for request in requests}
    with Journal(folder / "prepared.jsonl") as journal:
        keys = {path: _key(x, folder) for path, x in distinct.items()}
        _check_no_others(journal, {x["target"] for x in keys.values()}, folder)
        for parent in {os.path.dirname(path) for path in distinct}:
            os.makedirs(parent, exist_ok=True)
        left = [
            request
            for path, request in distinct.items()
            if not _is_there(path, journal.get(keys[path]))
        ]
        try:
            failures = _transcode(left, keys, journal, options)
        finally:
            # Processes that were killed have left them.
            for request in left:
                pathlib.Path(request.part).unlink(missing_ok=True)
    return failures


def _transcode(
    requests: list[TranscodeRequest],
    keys: dict[str, dict[str, Any]],
    journal: Journal,
    options: dict[str, Any],
) -> dict[str, str]:
    failures = {}
    with contextlib.closing(run_jobs(_TRANSCODE, requests, **options)) as jobs:
        for number, size in jobs:
            request = requests[number]
            if not isinstance(size, Exception):
                journal.add(keys[request.target], size)
            elif _is_of_target(size):
                raise size
            else:
                failures[request.target] = _reason(size, request.source)
                # Made of an earlier state of the source, if at all.
                pathlib.Path(request.target).unlink(missing_ok=True)
    return failures


def _key(request: TranscodeRequest, folder: pathlib.Path) -> dict[str, Any]:
    """What the new file depends on, if nobody tampers with times of files."""
    key = {
        **dataclasses.asdict(request),
        "source": os.path.abspath(request.source),
        "target": os.path.relpath(request.target, folder),
        "segment": _for_json(request.segment),
    }
    del key["part"]
    key["stamp"] = stamp(request.source)
    return key


def _for_json(segment: tuple[float, float] | None) -> list | None:
    """There is no NaN in JSON."""
    if segment is None:
        return None
    return [None if np.isnan(time) else time for time in segment]


def _check_no_others(
    journal: Journal, wanted: set[str], folder: pathlib.Path
) -> None:
    """Refuses a folder with videos of another list: they have other labels."""
    others = [
        key["target"]
        for key, size in journal.items()
        if _is_target(key)
        and key["target"] not in wanted
        and _is_there(os.fspath(folder / key["target"]), size)
    ]
    if others:
        raise ValueError(
            "`out` must be a folder for this list alone: delete what the list "
            f"has not, or name another folder. Received: {folder} with "
            f"{len(others)} such videos, for example {others[0]}"
        )


def _is_target(key: Any) -> bool:
    """Whether it is a key of ours, and not one that leads elsewhere."""
    target = key.get("target") if isinstance(key, dict) else None
    if not isinstance(target, str) or os.path.isabs(target):
        return False
    parts = pathlib.PurePath(target).parts
    return len(parts) == 2 and ".." not in parts and target.endswith(".mp4")


def _is_there(target: str, size: int | None) -> bool:
    try:
        return os.path.getsize(target) == size
    except OSError:
        return False


def _is_of_target(error: Exception) -> bool:
    """Whether no video can be written: a full disk is no video's fault."""
    return isinstance(error, OSError) and not isinstance(error, WorkerTimeout)


def _reason(error: Exception, source: str) -> str:
    text = str(error).removeprefix(f"{source}: ")
    expected = VideoError | WorkerTimeout | WorkerDied
    is_known = isinstance(error, expected)
    return text if is_known else f"{type(error).__name__}: {text}"


def _prepared(
    videos: VideoList,
    requests: list[TranscodeRequest],
    failures: dict[str, str],
) -> VideoList:
    kept = [
        i
        for i, request in enumerate(requests)
        if request.target not in failures
    ]
    problems = tuple(
        Problem("cannot be prepared", request.source, failures[request.target])
        for request in requests
        if request.target in failures
    )
    actions = videos.actions
    if actions is not None:
        actions = tuple(_cut(actions[i], requests[i].segment) for i in kept)
    return VideoList(
        tuple(requests[i].target for i in kept),
        videos.labels[kept],
        videos.class_names,
        actions=actions,
        problems=videos.problems + problems,
    )


def _cut(
    actions: np.ndarray, segment: tuple[float, float] | None
) -> np.ndarray:
    """The actions of a segment, in seconds from its start."""
    if segment is None:
        return actions
    start, end = segment
    classes, begin, finish = actions.T
    end = np.inf if np.isnan(end) else end
    times = np.clip([begin, finish], start, end) - start
    rows = np.stack([classes, *times], axis=1)
    return rows[times[0] < times[1]]


def _summary(
    result: VideoList,
    requests: list[TranscodeRequest],
    failures: dict[str, str],
) -> dict[str, Any]:
    made = [x for x in requests if x.target not in failures]
    return {
        "class_names": result.class_names,
        "videos": [
            {
                "path": request.target,
                "source": request.source,
                "segment": _for_json(request.segment),
                "label": label,
            }
            for request, label in zip(made, result.labels.tolist(), strict=True)
        ],
        "problems": [dataclasses.asdict(x) for x in result.problems],
    }
