"""What a network says of a video over time, and the files it is kept in."""

import csv
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.models.labels import decode_predictions
from keras_nonlocal.visualization import figures

# Lanes of the strip picture: as many as there are distinct colours.
_MAX_LANES = 6
# Segments this close follow each other, in seconds.
_TOUCHING = 1e-3
_SPREADSHEET = ("=", "+", "-", "@")
# Players take tags and positions in these for their own.
_SUBTITLE = str.maketrans("<>{}", "\u2039\u203a()")

Top = list[tuple[int, str, float]]


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a video in which the best classes stay the same.

    Attributes:
        start: Seconds from the first frame.
        end: Seconds.
        classes: Index, name and mean score of each.
    """

    start: float
    end: float
    classes: tuple[tuple[int, str, float], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """Scores of the windows of a video.

    Attributes:
        seconds: Start and end of every window from the video's first frame on,
            float64 `(windows, 2)`; starts rise.
        scores: Probabilities, float32 `(windows, classes)`.
        class_names: Of the scores.
        is_multi_label: Whether a window may have several classes: scores are
            then those of sigmoids.
        problems: What could not be read of the video, in words.
        top_count: Classes that files have of each window, the best.
        threshold: Smallest score that a class of a window has in multi-label
            files and segments; of single-label ones the best class counts.
        about: Video, model, clip, stride and sizes, as JSON has them.
        thumbnails: A few small frames and their times in seconds.
    """

    seconds: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]
    is_multi_label: bool = False
    problems: tuple[str, ...] = ()
    top_count: int = 5
    threshold: float = 0.5
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    thumbnails: tuple[tuple[float, np.ndarray], ...] = ()

    def mean(self) -> np.ndarray:
        """Mean over the windows, float64 `(classes,)`."""
        return self.scores.mean(axis=0, dtype="float64")

    def mean_top(self, count: int | None = None) -> Top:
        """The best classes of the mean: index, name and score of each.

        Args:
            count: How many; `top_count` by default.
        """
        return self._best(self.mean()[np.newaxis], count)[0]

    def top(self, count: int | None = None) -> list[Top]:
        """The best classes of every window: index, name and score of each.

        Args:
            count: How many; `top_count` by default. Of multi-label scores
                only those at the `threshold` or above.

        >>> scores = np.array([[0.75, 0.25], [0.5, 0.5]], "float32")
        >>> seconds = np.array([[0.0, 1.0], [1.0, 2.0]])
        >>> Timeline(seconds, scores, ("run", "sit")).top(1)
        [[(0, 'run', 0.75)], [(0, 'run', 0.5)]]
        """
        return [
            [one for one in best if self._counts(one[2])]
            for best in self._best(self.scores, count)
        ]

    def _best(self, scores: np.ndarray, count: int | None) -> list[Top]:
        count = self.top_count if count is None else count
        return decode_predictions(scores, count, self.class_names)

    def _counts(self, score: float) -> bool:
        return not self.is_multi_label or score >= self.threshold

    def spans(self) -> np.ndarray:
        """What each window speaks for, float64 `(windows, 2)` in seconds.

        Windows may overlap; these spans do not: a moment belongs to the window
        whose middle is nearest, and to none where no window was.
        """
        starts, ends = self.seconds.T
        # Windows of uneven times may differ in length.
        middles = np.maximum.accumulate(self.seconds.mean(axis=1))
        between = (middles[1:] + middles[:-1]) / 2
        # Those that only touch keep their ends.
        border = np.maximum.accumulate(
            np.minimum(np.maximum(between, starts[1:]), ends[:-1])
        )
        starts = np.append(starts[:1], np.maximum(starts[1:], border))
        ends = np.append(np.minimum(ends[:-1], border), ends[-1:])
        return np.stack([starts, np.maximum(starts, ends)], axis=1)

    def segments(self) -> list[Segment]:
        """Stretches with the same best class, one after the other.

        Of multi-label scores those with the same classes at the threshold or
        above, among the `top_count` best; stretches without any are left out.
        """
        segments: list[list[tuple[np.ndarray, Top]]] = []
        count = self.top_count if self.is_multi_label else 1
        for span, best in zip(self.spans(), self.top(count), strict=True):
            if not best:
                continue
            if segments and _goes_on(segments[-1][-1], (span, best)):
                segments[-1].append((span, best))
            else:
                segments.append([(span, best)])
        return [self._segment(parts) for parts in segments]

    def _segment(self, parts: list[tuple[np.ndarray, Top]]) -> Segment:
        scores: dict[int, list[float]] = {}
        for _, best in parts:
            for index, _, score in best:
                scores.setdefault(index, []).append(score)
        classes = [
            (index, self.class_names[index], float(np.mean(values)))
            for index, values in scores.items()
        ]
        classes.sort(key=lambda one: -one[2])
        return Segment(
            float(parts[0][0][0]), float(parts[-1][0][1]), tuple(classes)
        )

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file has."""
        windows = [
            {"start": start, "end": end, "top": _as_json(best)}
            for (start, end), best in zip(
                self.seconds.round(6).tolist(), self.top(), strict=True
            )
        ]
        return {
            **self.about,
            "multi_label": self.is_multi_label,
            "threshold": self.threshold if self.is_multi_label else None,
            "problems": list(self.problems),
            "top": _as_json(self.mean_top()),
            "windows": windows,
            "segments": [
                {
                    "start": round(segment.start, 6),
                    "end": round(segment.end, 6),
                    "classes": _as_json(segment.classes),
                }
                for segment in self.segments()
            ],
            "class_names": list(self.class_names),
            "mean": self.mean().round(6).tolist(),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a file of the kind that its ending says.

        Args:
            path: Ends with `.json`, `.csv`, `.srt` or `.png`; what is there is
                replaced, once all of the new file is written.

        Raises:
            ValueError: If it has another ending.
            OSError: If it cannot be written.
        """
        ending = check_ending(path)
        getattr(self, f"write_{ending[1:]}")(path)

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Writes windows, segments, the mean of every class and problems."""
        write_json(path, self.as_dict())

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a row for each of the best classes of every window.

        A name that a spreadsheet would take for a formula gets an apostrophe
        in front. Line breaks and control characters in names become blanks.
        """
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("start", "end", "rank", "class", "class_name", "score"))
        for (start, end), best in zip(self.seconds, self.top(), strict=True):
            for rank, (index, name, score) in enumerate(best, 1):
                shown = _line(name)
                if shown.startswith(_SPREADSHEET):
                    shown = f"'{shown}"
                table.writerow(
                    (
                        f"{start:.3f}",
                        f"{end:.3f}",
                        rank,
                        index,
                        shown,
                        f"{score:.6f}",
                    )
                )
        write_text(path, text.getvalue())

    def write_srt(self, path: str | os.PathLike[str]) -> None:
        """Writes the segments as subtitles, with names and per cent.

        Their times are those of a player, from the start of the file on: where
        its sound begins before the pictures they are later by `about["begins"]`
        seconds than those of the timeline.

        Line breaks in names become blanks, and the brackets of tags others
        that look like them.
        """
        blocks: list[str] = []
        begins = self.about.get("begins", 0.0)
        for segment in self.segments():
            start, end = _milliseconds(
                begins + segment.start, begins + segment.end
            )
            lines = [
                f"{_subtitle(name)} ({score:.0%})"
                for _, name, score in segment.classes
            ]
            blocks.append(
                f"{len(blocks) + 1}\n{_clock(start)} --> {_clock(end)}\n"
                + "\n".join(lines)
                + "\n"
            )
        write_text(path, "\n".join(blocks))

    def write_png(self, path: str | os.PathLike[str]) -> None:
        """Writes the picture that `strip` gives."""
        picture = self.strip()
        with replacing(path) as file:
            file.write(picture)

    def strip(self) -> bytes:
        """A picture of scores over time: thumbnails, and lanes of classes.

        The lanes are those of up to 6 classes: the ones that are the best for
        the longest, and then those with the highest mean.

        Returns:
            A PNG.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        spans = self.spans()
        shown = self._lanes(spans)
        return figures.prediction_strip(
            spans,
            self.scores[:, shown],
            [_line(self.class_names[number]) for number in shown],
            self.thumbnails,
        )

    def _lanes(self, spans: np.ndarray) -> list[int]:
        time = np.zeros(len(self.class_names))
        lengths = spans[:, 1] - spans[:, 0]
        np.add.at(time, self.scores.argmax(axis=1), lengths)
        order = np.lexsort((-self.mean(), -time))
        return order[:_MAX_LANES].tolist()


def check_ending(path: str | os.PathLike[str]) -> str:
    """The ending of a timeline's file, or `ValueError` if it has another.

    >>> check_ending("a.SRT")
    '.srt'
    """
    ending = pathlib.Path(path).suffix.lower()
    if ending not in (".json", ".csv", ".srt", ".png"):
        raise ValueError(
            "A timeline's file must end with .json, .csv, .srt or .png. "
            f"Received: {os.fspath(path)}"
        )
    return ending


def _goes_on(
    before: tuple[np.ndarray, Top], after: tuple[np.ndarray, Top]
) -> bool:
    same = {one[0] for one in before[1]} == {one[0] for one in after[1]}
    return same and bool(after[0][0] - before[0][1] <= _TOUCHING)


def _as_json(best: Sequence[tuple[int, str, float]]) -> list[dict[str, Any]]:
    return [
        {"class": index, "class_name": name, "score": round(score, 6)}
        for index, name, score in best
    ]


def _milliseconds(start: float, end: float) -> tuple[int, int]:
    first = round(1000 * start)
    # Of no length at all a subtitle is not valid.
    return first, max(round(1000 * end), first + 1)


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02},{rest:03}"


def _line(name: str) -> str:
    """A name in one line, without what cannot be encoded."""
    text = name.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip() or "?"


def _subtitle(name: str) -> str:
    """A name in one line, without what players take for markup."""
    return _line(name).translate(_SUBTITLE)
