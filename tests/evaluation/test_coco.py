import base64
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.coco_masks import decode_masks
from keras_nonlocal.data.coco_masks import encode_masks
from keras_nonlocal.data.images import read_image
from keras_nonlocal.evaluation import coco_page
from keras_nonlocal.evaluation.coco import DetectorResult
from keras_nonlocal.evaluation.coco import as_results
from keras_nonlocal.evaluation.coco import coco_metrics
from keras_nonlocal.evaluation.coco_page import write_page
from keras_nonlocal.evaluation.detector import evaluate_detector
from keras_nonlocal.prediction.objects import Detections
from keras_nonlocal.prediction.objects import detect_objects
from keras_nonlocal.visualization.detection_figures import draw_objects
from tests.browser import chromium
from tests.browser import has_sideways_scroll
from tests.browser import quiet_page
from tests.detection.detectors import tiny_detector
from tests.evaluation.test_page import Reader

HEIGHT, WIDTH = 120, 160
# A medium and a large object (x, y, width, height); nothing in the third
# image, and a crowd in the second one.
MEDIUM, LARGE, CROWD = [10, 10, 40, 40], [5, 5, 110, 110], [100, 0, 60, 60]
AT_RECALL_1 = (51 + 50 * 2 / 3) / 101


def rectangle(box):
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def annotation(image, box, category=7, **fields):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "segmentation": rectangle(box),
        **fields,
    }


def result(image, box, score, category=7, mask=None):
    x, y, width, height = box if mask is None else mask
    pixels = np.zeros((1, HEIGHT, WIDTH), bool)
    pixels[0, y : y + height, x : x + width] = True
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "score": score,
        "segmentation": encode_masks(pixels)[0],
    }


@pytest.fixture
def truth(tmp_path):
    """Three images, the last without objects, and two classes with gaps.

    Without all that a file may lack: ids of objects, areas, `iscrowd`,
    `info`, `licenses`.
    """
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype("uint8")
        path = tmp_path / f"<b>{number}.png"
        path.write_bytes(tf.io.encode_png(pixels).numpy())

    def write(*objects):
        content = {
            "images": [
                {
                    "id": number,
                    "file_name": f"<b>{number}.png",
                    "height": HEIGHT,
                    "width": WIDTH,
                }
                for number in (1, 2, 3)
            ],
            "annotations": list(objects),
            "categories": [
                {"id": 7, "name": "<i>cat"},
                {"id": 30, "name": "dog & co"},
            ],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(content))
        return read_coco(path, tmp_path)

    return write


@pytest.fixture
def objects(truth):
    return truth(
        annotation(1, MEDIUM),
        annotation(2, LARGE),
        annotation(2, CROWD, iscrowd=1),
    )


# The first is exact, the second is nowhere, the third has an IoU of 0.6182 by
# its box and of 1 by its mask, the last is in the crowd.
RESULTS = [
    result(1, MEDIUM, 0.9),
    result(1, [100, 60, 50, 50], 0.8),
    result(2, [5, 5, 110, 68], 0.7, mask=LARGE),
    result(2, [110, 10, 20, 20], 0.6),
]


