import base64
import dataclasses
import itertools
import json
import math
import zlib

import keras
import numpy as np
import pytest

from keras_nonlocal import NonLocal
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.visualization import attention_report as reports
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.attention import attention_maps
from keras_nonlocal.visualization.grad_cam import grad_cams
from keras_nonlocal.visualization.video_clip import VideoClip
from tests.browser import chromium
from tests.browser import has_sideways_scroll
from tests.browser import quiet_page
from tests.checks import randomize

SIZE = (8, 32, 48)
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u2028\udcff.mp4"
NAMES = [f"<b>{HOSTILE}</b>{number}" for number in range(7)]


def network(*blocks, classes=7, activation="softmax"):
    """Blocks after convolutions that halve rows and columns, later time."""
    x = inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    for number, arguments in enumerate(blocks or [None]):
        strides = (min(number + 1, 2), 2, 2)
        x = keras.layers.Conv3D(4, 3, strides, padding="same")(x)
        if arguments is not None:
            x = NonLocal(name=f"block{number}", **arguments)(x)
    x = keras.layers.GlobalAveragePooling3D()(x)
    x = keras.layers.Dense(classes, activation=activation)(x)
    model = keras.Model(inputs, x)
    randomize(model)
    return model


def video():
    frames = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), "uint8")
    numbers = np.arange(10, 10 + 2 * SIZE[0], 2)
    return VideoClip(frames, numbers, numbers / 8, (0, 0, 32, 48), HOSTILE)


@pytest.fixture(scope="module")
def blocks():
    return network(
        {"attention_axes": "space"},
        {"mode": "dot_product", "temporal_group": 2},
    )


