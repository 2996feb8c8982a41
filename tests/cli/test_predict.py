"""Predictions as a user asks for them."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import export_saved_model
from keras_nonlocal import score_video
from keras_nonlocal.prediction.predict import predict_video
from tests.cli import usage
from tests.data import files
from tests.prediction import networks

NAMES = ("run", "sit", "walk")
# Not UTF-8, and what would clear a terminal.
ODD = "\udcff\x1b[2J.mp4"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos, of which one is none, and a network in two forms."""
    root = tmp_path_factory.mktemp("predict")
    whole = files.write(root / "a.mp4", files.moving(0, 60), g="10")
    files.write(root / "b.mp4", files.moving(1, 50))
    files.cut(whole, root / "cut.mp4", 0.6)
    (root / "text.mp4").write_text("not a video")
    files.write_folder(root / "frames", files.moving(2, 10))
    (root / "more").mkdir()
    shutil.copy(whole, root / "more" / "a.mkv")
    shutil.copy(root / "b.mp4", root / ODD)
    model = networks.tiny()
    clip = keras.Input((None, None, None, 3))
    pooled = keras.layers.GlobalAveragePooling3D()(clip)
    untold = keras.Model(clip, keras.layers.Dense(2, "softmax")(pooled))
    untold.save(root / "untold.keras")
    about = {
        "class_names": NAMES,
        "clip": dataclasses.asdict(ClipSpec(4, 2)),
        "crop_size": 28,
        "short_side": 30,
    }
    export_saved_model(model, root / "tiny" / "saved_model", about)
    model.save(root / "tiny" / "model.keras")
    return root


def scores_of(output):
    """By class, the per cent that are printed first."""
    lines = [line.split() for line in output.splitlines()]
    return {line[1]: line[0] for line in lines[1:4]}


def shown(scores):
    return {
        name: f"{score:.1%}" for name, score in zip(NAMES, scores, strict=True)
    }


def refused(root):
    a, model = str(root / "a.mp4"), f"--model={root / 'tiny'}"
    other = str(root / "more" / "a.mkv")
    return {
        (a,): "--model must have a value",
        (model,): "name one or more videos",
        (f"--model={root / 'absent'}", a): "must be a .keras file or the",
        (model, "--out=a.txt", a): ".json, .csv, .srt or .png",
        (model, "--out=a.json", a, other): "must have {name} in it",
        (model, "--out={name}.json", a, other): "of different names",
        (model, "--stride=1", "--clips=3", a): "--clips must not be given",
        (model, "--stride=0", a): "`stride` must be a positive",
        (model, "--window=4", a): "--window: `text` must be frames",
        (model, "--short_side=20", a): "at most `short_side`",
        (model, "--batch_size=0", a): "--batch_size=0",
        (model, "--outputs=logit", a): "`outputs` must be None or 'softmax'",
        (model, f"--out={a}/x.json", a): "a.mp4",
        (f"--model={root / 'untold.keras'}", a): "--window must be given",
    }


@pytest.fixture(scope="module")
def said(root):
    """What is said of uses that are right, and of those that are not."""
    a, b, text = (str(root / f"{name}.mp4") for name in ("a", "b", "text"))
    out = [f"--out={root}/out/{{name}}.{x}" for x in ("json", "srt", "csv")]
    model = f"--model={root / 'tiny'}"
    served = f"--model={root / 'tiny' / 'saved_model'}"
    uses = [
        (model, a, text, b),
        (served, "--clips=3", "--top=2", a),
        (model, "--stride=0.5", "--window=3x4", *out, a, b),
        (served, "--stride=1", str(root / "cut.mp4")),
        (model, "--stride=1", str(root / "frames"), str(root / ODD)),
    ]
    found = usage.run("predict", [*uses, *refused(root)])
    return found[: len(uses)], found[len(uses) :]


def test_predict(root, said):
    clips, three, windows, cut, odd = said[0]
    a, b, text = (str(root / f"{name}.mp4") for name in ("a", "b", "text"))
    network = networks.tiny()
    sizes = {"crop_size": 28, "short_side": 30}
    assert clips[0] == 1
    for path in (a, b):
        output = clips[1][clips[1].index(path) :]
        expected = score_video(network, path, ClipSpec(4, 2), **sizes)
        assert scores_of(output) == shown(expected)
    assert f"{text}\n  cannot be read: {text}: " in clips[1]

    expected = score_video(network, a, ClipSpec(4, 2), num_clips=3, **sizes)
    best = dict(
        sorted(shown(expected).items(), key=lambda x: -float(x[1][:-1]))
    )
    assert three[0] == 0
    assert list(scores_of(three[1]).items()) == list(best.items())[:2]

    timeline = predict_video(
        network, b, ClipSpec(3, 4), 0.5, class_names=NAMES, **sizes
    )
    assert windows[0] == 0
    found = json.loads((root / "out" / "b.json").read_text())
    assert [(x["start"], x["end"]) for x in found["windows"]] == [
        tuple(pair) for pair in timeline.seconds.round(6).tolist()
    ]
    np.testing.assert_allclose(found["mean"], timeline.mean(), atol=1e-5)
    names = {f"{name}.{x}" for name in "ab" for x in ("json", "srt", "csv")}
    assert {path.name for path in (root / "out").iterdir()} == names
    for path in names:
        assert str(root / "out" / path) in windows[1]

    assert cut[0] == 0 and "problem: early end" in cut[1]
    # A folder whose rate is not known does not keep others from being read.
    assert odd[0] == 1 and "frames: `fps` must say" in odd[1]
    assert f"{root}/\\udcff\\x1b[2J.mp4\n" in odd[1] and "%" in odd[1]


def test_says_what_is_wrong(root, said):
    for (arguments, message), (status, output) in zip(
        refused(root).items(), said[1], strict=True
    ):
        assert status == 1 and message in output, (arguments, output)
