"""From what is known of each file to what is wrong with a data set."""

import collections
import dataclasses
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.auditing.lookalikes import lookalikes
from keras_nonlocal.data.auditing.video import MISSING
from keras_nonlocal.data.auditing.video import VideoFacts
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList

SEVERITIES = ("error", "warning", "note")
# Largest class to smallest, above which it is worth a warning.
_BALANCE = 10
# What an annotation may be longer than the file, in seconds.
_SLACK_SECONDS = 0.5
_SHOWN_NAMES = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that an audit has found.

    Attributes:
        severity: "error" (training would go wrong or skip a video), "warning"
            (worth a look) or "note" (good to know).
        kind: What it is, the same words for every case.
        where: The video, the place in an annotation or the split.
        detail: What was expected and what was found.
    """

    severity: str
    kind: str
    where: str
    detail: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class _Use:
    """One line of a list: a video or a part of it, in a split."""

    split: str
    label: str
    segment: tuple[float, float] | None


def check(
    splits: Mapping[str, VideoList],
    facts: Mapping[str, VideoFacts],
    clip: ClipSpec,
    group_of: Callable[[str], str] | None = None,
) -> tuple[Finding, ...]:
    """Finds what is wrong.

    Args:
        splits: The lists of the data set.
        facts: Of every path in them.
        clip: The clips that training would take.
        group_of: From a path to the name of the group, such as a person or a
            recording, that must not be in two splits.

    Returns:
        The findings, the severe ones first.
    """
    uses = _uses(splits)
    findings = [
        *_of_files(facts),
        *_of_lists(splits),
        *_of_times(splits, facts, clip),
        *_of_repeats(uses),
        *_of_copies(uses, facts),
    ]
    if group_of is not None:
        findings += _of_groups(uses, group_of)

    def rank(finding: Finding) -> tuple[int, str, str, str]:
        severity = SEVERITIES.index(finding.severity)
        return severity, finding.kind, finding.where, finding.detail

    return tuple(sorted(findings, key=rank))


def class_counts(videos: VideoList) -> dict[str, int]:
    """Number of videos of each class.

    >>> class_counts(VideoList(("a", "b"), [1, 1], ("jump", "run")))
    {'jump': 0, 'run': 2}
    """
    if videos.multi_label:
        counts = videos.labels.sum(axis=0).astype(int)
    else:
        counts = np.bincount(videos.labels, minlength=len(videos.class_names))
    return dict(zip(videos.class_names, counts.tolist(), strict=True))


def _uses(splits: Mapping[str, VideoList]) -> dict[str, list[_Use]]:
    uses = collections.defaultdict(list)
    for split, videos in splits.items():
        for number, path in enumerate(videos.paths):
            label = _label(videos, number)
            uses[path].append(_Use(split, label, _segment(videos, number)))
    return dict(uses)


def _label(videos: VideoList, number: int) -> str:
    label = videos.labels[number]
    classes = np.flatnonzero(label) if videos.multi_label else [label]
    return ", ".join(videos.class_names[c] for c in classes)


def _segment(videos: VideoList, number: int) -> tuple[float, float] | None:
    if videos.segments is None:
        return None
    start, end = videos.segments[number].tolist()
    return start, float("inf") if np.isnan(end) else end


def _of_files(facts: Mapping[str, VideoFacts]) -> Iterator[Finding]:
    for path, video in facts.items():
        if video.fault:  # From which all else may follow.
            yield Finding("error", video.fault, path, video.detail)
            continue
        if video.is_blank:
            yield Finding("warning", "blank", path, "nothing is to be seen")
        if video.rotation:
            detail = f"turned by {90 * video.rotation} degrees when shown"
            yield Finding("note", "rotated", path, detail)
        is_file = bool(video.container)
        if is_file and video.num_frames > 1 and not video.has_times:
            detail = "frames are taken as evenly spaced"
            yield Finding("note", "no usable times", path, detail)
        if not video.is_even:
            gaps = f"{video.shortest_gap:.3f} to {video.longest_gap:.3f}"
            detail = f"frames are {gaps} s apart"
            yield Finding("note", "variable frame rate", path, detail)


def _of_lists(splits: Mapping[str, VideoList]) -> Iterator[Finding]:
    names = {videos.class_names for videos in splits.values()}
    if len(names) > 1:
        sizes = ", ".join(
            f"{split}: {len(videos.class_names)} classes from "
            f"{videos.class_names[0]!r} on"
            for split, videos in splits.items()
        )
        yield Finding(
            "error",
            "different classes",
            " and ".join(splits),
            f"the same number must be the same class in all splits; {sizes}",
        )
    for split, videos in splits.items():
        for problem in videos.problems:
            severity = "error" if problem.kind == MISSING else "warning"
            where, detail = problem.where, problem.detail
            yield Finding(severity, problem.kind, where, detail)
        yield from _of_balance(split, videos)


def _of_balance(split: str, videos: VideoList) -> Iterator[Finding]:
    counts = class_counts(videos)
    empty = [name for name, count in counts.items() if not count]
    if empty:
        detail = f"{len(empty)} of {len(counts)}: {_shortened(empty)}"
        yield Finding("warning", "class without videos", split, detail)
    filled = [(count, name) for name, count in counts.items() if count]
    if filled:
        (most, largest), (least, smallest) = max(filled), min(filled)
        if most > _BALANCE * least:
            detail = f"{most:,} of {largest!r}, {least:,} of {smallest!r}"
            yield Finding("warning", "unbalanced classes", split, detail)
    if videos.multi_label and not videos.labels.any(axis=1).all():
        count = int((~videos.labels.any(axis=1)).sum())
        detail = f"{count:,} of {len(videos):,}"
        yield Finding("note", "videos without a class", split, detail)


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _of_times(
    splits: Mapping[str, VideoList],
    facts: Mapping[str, VideoFacts],
    clip: ClipSpec,
) -> Iterator[Finding]:
    """Short videos, and annotations that end after the file."""
    found: dict[Finding, None] = {}
    for videos in splits.values():
        for number, path in enumerate(videos.paths):
            video = _with_rate(facts[path], videos.fps)
            if video.fault:
                continue
            segment = _segment(videos, number) or (0.0, float("inf"))
            for finding in _of_segment(path, video, segment, clip):
                found[finding] = None
            if videos.actions is not None and video.seconds:
                late = videos.actions[number][:, 2].max(initial=0.0)
                if late > video.seconds + _SLACK_SECONDS:
                    detail = _past_the_end("an action ends", late, video)
                    kind = "action past the end"
                    found[Finding("note", kind, path, detail)] = None
    yield from found


def _with_rate(video: VideoFacts, fps: float) -> VideoFacts:
    """What is known with the list's frame rate, if the file has none."""
    fps = video.fps or fps
    seconds = video.seconds or (video.num_frames / fps if fps else 0.0)
    return dataclasses.replace(video, fps=fps, seconds=seconds)


