import logging

import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.coco_dataset import coco_dataset
from keras_nonlocal.data.coco_dataset import coco_steps
from keras_nonlocal.data.images import read_image
from keras_nonlocal.data.skips import SkipLog
from tests.data.coco_files import image
from tests.data.coco_files import thing
from tests.data.coco_files import triangle
from tests.data.coco_files import write_json
from tests.data.coco_files import write_png
from tests.data.coco_files import write_triangles

WIDE, HIGH = (24, 36), (40, 28)


@pytest.fixture(scope="module")
def triangles(tmp_path_factory):
    """Pictures 10 to 80; 30 and 60 are high."""
    folder = tmp_path_factory.mktemp("triangles")
    sizes = [HIGH if number in (3, 6) else WIDE for number in range(1, 9)]
    return read_coco(write_triangles(folder, sizes), folder)


def batches(annotations, *, training=True, **arguments):
    arguments = {
        "batch_size": 2,
        "short_side": (40, 48, 64),
        "max_side": 120,
        "max_objects": 3,
        "mask_size": 28,
    } | arguments
    dataset = coco_dataset(annotations, training=training, **arguments)
    return [
        {name: x.numpy() for name, x in batch.items()}
        for batch in (dataset.take(12) if arguments.get("repeat") else dataset)
    ]


def ids(examples):
    return [batch["image_ids"].tolist() for batch in examples]


