"""Scores of a video over time."""

import dataclasses
import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal import ClipSpec
from keras_nonlocal import export_saved_model
from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.evaluation import scoring
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.prediction.predict import predict_video
from tests import checks
from tests.data import files
from tests.prediction import networks

NAMES = ("run", "sit", "walk")


def predict(model, video, *arguments, **options):
    return predict_video(
        model, video, *arguments, **{"progress": False, **options}
    )


@pytest.fixture(scope="module")
def timeline(network, video):
    return predict(network, video, class_names=NAMES)


def test_scores_are_those_of_the_clips(network, video, timeline):
    assert timeline.scores.dtype == np.float32
    assert timeline.scores.shape == (11, 3) and not timeline.is_multi_label
    # The middle one of the video is the clip that starts at 33.
    clip = ClipSpec(4, 2, fps=25.0)
    middle = read_clip(ClipRequest(str(video), clip, 28, (32, 32))).frames
    expected = checks.numpy(network(middle[None]))[0]
    (found,) = predict(
        network, video, clip, stride=33 / 25, on_window=stop_after(2)
    ).scores[1:]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(timeline.scores, axis=0).max() > 0.01
    assert timeline.about["clip"] == dataclasses.asdict(ClipSpec(4, 2))
    assert timeline.about["short_side"] == 32
    assert len(timeline.thumbnails) == 11 and timeline.problems == ()


def stop_after(count):
    numbers = itertools.count(1)
    return lambda window: next(numbers) < count


@pytest.mark.parametrize("batch_size", [1, 11, 64])
def test_batches_do_not_matter(network, video, timeline, batch_size):
    other = predict(network, video, batch_size=batch_size)
    np.testing.assert_allclose(other.scores, timeline.scores, atol=1e-6)
    np.testing.assert_array_equal(other.seconds, timeline.seconds)
    assert other.class_names == ("class 0", "class 1", "class 2")


def test_every_form_of_a_model(network, video, timeline, tmp_path):
    network.save(tmp_path / "tiny.keras")
    about = {
        "class_names": NAMES,
        "clip": dataclasses.asdict(ClipSpec(4, 2)),
        "crop_size": 28,
        "short_side": 32,
    }
    export_saved_model(network, tmp_path / "served", about)
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    opened = OpenedModel(network, "x", ClipSpec(4, 2), 28, NAMES)
    for found in (
        predict(tmp_path / "tiny.keras", video, class_names=NAMES),
        predict(str(tmp_path / "served"), video),
        predict(
            loaded.serve, video, ClipSpec(4, 2), crop_size=28, class_names=NAMES
        ),
        predict(opened, video),
    ):
        assert found.class_names == NAMES
        np.testing.assert_allclose(found.scores, timeline.scores, atol=1e-5)


def test_every_form_of_a_video(network, timeline, video, tmp_path):
    frames = files.moving(3, 75, 48)[:, :40]
    folder = files.write_folder(tmp_path / "frames", frames)
    first = predict(network, frames, fps=25)
    np.testing.assert_allclose(first.seconds, timeline.seconds)
    pairs = ((100 + number / 25, x) for number, x in enumerate(frames))
    for found in (
        predict(network, iter(frames), fps=25),
        predict(network, folder, fps=25),
        predict(network, pairs),
    ):
        np.testing.assert_array_equal(found.scores, first.scores)
        np.testing.assert_allclose(found.seconds[:, 0], first.seconds[:, 0])


def test_live(network):
    """Of a camera each window is told when the frame after it is taken."""
    told, taken = [], []

    def camera():
        for number in itertools.count():
            taken.append(number)
            yield number / 10, np.full((32, 40, 3), number % 256, "uint8")

    def on_window(window):
        told.append((window, len(taken)))
        return len(told) < 3

    found = predict(
        network, camera(), None, 0.2, 1, batch_size=1, on_window=on_window
    )
    assert [round(10 * window.end) for window, _ in told] == [7, 9, 11]
    assert [number for _, number in told] == [8, 10, 12]
    for (window, _), scores in zip(told, found.scores, strict=True):
        np.testing.assert_array_equal(window.scores, scores)
        (best,) = window.top
        assert best == (scores.argmax(), f"class {best[0]}", scores.max())


