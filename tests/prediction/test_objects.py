import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.coco_masks import decode_masks
from keras_nonlocal.data.coco_masks import mini_masks
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.prediction.objects import Detections
from keras_nonlocal.prediction.objects import detect_objects
from keras_nonlocal.prediction.objects import iterate_objects
from tests.detection.detectors import tiny_detector

SIZES = {"short_side": 64, "max_side": 96}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    detector = tiny_detector(score_threshold=0.0)
    # To trace it takes longer than all of these tests.
    detector.compile(run_eagerly=True)
    return detector


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    shapes = [(100, 150), (150, 100), (100, 150)]
    return [rng.integers(0, 256, (*x, 3)).astype("uint8") for x in shapes]


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert len(one) > 0
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        np.testing.assert_array_equal(one.classes, other.classes)


def test_objects_are_in_the_frame_of_the_image(model, pictures):
    found = detect_objects(model, pictures[1], **SIZES)
    (one,) = found
    assert (one.height, one.width, one.path) == (150, 100, None)
    assert (np.diff(one.scores) <= 0).all()
    assert (one.boxes >= 0).all()
    assert (one.boxes <= [100, 150, 100, 150]).all()
    # Beyond what the network saw, 96 x 64.
    assert one.boxes[:, 3].max() > 96
    assert one.masks.shape == (len(one), 150, 100) and one.masks.dtype == bool
    for mask, (left, top, right, bottom) in zip(
        one.masks, one.boxes, strict=True
    ):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert rows.min() >= top - 1 and rows.max() <= bottom + 1
            assert columns.min() >= left - 1 and columns.max() <= right + 1


def test_batches_change_neither_order_nor_results(model, pictures, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(tf.io.encode_png(picture).numpy())
    single = detect_objects(model, pictures, **SIZES)
    batches = detect_objects(model, iter(paths), batch_size=2, **SIZES)
    assert_alike(batches, single)
    assert [found.path for found in batches] == [str(path) for path in paths]
    score = float(np.median(single[0].scores))
    (above,) = detect_objects(
        model, str(paths[0]), score_threshold=score, **SIZES
    )
    assert 0 < len(above) < len(single[0])
    assert_alike([above], [single[0].above(score)])


def test_files_that_cannot_be_read(model, pictures, tmp_path):
    good, bad, gone = (tmp_path / f"{x}.png" for x in ("good", "bad", "gone"))
    content = tf.io.encode_png(pictures[0]).numpy()
    good.write_bytes(content)
    bad.write_bytes(content[: len(content) // 2])
    for path in (bad, gone):
        with pytest.raises(ValueError, match=path.name):
            detect_objects(model, [good, path], **SIZES)
    skips = SkipLog(unit="image")
    (found,) = detect_objects(model, [bad, gone, good], skips=skips, **SIZES)
    assert found.path == str(good)
    assert set(skips.reasons) == {str(bad), str(gone)}
    assert skips.summary()["images_read"] == 1


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((4, 4, 3)), {}, "`images` must be paths"),
        (np.zeros((4, 4), "uint8"), {}, "`images` must be paths"),
        ([], {"batch_size": 0}, "`batch_size` must be at least 1"),
        ([], {"short_side": 0}, "`short_side` must"),
    ],
)
def test_arguments_that_are_refused(model, images, options, message):
    with pytest.raises(ValueError, match=message):
        list(iterate_objects(model, images, **options))


def test_no_objects_have_no_masks():
    none = Detections(
        boxes=np.zeros((0, 4), "float32"),
        scores=np.zeros(0, "float32"),
        classes=np.zeros(0, "int32"),
        small_masks=np.zeros((0, 28, 28), "float32"),
        height=5,
        width=7,
    )
    assert none.masks.shape == (0, 5, 7) and len(none.above(0)) == 0


def test_masks_survive_being_small(shared):
    folder = shared / "data" / "coco128"
    truth = read_coco(folder / "instances_coco128.json", folder / "images")
    ious = []
    for image in truth.images[:16]:
        objects = image.segmentations, image.boxes, image.height, image.width
        found = Detections(
            boxes=image.boxes,
            scores=np.ones(len(image.boxes), "float32"),
            classes=image.classes,
            small_masks=mini_masks(*objects, 28).astype("float32"),
            height=image.height,
            width=image.width,
        )
        masks, expected = found.masks, decode_masks(*objects)
        axes = (1, 2)
        both = (masks & expected).sum(axes)
        ious += (both / np.maximum((masks | expected).sum(axes), 1)).tolist()
    assert len(ious) > 60
    # detectron2's own test asks for as much of COCO's polygons.
    assert np.mean(ious) > 0.94
