"""What a network is trained for."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal import VideoList
from keras_nonlocal.training import objective

CONFIG = TrainConfig(ClipSpec(8))
ONE = VideoList("abcd", [0, 1, 2, 2], tuple("uvwxyz"))
SEVERAL = VideoList("ab", [[1, 0, 1], [0, 0, 0]], tuple("uvw"))
LOGITS = np.array([[2.0, -1, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0]], "float32")


def smoothed(config):
    return dataclasses.replace(config, label_smoothing=0.1)


def test_cross_entropy_of_a_softmax():
    loss = objective.loss_for(ONE, CONFIG)(np.array([0, 0]), LOGITS)
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    assert float(loss) == pytest.approx(-np.log(shares[:, 0]).mean(), rel=1e-5)


def test_smoothed_labels_are_spread_over_all_classes():
    config = smoothed(CONFIG)
    batches = tf.data.Dataset.from_tensors((np.zeros(2), np.array([0, 0])))
    ((_, labels),) = objective.prepare_labels(batches, ONE, config)
    loss = objective.loss_for(ONE, config)(labels, LOGITS)
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    wanted = np.full(6, 0.1 / 6) + 0.9 * np.eye(6)[0]
    assert float(loss) == pytest.approx(
        -(wanted * np.log(shares)).sum(1).mean(), rel=1e-5
    )


def test_sigmoids_over_clips_and_classes():
    logits = LOGITS[:, :3]
    loss = objective.loss_for(SEVERAL, CONFIG)(SEVERAL.labels, logits)
    shares = 1 / (1 + np.exp(-logits))
    right = np.where(SEVERAL.labels, shares, 1 - shares)
    assert float(loss) == pytest.approx(-np.log(right).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "videos, config, names",
    [
        (ONE, CONFIG, ["accuracy", "top5"]),
        (ONE, smoothed(CONFIG), ["accuracy", "top5"]),
        (SEVERAL, CONFIG, ["binned_map"]),
        (VideoList("ab", [0, 1], ("u", "v")), CONFIG, ["accuracy"]),
    ],
)
def test_metrics(videos, config, names):
    found = objective.metrics_for(videos, config)
    assert [getattr(metric, "name", metric) for metric in found] == names


def test_metrics_count_labels_as_the_loss_has_them():
    """With smoothing they are one-hot; five of six classes are in the top 5."""
    config = smoothed(CONFIG)
    batches = tf.data.Dataset.from_tensors((np.zeros(2), np.array([0, 2])))
    ((_, labels),) = objective.prepare_labels(batches, ONE, config)
    logits = LOGITS + np.array([0, 0, -9, 0, 0, 0], "float32")
    top5 = objective.metrics_for(ONE, config)[1]
    assert float(top5(labels, logits)) == pytest.approx(0.5)


def test_balanced_classes():
    config = dataclasses.replace(CONFIG, class_weights="balanced")
    weights = objective.class_weights(ONE, config)
    # Three of six classes have videos.
    assert weights == pytest.approx({0: 4 / 3, 1: 4 / 3, 2: 2 / 3})
    assert np.mean([weights[label] for label in ONE.labels]) == pytest.approx(1)
    assert objective.class_weights(ONE, CONFIG) is None
    with pytest.raises(ValueError, match="one class each"):
        objective.class_weights(SEVERAL, config)


def test_losses_are_those_of_keras():
    """Their names and settings are saved with a model."""
    loss = objective.loss_for(SEVERAL, smoothed(CONFIG))
    assert isinstance(loss, keras.losses.BinaryCrossentropy)
    assert loss.label_smoothing == 0.1 and loss.from_logits