def test_average_precision_is_what_one_gets_by_hand(objects):
    metrics = coco_metrics(objects, RESULTS)
    # Right, wrong, right at IoUs of 0.5 to 0.6; else right, wrong, wrong.
    assert metrics.box == pytest.approx(
        {
            "AP": 0.3 * AT_RECALL_1 + 0.7 * 51 / 101,
            "AP50": AT_RECALL_1,
            "AP75": 51 / 101,
            "APs": None,
            "APm": 1.0,
            "APl": 0.3,
        }
    )
    assert metrics.mask == pytest.approx(
        {
            "AP": AT_RECALL_1,
            "AP50": AT_RECALL_1,
            "AP75": AT_RECALL_1,
            "APs": None,
            "APm": 1.0,
            # By the area of its mask: that of its box is large, too.
            "APl": 1.0,
        }
    )
    assert metrics.box_per_class == {
        "<i>cat": metrics.box["AP"],
        "dog & co": None,
    }
    # F1 is 2/3, 2/4 and 4/5.
    assert metrics.best_threshold() == (0.7, pytest.approx(0.8))
    one, two, three = metrics.matches
    assert [x.counts(0.7) for x in metrics.matches] == [
        (1, 1, 0),
        (1, 0, 0),
        (0, 0, 0),
    ]
    assert one.counts(0.85) == (1, 0, 0) and two.counts(0.75) == (0, 0, 1)
    np.testing.assert_array_equal(two.results, [2, 3])
    np.testing.assert_array_equal(two.is_ignored, [False, True])
    np.testing.assert_array_equal(two.is_right, [True, False])
    assert (two.objects.tolist(), two.found_at.tolist()) == ([0], [0.7])
    assert len(three.results) == len(three.objects) == 0


def test_masks_are_small_or_large_by_their_own_area(objects):
    # A wrong one of medium size, in a box that is large.
    wrong = result(1, LARGE, 0.9, mask=[60, 60, 40, 40])
    metrics = coco_metrics(objects, [wrong, result(1, MEDIUM, 0.5)])
    assert metrics.mask["APm"] == pytest.approx(0.5)
    assert metrics.box["APm"] == pytest.approx(1)


def test_detections_as_results():
    found = Detections(
        boxes=np.array([[2, 3, 6, 8], [0.123, 1, 4.126, 5]], "float32"),
        scores=np.array([0.9, 0.1], "float32"),
        classes=np.array([1, 0], "int32"),
        small_masks=np.ones((2, 28, 28), "float32"),
        height=9,
        width=10,
    )
    one, other = as_results(found, 5, category_ids=(7, 30))
    code = one.pop("segmentation")
    assert one == {
        "image_id": 5,
        "category_id": 30,
        "bbox": [2.0, 3.0, 4.0, 5.0],
        "score": 0.9,
    }
    assert (other["category_id"], other["score"]) == (7, 0.1)
    assert other["bbox"] == [0.12, 1.0, 4.0, 4.0]
    (mask,) = decode_masks([code], np.zeros((1, 4)), 9, 10)
    np.testing.assert_array_equal(mask, found.masks[0])


def test_boxes_and_masks_may_come_alone(objects, truth, tmp_path):
    both = coco_metrics(objects, RESULTS)
    path = tmp_path / "results.json"
    for kind, other in (("bbox", "segmentation"), ("segmentation", "bbox")):
        alone = [{k: v for k, v in x.items() if k != other} for x in RESULTS]
        path.write_text(json.dumps(alone))
        metrics = coco_metrics(objects, path)
        is_box = kind == "bbox"
        assert metrics.box["AP"] == (both.box["AP"] if is_box else None)
        assert metrics.mask["AP"] == (None if is_box else both.mask["AP"])
        assert len(metrics.matches) == 3
    assert coco_metrics(objects, []).box["AP"] == 0
    assert coco_metrics(objects, []).best_threshold() == (0.5, 0)
    # Truth without masks; then without anything.
    bare = annotation(1, MEDIUM)
    del bare["segmentation"]
    metrics = coco_metrics(truth(bare), RESULTS[:2])
    assert metrics.box["AP"] == pytest.approx(1)
    assert metrics.mask["AP"] is None
    metrics = coco_metrics(truth(), RESULTS)
    assert set(metrics.box.values()) == {None}


