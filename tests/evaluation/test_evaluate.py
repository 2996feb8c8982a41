"""Testing on whole videos, against loops over the same clips."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ClipSpec
from keras_nonlocal import ResNet3D
from keras_nonlocal import SkipLog
from keras_nonlocal import VideoList
from keras_nonlocal.data import decode
from keras_nonlocal.data.skips import TooManySkipsError
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.evaluation import evaluate as evaluate_module
from keras_nonlocal.evaluation import score_files
from keras_nonlocal.evaluation.evaluate import evaluate
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.evaluation.protocols import Protocol
from tests import checks
from tests.data import files

CLIP = ClipSpec(4, 3)
SIZES = ((48, 64), (64, 48), (48, 64), (48, 48), (40, 72), (48, 64))
NAMES = ("x", "y", "z")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    for number, (height, width) in enumerate(SIZES):
        frames = files.moving(number, num_frames=30, size=72)
        write_video(root / f"{number}.mp4", frames[:, :height, :width])
    (root / "text.mp4").write_text("not a video")
    return root


@pytest.fixture
def videos(root):
    paths = [str(root / f"{number}.mp4") for number in range(len(SIZES))]
    return VideoList(paths, [0, 1, 2, 0, 1, 2], NAMES)


@pytest.fixture
def broken(videos, root):
    """The same with a file that is no video, the second."""
    paths = list(videos.paths)
    paths.insert(1, str(root / "text.mp4"))
    return VideoList(paths, [0, 1, 1, 2, 0, 1, 2], NAMES)


def logits_of(clips):
    """Three numbers that depend on every part of a clip."""
    x = clips.astype("float64") / 255
    ramp = np.linspace(-1, 1, x.shape[3])[:, None]
    return np.stack(
        [
            8 * (x[:, 0] * ramp).mean((1, 2, 3)),
            9 * (x[:, -1] * ramp).mean((1, 2, 3)),
            4 * x.std((1, 2, 3, 4)),
        ],
        axis=1,
    )


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def small(name, **fields):
    protocol = dataclasses.replace(
        PROTOCOLS[name], short_side=32, crop_size=32, **fields
    )
    return protocol


def views_by_hand(path, protocol, clip=CLIP):
    """Clips of each setting, by reading all frames."""
    index = decode.scan(path)
    side = protocol.short_side
    frames = decode.read_frames(path, np.arange(index.num_frames), side)
    height, width = frames.shape[1:3]
    places = protocol.places(protocol.clip(clip), len(frames), index.fps)
    settings = {}
    for name, views in protocol.views(height, width).items():
        settings[name] = clips = []
        for number, (top, left, rows, columns, flip) in views:
            part = frames[:, top : top + rows, left : left + columns]
            part = part[:, :, ::-1] if flip else part
            clips.append(part[places[number]])
    return settings


def mean_by_hand(videos, protocol, function):
    """Mean scores of each setting, one clip at a time."""
    settings = {name: [] for name in protocol.setting_names}
    for path in videos.paths:
        for name, clips in views_by_hand(path, protocol).items():
            scores = [function(clip[None])[0] for clip in clips]
            settings[name].append(np.mean(scores, axis=0))
    return settings


@pytest.mark.parametrize(
    ("name", "fields", "num_workers"),
    [
        ("paper", {"num_clips": 3}, 0),
        ("paper", {"num_clips": 3}, 1),
        ("caffe2", {"num_clips": 3, "flips": True}, 0),
        ("slowfast", {"num_clips": 2}, 0),
        ("clip", {}, 0),
    ],
)
def test_all_settings_in_one_pass(videos, name, fields, num_workers):
    protocol = small(name, **fields)

    def predict(clips):
        assert clips.dtype == np.uint8
        assert len(clips) <= 4
        return softmax(logits_of(clips))

    result = evaluate(
        predict,
        videos,
        CLIP,
        protocol,
        batch_size=4,
        num_workers=num_workers,
        progress=False,
    )
    expected = mean_by_hand(videos, protocol, predict)
    assert list(result.scores) == list(protocol.setting_names)
    for setting, scores in result.scores.items():
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected[setting], atol=1e-6)
    assert result.paths == videos.paths and result.tested == len(videos)
    top1 = np.mean(np.argmax(expected["1 clip"], 1) == videos.labels)
    assert result.figures("1 clip")["top1"] == top1


@pytest.fixture(scope="module")
def networks():
    """A network with a softmax, which averages over positions, and without."""
    variant = dataclasses.replace(
        VARIANTS["small_nl_c2d"], width=4, crop_size=32
    )
    model = ResNet3D(variant, classes=3)
    checks.randomize(model, scale=0.1)
    # Scores that differ from place to place.
    head = model.get_layer("logits")
    head.kernel.assign(20 * head.kernel)
    bare = ResNet3D(variant, classes=3, classifier_activation=None)
    bare.set_weights(model.get_weights())
    return model, bare


def test_whole_frames_average_probabilities_over_positions(networks, root):
    model, bare = networks
    path = str(root / "4.mp4")
    videos = VideoList([path], [0], NAMES)
    protocol = Protocol("x", 2, crops="full", crop_size=96, short_side=96)
    trunk = keras.Model(model.input, model.get_layer("res5_1").output)
    kernel, bias = model.get_layer("logits").get_weights()
    expected = []
    for clip in views_by_hand(path, protocol)["2 whole frames"]:
        maps = trunk.predict_on_batch(clip[None])[0]
        # The 32 pixels of training are one position of res5.
        logits = maps.mean(axis=0) @ kernel + bias
        assert logits.shape[0] < logits.shape[1]
        expected.append(softmax(logits).mean(axis=(0, 1)))
    pooled = softmax(logits.mean(axis=(0, 1)))
    assert np.abs(pooled - expected[-1]).max() > 1e-3
    # A network without its activation gets it before the mean.
    result = evaluate(bare, videos, CLIP, protocol, progress=False)
    scores = result.scores["2 whole frames"][0]
    np.testing.assert_allclose(scores, np.mean(expected, axis=0), rtol=1e-4)


def test_logits_on_request(networks, videos):
    # As it was, whatever it was tested by before.
    model, bare = networks
    videos = videos.subset([0, 4])
    protocol = small("clip", average="logit")
    result = evaluate(model, videos, CLIP, protocol, progress=False)
    expected = mean_by_hand(videos, protocol, bare.predict_on_batch)
    np.testing.assert_allclose(
        result.scores["1 clip"], expected["1 clip"], rtol=1e-4, atol=1e-5
    )


def test_the_largest_score_of_any_view(videos):
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0]] * 2)
    many = VideoList(videos.paths, labels, NAMES)
    protocol = small("charades", num_clips=3)
    result = evaluate(
        logits_of, many, CLIP, protocol, outputs="logit", progress=False
    )
    for number, path in enumerate(many.paths):
        views = views_by_hand(path, protocol)["3x3 views"]
        logits = np.concatenate([logits_of(clip[None]) for clip in views])
        np.testing.assert_allclose(
            result.scores["3x3 views"][number],
            1 / (1 + np.exp(-logits.max(axis=0))),
            rtol=1e-5,
        )
    assert result.videos.multi_label and result.figures()["classes"] == 2


def test_batches_are_full_across_videos(videos):
    """Of one view each, and of more views than fit."""
    sizes = []

    def predict(clips):
        sizes.append(len(clips))
        return softmax(logits_of(clips))

    def run(batch_size, protocol):
        sizes.clear()
        return evaluate(
            predict,
            videos,
            CLIP,
            protocol,
            batch_size=batch_size,
            progress=False,
        )

    one = run(4, small("clip"))
    assert sizes == [4, 2]
    np.testing.assert_allclose(
        run(1, small("clip")).scores["1 clip"], one.scores["1 clip"], atol=1e-7
    )
    assert sizes == [1] * 6
    run(4, small("caffe2", num_clips=2))
    # 7 views a video, and 5 of that which is square.
    assert sum(sizes) == 7 * 5 + 3 and set(sizes[:-1]) == {4}


def test_few_frames_wait(videos, monkeypatch):
    """Whole frames of many sizes do not fill memory."""
    monkeypatch.setattr(evaluate_module, "_BYTES_WAITING", 1)
    sizes = []

    def predict(clips):
        sizes.append(len(clips))
        return softmax(logits_of(clips))

    evaluate(predict, videos, CLIP, small("clip"), progress=False)
    assert sizes == [1] * 6


def test_what_cannot_be_read_is_counted(broken, videos, caplog):
    skips = SkipLog()
    result = evaluate(
        lambda clips: softmax(logits_of(clips)),
        broken,
        CLIP,
        small("clip"),
        skips=skips,
        progress=False,
    )
    assert result.tested == 6 and list(result.skipped) == [1]
    assert "text.mp4" in result.skipped[1]
    assert skips.count == 1 and "1 of 7 videos" in caplog.text
    np.testing.assert_array_equal(result.numbers, [0, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(result.labels, videos.labels)
    figures = result.figures()
    assert figures["top1"] == figures["correct"] / 6
    assert figures["top1_skipped_wrong"] == figures["correct"] / 7


def test_nothing_can_be_read(root):
    path = str(root / "text.mp4")
    with pytest.raises(ValueError, match=r"one of 2 videos .*text\.mp4"):
        evaluate(
            logits_of,
            VideoList([path] * 2, [0, 0], NAMES),
            CLIP,
            outputs="logit",
            progress=False,
        )
    with pytest.raises(TooManySkipsError, match="At most 50%"):
        evaluate(
            logits_of,
            VideoList([path] * 100, [0] * 100, NAMES),
            CLIP,
            outputs="logit",
            skips=SkipLog(0.5),
            progress=False,
        )


class Stops(Exception):
    pass


@pytest.mark.parametrize("end", [KeyboardInterrupt, Stops])
def test_goes_on_where_it_has_ended(broken, tmp_path, monkeypatch, end):
    monkeypatch.setattr(evaluate_module, "_SAVE_EVERY", 2)
    path = tmp_path / "run" / "scores.npz"
    seen = []

    def predict(clips):
        seen.append(len(clips))
        if len(seen) == stop:
            raise end
        return softmax(logits_of(clips))

    def run(**arguments):
        return evaluate(
            predict,
            broken,
            CLIP,
            small("paper", num_clips=2),
            batch_size=1,
            progress=False,
            **arguments,
        )

    stop = 0
    whole = run()
    total = len(seen)
    seen.clear()
    stop = total * 2 // 3
    with pytest.raises(end):
        run(scores=path, model_id="a")
    earlier, _ = score_files.read(path)
    assert 0 < earlier.tested < 6
    with pytest.raises(ValueError, match=r"videos to go"):
        score_files.load(path)
    seen.clear()
    stop = 0
    result = run(scores=path, model_id="a")
    assert 0 < len(seen) < total
    assert list(result.skipped) == [1]
    for setting, scores in whole.scores.items():
        np.testing.assert_allclose(result.scores[setting], scores, atol=1e-7)
    # All is there: nothing is computed any more.
    seen.clear()
    again = run(scores=path, model_id="a")
    assert seen == []
    np.testing.assert_array_equal(again.numbers, whole.numbers)
    with pytest.raises(ValueError, match=r"another test .*'paper'.*remove it"):
        run(scores=path, model_id="b")
    with pytest.raises(ValueError, match="`model_id` must tell the model"):
        run(scores=path)


def test_a_network_with_other_weights_is_another(networks, videos, tmp_path):
    model, bare = networks
    path = tmp_path / "scores.npz"

    def run(network):
        return evaluate(
            network, videos, CLIP, small("clip"), scores=path, progress=False
        )

    first = run(model)
    run(model)
    bare.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="of another test"):
        run(bare)
    bare.set_weights(model.get_weights())
    # Whether it has its softmax or not makes no difference.
    np.testing.assert_array_equal(
        run(bare).scores["1 clip"], first.scores["1 clip"]
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (logits_of, r"softmax scores; .* `outputs`.*sums from"),
        (lambda x: np.full((len(x), 3), np.nan), r"0\.mp4.*finite.*nan"),
        (lambda x: np.ones((len(x), 5)) / 5, r"\(6, 3\).*\(6, 5\)"),
        (lambda x: np.ones((len(x), 3, 1)) / 3, r"\(6, 3\).*\(6, 3, 1\)"),
    ],
)
def test_what_a_model_must_give(videos, function, message):
    with pytest.raises(ValueError, match=message):
        evaluate(function, videos, CLIP, small("clip"), progress=False)


def test_refuses_what_is_ambiguous(networks, videos):
    model, _ = networks
    many = VideoList(videos.paths, np.eye(3, dtype=int)[[0, 1, 2] * 2], NAMES)
    by_logits = small("clip", average="logit")
    pixels = keras.Input((None, None, None, 3))
    mean = keras.layers.GlobalAveragePooling3D()(pixels / 1000)
    dense = keras.layers.Dense(3, activation="softmax")(mean)
    exotic = keras.layers.Dense(3, activation="relu")(mean)
    bare = keras.Model(model.get_layer("normalize").output, model.output)
    for network, chosen, protocol, message in (
        (model, many, small("clip"), "sigmoid scores or logits.*softmax"),
        (keras.Model(pixels, dense), videos, by_logits, "must give logits"),
        (logits_of, videos, by_logits, "must give logits"),
        (keras.Model(pixels, exotic), videos, small("clip"), "`outputs` must"),
        (bare, videos, small("clip"), "include_preprocessing=True"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(network, chosen, CLIP, protocol, progress=False)
    with pytest.raises(ValueError, match="None or 'softmax'.*'logit'"):
        evaluate(model, videos, CLIP, outputs="logit", progress=False)


def test_other_keras_models(videos):
    """Of which the activation is another layer's, or cannot be known."""
    pixels = keras.Input((None, None, None, 3))
    mean = keras.layers.GlobalAveragePooling3D()(pixels / 100)
    dense = keras.layers.Dense(3)(mean)
    logits = keras.Model(pixels, dense)
    softmaxed = keras.Model(pixels, keras.layers.Activation("softmax")(dense))
    nested = keras.Sequential([pixels, softmaxed])
    results = [
        evaluate(
            network,
            videos,
            CLIP,
            small("clip"),
            outputs=outputs,
            progress=False,
        ).scores["1 clip"]
        for network, outputs in (
            (logits, None),
            (softmaxed, None),
            (nested, "softmax"),
        )
    ]
    expected = mean_by_hand(videos, small("clip"), softmaxed.predict_on_batch)[
        "1 clip"
    ]
    for scores in results:
        np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "30 views"}, "`protocol` must be"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"num_workers": -1}, "`num_workers` must be at least 0"),
        ({"time_limit": 0}, "`time_limit` must be positive"),
        ({"decoder": "vlc"}, "`decoder` must be one of"),
        ({"outputs": "max"}, "`outputs` must be one of"),
    ],
)
def test_wrong_arguments(videos, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(logits_of, videos, CLIP, progress=False, **arguments)


def test_no_videos():
    with pytest.raises(ValueError, match="one video or more"):
        evaluate(logits_of, VideoList((), [], NAMES), CLIP, progress=False)


def test_counts_on_the_terminal(broken, capsys):
    evaluate(
        lambda clips: softmax(logits_of(clips)), broken, CLIP, small("clip")
    )
    assert "7/7" in capsys.readouterr().out
