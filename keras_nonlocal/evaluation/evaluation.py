"""What a test has found: scores of videos, and all that follows from them."""

import dataclasses
import os
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation.intervals import wilson_interval
from keras_nonlocal.evaluation.protocols import Protocol
from keras_nonlocal.metrics.accuracy import confusion_matrix
from keras_nonlocal.metrics.accuracy import per_class_accuracy
from keras_nonlocal.metrics.accuracy import top_k_accuracy
from keras_nonlocal.metrics.average_precision import average_precision
from keras_nonlocal.metrics.charades import classification_map

# Of the JSON: another number if a key changes what it means.
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A video for which a class that it does not have got a high score.

    Attributes:
        number: Of the video, in the list that was tested.
        predicted: The class.
        score: What it got.
    """

    number: int
    predicted: int
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of videos, by one way of testing or several side by side.

    Attributes:
        name: Of the model.
        dataset: Of the videos.
        videos: All videos that were to be tested.
        clip: Frames of a clip.
        protocol: How they were tested.
        numbers: Which of `videos` were tested, int64 of shape `(tested,)`.
        scores: For each setting, such as `"1 clip"` or `"10x3 views"`, float32
            of shape `(tested, classes)`: probabilities or logits, as
            `protocol.average` says. The last setting is the protocol's own.
        skipped: Numbers of the videos that could not be read, and why.
        about: Where and when: `environment()`, and `"seconds"`.
    """

    name: str
    dataset: str
    videos: VideoList
    clip: ClipSpec
    protocol: Protocol
    numbers: np.ndarray
    scores: dict[str, np.ndarray]
    skipped: dict[int, str]
    about: dict[str, Any]

    @property
    def tested(self) -> int:
        """Videos that were tested, those that accuracies are of."""
        return len(self.numbers)

    @property
    def labels(self) -> np.ndarray:
        """Labels of the videos that were tested, as in a `VideoList`."""
        return self.videos.labels[self.numbers]

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the videos that were tested."""
        return tuple(self.videos.paths[number] for number in self.numbers)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.videos.class_names

    @property
    def setting(self) -> str:
        """The protocol's own setting: all views."""
        return list(self.scores)[-1]

    def figures(self, setting: str | None = None) -> dict[str, Any]:
        """The figures of merit of a setting.

        Args:
            setting: A key of `scores`; by default `setting`.

        Returns:
            Of videos of one class `"top1"` and `"top5"` (`None` with five
            classes or fewer), shares in 0..1 of the videos tested; the 95 %
            Wilson `"interval"` of `"top1"` over them; `"correct"`, how many
            that is; and `"top1_skipped_wrong"`, the share where skipped videos
            count as wrong. Of videos of several classes `"mAP"`, the mean
            average precision over the classes that occur (`None` if none
            does), `"classes"`, how many do, `"without_class"`, videos that
            have none and are left out, as in the official scores of Charades,
            and `"mAP_skipped_wrong"`, where skipped videos come last for each
            class.
        """
        scores, labels = self.scores[setting or self.setting], self.labels
        if self.videos.multi_label:
            return {
                "mAP": _or_none(classification_map(scores, labels)),
                "classes": int(labels.any(axis=0).sum()),
                "without_class": int((~labels.any(axis=1)).sum()),
                "mAP_skipped_wrong": _or_none(self._map_of_all(scores)),
            }
        top1 = top_k_accuracy(scores, labels)
        correct = round(top1 * self.tested)
        top5 = None
        if len(self.class_names) > 5:
            top5 = top_k_accuracy(scores, labels, k=5)
        return {
            "top1": top1,
            "top5": top5,
            "interval": list(wilson_interval(correct, self.tested)),
            "correct": correct,
            "top1_skipped_wrong": correct / (self.tested + len(self.skipped)),
        }

    def _map_of_all(self, scores: np.ndarray) -> float:
        missing = list(self.skipped)
        last = np.full((len(missing), scores.shape[1]), scores.min() - 1)
        return classification_map(
            np.concatenate([scores, last]),
            np.concatenate([self.labels, self.videos.labels[missing]]),
        )

    def per_class(self) -> np.ndarray:
        """Accuracy, or average precision, of each class in `setting`.

        Returns:
            float64 of shape `(classes,)`, NaN for classes without videos.
        """
        scores = self.scores[self.setting]
        if self.videos.multi_label:
            some = self.labels.any(axis=1)
            if not some.any():
                return np.full(len(self.class_names), np.nan)
            return average_precision(scores[some], self.labels[some])
        return per_class_accuracy(scores, self.labels)

    def videos_per_class(self) -> np.ndarray:
        """Videos tested of each class, int64 of shape `(classes,)`."""
        if self.videos.multi_label:
            return self.labels.sum(axis=0).astype("int64")
        return np.bincount(self.labels, minlength=len(self.class_names))

    def confusion(self) -> np.ndarray:
        """Counts `(classes, classes)`, rows of true classes, in `setting`.

        Raises:
            ValueError: If videos may have several classes.
        """
        if self.videos.multi_label:
            raise ValueError(
                "A confusion matrix is of videos with one class each. "
                "Received: videos that may have several"
            )
        return confusion_matrix(
            self.labels,
            self.scores[self.setting].argmax(axis=1),
            len(self.class_names),
        )

    def mistakes(self, limit: int = 12) -> list[Mistake]:
        """Videos with the highest scores for a class that they do not have.

        Args:
            limit: How many at most.

        Returns:
            The highest first. Of videos of one class, only those for which it
            is another that scores highest.
        """
        scores = self.scores[self.setting].astype("float64")
        if self.videos.multi_label:
            others = np.where(self.labels > 0, -np.inf, scores)
        else:
            own = np.arange(len(self.class_names)) == self.labels[:, None]
            is_right = scores.argmax(axis=1) == self.labels
            others = np.where(own | is_right[:, None], -np.inf, scores)
        classes = others.argmax(axis=1)
        best = others.max(axis=1)
        order = np.argsort(-best, kind="stable")
        return [
            Mistake(int(self.numbers[i]), int(classes[i]), float(best[i]))
            for i in order[:limit].tolist()
            if np.isfinite(best[i])
        ]

    def summary(self) -> dict[str, Any]:
        """All but the scores, for a file; its form is documented in `to_json`.

        Shares and average precisions are in 0..1.
        """
        classes = zip(
            self.class_names,
            self.videos_per_class().tolist(),
            self.per_class().tolist(),
            strict=True,
        )
        measure = "AP" if self.videos.multi_label else "top1"
        return {
            "schema": SCHEMA,
            "name": self.name,
            "protocol": dataclasses.asdict(self.protocol),
            "clip": dataclasses.asdict(self.clip),
            "dataset": self.dataset,
            "multi_label": self.videos.multi_label,
            "settings": {name: self.figures(name) for name in self.scores},
            "tested": self.tested,
            "skipped": len(self.skipped),
            **self.about,
            "classes": [
                {"name": name, "videos": count, measure: _or_none(value)}
                for name, count, value in classes
            ],
            "skipped_videos": [
                {"path": self.videos.paths[number], "reason": reason}
                for number, reason in self.skipped.items()
            ],
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes `summary()`: the form of `zoo/results/*.json`.

        Keys: `"schema"`, the number of this form; `"name"` of the model;
        `"protocol"` and `"clip"`, their fields; `"dataset"`; `"multi_label"`;
        `"settings"`, for each its `figures()`, the protocol's own last;
        `"tested"` and `"skipped"`, numbers of videos; those of `about`:
        `"date"`, `"machine"`, `"python"`, `"versions"`, `"seconds"`;
        `"classes"`, for each its name, number of videos tested and `"top1"` or
        `"AP"`; `"skipped_videos"`, for each its path and the reason.
        """
        write_json(path, self.summary())


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value
