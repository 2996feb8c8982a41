"""Visualization as a user runs it."""

import dataclasses
import json

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from keras import layers

from keras_nonlocal import ClipSpec
from keras_nonlocal import NonLocal
from keras_nonlocal import attend
from keras_nonlocal import attention_arrows
from keras_nonlocal import attention_statistics
from keras_nonlocal import read_video_clip
from keras_nonlocal.data import decode
from keras_nonlocal.data import synthetic
from keras_nonlocal.layers.network_record import NetworkRecord
from tests import checks
from tests.cli import usage


def network(with_block, two_outputs=False):
    inputs = keras.Input((4, 28, 28, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv3D(4, (1, 5, 5), (1, 4, 4), name="conv")(x)
    if with_block:
        x = NonLocal(name="first")(x)
        x = NonLocal(name="last")(x)
    x = layers.GlobalAveragePooling3D()(x)
    scores = layers.Dense(2, "softmax")(x)
    model = keras.Model(inputs, [scores, x] if two_outputs else scores)
    checks.randomize(model)
    return model


class Exported(tf.Module):
    """What of a SavedModel is loaded."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 28, 28, 3))])
    def serve(self, clip):
        return clip[:, :2, 0, 0, 0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A video and two networks, of which one has no blocks."""
    root = tmp_path_factory.mktemp("visualize")
    frames = synthetic.relation_frames(
        synthetic.COLOURS[:2], 20, 40, np.random.default_rng(0)
    )
    synthetic.write_video(root / "a.mp4", frames)
    (root / "text.mp4").write_text("not a video")
    exported = root / "blocks" / "saved_model"
    tf.saved_model.save(Exported(), exported)
    about = {
        "class_names": synthetic.CLASS_NAMES,
        "clip": dataclasses.asdict(ClipSpec(4, 2)),
        "crop_size": 28,
        "short_side": 32,
    }
    (exported / "assets.extra").mkdir()
    text = json.dumps(about)
    (exported / "assets.extra" / "model.json").write_text(text)
    network(True).save(root / "blocks" / "model.keras")
    network(False).save(root / "none.keras")
    network(True, two_outputs=True).save(root / "two.keras")
    inputs = keras.Input((4, 28, 28, 3))
    recorded = keras.Model(inputs, NetworkRecord({})(inputs))
    recorded.save(root / "normalized.keras")
    return root


def right(root):
    """A use for each network."""
    return [
        [
            f"--model={root / 'blocks'}",
            f"--out={root / 'out'}",
            "--block=first",
            "--query=1,20,9.5",
            "--target=same_colour",
            "--start=0.2",
            str(root / "a.mp4"),
        ],
        [
            f"--model={root / 'none.keras'}",
            f"--out={root / 'new' / 'out'}",
            "--clip=4x1",
            "--fps=5",
            str(root / "a.mp4"),
        ],
        [
            f"--model={root / 'two.keras'}",
            f"--out={root / 'two'}",
            "--clip=4x1",
            str(root / "a.mp4"),
        ],
    ]


def wrong(root):
    """By arguments that are refused, a part of what is said."""
    video, out = str(root / "a.mp4"), f"--out={root / 'refused'}"
    model = f"--model={root / 'blocks'}"
    bare = f"--model={root / 'none.keras'}"
    exported = f"--model={root / 'blocks' / 'saved_model'}"
    return {
        (model, out): "name one video after the flags. Received: none",
        (model, out, video, "b.mp4"): "name one video",
        (exported, out, video): "give its model.keras",
        (f"--model={root / 'absent'}", out, video): "The model must be",
        (f"--model={root / 'normalized.keras'}", out, video): "RGB in 0..255",
        (model, out, str(root / "text.mp4")): "text.mp4",
        (model, out, str(root / "absent.mp4")): "absent.mp4",
        (model, out, "--query=1,2", video): "--query must be three numbers",
        (model, out, "--query=1,2,x", video): "Received: 1,2,x",
        (model, out, "--query=1,2,28", video): "`query` must be in the clip",
        (model, out, "--block=x", video): "`block` must be one of",
        (model, out, "--target=x", video): "one of different_colour, same_c",
        (model, out, "--target=2", video): "from 0 to 1",
        (model, out, "--start=9", video): "`start` must be a time",
        (model, out, "--clip=8", video): "'32x2'. Received: '8'",
        (bare, out, video): "does not say",
        (bare, out, "--clip=4x1", "--block=x", video): "with non-local blocks",
    }


@pytest.fixture(scope="module")
def outputs(root):
    """What each use says and its status, all in one process."""
    return usage.run("visualize", [*right(root), *wrong(root)])


def test_leaves_everything_of_a_network_with_blocks(root, outputs):
    out = root / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "arrows.png",
        "attention.gif",
        "attention.mp4",
        "attention.png",
        "grad_cam.gif",
        "grad_cam.mp4",
        "grad_cam.png",
        "index.html",
        "statistics.json",
        "statistics.png",
    ]
    status, text = outputs[0]
    assert status == 0 and f"The page: {out / 'index.html'}" in text
    assert "same_colour" in (out / "index.html").read_text()
    statistics = json.loads((out / "statistics.json").read_text())
    assert list(statistics) == ["first", "last"]
    assert statistics["first"]["clip_size"] == [4, 28, 28]
    for path in out.glob("*.png"):
        with PIL.Image.open(path) as image:
            assert min(image.size) > 100
    # Every second frame of 25 a second, as fast as they were.
    index = decode.scan(str(out / "attention.mp4"))
    assert (index.num_frames, index.height) == (4, 28)
    np.testing.assert_allclose(np.diff(index.times), 2 / 25, atol=1e-3)
    with PIL.Image.open(out / "grad_cam.gif") as image:
        # Frames that are alike may be one.
        seconds = 0.0
        for number in range(image.n_frames):
            image.seek(number)
            seconds += image.info["duration"] / 1000
    assert seconds == pytest.approx(4 * 2 / 25)


def test_leaves_the_page_and_grad_cam_of_others(root, outputs):
    out = root / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "grad_cam.gif",
        "grad_cam.mp4",
        "grad_cam.png",
        "index.html",
    ]
    times = decode.scan(str(out / "grad_cam.mp4")).times
    np.testing.assert_allclose(times, np.arange(4) / 5, atol=1e-3)


def test_asks_the_middle_of_the_last_block(root, outputs):
    """Of a network without a class to find, as it has two outputs."""
    out = root / "two"
    status, text = outputs[2]
    assert status == 0 and "No Grad-CAM" in text
    assert not list(out.glob("grad_cam.*"))
    model = keras.models.load_model(root / "two.keras")
    clip = read_video_clip(root / "a.mp4", ClipSpec(4, 1), crop_size=28)
    attention = attend(model, clip.frames)
    maps = attention.maps("last", (1.5, 13.5, 13.5))
    drawn = attention_arrows(clip, maps)
    assert (out / "arrows.png").read_bytes() == drawn
    statistics = json.loads((out / "statistics.json").read_text())
    expected = attention_statistics(model, attention, "last")
    assert statistics["last"]["entropy"] == pytest.approx(expected.entropy)


def test_says_what_is_wrong(root, outputs):
    expected = wrong(root).items()
    for (arguments, message), (status, text) in zip(
        expected, outputs[3:], strict=True
    ):
        assert status == 1 and message in text, (arguments, text)