@pytest.fixture(scope="module")
def page_path(blocks, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    arguments = {"class_names": NAMES, "progress": False}
    assert reports.attention_report(blocks, video(), path, **arguments) == path
    return path


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def open_page(page, path):
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")


def data_of(page):
    start = page.index('id="data">') + len('id="data">')
    return json.loads(page[start : page.index("</script>", start)])


def settle(page):
    """Waits until what was asked for is drawn and written."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(done))")


def choose(page, name):
    page.select_option("#view", label=name)


def expect_weights(page, model, place):
    """The page shows what attention_maps computes, within its bound."""
    view = page.evaluate("attentionPage.state.view")
    maps = attention_maps(model, video().frames, f"block{view}", place)
    shown = page.evaluate("Array.from(attentionPage.weights())")
    bound = allowed(maps.weights, maps.mode == "dot_product")
    assert np.abs(maps.weights.ravel() - shown).max() <= bound
    best = page.evaluate("attentionPage.strongest()")
    assert len(best) == min(math.ceil(0.05 * maps.num_keys), 20)
    sizes = np.abs(maps.weights.ravel())
    assert (sizes[best] >= np.sort(sizes)[-len(best)] - 2 * bound).all()
    # Those between the keys of the second block, and out of its group, too.
    clip = maps.on_clip()[0]
    for frame in range(SIZE[0]):
        expected = clip[frame].ravel()
        np.testing.assert_allclose(
            heat(page, frame), expected, rtol=0, atol=bound
        )


def heat(page, frame):
    return page.evaluate(
        "frame => Array.from(attentionPage.heat(frame))", frame
    )


def expect_drawn(page):
    """The large frame is warm where its heat is."""
    page.uncheck("#outline")
    page.uncheck("#box")
    page.check("#stretch")
    settle(page)
    warmth = page.evaluate(
        """async ([height, width]) => {
          const stage = document.getElementById("stage");
          const scale = stage.width / width, found = [];
          const { data } = stage.getContext("2d").getImageData(
            0, 0, stage.width, stage.height);
          for (let y = 0; y < height; y++) {
            for (let x = 0; x < width; x++) {
              const row = Math.floor((y + 0.5) * scale);
              const i = 4 * (row * stage.width + Math.floor((x + 0.5) * scale));
              found.push(data[i] + data[i + 1] - 2 * data[i + 2]);
            }
          }
          return found;
        }""",
        SIZE[1:],
    )
    hot = heat(page, page.evaluate("attentionPage.state.frame"))
    # The frames are noise, and the ring of the query is drawn on top.
    assert np.corrcoef(warmth, hot)[0, 1] > 0.6
    upside_down = np.reshape(warmth, SIZE[1:])[::-1].ravel()
    assert np.corrcoef(upside_down, hot)[0, 1] < 0.4


def allowed(weights, signed):
    """By how much weights may be wrong on the page."""
    used = weights[weights != 0]
    bound = reports.quantization_error(signed) * (used.max() - used.min())
    return 1.0001 * bound + 1e-6 * np.abs(used).max()


@pytest.mark.parametrize("signed", [False, True])
def test_codes_keep_to_the_bound(signed, rng):
    weights = rng.normal(size=(5, 300)).astype("float32") ** 3
    weights[0] = np.linspace(0, 1, 300)
    weights[1] *= 1e-20
    weights[2] = 0
    weights[3] = 1 + 1e-3 * weights[0]
    weights = weights if signed else np.abs(weights)
    codes, ends = reports.quantize(weights, signed)
    assert codes.dtype == "uint8"
    steps = (codes - 1.0) / 254
    low, high = ends.T.astype("float64")[..., None]
    values = low + (high - low) * (steps if signed else steps**2)
    values[codes == 0] = 0
    error = np.abs(values - weights).max(axis=1)
    bound = reports.quantization_error(signed) * (high - low)[:, 0]
    assert reports.quantization_error(signed) < 0.004
    assert (error <= 1.0001 * bound + 1e-7 * np.abs(weights).max(axis=1)).all()
    # It is no more generous than it has to be.
    assert error[0] > 0.8 * bound[0]
    assert (codes[2] == 0).all()
    # Weights that are almost alike stay apart.
    assert (np.diff(np.sort(codes[3].astype(int))) > 0).sum() > 100


def test_weights_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite numbers: .*Received: nan"):
        reports.quantize(np.array([[0.5, np.nan]]), signed=False)


def test_as_many_queries_as_fit(blocks):
    large = reports.attention_page(blocks, video(), progress=False)
    limit = len(large.encode()) // 3
    small = reports.attention_page(
        blocks, video(), max_bytes=limit, progress=False
    )
    assert limit // 2 < len(small.encode()) <= limit
    found = attend(blocks, video().frames)
    for view, full in zip(
        data_of(small)["views"], data_of(large)["views"], strict=True
    ):
        axes = [view["queries"][a] for a in ("times", "rows", "columns")]
        grid = found.grid(view["name"])
        assert math.prod(map(len, axes)) < math.prod(grid.shape)
        assert full["queries"]["rows"] == grid.rows.tolist()
        # In the order in which the page counts them.
        maps = found.maps(view["name"], list(itertools.product(*axes)))
        np.testing.assert_array_equal(
            maps.queries, grid.centres(maps.positions)
        )
        codes = zlib.decompress(base64.b64decode(view["codes"]))
        # Of the keys that each query sees, and of no others.
        weights = maps.weights[maps.seen].reshape(len(maps.queries), -1)
        assert (
            weights.shape[1]
            == math.prod(view["window"])
            < len(maps.weights[0].ravel())
        )
        expected, _ = reports.quantize(weights, view["signed"])
        assert codes == expected.tobytes()


def test_what_a_browser_holds_is_bounded_over_all_blocks(blocks, monkeypatch):
    def held(**arguments):
        page = reports.attention_page(
            blocks, video(), progress=False, **arguments
        )
        return [
            len(zlib.decompress(base64.b64decode(view["codes"])))
            for view in data_of(page)["views"]
        ]

    whole = held()
    # Enough for the larger block, and not for both.
    limit = max(whole)
    monkeypatch.setattr(reports, "_MAX_CODES", limit)
    assert limit // 3 < sum(held()) <= limit
    assert held(block="block0") == whole[:1]


def test_page_of_hostile_names_is_one_script_and_its_data(page_path):
    text = page_path.read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text and "http:" not in text and "https:" not in text
    data = data_of(text)
    names = [name.replace("\udcff", "?") for name in NAMES]
    assert [name for name, _ in data["scores"]["top"]][0] in names
    assert data["views"][0]["about"][0].startswith("A query sees its own frame")
    assert "2 positions in time" in data["views"][1]["about"][0]


def test_click_and_keys(browser, page_path, blocks):
    with quiet_page(browser) as page:
        open_page(page, page_path)
        assert page.title().endswith(".mp4")
        assert page.inner_text("#scores").count("alert(1)") == 5
        stage = page.locator("#stage")
        box = stage.bounding_box()
        said = page.inner_text("#status")
        before = stage.screenshot()
        stage.click(position={"x": 0.9 * box["width"], "y": 12})
        y, x = 12 / box["height"] * 32 - 0.5, 0.9 * 48 - 0.5
        t = page.evaluate("attentionPage.state.frame")
        expect_weights(page, blocks, (t, y, x))
        assert page.inner_text("#status") != said
        assert stage.screenshot() != before
        assert "space" not in page.inner_text("#unit")
        # In space alone, nothing elsewhere; all of the weight in this frame.
        settle(page)
        assert "At the query's time" in page.inner_text("#facts")
        share = "100 % of the weight (all alike: 100 %, 1 of 1 position in time"
        assert share in page.inner_text("#facts")
        stage.focus()
        t, y, x = page.evaluate("attentionPage.queryPlace()")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("[")
        place = (t - 1, y + 2, x - 2)
        assert page.evaluate("attentionPage.queryPlace()") == list(place)
        assert page.evaluate("attentionPage.state.frame") == t - 1
        expect_weights(page, blocks, place)
        expect_drawn(page)
        page.keyboard.press(".")
        assert page.evaluate("attentionPage.state.frame") == t
        page.keyboard.press("b")
        assert page.evaluate("attentionPage.state.view") == 1
        expect_weights(page, blocks, place)
        settle(page)
        # Of a group of two positions in time.
        assert "(all alike: 50 %, 1 of 2 positions in time)" in page.inner_text(
            "#facts"
        )
        assert page.locator("#title bdi").inner_text() == "block1"
        assert "Signed weight" in page.inner_text("#unit")
        assert page.inner_text("#ticks").startswith("-")
        page.locator("#small button").first.click()
        assert page.evaluate("attentionPage.state.view") == 0
        pictures = page.locator("#small canvas[aria-hidden=true]")
        assert pictures.count() == 2


def test_attention_along_time(browser, tmp_path):
    model = network({"attention_axes": "time"})
    path = tmp_path / "page.html"
    reports.attention_report(model, video(), path, progress=False)
    with quiet_page(browser) as page:
        open_page(page, path)
        box = page.locator("#stage").bounding_box()
        page.mouse.click(
            box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"]
        )
        t, y, x = page.evaluate("attentionPage.state.query")
        assert abs(y - (0.3 * 32 - 0.5)) < 0.1 and abs(x - 33.1) < 0.1
        expect_weights(page, model, (t, y, x))


def press(page, key, **modifiers):
    page.evaluate(
        "([key, modifiers]) => document.getElementById('stage').dispatchEvent("
        "new KeyboardEvent('keydown', {key, bubbles: true, ...modifiers}))",
        [key, modifiers],
    )


def test_keys_of_other_keyboards(browser, page_path):
    state = "[attentionPage.state.frame, attentionPage.state.view]"
    with quiet_page(browser) as page:
        open_page(page, page_path)
        assert page.evaluate(state) == [4, 0]
        # As Windows reports AltGr.
        alt_gr = {"ctrlKey": True, "altKey": True, "modifierAltGraph": True}
        press(page, "]", **alt_gr)
        assert page.evaluate(state) == [5, 0]
        press(page, "]", ctrlKey=True)
        press(page, "]", altKey=True)
        press(page, "]", metaKey=True)
        assert page.evaluate(state) == [5, 0]
        page.focus("#stage")
        page.keyboard.press("PageUp")
        assert page.evaluate(state) == [4, 0]
        for _ in range(4):
            page.keyboard.press("PageDown")
        assert page.evaluate(state) == [7, 0]
        assert "PageDown" in page.inner_text("#keys")
        settle(page)
        assert page.is_disabled("#on") and page.is_enabled("#back")
        # Caps Lock.
        press(page, "H", modifierCapsLock=True)
        assert not page.is_checked("#heat")
        press(page, "B", modifierCapsLock=True)
        assert page.evaluate(state) == [7, 1]
        press(page, "B", shiftKey=True)
        assert page.evaluate(state) == [7, 0]


def rings(page):
    """Frames in which the query is drawn."""
    return page.evaluate(
        """async () => {
          for (const id of ["heat", "outline"]) {
            const box = document.getElementById(id);
            if (box.checked) box.click();
          }
          await new Promise((done) => requestAnimationFrame(done));
          const found = [];
          const canvases = document.querySelectorAll("#strip canvas");
          canvases.forEach((canvas, frame) => {
            const copy = document.createElement("canvas");
            const context = copy.getContext("2d");
            context.drawImage(canvas, 0, 0);
            const { data } = context.getImageData(
              0, 0, canvas.width, canvas.height);
            let white = 0;
            for (let i = 0; i < data.length; i += 4) {
              white += data[i] + data[i + 1] + data[i + 2] >= 750;
            }
            if (white > 5) found.push(frame);
          });
          return found;
        }"""
    )


def test_clicked_frame_stays(browser, page_path, blocks):
    times = attend(blocks, video().frames).grid("block1").times
    with quiet_page(browser) as page:
        open_page(page, page_path)
        choose(page, "block1")
        for frame in (2, 3):
            page.locator("#strip canvas").nth(frame).click()
            assert page.evaluate("attentionPage.state.frame") == frame
            own = np.abs(times - frame).argmin()
            near = np.abs(times - np.arange(SIZE[0])[:, None]).argmin(axis=1)
            assert len(np.flatnonzero(near == own)) > 1
            assert rings(page) == np.flatnonzero(near == own).tolist()


def test_broken_page_says_so(browser, page_path, tmp_path):
    path = tmp_path / "page.html"
    text = page_path.read_text("utf-8")
    path.write_text(text.replace('"views":', '"views":NaN,', 1), "utf-8")
    with quiet_page(browser) as page:
        page.goto(path.as_uri())
        page.wait_for_selector("#status:not(.unseen)")
        assert "cannot be shown" in page.inner_text("#status")


def test_low_window(browser, page_path):
    options = {"viewport": {"width": 700, "height": 375}, "has_touch": True}
    with quiet_page(browser, **options) as page:
        open_page(page, page_path)
        stage = page.locator("#stage")
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        # Where the picture is in the box, if that has another shape.
        scale = min(box["height"] / SIZE[1], box["width"] / SIZE[2])
        left = (box["width"] - scale * SIZE[2]) / 2
        top = (box["height"] - scale * SIZE[1]) / 2
        assert box["height"] <= 0.8 * 375 + 1
        stage.tap(
            position={
                "x": left + scale * SIZE[2] / 4,
                "y": top + scale * SIZE[1] / 4,
            }
        )
        place = page.evaluate("attentionPage.state.query")
        np.testing.assert_allclose(place, (4, 7.5, 11.5), atol=0.1)


def test_phone(browser, page_path, blocks):
    options = {"viewport": {"width": 375, "height": 700}, "has_touch": True}
    with quiet_page(browser, color_scheme="dark", **options) as page:
        open_page(page, page_path)
        assert not has_sideways_scroll(page)
        thumb = page.locator("#strip canvas").nth(4)
        thumb.scroll_into_view_if_needed()
        box = thumb.bounding_box()
        thumb.tap(position={"x": box["width"] / 4, "y": box["height"] / 2})
        expect_weights(page, blocks, (4, 15.5, 11.5))
        assert "frame 4 (2.25 s)" in page.inner_text("#facts")


def test_classes_of_networks_without_blocks(browser, tmp_path):
    model = network(classes=400)
    path = tmp_path / "page.html"
    reports.attention_report(model, video(), path, progress=False)
    cams = grad_cams(model, video().frames, 5)
    with quiet_page(browser) as page:
        open_page(page, path)
        # No names are made up for a head of 400 classes.
        names = page.locator("#view option").all_inner_texts()
        assert names == [f"class {cam.class_index}" for cam in cams]
        page.locator("#strip canvas").nth(2).click()
        choose(page, names[1])
        expected = cams[1].on_clip()[2].ravel()
        bound = allowed(cams[1].heat, signed=False)
        np.testing.assert_allclose(heat(page, 2), expected, rtol=0, atol=bound)
        page.keyboard.press("]")
        settle(page)
        assert "In view: frame 3" in page.inner_text("#caption")


def test_wrong_arguments_are_named(blocks):
    clip = video()
    with pytest.raises(ValueError, match="`block` must be .*block0.*'x'"):
        reports.attention_page(blocks, clip, block="x")
    for block in (3, ["block0", "block0"], [3], []):
        with pytest.raises(ValueError, match="`block` must be one or several"):
            reports.attention_page(blocks, clip, block=block)
    for names in ("foo", 3, list(range(7))):
        with pytest.raises(ValueError, match="`class_names` must be a list"):
            reports.attention_page(blocks, clip, class_names=names)
    with pytest.raises(ValueError, match="`block` must be None"):
        reports.attention_page(network(), clip, block="block0")
    with pytest.raises(ValueError, match="`class_names` must be 7 .*: 2"):
        reports.attention_page(blocks, clip, class_names=["a", "b"])
    with pytest.raises(
        ValueError, match="`max_bytes` must be enough.*at least"
    ):
        reports.attention_page(blocks, clip, max_bytes=9_000, progress=False)
    with pytest.raises(ValueError, match="`class_names` must be 7 .*: 400"):
        reports.attention_page(network(), clip, class_names="kinetics400")
    function = OpenedModel(lambda clips: clips, "exported")
    with pytest.raises(ValueError, match="must have layers.*exported"):
        reports.attention_page(function, clip)
    broken = dataclasses.replace(clip, frames=clip.frames[:, :16])
    with pytest.raises(ValueError, match="`clip` must be one clip"):
        reports.attention_page(blocks, broken)


@pytest.mark.parametrize("arguments", [[], [{}]], ids=["Grad-CAM", "blocks"])
def test_scores_that_are_no_numbers_are_refused(arguments):
    model = network(*arguments)
    model.layers[-1].bias.assign(np.full(7, np.nan))
    with pytest.raises(ValueError, match="scores must be finite.*nan"):
        reports.attention_page(model, video(), progress=False)


def test_networks_that_take_no_pixels_are_refused():
    inputs = keras.Input((*SIZE, 3))
    x = NetworkRecord({"depth": 1})(inputs)
    model = keras.Model(inputs, NonLocal()(x))
    with pytest.raises(ValueError, match="include_preprocessing=True"):
        reports.attention_page(model, video())


def test_scores_of_a_tuple_are_left_out(blocks):
    # One that numpy would take for scores.
    model = keras.Model(blocks.input, (blocks.output[:, 0],) * 2)
    page = reports.attention_page(model, video(), progress=False)
    assert data_of(page)["scores"] == {"top": [], "are_probabilities": False}


def test_what_says_nothing_is_no_probability():
    page = reports.attention_page(
        network(activation="relu"), video(), progress=False
    )
    assert not data_of(page)["scores"]["are_probabilities"]
    page = reports.attention_page(network(), video(), progress=False)
    assert data_of(page)["scores"]["are_probabilities"]
