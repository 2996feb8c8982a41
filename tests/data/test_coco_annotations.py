import json
import logging

import numpy as np
import pytest
from pycocotools.coco import COCO

from keras_nonlocal.data.coco_annotations import coco_json
from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.coco_masks import decode_masks
from tests.data.coco_files import image
from tests.data.coco_files import thing
from tests.data.coco_files import triangle
from tests.data.coco_files import write_json


@pytest.fixture
def read(tmp_path):
    """Reads lists of a JSON file whose pictures are a.png to d.png."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", "sub/d.png", "../outside.png"):
        (folder / name).write_bytes(b"")

    def make(*lists):
        return read_coco(write_json(tmp_path / "x.json", *lists), folder)

    return make


def problems(annotations):
    return [(x.kind, x.where) for x in annotations.problems]


def test_reads_real_annotations(shared):
    folder = shared / "data/coco128"
    path = folder / "instances_coco128.json"
    annotations = read_coco(path, folder / "images")
    assert len(annotations) == 128
    assert annotations.problems == ()
    assert len(annotations.trainable) == 126
    assert annotations.class_names[:2] == ("person", "bicycle")
    # 80 categories with numbers up to 90.
    assert annotations.category_ids[-3:] == (88, 89, 90)
    # As pycocotools has it.
    truth = COCO(path)
    masks = 0
    for picture in annotations.images:
        rows = truth.imgToAnns[picture.image_id]
        expected = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        expected[:, 2:] += expected[:, :2]
        np.testing.assert_allclose(picture.boxes, expected, rtol=1e-6)
        ids = [annotations.category_ids[i] for i in picture.classes]
        assert ids == [row["category_id"] for row in rows]
        areas = [row["area"] for row in rows]
        np.testing.assert_allclose(picture.areas, areas, rtol=1e-6)
        if masks < 50:
            found = decode_masks(
                picture.segmentations,
                picture.boxes,
                picture.height,
                picture.width,
            )
            for mask, row in zip(found, rows, strict=True):
                np.testing.assert_array_equal(mask, truth.annToMask(row))
            masks += len(found)
    assert masks >= 50


def test_a_data_set_of_ones_own(read):
    """Gaps, folders, equal names, no ids, more fields, no `iscrowd`."""
    annotations = read(
        [image(7, "a.png") | {"license": 3}, image(2, "sub/d.png", 50, 40)],
        [
            thing(2, [1, 2, 3, 4], category=40),
            thing(7, *triangle(3, 3, 6, 6), area=18, extra="x"),
            thing(2, *triangle(5, 5, 9, 9), category=3, iscrowd=1, area=40),
        ],
        [
            {"id": 40, "name": "cat"},
            {"id": 3, "name": "cat"},
            {"id": 1},
            {"id": 3, "name": "dog"},
        ],
    )
    assert annotations.class_names == ("1", "cat (3)", "cat (40)")
    assert annotations.category_ids == (1, 3, 40)
    first, second = annotations.images
    assert (first.image_id, second.image_id) == (7, 2)
    assert second.path.endswith("pictures/sub/d.png")
    assert (second.height, second.width) == (50, 40)
    assert second.boxes.tolist() == [[1, 2, 4, 6], [5, 5, 14, 14]]
    assert second.boxes.dtype == np.float32
    assert second.classes.tolist() == [2, 1]
    assert second.is_crowd.tolist() == [False, True]
    assert second.areas.tolist() == [12, 40]
    assert second.segmentations[0] is None
    assert second.segmentations[1][0].tolist() == [5, 5, 14, 5, 5, 14]
    assert [(x.kind, x.detail) for x in annotations.problems] == [
        ("duplicate category", "id 3"),
        ("no segmentation", "1 of 3 objects"),
        ("no usable area", "1 of 3 objects"),
    ]
    with pytest.raises(ValueError, match="read-only"):
        first.boxes[0, 0] = 5
    last = annotations.subset([1])
    assert last.images == (second,)
    assert annotations.subset(np.array([False, True])).images == (second,)
    assert annotations.subset([]).trainable.tolist() == []
    for wrong in ([0.7], [2], [True]):
        with pytest.raises(IndexError):
            annotations.subset(wrong)


def test_leaves_out_images(read):
    cases = [
        (image(1, "a.png"), None),
        (image(1, "b.png"), "duplicate image"),
        (image(2, "missing.png"), "missing file"),
        (image(3, "nul\0.png"), "missing file"),
        (image(4, "sub"), "missing file"),
        (image(5, "../outside.png"), "path outside the folder"),
        (image(6, "/etc/hostname"), "path outside the folder"),
        (image(6, "sub/.."), "path outside the folder"),
        (image("8", "b.png"), "malformed row"),
        (image(9.5, "b.png"), "malformed row"),
        (image(2**63, "b.png"), "malformed row"),
        (image(10, ["b.png"]), "malformed row"),
        (image(11, "b.png", height=None), "malformed row"),
        (image(12, "b.png", height=0), "unusable size"),
        (image(13, "b.png", 10**6, 10**6), "unusable size"),
        (image(13, "b.png", 1, 2**16), "unusable size"),
        ("b.png", "malformed row"),
        (17, "malformed row"),
        (image(14, "c.png"), None),
    ]
    annotations = read([row for row, _ in cases], [])
    assert [x.image_id for x in annotations.images] == [1, 14]
    assert problems(annotations) == [
        (kind, f"images[{place}]")
        for place, (_, kind) in enumerate(cases)
        if kind
    ]


NAN, INFINITE = float("nan"), float("inf")


def test_leaves_out_objects(read):
    fine, more = thing(1, *triangle(2, 3, 8, 9), id=1), {"area": 1, "id": [2]}
    same = thing(1, *triangle(2, 3, 8, 9), id=2)
    cases = [
        (fine, None),
        (fine, "duplicate object"),
        (same, None),
        (fine | {"bbox": [2, 3, 8, 8]}, None),
        (thing(2, [1, 1, 2, 2]), "object of no image"),
        (thing("1", [1, 1, 2, 2]), "malformed row"),
        (thing(1, [1, 1, 2, 2], category=9), "unknown category"),
        (thing(1, [1, 1, 2, 2], category=[1]), "malformed row"),
        (thing(1, [1, 1, 2, 2], iscrowd="no"), "malformed row"),
        (5, "malformed row"),
        (None, "malformed row"),
        (thing(1, None), "malformed box"),
        (thing(1, [1, 1, 2]), "malformed box"),
        (thing(1, [1, 1, 2, "2"]), "malformed box"),
        (thing(1, [1, 1, 2, True]), "malformed box"),
        (thing(1, [1, 1, NAN, 2]), "malformed box"),
        (thing(1, [1, -INFINITE, 2, 2]), "malformed box"),
        (thing(1, [1, 1, 10**400, 2]), "malformed box"),
        (thing(1, [1, 1, 0, 2]), "empty box"),
        (thing(1, [5, 5, 2, -2]), "empty box"),
        (thing(1, [1, 1, 1e-12, 2]), "empty box"),
        (thing(1, [30, 1, 5, 5]), "empty box"),
        (thing(1, [-9, -9, 5, 5]), "empty box"),
        (thing(1, [1e300, 1, 1e300, 5]), "empty box"),
        (thing(1, [4, 4, 4, 4], **more), None),
    ]
    annotations = read([image(1, "a.png")], [row for row, _ in cases])
    assert len(annotations.images[0].boxes) == 4
    expected = [
        (kind, f"annotations[{place}]")
        for place, (_, kind) in enumerate(cases)
        if kind
    ]
    assert problems(annotations)[: len(expected)] == expected
    assert set(annotations.problem_counts()) - {x for x, _ in expected} == {
        "no segmentation",
        "no usable area",
    }


def test_takes_areas_of_masks_where_there_are_none(read):
    code = {"size": [20, 30], "counts": [100, 40, 460]}
    things = [
        thing(1, [5, 0, 3, 20], code),
        thing(1, [2, 2, 9, 9], [[2, 2, 6, 2, 6, 4, 2, 4], [8, 8, 9, 8, 9, 9]]),
        thing(1, [2, 2, 8.5, 8]),
    ]
    (picture,) = read([image(1, "a.png")], things).images
    masks = decode_masks(picture.segmentations, picture.boxes, 20, 30)
    areas = masks[:2].sum(axis=(1, 2))
    assert picture.areas.tolist() == [*areas.tolist(), 8.5 * 8]


def test_mends_objects(read, caplog):
    caplog.set_level(logging.WARNING, "absl")
    code = {"size": [20, 30], "counts": [100, 40, 460]}
    annotations = read(
        [image(1, "a.png")],
        [
            thing(1, [-2, 2, 20, 18], area=3),
            thing(1, [-0.5, 0, 30.75, 20.5], area=NAN),
            thing(1, [0, 0, 9, 9], [[1, 2]], area=3),
            thing(1, [0, 0, 9, 9], [[20, 12, 24, 12, 20, 15]], area=3),
            thing(1, [0, 0, 9, 9], code, area=1e308),
            thing(1, [5, 0, 2, 20], code | {"size": [10**9] * 2}, area=3),
            thing(1, [5, 0, 2, 20], code, area=3),
        ],
    )
    (picture,) = annotations.images
    assert problems(annotations)[:4] == [
        ("box leaves the image", "annotations[0]"),
        ("unusable segmentation", "annotations[2]"),
        ("unusable segmentation", "annotations[3]"),
        ("unusable segmentation", "annotations[5]"),
    ]
    assert annotations.problem_counts()["no segmentation"] == 1
    assert picture.boxes[:2].tolist() == [
        [0, 2, 18, 20],
        [-0.5, 0, 30.25, 20.5],
    ]
    usable = [x is not None for x in picture.segmentations]
    assert np.flatnonzero(usable).tolist() == [4, 6]
    assert picture.areas[[1, 4]].tolist() == [30.75 * 20.5, 40]
    assert "x.json: left out or mended 6, of each kind the " in caplog.text
    for place in (0, 1):
        assert str(annotations.problems[place]) in caplog.text


DEEP = "[" * 100_000
ROWS = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be JSON"),
        ("{", "must be JSON"),
        (DEEP, "must be JSON"),
        ("9" * 5000, "must be JSON"),
        ("[]", r"must have the lists images.*Received: list \[\]"),
        ('"coco"', "must have the lists"),
        ('{"images": [], "annotations": {}}', "without annotations"),
        (json.dumps(ROWS), "one of the categories"),
    ],
)
def test_refuses_what_is_not_coco(tmp_path, text, reason):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        read_coco(path, tmp_path)
    assert str(path) in str(caught.value)


def test_refuses_another_folder(read, tmp_path):
    with pytest.raises(ValueError, match=r"one of the images.*missing file"):
        read([image(1, "missing.png")], [])
    with pytest.raises(ValueError, match="must be an annotation file"):
        read_coco(tmp_path / "missing.json", tmp_path)


def test_back_to_the_format(read):
    code = {"size": [20, 30], "counts": [100, 40, 460]}
    annotations = read(
        [image(5, "a.png"), image(3, "b.png")],
        [
            thing(5, [1, 2, 3, 4], category=9, area=5),
            thing(3, [5, 0, 2, 20], code, category=4, area=40, iscrowd=1),
            thing(5, *triangle(2, 2, 8, 8), category=4, area=32),
        ],
        [{"id": 9, "name": "y"}, {"id": 4, "name": "x"}],
    )
    truth = COCO()
    truth.dataset = json.loads(json.dumps(coco_json(annotations)))
    truth.createIndex()
    assert truth.getCatIds() == [4, 9] and truth.getImgIds() == [5, 3]
    assert sorted(truth.anns) == [1, 2, 3]
    rows = truth.imgToAnns[5] + truth.imgToAnns[3]
    assert [row["bbox"] for row in rows] == [
        [1, 2, 3, 4],
        [2, 2, 8, 8],
        [5, 0, 2, 20],
    ]
    assert [row["category_id"] for row in rows] == [9, 4, 4]
    assert [row["iscrowd"] for row in rows] == [0, 0, 1]
    assert [int(truth.annToMask(row).sum()) for row in rows] == [12, 28, 40]
