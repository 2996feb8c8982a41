import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_nonlocal.metrics.average_precision import mean_average_precision
from keras_nonlocal.metrics.binned_average_precision import (
    BinnedMeanAveragePrecision,
)

_MIRRORED = pathlib.Path(__file__).with_name("mirrored.py")


def case(seed=0, videos=300, classes=20):
    """Logits of rare classes, one of which never occurs, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((videos, classes)) < rng.uniform(0.01, 0.2, classes)
    labels[:, 0], labels[0, 1:] = False, True
    scores = rng.normal(-5 + labels, 1.5)
    return scores.astype("float32"), labels.astype("float32")


def binned(scores, labels, batch=64, **arguments):
    metric = BinnedMeanAveragePrecision(scores.shape[1], **arguments)
    for start in range(0, len(scores), batch):
        stop = start + batch
        metric.update_state(labels[start:stop], scores[start:stop])
    return float(metric.result())


@pytest.mark.parametrize("seed", range(3))
def test_near_the_exact_figure(seed):
    scores, labels = case(seed)
    exact = mean_average_precision(scores, labels)
    assert binned(scores, labels, from_logits=True) == pytest.approx(
        exact, abs=0.003
    )
    probabilities = 1 / (1 + np.exp(-scores))
    assert binned(probabilities, labels) == pytest.approx(exact, abs=0.003)


@pytest.mark.parametrize("num_bins", [1, 8, 64])
def test_exact_for_rounded_scores(num_bins):
    scores, labels = case()
    rounded = np.floor((np.clip(scores, -16, 16) + 16) / 32 * num_bins)
    ours = binned(scores, labels, from_logits=True, num_bins=num_bins)
    expected = mean_average_precision(rounded, labels)
    assert ours == pytest.approx(expected, rel=1e-5)


def test_batches_do_not_matter():
    scores, labels = case()
    assert binned(scores, labels, batch=7) == binned(scores, labels, batch=300)


@pytest.mark.parametrize("from_logits", [False, True])
def test_extreme_scores(from_logits):
    """Zero, one, more than one by rounding, infinite; NaN ranks last."""
    scores = np.float32([[1.0], [0.0], [np.nan], [np.inf], [-np.inf], [1.5]])
    labels = np.float32([[1], [0], [0], [1], [0], [1]])
    value = binned(scores, labels, from_logits=from_logits)
    assert value == pytest.approx(1.0)
    assert binned(scores, 1 - labels) == pytest.approx(0.5)


def test_nothing_occurs():
    assert np.isnan(binned(np.zeros((2, 3), "float32"), np.zeros((2, 3))))


def test_mixed_labels_are_those_of_the_larger_part():
    scores = np.float32([[0.9], [0.1]])
    mixed = binned(scores, np.float32([[0.7], [0.3]]))
    assert mixed == binned(scores, np.float32([[1], [0]]))


def test_in_fit_and_saved(tmp_path):
    """Training and validation have their own counts, every epoch anew."""
    scores, labels = case(videos=96, classes=5)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(5, kernel_initializer="identity"),
        ]
    )
    metric = BinnedMeanAveragePrecision(5, from_logits=True, name="map")
    model.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[metric],
    )
    history = model.fit(
        scores[:64],
        labels[:64],
        validation_data=(scores[64:], labels[64:]),
        epochs=2,
        batch_size=16,
        verbose=0,
    ).history
    for name, part in (("map", slice(64)), ("val_map", slice(64, None))):
        exact = mean_average_precision(scores[part], labels[part])
        assert history[name] == pytest.approx([exact] * 2, abs=0.01)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    values = loaded.evaluate(
        scores[64:], labels[64:], verbose=0, return_dict=True
    )
    assert values["map"] == history["val_map"][1]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="is of TensorFlow"
)
def test_replicas_count_together(tmp_path):
    scores, labels = case(videos=51, classes=5)
    np.savez(tmp_path / "case.npz", scores=scores, labels=labels)
    command = [sys.executable, str(_MIRRORED), str(tmp_path / "case.npz")]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    one, two = map(float, result.stdout.split())
    assert one == pytest.approx(two, rel=1e-6)
    assert one == pytest.approx(
        mean_average_precision(scores, labels), abs=0.01
    )


def test_refuses():
    scores, labels = case()
    for arguments in ({"num_classes": 0}, {"num_bins": 0}):
        with pytest.raises(ValueError, match=f"{[*arguments][0]}=0"):
            BinnedMeanAveragePrecision(**({"num_classes": 2} | arguments))
    metric = BinnedMeanAveragePrecision(19)
    with pytest.raises(ValueError, match=r"\(batch, 19\).*\(300, 20\)"):
        metric.update_state(labels, scores)


def test_videos_without_weight_do_not_count(rng):
    """As those with which batches are filled up."""
    labels, scores = rng.integers(2, size=(40, 3)), rng.random((40, 3))
    weights = np.arange(40) < 30
    padded = BinnedMeanAveragePrecision(3)
    padded.update_state(labels, scores, weights.astype("float32"))
    alone = BinnedMeanAveragePrecision(3)
    alone.update_state(labels[:30], scores[:30])
    assert float(padded.result()) == pytest.approx(float(alone.result()))
    twice = BinnedMeanAveragePrecision(3)
    twice.update_state(labels[:30], scores[:30], np.full(30, 0.25))
    assert float(twice.result()) == pytest.approx(float(alone.result()))