def assert_same(examples, others):
    assert ids(examples) == ids(others)
    for batch, other in zip(examples, others, strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("training", [True, False])
def test_shapes_and_types(triangles, training):
    dataset = coco_dataset(
        triangles,
        batch_size=2,
        training=training,
        targets=True,
        max_objects=3,
        mask_size=28,
    )
    batch = 2 if training else None
    assert dataset.element_spec == {
        "images": tf.TensorSpec((batch, None, None, 3), tf.uint8),
        "sizes": tf.TensorSpec((batch, 2), tf.int32),
        "original_sizes": tf.TensorSpec((batch, 2), tf.int32),
        "image_ids": tf.TensorSpec((batch,), tf.int64),
        "boxes": tf.TensorSpec((batch, 3, 4), tf.float32),
        "classes": tf.TensorSpec((batch, 3), tf.int32),
        "masks": tf.TensorSpec((batch, 3, 28, 28), tf.uint8),
    }
    policy = dataset.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA
    # Keras's `predict` warns if it does not know.
    assert dataset.cardinality() == coco_steps(triangles, 2) == 4


def test_boxes_and_masks_are_where_the_objects_are(triangles):
    examples = batches(triangles, repeat=True) + batches(
        triangles, training=False, targets=True
    )
    found = []
    for batch in examples:
        assert batch["images"].shape[1] % 32 == 0
        assert batch["images"].shape[2] % 32 == 0
        for number, pixels in enumerate(batch["images"]):
            height, width = batch["sizes"][number]
            assert not pixels[height:].any() and not pixels[:, width:].any()
            assert batch["classes"][number].tolist() == [0, -1, -1]
            assert not batch["boxes"][number, 1:].any()
            assert not batch["masks"][number, 1:].any()
            box, mask = batch["boxes"][number, 0], batch["masks"][number, 0]
            # Not the smoothed edges.
            rows, columns = np.nonzero(pixels[..., 0] > 127)
            edges = columns.min(), rows.min(), columns.max(), rows.max()
            ends = np.array(edges) + [0, 0, 1, 1]
            # Tips are thin; the right angle is on the left, or mirrored.
            differences = np.abs(ends - box)
            assert differences.max() <= 3.5
            assert differences[1] <= 0.5
            assert differences[0 if mask[1, 1] else 2] <= 0.5
            # The mask is that of the picture, in the box.
            at = (np.arange(28) + 0.5) / 28
            x = (box[0] + at * (box[2] - box[0])).astype(int)
            y = (box[1] + at * (box[3] - box[1])).astype(int)
            seen = pixels[y][:, x, 0] > 127
            assert np.mean(seen == mask) > 0.85  # It is made of steps.
            found.append((int(min(height, width)), bool(mask[1, 1])))
    # Scales and sides, in training independent of each other and of the order.
    trained = found[:24]
    assert set(trained) == {(x, y) for x in (40, 48, 64) for y in (0, 1)}
    scales = np.array(trained)[:, 0].reshape(12, 2)
    assert {-1, 1} <= set(np.sign(scales[:, 0] - scales[:, 1]))
    assert set(found[24:]) == {(64, True)}


def test_evaluation_has_every_picture_once_and_as_it_is(triangles):
    examples = batches(triangles, training=False, short_side=(24, 20))
    assert ids(examples) == [[10, 20], [40, 50], [70, 80], [30, 60]]
    assert set(examples[0]) == {
        "images",
        "sizes",
        "original_sizes",
        "image_ids",
    }
    for batch in examples:
        high = batch["image_ids"][0] in (30, 60)
        expected = [34, 24] if high else [24, 36]
        np.testing.assert_array_equal(batch["sizes"], [expected] * 2)
        expected = HIGH if high else WIDE
        np.testing.assert_array_equal(batch["original_sizes"], [expected] * 2)
    pixels = read_image(triangles.images[1].path)
    np.testing.assert_array_equal(examples[0]["images"][1, :24, :36], pixels)


def test_training_is_a_function_of_the_seed_and_the_step(triangles):
    examples = batches(triangles, repeat=True, seed=3)
    assert len(examples) == 12
    first, second, third = (sorted(ids(examples[i : i + 4])) for i in (0, 4, 8))
    for epoch in (first, second, third):
        # The six wide ones once, and a batch of the high ones.
        assert sorted(sum(epoch, [])) == [10, 20, 30, 40, 50, 60, 70, 80]
        assert [30, 60] in map(sorted, epoch)
    # Which is not always the last.
    assert len({i % 4 for i, x in enumerate(ids(examples)) if 30 in x}) > 1
    assert first != second != third
    assert_same(batches(triangles, repeat=True, seed=3), examples)
    assert ids(batches(triangles, repeat=True, seed=4)) != ids(examples)
    # What was broken off goes on as it would have.
    rest = batches(triangles, repeat=True, seed=3, first_step=5)
    assert_same(rest[:7], examples[5:])
    # One epoch after the other.
    dataset = coco_dataset(
        triangles, batch_size=2, training=True, seed=3, short_side=8
    )
    epochs = [ids(dataset.as_numpy_iterator()) for _ in range(2)]
    assert epochs == [ids(examples[:4]), ids(examples[4:8])]


def test_processes_share_every_step(triangles):
    whole = batches(triangles, batch_size=4, repeat=True, multiple=96)
    parts = [
        batches(triangles, repeat=True, process=(i, 2), multiple=96)
        for i in range(2)
    ]
    # The two high ones fill a batch of four.
    assert coco_steps(triangles, 4) == coco_steps(triangles, 2, (0, 2)) == 3
    for batch, *halves in zip(whole, *parts, strict=True):
        for name, values in batch.items():
            for half, part in enumerate(halves):
                np.testing.assert_array_equal(values[half::2], part[name])
    high = [x for x in ids(whole) if x[0] in (30, 60)]
    assert len(high) == 4 and all(sorted(x) == [30, 30, 60, 60] for x in high)
    share = batches(triangles, training=False, process=(1, 2))
    assert ids(share) == [[20, 50], [80], [60]]


def test_every_batch_can_have_one_shape(triangles):
    examples = batches(triangles, pad_to=(96, 64), max_side=64)
    assert {x["images"].shape for x in examples} == {(2, 96, 64, 3)}
    dataset = coco_dataset(
        triangles, batch_size=2, training=True, short_side=40, pad_to=(64, 64)
    )
    assert dataset.element_spec["images"].shape == (2, 64, 64, 3)


@pytest.fixture
def broken(tmp_path):
    """Pictures 10 to 60, of which the 2nd, 5th and 6th cannot be read."""
    path = write_triangles(tmp_path, [WIDE, WIDE, HIGH, WIDE, WIDE, HIGH])
    (tmp_path / "2.png").write_bytes(b"")
    write_png(tmp_path / "5.png", np.zeros((*HIGH, 3), "uint8"))
    (tmp_path / "6.png").write_bytes((tmp_path / "3.png").read_bytes()[:90])
    return read_coco(path, tmp_path)


def test_others_take_the_place_of_what_cannot_be_read(broken):
    skips = SkipLog(unit="image")
    examples = batches(broken, skips=skips)
    # The next of the list that is as wide or as high.
    wide = [x for x in ids(examples) if x != [30, 30]]
    assert len(examples) == 3 and sorted(sum(wide, [])) == [10, 10, 40, 40]
    assert sorted(path[-5:] for path in skips.reasons) == [
        "2.png",
        "5.png",
        "6.png",
    ]


def test_evaluation_leaves_out_what_cannot_be_read(broken):
    skips = SkipLog(unit="image")
    examples = batches(broken, training=False, skips=skips)
    assert ids(examples) == [[10, 40], [30]]
    summary = skips.summary()
    assert (summary["images_read"], summary["images_skipped"]) == (3, 3)
    reasons = {path[-5:]: x for path, x in summary["skipped"].items()}
    assert "not a JPEG or PNG" in reasons["2.png"]
    assert "Received: 28x40" in reasons["5.png"]
    assert "damaged" in reasons["6.png"]


def test_another_orientation_takes_the_place_if_all_of_one_are_broken(broken):
    # All of the high ones; the wide ones are read from the next on.
    examples = batches(broken.subset([5, 0, 3]), pad_to=(96, 96))
    assert sorted(map(sorted, ids(examples))) == [[10, 10], [10, 40]]


def test_the_next_one_takes_the_place(broken):
    # 20 is between 10 and 40.
    examples = batches(broken.subset([0, 1, 3]), batch_size=3)
    assert sorted(sum(ids(examples), [])) == [10, 40, 40]


@pytest.mark.parametrize("training", [True, False])
def test_says_so_if_nothing_can_be_read(broken, training):
    nothing = broken.subset([1, 4])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one of 2 pict"):
        batches(nothing, training=training)


def test_says_so_if_nothing_of_its_share_can_be_read(broken):
    some = broken.subset([0, 1])
    assert ids(batches(some, training=False, process=(0, 2))) == [[10]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="one of 1 pict"):
        batches(some, training=False, process=(1, 2))


def test_leaves_out_crowds_and_what_has_no_objects(tmp_path, caplog):
    for name in ("a.png", "b.png", "c.png"):
        write_png(tmp_path / name, np.zeros((20, 30, 3), "uint8"))
    path = write_json(
        tmp_path / "x.json",
        [
            image(key, name)
            for key, name in enumerate(("a.png", "b.png", "c.png"))
        ],
        [
            thing(0, *triangle(1, 1, 5, 5), iscrowd=1),
            thing(1, [-0.5, 0, 31, 20.5]),
            thing(1, *triangle(1, 1, 5, 5), iscrowd=1),
            thing(1, *triangle(2, 2, 10, 5)),
            thing(1, *triangle(3, 3, 10, 5)),
        ],
    )
    arguments = {"short_side": 40, "max_objects": 2, "flip": False}
    with caplog.at_level(logging.WARNING, "absl"):
        (batch,) = batches(read_coco(path, tmp_path), batch_size=1, **arguments)
    assert "1 pictures have more than `max_objects`, 2, objects" in caplog.text
    assert batch["image_ids"].tolist() == [1]
    # Cut off at the edge of the picture; the first ones.
    expected = [[[0, 0, 60, 40], [4, 4, 24, 14]]]
    np.testing.assert_allclose(batch["boxes"], expected)
    assert batch["masks"][0, 0].all()
    (batch,) = batches(
        read_coco(path, tmp_path),
        training=False,
        targets=True,
        batch_size=3,
        **arguments,
    )
    assert batch["classes"].tolist() == [[-1, -1], [0, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"batch_size": 0}, "`batch_size` must be positive"),
        ({"short_side": ()}, "`short_side` must be a positive integer"),
        ({"short_side": (800, 0)}, "`short_side` must be a positive integer"),
        ({"short_side": 800.5}, "`short_side` must be a positive integer"),
        ({"max_side": 0}, "`max_side` must be a positive integer"),
        ({"max_objects": 0}, "`max_objects` must be a positive integer"),
        ({"mask_size": 28.0}, "`mask_size` must be a positive integer"),
        ({"multiple": "32"}, "`multiple` must be a positive integer"),
        ({"seed": -1}, "`seed` must be 0 or more"),
        ({"first_step": 1}, "`first_step` must be 0"),
        ({"process": (2, 2)}, "`process` must be"),
        ({"pad_to": (100, 96)}, "`pad_to` must be two multiples"),
        ({"pad_to": 96}, "`pad_to` must be two multiples"),
        ({"pad_to": (96.0, 96.0)}, "`pad_to` must be two multiples"),
        ({"pad_to": (64, 96)}, "`pad_to` must be at least .*becomes"),
        ({"images": "pictures"}, "`images` must be"),
    ],
)
def test_refuses(triangles, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        batches(triangles, **arguments)


def test_refuses_to_train_on_nothing(triangles, tmp_path):
    with pytest.raises(ValueError, match="Received: 0 pictures without"):
        batches(triangles.subset([]))
    with pytest.raises(ValueError, match="`images` must be the folder"):
        batches(tmp_path / "x.json")