def test_what_is_perfect_gets_all(shared):
    folder = shared / "data" / "coco128"
    truth = read_coco(folder / "instances_coco128.json", folder / "images")
    truth = truth.subset(range(12))
    results = []
    for image in truth.images:
        masks = decode_masks(
            image.segmentations, image.boxes, image.height, image.width
        )
        sizes = image.boxes[:, 2:] - image.boxes[:, :2]
        boxes = np.concatenate([image.boxes[:, :2], sizes], 1).tolist()
        for box, number, code in zip(
            boxes, image.classes, encode_masks(masks), strict=True
        ):
            results.append(
                {
                    "image_id": image.image_id,
                    "category_id": truth.category_ids[number],
                    "bbox": box,
                    "score": 1.0,
                    "segmentation": code,
                }
            )
    metrics = coco_metrics(truth, results)
    figures = [*metrics.box.values(), *metrics.mask.values()]
    assert figures == pytest.approx([1.0] * 12)
    of_classes = [x for x in metrics.box_per_class.values() if x is not None]
    assert of_classes == pytest.approx([1.0] * len(of_classes))
    assert 10 < len(of_classes) < 80


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 9}, "`image_id` one of the annotations"),
        ({"image_id": [1]}, "`image_id` one of the annotations"),
        ({"category_id": 1}, "`category_id` one of the annotations"),
        ({"score": float("nan")}, "`score` a number"),
        ({"score": None}, "`score` a number"),
        ({"bbox": [1, 2, 3]}, "`bbox` x, y, width and height"),
        ({"bbox": [1, 2, -3, 4]}, "`bbox` x, y, width and height"),
        ({"segmentation": {"size": [9, 9], "counts": "0"}}, "size"),
        ({"segmentation": rectangle(MEDIUM)}, "compressed run lengths"),
    ],
)
def test_results_that_are_refused(objects, changes, message):
    with pytest.raises(ValueError, match=message):
        coco_metrics(objects, [RESULTS[0], {**RESULTS[1], **changes}])


