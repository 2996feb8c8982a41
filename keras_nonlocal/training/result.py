"""What comes out of training a network."""

import dataclasses

import keras
import numpy as np

from keras_nonlocal.evaluation.intervals import wilson_interval
from keras_nonlocal.metrics.charades import classification_map


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came out of training one network.

    Attributes:
        name: Of the network.
        model: The trained network, which gives probabilities.
        history: Loss and accuracy per epoch, as Keras names them.
        scores: Probabilities `(tested, classes)`, in the order of
            `tested_videos`.
        labels: Their labels, as in a `VideoList`.
        tested_videos: Positions in the test list of the videos read.
        parameters: Number of weights that can be trained, frozen or not.
        macs: Multiply-adds of one clip.
        seconds: Time of training since it was last started, with the test
            after each epoch.
        skipped: Reason for each video that could not be read.
        damaged: The same for those of which only some clips could be read.
    """

    name: str
    model: keras.Model
    history: dict[str, list[float]]
    scores: np.ndarray
    labels: np.ndarray
    tested_videos: list[int]
    parameters: int
    macs: int
    seconds: float
    skipped: dict[str, str]
    damaged: dict[str, str]

    @property
    def multi_label(self) -> bool:
        """Whether a video may have any number of classes."""
        return self.labels.ndim == 2

    @property
    def tested(self) -> int:
        """Test videos that could be read."""
        return len(self.scores)

    @property
    def correct(self) -> int:
        """Test videos whose class, of one each, was right."""
        return int(np.sum(self.scores.argmax(axis=1) == self.labels))

    @property
    def accuracy(self) -> float:
        """Share of the test videos that was right, of one class each."""
        return self.correct / self.tested

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return wilson_interval(self.correct, self.tested)

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that occur, of videos of several classes.

        Videos without any are left out, as in the official scores of Charades.
        """
        return classification_map(self.scores, self.labels)

    def figures(self) -> dict:
        """The figures of the test, by name, as JSON has them."""
        if self.multi_label:
            found = self.mean_average_precision
            return {
                "mAP": None if np.isnan(found) else found,
                "tested": self.tested,
            }
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "correct": self.correct,
            "tested": self.tested,
        }
