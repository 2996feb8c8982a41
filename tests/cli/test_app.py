"""The app as a user sees it, in a browser."""

import dataclasses
import gc
import importlib.util
import json
import re
import socket

import keras
import numpy as np
import pytest
from absl import app as absl_app
from absl.testing import flagsaver

from keras_nonlocal import ClipSpec
from keras_nonlocal import NonLocal
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.prediction.predict import predict_video
from keras_nonlocal.visualization.media import write_mp4
from tests import checks
from tests.browser import chromium
from tests.browser import has_sideways_scroll

# Gradio leaves loops of events to the garbage collector, and its queue counts
# jobs with options that pandas is about to drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception ignored in"),
    pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

HOSTILE = "a'b<img src=x onerror=alert(1)> {{c}} ${d}"
NAMES = [f"<b>{HOSTILE}</b>", "</script><script>alert(1)</script>"]
MAX_SECONDS = 4.0
SIDE = 36


def write_network(path, *middle):
    """A folder as that of a training run."""
    inputs = keras.Input((4, SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv3D(4, (1, 5, 5), (1, 4, 4))(x)
    for layer in middle:
        x = layer(x)
    x = keras.layers.GlobalAveragePooling3D()(x)
    x = keras.layers.Dense(2, activation="softmax")(x)
    model = keras.Model(inputs, x)
    checks.randomize(model)
    about = path / "saved_model" / "assets.extra" / "model.json"
    about.parent.mkdir(parents=True)
    clip = dataclasses.asdict(ClipSpec(4, 2))
    about.write_text(json.dumps({"class_names": NAMES, "clip": clip}))
    model.save(path / "model.keras")


def write_video(path, seconds):
    """Smooth noise that moves, at 8 frames a second."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8 * seconds, 6, 8, 3), "uint8")
    write_mp4(path, coarse.repeat(12, axis=1).repeat(12, axis=2), 8)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two networks, of which one has no blocks, and three files."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    root = tmp_path_factory.mktemp("app")
    write_network(root / "blocks", NonLocal())
    write_network(root / "none")
    write_video(root / f"{HOSTILE}.mp4", 3)
    write_video(root / "long.mp4", 5)
    (root / "text.mp4").write_text("not a video")
    return root


@pytest.fixture(scope="module")
def address(root):
    from keras_nonlocal.cli import app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(root / "uploads"))
        models = [str(root / "blocks"), str(root / "none")]
        blocks = app.build(models, root, max_seconds=MAX_SECONDS)
        yield app.launch(blocks, 0)
        blocks.close(verbose=False)
    gc.collect()


@pytest.fixture(scope="module")
def page(address):
    """The page; fails at the end if it logged errors or asked elsewhere."""
    complaints, asked = [], []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda one: complaints.append((one.type, one.text)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        page.close()
    # Gradio's player warns of what it does not implement.
    assert [one for one in complaints if one[0] != "warning"] == []
    own = (address, "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []


def predict(page, path, expected):
    """Drops a video, presses the button and waits for words."""
    clear = page.get_by_label("Clear", exact=True)
    if clear.count():
        clear.click()
    page.locator("input[accept*='video']").set_input_files(path)
    page.get_by_role("button", name="Predict").click()
    status = page.locator("#status [role=status]")
    status.filter(has_text=expected).wait_for()
    return status.inner_text()


def test_predict_and_attend(page, root):
    path = root / f"{HOSTILE}.mp4"
    expected = predict_video(open_model(root / "blocks"), path, progress=False)
    ((_, name, score),) = expected.mean_top(1)
    count = len(expected.scores)
    assert count > 1
    words = predict(page, path, f"the mean of {count} clips.")
    assert words == f"{name}: {score:.1%}, the mean of {count} clips."
    for row, ((_, name, score), _) in enumerate(expected.top(2)):
        cell = page.get_by_test_id(f"cell-{row}-2")
        assert cell.inner_text().strip() == f"{name} ({score:.1%})"
    with page.expect_download() as download:
        page.get_by_text("Download .json").click()
    written = json.loads(download.value.path().read_text())
    assert len(written["windows"]) == count
    assert "/" not in written["video"]
    # The surest moment is shown without asking.
    stage = page.frame_locator("#attention iframe").locator("#stage")
    start = expected.seconds[expected.scores.max(axis=1).argmax(), 0]
    moment = page.locator("#moment input").first
    assert float(moment.input_value()) == pytest.approx(start, abs=1e-3)
    expect_heat_that_follows(stage)
    # A row of the table leads to its moment.
    page.get_by_test_id(f"cell-{count - 1}-0").click()
    page.wait_for_function(
        "start => Math.abs(document.querySelector('#moment input').value"
        " - start) < 1e-3",
        arg=float(expected.seconds[-1, 0]),
    )


def expect_heat_that_follows(stage):
    """A click on another point shows other weights."""
    stage.wait_for()
    shown = "() => Array.from(attentionPage.weights())"
    box = stage.bounding_box()
    seen = []
    for share in (0.05, 0.95):
        position = {"x": share * box["width"], "y": share * box["height"]}
        stage.click(position=position)
        seen.append((stage.evaluate(shown), stage.screenshot()))
    assert not np.allclose(seen[0][0], seen[1][0])
    assert seen[0][1] != seen[1][1]


def test_other_uses_on_a_phone(page, root):
    page.set_viewport_size({"width": 375, "height": 800})
    words = predict(page, root / "text.mp4", "cannot be read")
    assert "text.mp4: Invalid data" in words and str(root) not in words
    words = predict(page, root / "long.mp4", "at most 4 s long")
    assert not page.locator("#table").is_visible()
    assert not has_sideways_scroll(page)
    # A network without blocks.
    page.get_by_label("Model").click()
    page.get_by_role("option", name=str(root / "none")).click()
    predict(page, root / f"{HOSTILE}.mp4", "the mean of")
    frame = page.frame_locator("#attention iframe")
    frame.get_by_text("Where the network finds").wait_for()
    assert not has_sideways_scroll(page)


def test_commands_that_are_refused(root):
    from keras_nonlocal.cli import app

    def expect(message, *arguments, **given):
        with (
            flagsaver.flagsaver(**given),
            pytest.raises(absl_app.UsageError, match=re.escape(message)),
        ):
            app.main(["app", *arguments])

    app.FLAGS.mark_as_parsed()
    expect("unknown arguments: video.mp4", "video.mp4")
    expect("absent", model=[str(root / "absent")])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        expect("--port: ", port=taken.getsockname()[1])
    app.FLAGS.unparse_flags()
    gc.collect()
