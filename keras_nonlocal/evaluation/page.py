"""A test as one HTML page that needs nothing else."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.evaluation.evaluation import Mistake
from keras_nonlocal.evaluation.scoring import softmax
from keras_nonlocal.visualization import figures
from keras_nonlocal.visualization import report

# Bounds that keep the page small; the files beside it have all.
_MAX_MISTAKES = 12
_MAX_CONFUSIONS = 20
_MAX_ROWS = 400
_NUM_FRAMES = 8
# Of the pictures of a clip, in pixels; and the time to read it, in seconds.
_PICTURE_SIZE = 112
_PICTURE_LIMIT = 30.0


def write_page(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Writes a report, complete or not at all.

    It has the figures of all settings side by side, every class with the worst
    first, the confusion matrix, the most confident mistakes with pictures, and
    the videos that could not be read. Videos are read again for the pictures.

    Args:
        evaluation: What to report on.
        path: The HTML file.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figures.require_matplotlib()
    title = f"{evaluation.name} on {evaluation.dataset or 'videos'}"
    sections = [
        *_summary(evaluation),
        report.heading("Classes"),
        *_classes(evaluation),
        *_confusion(evaluation),
        report.heading("Most confident mistakes"),
        *_mistakes(evaluation),
        report.heading("Files that could not be read"),
        *_skipped(evaluation),
        report.heading("How this was measured"),
        report.code(_settings(evaluation)),
    ]
    write_text(pathlib.Path(path), report.page(title, sections))


def _summary(evaluation: Evaluation) -> list[str]:
    multi_label, skipped = evaluation.videos.multi_label, evaluation.skipped
    if multi_label:
        header = ["views of a video", "mAP"]
        measure = (
            "Mean average precision over the classes that occur in the videos "
            "tested; those without any class are left out."
        )
    else:
        header = ["views of a video", "top-1", "95 % interval", "top-5"]
        measure = (
            "Shares of the videos tested whose class scores highest, or among "
            "the five highest; Wilson intervals over the videos."
        )
    protocol = evaluation.protocol
    text = (
        f"Tested: {evaluation.tested:,} videos of "
        f"{len(evaluation.class_names):,} classes, in clips of "
        f"{evaluation.clip} frames at a short side of {protocol.short_side} "
        f"pixels; protocol {protocol.name}. "
    )
    if skipped:
        header.append("unread ones last" if multi_label else "unread = wrong")
        text += (
            f"Could not be read: {len(skipped):,}, which are left out, but for "
            "the last column, where they "
        )
        text += "rank last." if multi_label else "count as wrong."
    rows = [(name, *_figures(evaluation, name)) for name in evaluation.scores]
    return [
        report.paragraph(text),
        report.table(header, rows),
        report.paragraph(measure, note=True),
    ]


def _figures(evaluation: Evaluation, setting: str) -> list[str]:
    found = evaluation.figures(setting)
    if evaluation.videos.multi_label:
        cells = [_percent(found["mAP"])]
    else:
        low, high = found["interval"]
        cells = [
            f"{_percent(found['top1'])} ({found['correct']:,})",
            f"{_percent(low)} to {_percent(high)}",
            _percent(found["top5"]),
        ]
    if evaluation.skipped:
        measure = "mAP" if evaluation.videos.multi_label else "top1"
        cells.append(_percent(found[f"{measure}_skipped_wrong"]))
    return cells


def _percent(share: float | None) -> str:
    return "-" if share is None or np.isnan(share) else f"{share:.1%}"


def _classes(evaluation: Evaluation) -> list[str]:
    values = evaluation.per_class()
    counts = evaluation.videos_per_class()
    # Those without videos, which are NaN, come last.
    order = np.argsort(values, kind="stable")
    measure = "AP" if evaluation.videos.multi_label else "right"
    rows = [
        (evaluation.class_names[i], f"{counts[i]:,}", _percent(values[i]))
        for i in order[:_MAX_ROWS].tolist()
    ]
    return [
        report.paragraph(
            f"By {evaluation.setting}, the worst first.", note=True
        ),
        report.table(("class", "videos", measure), rows),
    ]


def _confusion(evaluation: Evaluation) -> list[str]:
    if evaluation.videos.multi_label:
        return []
    matrix = evaluation.confusion()
    picture = figures.confusion_matrix(matrix, evaluation.class_names)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = np.stack(np.unravel_index(order, wrong.shape), axis=1).tolist()
    names = evaluation.class_names
    rows = [
        (f"{names[true]}, taken for {names[taken]}", f"{wrong[true, taken]:,}")
        for true, taken in pairs
        if wrong[true, taken]
    ]
    return [
        report.heading("Confusions"),
        report.picture(picture, "Confusion matrix, rows of true classes"),
        report.table(("most frequent", "videos"), rows) if rows else "",
    ]


def _mistakes(evaluation: Evaluation) -> list[str]:
    mistakes = evaluation.mistakes(_MAX_MISTAKES)
    if not mistakes:
        return [report.paragraph("None.")]
    return [_mistake(evaluation, mistake) for mistake in mistakes]


def _mistake(evaluation: Evaluation, mistake: Mistake) -> str:
    videos, names = evaluation.videos, evaluation.class_names
    labels = np.atleast_1d(videos.labels[mistake.number])
    if videos.multi_label:
        labels = np.flatnonzero(labels)
    truth = [names[label] for label in labels]
    name = pathlib.PurePath(videos.paths[mistake.number]).name
    try:
        strip = figures.film_strip(_frames(evaluation, mistake.number))
    except VideoError as error:
        return report.paragraph(
            f"{name}: {', '.join(truth)}, taken for "
            f"{names[mistake.predicted]}. No picture: {error}"
        )
    # What the video is not, with the share that it got.
    shares = np.full(len(names), -np.inf)
    shares[mistake.predicted] = _share(evaluation, mistake)
    scores = {evaluation.name: shares}
    return report.prediction(strip, name, truth, names, scores)


def _share(evaluation: Evaluation, mistake: Mistake) -> float:
    """A score as a probability."""
    if evaluation.protocol.average == "probability":
        return mistake.score
    row = int(np.searchsorted(evaluation.numbers, mistake.number))
    logits = evaluation.scores[evaluation.setting][row].astype("float64")
    if evaluation.videos.multi_label:
        return float(0.5 * (1 + np.tanh(0.5 * mistake.score)))
    return float(softmax(logits)[mistake.predicted])


def _frames(evaluation: Evaluation, number: int) -> np.ndarray:
    """A few frames of the middle clip."""
    videos = evaluation.videos
    request = ClipRequest(
        videos.paths[number],
        evaluation.clip,
        _PICTURE_SIZE,
        (_PICTURE_SIZE, _PICTURE_SIZE),
        segment=videos.segment(number),
        fps=videos.fps,
        seconds=_PICTURE_LIMIT,
    )
    frames = read_clip(request).frames
    return frames[:: -(-len(frames) // _NUM_FRAMES)]


def _skipped(evaluation: Evaluation) -> list[str]:
    skipped = evaluation.skipped
    if not skipped:
        return [report.paragraph("None: every video could be read.")]
    rows: Sequence[tuple[str, str]] = [
        (evaluation.videos.paths[number], reason)
        for number, reason in list(skipped.items())[:_MAX_ROWS]
    ]
    return [report.table(("file", "reason"), rows)]


def _settings(evaluation: Evaluation) -> str:
    settings = {
        "protocol": dataclasses.asdict(evaluation.protocol),
        "clip": dataclasses.asdict(evaluation.clip),
        **evaluation.about,
    }
    return json.dumps(settings, indent=1)