def test_files_that_are_no_results(objects, tmp_path):
    path = tmp_path / "results.json"
    for content, message in (
        ("[", "must be a json file"),
        ("{}", "must be a list"),
        ("[1]", "`bbox`, `segmentation`, or both"),
        ('[{"image_id": 1}]', "`bbox`, `segmentation`, or both"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            coco_metrics(objects, path)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def measured(objects):
    """What a network would have got that found `RESULTS`."""
    return DetectorResult(
        **vars(coco_metrics(objects, RESULTS)),
        name="<u>net",
        annotations=objects,
        results=RESULTS,
        skipped={objects.images[2].path: "damaged"},
        about={"short_side": 800},
    )


def test_page_shows_what_was_found_beside_the_truth(measured, tmp_path):
    write_page(measured, tmp_path / "index.html")
    page = Reader((tmp_path / "index.html").read_text())
    assert page.open == []
    assert len(page.sources) == 4
    assert all(x.startswith("data:image/jpeg;") for x in page.sources)
    text = " ".join(" ".join(page.text).split())
    assert "<u>net on truth.json" in text
    assert "Tested: 3 images with 2 objects of 2 classes; 4 detec" in text
    assert "Could not be read: 1 of the images" in text
    assert "box 60.4 83.5 50.5 - 100.0 30.0" in text
    # The worst first, those that cannot be measured last.
    assert "<i>cat 2 60.4 83.5 dog & co 0 - -" in text
    assert "at least 0.70" in text and "highest, 80%" in text
    worst, best = text.split("Most mistakes")[1].split("Fewest mistakes")
    assert "<b>1.png : 1 found, 0 missed, 1 wrong" in worst
    assert "wrong : <i>cat" in worst
    assert "<b>2.png : 1 found, 0 missed, 0 wrong" in best
    assert "<b>3.png damaged" in text
    assert '"short_side": 800' in text


def test_pictures_show_mistakes_dashed(measured):
    # Two wrong ones in the first image, the object of the second is missed.
    results = [*RESULTS[:2], result(1, [60, 60, 50, 50], 0.75)]
    metrics = coco_metrics(measured.annotations, results)
    known = dataclasses.replace(measured, results=results, **vars(metrics))
    (one, two), best = coco_page._chosen(known, 0.5)
    assert (one.name, two.name, best) == ("<b>1.png", "<b>2.png", [])
    for scene, picture, boxes, scores, dashed in (
        (
            one,
            coco_page._found,
            [[10, 10, 50, 50], [100, 60, 150, 110], [60, 60, 110, 110]],
            [0.9, 0.8, 0.75],
            [False, True, True],
        ),
        (two, coco_page._truth, [[5, 5, 115, 115]], None, [True]),
    ):
        pixels = read_image(scene.image.path)
        masks = np.zeros((len(boxes), HEIGHT, WIDTH), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = True
        data = draw_objects(
            pixels,
            np.array(boxes),
            np.zeros(len(boxes), int),
            None if scores is None else np.array(scores),
            masks,
            measured.annotations.class_names,
            dashed=np.array(dashed),
            file_format="jpeg",
        )
        assert base64.b64encode(data).decode() in picture(scene, pixels)


def test_of_equal_scores_all_are_kept_or_none(objects):
    results = [result(1, MEDIUM, 0.9), result(1, [100, 60, 50, 50], 0.9)]
    assert coco_metrics(objects, results).best_threshold() == (0.9, 0.5)


def test_pictures_can_be_chosen_by_class(measured, tmp_path, browser):
    # A dog instead of the cat of the second image.
    matches = list(measured.matches)
    results = [*RESULTS[:2], {**RESULTS[2], "category_id": 30}, RESULTS[3]]
    path = tmp_path / "index.html"
    write_page(
        dataclasses.replace(measured, matches=matches, results=results), path
    )
    visible = "figure:not([hidden])"
    phone = {"viewport": {"width": 375, "height": 700}}
    with quiet_page(browser, **phone) as page:
        page.goto(path.as_uri())
        assert not has_sideways_scroll(page)
        assert page.locator(visible).count() == 2
        page.select_option("#choice", label="dog & co")
        assert page.locator(visible).count() == 1
        assert "2.png" in page.locator(visible).inner_text()


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    detector = tiny_detector(classes=2, score_threshold=0.0)
    # To trace it takes longer than all of these tests.
    detector.compile(run_eagerly=True)
    return detector


def test_evaluation_writes_what_gives_the_same_figures(
    model, objects, tmp_path
):
    broken = tmp_path / "<b>2.png"
    broken.write_bytes(broken.read_bytes()[:900])
    out = tmp_path / "out"
    sizes = {"short_side": 64, "max_side": 96}
    found = evaluate_detector(
        model, objects, out=out, batch_size=2, verbose=0, **sizes
    )
    assert list(found.skipped) == [str(broken)]
    assert found.summary()["objects"] == 2
    assert {x["image_id"] for x in found.results} == {1, 3}
    saved = json.loads((out / "detections.json").read_text())
    assert saved == found.results
    again = coco_metrics(objects, out / "detections.json")
    assert (again.box, again.mask) == (found.box, found.mask)
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["box"] == found.box
    assert summary["images_skipped"] == 1
    assert "1 of the images" in (out / "index.html").read_text()
    # Boxes are of the image, not of what the network saw.
    boxes = np.array([x["bbox"] for x in saved])
    assert (boxes[:, 0] + boxes[:, 2]).max() > 96
    sizes = {"short_side": 64, "max_side": 80}
    first = evaluate_detector(model, objects, limit=1, verbose=0, **sizes)
    assert len(first.annotations) == 1 and not first.skipped
    (image,) = first.annotations.images
    (same,) = detect_objects(model, image.path, **sizes)
    ids = objects.category_ids
    assert first.results == as_results(same, image.image_id, ids)


def test_evaluations_that_are_refused(model, objects, tmp_path):
    with pytest.raises(ValueError, match="`images` must be the folder"):
        evaluate_detector(model, tmp_path / "truth.json")
    with pytest.raises(ValueError, match="`limit` must be at least 1"):
        evaluate_detector(model, objects, limit=0)
    other = dataclasses.replace(objects, class_names=("a",), category_ids=(7,))
    with pytest.raises(ValueError, match="the model's 2 classes"):
        evaluate_detector(model, other)
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="must be readable"):
        evaluate_detector(model, objects, verbose=0)
