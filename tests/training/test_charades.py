"""From annotations to a mean average precision, on made-up videos."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import clip_dataset
from keras_nonlocal.data.readers.charades import read_charades
from keras_nonlocal.data.synthetic import FPS
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.evaluation.evaluate import evaluate
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.metrics.average_precision import mean_average_precision
from keras_nonlocal.metrics.binned_average_precision import (
    BinnedMeanAveragePrecision,
)
from keras_nonlocal.metrics.charades import classification_map

CLASSES = ["reddening", "greening", "blueing", "vanishing"]
HEADER = "id,subject,actions,length"
NUM_FRAMES = 40
CLIP = ClipSpec(4, 2)
TINY = Variant(depth=26, width=4, num_nonlocal=1, stem="stride1")


def make_split(folder, name, count, seed):
    """Grey noise whose colours rise while their actions happen.

    The last class never happens; every fourth video has no action.
    """
    rng = np.random.default_rng(seed)
    lines = [HEADER]
    for number in range(count):
        frames = rng.integers(0, 60, (NUM_FRAMES, 32, 44, 3))
        actions = []
        colours = np.flatnonzero(rng.random(3) < 0.6)
        for colour in colours if number % 4 else ():
            first = int(rng.integers(0, NUM_FRAMES - 8))
            last = first + 8
            frames[first:last, :, :, colour] += 150
            # Between two frames, in official precision.
            times = (first - 0.5) / FPS, (last - 0.5) / FPS
            start, end = (f"{max(time, 0):.2f}" for time in times)
            actions.append(f"c{colour:03} {start} {end}")
        video = f"{name}{number:02}"
        write_video(folder / f"{video}.mp4", frames.astype("uint8"))
        text = ";".join(actions)
        lines.append(f'{video},"made, up",{text},{NUM_FRAMES / FPS:.2f}')
    (folder / f"{name}.csv").write_text("\n".join(lines))
    return read_charades(folder / f"{name}.csv", class_names=CLASSES)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Sixteen videos to train on and eight to test on."""
    folder = tmp_path_factory.mktemp("charades")
    return make_split(folder, "train", 16, 0), make_split(folder, "test", 8, 1)


def dataset(videos, **options):
    return clip_dataset(
        videos,
        CLIP,
        batch_size=8,
        crop_size=32,
        short_side=(32, 36),
        jitter="inverse",
        **options,
    )


def test_clips_have_their_own_labels_in_training_alone(splits):
    train, test = splits
    labels = np.concatenate(
        [y for _, y in dataset(test, training=False)], axis=0
    )
    np.testing.assert_array_equal(labels, test.labels)
    seen = []
    for clips, labels in dataset(train, training=True):
        # What happens is what is bright at some time.
        bright = clips.numpy().mean((2, 3)).max(axis=1) > 100
        np.testing.assert_array_equal(labels[:, :3], bright)
        seen.append(labels.numpy().sum())
    assert 0 < sum(seen) < train.labels.sum()


def test_a_network_learns_what_happens_from_clips(splits):
    train, test = splits
    model = ResNet3D(TINY, classes=4, classifier_activation=None)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[BinnedMeanAveragePrecision(4, from_logits=True)],
        jit_compile=False,
    )
    history = model.fit(
        dataset(train, training=True, repeat=True),
        validation_data=dataset(test, training=False),
        steps_per_epoch=10,
        epochs=2,
        shuffle=False,
        verbose=0,
    ).history
    assert history["loss"][1] < 0.7 * history["loss"][0]
    protocol = dataclasses.replace(
        PROTOCOLS["charades"], crop_size=32, short_side=32
    )
    result = evaluate(model, test, CLIP, protocol, progress=False)
    exact = {
        name: classification_map(scores, result.labels)
        for name, scores in result.scores.items()
    }
    # The middle clip does not see all that happens.
    assert exact["1 clip"] < 0.9 < exact["10x3 views"]
    one = mean_average_precision(result.scores["1 clip"], test.labels)
    assert history["val_binned_map"][1] == pytest.approx(one, abs=0.05)
