import pytest
import tensorflow as tf

from keras_nonlocal.data.directory import video_dataset_from_directory
from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.sampling import ClipSpec
from tests.data.batches import arrays
from tests.data.batches import assert_same
from tests.data.batches import dataset


def from_directory(relation, **changes):
    root = relation[0].paths[0].rsplit("/", 2)[0]
    arguments = {"num_frames": 4, "batch_size": 2, "crop_size": 24}
    arguments |= {"short_side": (24, 32)} | changes
    return video_dataset_from_directory(root, **arguments)


def test_from_directory(relation):
    batches = from_directory(relation)
    assert batches.class_names == ["different_colour", "same_colour"]
    assert batches.skips.count == 0
    assert batches.cardinality() == 6
    assert_same(
        arrays(batches),
        arrays(dataset(relation[0], training=True, batch_size=2)),
    )


def test_from_directory_without_shuffle(relation):
    batches = from_directory(relation, shuffle=False)
    assert_same(arrays(batches), arrays(dataset(relation[0], training=False)))


def test_from_directory_split(relation):
    train, validation = from_directory(
        relation, validation_split=0.25, subset="both", seed=3
    )
    first, second = relation[0].split(0.25, seed=3)
    options = {"batch_size": 2, "seed": 3}
    expected = arrays(dataset(first, training=True, **options))
    assert_same(arrays(train), expected)
    assert_same(arrays(validation), arrays(dataset(second, training=False)))
    assert train.skips is not validation.skips
    for subset, part in ("training", expected), ("validation", None):
        batches = from_directory(
            relation, validation_split=0.25, subset=subset, seed=3
        )
        part = arrays(validation) if part is None else part
        assert_same(arrays(batches), part)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subset": "training"}, "`subset` needs `validation_split`"),
        ({"validation_split": 0.5}, "`subset` must be one of"),
        ({"validation_split": 0.5, "subset": "test"}, "subset='test'"),
        ({"validation_split": 2.0, "subset": "both"}, "`fraction`"),
        ({"num_frames": 0}, "`num_frames`"),
        ({"rule": "other"}, "`rule`.*'other'"),
        ({"short": "cut"}, "`short`.*'cut'"),
        ({"fps": 0}, "`fps`.*0"),
        ({"max_skipped": 2}, "`max_share`.*2"),
    ],
)
def test_from_directory_refuses(relation, changes, message):
    with pytest.raises(ValueError, match=message):
        from_directory(relation, **changes)


def test_options_are_those_of_clip_dataset(relation):
    options = {"flip": False, "num_parallel_calls": 1}
    assert_same(
        arrays(from_directory(relation, **options)),
        arrays(dataset(relation[0], training=True, batch_size=2, **options)),
    )
    with pytest.raises(TypeError, match="colour"):
        from_directory(relation, colour=True)


def test_clips_are_those_of_a_clip_spec(relation):
    # Longer than the videos, which have 0.64 s.
    clip = {"num_frames": 7, "sampling_rate": 16, "rule": "slowfast"}
    clip |= {"short": "loop", "fps": 10.0}
    expected = clip_dataset(
        relation[0],
        ClipSpec(**clip),
        batch_size=2,
        training=False,
        crop_size=24,
        short_side=(24, 32),
    )
    batches = from_directory(relation, shuffle=False, **clip)
    assert_same(arrays(batches), arrays(expected))


def test_too_many_skips_end_the_iteration(tmp_path):
    (tmp_path / "run").mkdir()
    for number in range(100):
        (tmp_path / "run" / f"{number}.mp4").write_bytes(b"not a video")
    batches = video_dataset_from_directory(
        tmp_path, shuffle=False, max_skipped=0.3
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="At most 30%"):
        list(batches)
    assert batches.skips.count == 100