def test_several_classes_at_a_time(network, video):
    """Logits of the same network, as sigmoids and as a softmax."""
    clips = network.input
    dense = keras.layers.Dense(3)
    plain = keras.Model(clips, dense(network.get_layer("pool").output))
    sigmoid = keras.Model(
        clips, keras.layers.Activation("sigmoid")(plain.output)
    )
    options = {"window": ClipSpec(4, 2), "crop_size": 28}
    found = predict(sigmoid, video, **options, threshold=0.9)
    assert found.is_multi_label and found.threshold == 0.9
    served = predict(lambda x: sigmoid(x), video, **options)
    assert served.is_multi_label
    np.testing.assert_allclose(served.scores, found.scores, atol=1e-6)
    powers = found.scores / (1 - found.scores)
    expected = powers / powers.sum(axis=1, keepdims=True)
    softmax = predict(plain, video, **options)
    np.testing.assert_allclose(softmax.scores, expected, atol=1e-5)
    assert not softmax.is_multi_label


def test_of_a_damaged_video_what_can_be_read(network, tmp_path):
    whole = files.write(tmp_path / "a.mp4", files.moving(1, 100), g="10")
    files.cut(whole, tmp_path / "cut.mp4", 0.8)
    expected = predict(network, whole)
    found = predict(network, tmp_path / "cut.mp4")
    assert found.problems
    # The last windows may have the frame where it is cut.
    count = len(found.scores) - 2
    assert 2 < count < len(expected.scores)
    np.testing.assert_array_equal(found.scores[:count], expected.scores[:count])


def test_shows_progress(network, video, capsys):
    predict(network, video, progress=True)
    assert "3/3" in capsys.readouterr().out
    frames = ((number / 5, np.zeros((32, 32, 3), "u1")) for number in range(60))
    predict(network, frames, progress=True)
    assert "12/Unknown" in capsys.readouterr().out
    # Also one that is stopped ends its line.
    predict(network, video, progress=True, on_window=stop_after(1))
    assert capsys.readouterr().out.endswith("\n")


def test_models_without_a_graph(network, video, timeline):
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = network

        def call(self, clips, training=False):
            return self.network(clips, training=training)

    options = {"window": ClipSpec(4, 2), "crop_size": 28}
    found = predict(Wrapped(), video, **options)
    np.testing.assert_allclose(found.scores, timeline.scores, atol=1e-6)
    other = keras.Model(network.input, {"a": network.output})
    with pytest.raises(ValueError, match="must have one output"):
        predict(other, video, **options, outputs="softmax")


def test_numbers_and_names_of_numpy(video, tmp_path):
    def scores(clips):
        return np.full((len(clips), 2), 0.5)

    found = predict(
        scores,
        video,
        ClipSpec(4, fps=np.float32(12.5)),
        np.float32(0.5),
        crop_size=np.int64(28),
        short_side=np.int64(32),
        fps=np.float32(25),
        class_names=np.array([7, 8]),
    )
    for ending in ("json", "csv", "srt"):
        found.write(tmp_path / f"a.{ending}")
    assert found.class_names == ("7", "8")
    assert found.about["stride"] == 0.5 and found.about["begins"] == 0


def test_a_wrong_guess_is_told():
    def scores(clips):
        first = clips.max() == 0
        return np.full((len(clips), 2), 0.5 if first else 0.9)

    frames = np.zeros((8, 32, 32, 3), "uint8")
    frames[4:] = 1
    with pytest.raises(ValueError, match="`outputs` was not .* for 'softmax'"):
        predict(scores, frames, ClipSpec(4), crop_size=28, fps=2, batch_size=1)


def test_a_model_is_traced_once_and_not_kept():
    model = networks.tiny()
    call = scoring.prediction(model)
    assert scoring.prediction(model) is call
    clips = np.zeros((2, 4, 28, 28, 3), "uint8")
    np.testing.assert_allclose(call(clips), model(clips), atol=1e-6)
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


def test_says_what_is_wrong(network, video, tmp_path):
    top = network.get_layer("relu").output
    uses = [
        ({"top": 0}, "`top` must be"),
        ({"threshold": 2}, "`threshold` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"stride": 0}, "`stride` must be"),
        ({"crop_size": 40, "short_side": 32}, "at most `short_side`"),
        ({"class_names": ["a"]}, "of the model's 3 classes. Received: 1"),
        ({"outputs": "logit"}, "`outputs` must be None or 'softmax'"),
        ({"model": keras.Model(network.input, top)}, r"scores \(batch, class"),
        ({"model": lambda x: x, "crop_size": 28}, "does not say which clips"),
        ({"model": 7}, "`model` must be a Keras model, a function"),
        ({"model": "absent"}, "must be a .keras file or the"),
        ({"video": tmp_path / "absent.mp4"}, "absent.mp4: No such file"),
    ]
    for changes, message in uses:
        arguments = {"model": network, "video": video, **changes}
        with pytest.raises(ValueError, match=message):
            predict(**arguments)
    with pytest.raises(VideoError, match="it has none"):
        predict(network, iter(()), fps=5)
    with pytest.raises(ValueError, match="must give scores"):
        predict(lambda x: x, video, ClipSpec(4), crop_size=28)
