"""What a network is trained for: loss, metrics and weights of classes."""

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.metrics.binned_average_precision import (
    BinnedMeanAveragePrecision,
)
from keras_nonlocal.training.config import TrainConfig

# Beside the accuracy, where there are more classes than these.
_TOP_K = 5


def loss_for(videos: VideoList, config: TrainConfig) -> keras.losses.Loss:
    """The loss of logits.

    The mean over clips of a softmax's cross-entropy; where videos may have
    several classes, that over clips and classes of a sigmoid's.

    Args:
        videos: What is trained on.
        config: Settings; the labels are smoothed as they say.
    """
    smoothing = config.label_smoothing
    if videos.multi_label:
        return keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=smoothing
        )
    if smoothing:
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=smoothing
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def metrics_for(videos: VideoList, config: TrainConfig) -> list:
    """What `fit` shows beside the loss.

    Accuracy, and that of the best five where there are more classes; where
    videos may have several classes, the mean average precision.
    """
    classes = len(videos.class_names)
    if videos.multi_label:
        return [BinnedMeanAveragePrecision(classes, from_logits=True)]
    if classes <= _TOP_K:
        return ["accuracy"]
    top = (
        keras.metrics.TopKCategoricalAccuracy
        if config.label_smoothing
        else keras.metrics.SparseTopKCategoricalAccuracy
    )
    return ["accuracy", top(_TOP_K, name=f"top{_TOP_K}")]


def class_weights(
    videos: VideoList, config: TrainConfig
) -> dict[int, float] | None:
    """Weights of the classes for `fit`; `None` if all weigh the same.

    Raises:
        ValueError: If they are asked for and videos may have several classes.

    >>> from keras_nonlocal.data.sampling import ClipSpec
    >>> videos = VideoList("abcd", [0, 1, 1, 1], ("rare", "frequent"))
    >>> config = TrainConfig(ClipSpec(8), class_weights="balanced")
    >>> class_weights(videos, config)
    {0: 2.0, 1: 0.666...}
    """
    if config.class_weights is None:
        return None
    if videos.multi_label:
        raise ValueError(
            "`class_weights` are for videos of one class each. Received: "
            f"class_weights={config.class_weights!r} for videos that may have "
            "several"
        )
    counts = np.bincount(videos.labels, minlength=len(videos.class_names))
    present = int(np.count_nonzero(counts))
    return {
        number: len(videos) / (present * count)
        for number, count in enumerate(counts.tolist())
        if count
    }


def prepare_labels(
    dataset: tf.data.Dataset, videos: VideoList, config: TrainConfig
) -> tf.data.Dataset:
    """The labels in the form that the loss takes."""
    if videos.multi_label or not config.label_smoothing:
        return dataset
    classes = len(videos.class_names)
    return dataset.map(
        lambda clips, labels: (clips, tf.one_hot(labels, classes))
    )