def _of_segment(
    path: str, video: VideoFacts, segment: tuple[float, float], clip: ClipSpec
) -> Iterator[Finding]:
    start, end = segment
    kind, seconds = "segment past the end", video.seconds
    if seconds and start >= seconds:
        detail = _past_the_end("the segment starts", start, video)
        yield Finding("error", kind, path, detail)
        return
    if seconds and np.isfinite(end) and end > seconds + _SLACK_SECONDS:
        detail = _past_the_end("the segment ends", end, video)
        yield Finding("warning", kind, path, detail)
    frames, span = _frames(video, min(end, seconds) - start, clip)
    if frames < span:
        detail = f"{frames} of the {span} frames that a {clip} clip spans"
        yield Finding("warning", "short", path, detail)


def _frames(
    video: VideoFacts, seconds: float, clip: ClipSpec
) -> tuple[int, int]:
    """Frames that a clip may be taken from, and those that it needs."""
    frames, fps = video.num_frames, clip.fps or video.fps
    if clip.fps and video.seconds:
        frames = round(seconds * clip.fps)
    elif video.fps:
        frames = min(frames, round(seconds * video.fps))
    # Whatever becomes of short videos: what a clip spans.
    strict = dataclasses.replace(clip, short="error")
    return frames, sampling.needed_frames(strict, fps)


def _past_the_end(what: str, seconds: float, video: VideoFacts) -> str:
    return f"{what} at {seconds:.2f} s, the file at {video.seconds:.2f} s"


def _of_repeats(uses: Mapping[str, list[_Use]]) -> Iterator[Finding]:
    """Paths that are listed more than once."""
    for path, lines in uses.items():
        splits = _distinct(use.split for use in lines)
        if len(splits) > 1:
            detail = f"listed in {' and '.join(splits)}"
            yield Finding("error", "leak", path, detail)
            continue
        labels = _conflict(lines)
        repeats = len(lines) - len({use.segment for use in lines})
        if labels:
            detail = f"listed as {' and as '.join(labels)}"
            yield Finding("error", "conflicting labels", path, detail)
        elif repeats:
            detail = f"{repeats + 1} times in {splits[0]}"
            yield Finding("warning", "listed repeatedly", path, detail)


def _conflict(lines: Iterable[_Use]) -> list[str]:
    """Different labels of the same part of a video, none if it has one."""
    parts = collections.defaultdict(list)
    for use in lines:
        parts[use.segment].append(use.label)
    distinct = [_distinct(labels) for labels in parts.values()]
    return next((labels for labels in distinct if len(labels) > 1), [])


def _of_copies(
    uses: Mapping[str, list[_Use]], facts: Mapping[str, VideoFacts]
) -> Iterator[Finding]:
    """Different paths with the same bytes or the same pictures."""
    first: dict[str, str] = {}
    for path in uses:
        sha256 = facts[path].sha256 if facts[path].size else ""
        original = first.setdefault(sha256, path)
        if sha256 and original != path:
            yield _copy(uses, path, original, "duplicate file", "the same file")
    distinct = list(first.values())
    for later, earlier in lookalikes([facts[p].pictures for p in distinct]):
        path, original = distinct[later], distinct[earlier]
        kind = "duplicate pictures"
        yield _copy(uses, path, original, kind, "the same pictures")


def _copy(
    uses: Mapping[str, list[_Use]],
    path: str,
    original: str,
    kind: str,
    what: str,
) -> Finding:
    lines = [*uses[original], *uses[path]]
    splits = _distinct(use.split for use in lines)
    labels = _conflict(lines)
    detail = f"{what} as {original}"
    if len(splits) > 1:
        detail = f"{detail}, in {' and '.join(splits)}"
        return Finding("error", "leak", path, detail)
    if labels:
        detail = f"{detail}, as {' and as '.join(labels)}"
        return Finding("error", "conflicting labels", path, detail)
    return Finding("warning", kind, path, detail)


def _of_groups(
    uses: Mapping[str, list[_Use]], group_of: Callable[[str], str]
) -> Iterator[Finding]:
    groups: dict[str, list] = collections.defaultdict(list)
    for path, lines in uses.items():
        groups[group_of(path)] += [(use.split, path) for use in lines]
    for name, members in groups.items():
        examples = dict(reversed(members))
        if len(examples) > 1:
            shown = ", ".join(f"{s}: {p}" for s, p in examples.items())
            yield Finding("error", "group in several splits", name, shown)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
