import os
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data import decode
from keras_nonlocal.data.augmentation import ColorJitter
from keras_nonlocal.data.augmentation import MixUp
from keras_nonlocal.data.pipeline import step_videos
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from tests.data.batches import arrays
from tests.data.batches import assert_same
from tests.data.batches import dataset


@pytest.fixture
def broken(tmp_path):
    """Makes a list whose videos at the given places cannot be read."""

    def make(videos, places):
        paths = list(videos.paths)
        for place in places:
            paths[place] = str(tmp_path / f"broken{place}.mp4")
            (tmp_path / f"broken{place}.mp4").write_bytes(b"not a video")
        return VideoList(tuple(paths), videos.labels, videos.class_names)

    return make


@pytest.mark.parametrize("training", [True, False])
def test_shapes_and_types(relation, training):
    batches = dataset(relation[0], training=training)
    frames, labels = batches.element_spec
    batch = 4 if training else None
    assert frames == tf.TensorSpec((batch, 4, 24, 24, 3), tf.uint8)
    assert labels == tf.TensorSpec((batch,), tf.int32)
    for frames, labels in batches:
        assert frames.shape == (4, 4, 24, 24, 3)
        assert labels.shape == (4,)


@pytest.mark.parametrize("training", [True, False])
def test_strategies_divide_batches_not_files(relation, training):
    options = dataset(relation[0], training=training).options()
    policy = options.experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA


def test_evaluation_is_the_middle_of_every_video_in_order(relation):
    videos = relation[1]
    frames, labels = arrays(dataset(videos, training=False))
    assert labels.tolist() == videos.labels.tolist()
    for path, clip in zip(videos.paths, frames, strict=True):
        # 16 frames, 4x2 takes 8: starts 0 to 8, the middle is 4.
        expected = decode.read_frames(path, [4, 6, 8, 10], short_side=24)
        np.testing.assert_array_equal(clip, expected)


def test_evaluation_crops_the_center(relation):
    videos = relation[1]
    batches = dataset(videos, training=False, short_side=(32, 64))
    clip = arrays(batches)[0][0]
    expected = decode.read_frames(videos.paths[0], [4, 6, 8, 10])
    np.testing.assert_array_equal(clip, expected[:, 4:28, 4:28])


def test_evaluation_keeps_the_remainder(relation):
    sizes = [len(y) for _, y in dataset(relation[1], training=False)]
    assert sizes == [4, 2]


def find(clip, videos):
    """(video, start, flipped) of an uncropped clip."""
    for number, path in enumerate(videos.paths):
        frames = decode.read_frames(path, range(16))
        for start in range(16):
            expected = frames[(start + 2 * np.arange(4)) % 16]
            for flipped in (False, True):
                if (clip == expected).all():
                    return number, start, flipped
                expected = expected[:, :, ::-1]
    raise AssertionError("no such clip")


def test_training_takes_random_clips_of_every_video_once(relation):
    videos = relation[0]
    batches = dataset(
        videos, training=True, crop_size=32, short_side=(32, 32), batch_size=6
    )
    seen = []
    for _ in range(3):
        frames, labels = arrays(batches)
        found = [find(clip, videos) for clip in frames]
        numbers = [number for number, _, _ in found]
        assert sorted(numbers) == list(range(12))
        assert numbers != sorted(numbers)
        assert labels.tolist() == videos.labels[numbers].tolist()
        seen += found
    starts = {start for _, start, _ in seen}
    assert starts <= set(range(9))
    assert len(starts) > 5
    assert {flipped for _, _, flipped in seen} == {False, True}


def test_training_without_flip(relation):
    batches = dataset(
        relation[0],
        training=True,
        crop_size=32,
        short_side=(32, 32),
        flip=False,
    )
    found = [find(clip, relation[0]) for clip in arrays(batches)[0]]
    assert not any(flipped for _, _, flipped in found)


def test_seed_and_epoch_decide(relation):
    first = dataset(relation[0], training=True, seed=5)
    epochs = [arrays(first), arrays(first)]
    # Neither the global seed nor the number of threads plays a part.
    tf.random.set_seed(1234)
    again = dataset(relation[0], training=True, seed=5, num_parallel_calls=4)
    assert_same(arrays(again), epochs[0])
    assert_same(arrays(again), epochs[1])
    assert (epochs[0][0] != epochs[1][0]).any()
    other = dataset(relation[0], training=True, seed=6)
    assert (arrays(other)[0] != epochs[0][0]).any()


def test_evaluation_has_nothing_random(relation):
    batches = dataset(relation[1], training=False, seed=5)
    other = dataset(relation[1], training=False, seed=6)
    assert_same(arrays(batches), arrays(batches))
    assert_same(arrays(batches), arrays(other))


def test_training_drops_the_remainder_and_knows_its_length(relation):
    batches = dataset(relation[0], training=True, batch_size=5)
    assert batches.cardinality() == 2
    assert [len(y) for _, y in batches] == [5, 5]


def test_training_replaces_what_cannot_be_read(relation, broken):
    videos = broken(relation[0], [3, 4, 11])
    skips = SkipLog()
    batches = dataset(
        videos,
        training=True,
        batch_size=12,
        crop_size=32,
        short_side=(32, 32),
        skips=skips,
    )
    frames, labels = arrays(batches)
    good = videos.subset([i for i in range(12) if i not in (3, 4, 11)])
    found = [find(clip, good)[0] for clip in frames]
    assert labels.tolist() == good.labels[found].tolist()
    # 5 also stands in for 3 and 4, and 0 for 11.
    names = [good.paths[number] for number in found]
    assert names.count(videos.paths[5]) == 3
    assert names.count(videos.paths[0]) == 2
    assert skips.count == 4
    assert set(skips.reasons) == {videos.paths[i] for i in (3, 4, 11)}


def test_evaluation_leaves_out_what_cannot_be_read(relation, broken):
    videos = broken(relation[1], [0, 5])
    skips = SkipLog()
    batches = dataset(videos, training=False, skips=skips)
    expected = arrays(dataset(relation[1], training=False))
    assert_same(arrays(batches), [part[1:5] for part in expected])
    assert skips.count == 2


@pytest.mark.parametrize("training", [True, False])
def test_no_readable_video_is_an_error(relation, broken, training):
    videos = broken(relation[1], range(6))
    batches = dataset(videos, training=training)
    message = r"one of 6 videos must be readable.*broken\d\.mp4"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        arrays(batches)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 7}, "at least 7 videos.*Received: 6"),
        ({"crop_size": 0}, "crop_size=0"),
        ({"crop_size": 25}, "crop_size=25"),
        ({"short_side": (30, 29)}, r"short_side=\(30, 29\)"),
        ({"jitter": "square"}, "jitter='square'"),
        ({"process": (2, 2)}, r"process=\(2, 2\)"),
        ({"process": (1, 2)}, "at least 8 videos.*Received: 6"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"time_limit": 0}, "time_limit=0"),
        ({"decoder": "other"}, "`decoder`.*'other'"),
        ({"flip_pairs": [("left", "right")]}, "'left', 'right'"),
    ],
)
def test_refuses(relation, changes, message):
    with pytest.raises(ValueError, match=message):
        dataset(relation[1], training=True, **changes)


def test_refuses_an_empty_list():
    videos = VideoList((), [], ("a",))
    with pytest.raises(ValueError, match="at least 1 videos"):
        dataset(videos, training=False)


SCRIPT = """
    import sys
    import zlib

    import tensorflow as tf

    from keras_nonlocal.data import pipeline
    from keras_nonlocal.data.readers.folder import read_folder
    from keras_nonlocal.data.sampling import ClipSpec

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    batches = pipeline.clip_dataset(
        read_folder(sys.argv[1]),
        ClipSpec(4, 2),
        batch_size=4,
        training=True,
        crop_size=24,
        short_side=(24, 32),
        seed=5,
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    checksum = 0
    for frames, labels in strategy.experimental_distribute_dataset(batches):
        for part in strategy.experimental_local_results(frames):
            assert part.shape == (2, 4, 24, 24, 3)
            checksum = zlib.crc32(part.numpy().tobytes(), checksum)
    print(checksum)
"""


def test_same_clips_in_another_process_on_two_devices(relation):
    root = relation[0].paths[0].rsplit("/", 2)[0]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), root]
    result = subprocess.run(
        command,
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    batches = dataset(relation[0], training=True, seed=5)
    checksum = zlib.crc32(arrays(batches)[0].tobytes())
    assert result.stdout.split()[-1] == str(checksum)


def test_repeating_goes_through_the_epochs(relation):
    epochs = dataset(relation[1], training=True)
    expected = [batch for _ in range(3) for batch in epochs]
    endless = dataset(relation[1], training=True, repeat=True)
    assert int(endless.cardinality()) == tf.data.INFINITE_CARDINALITY
    for _ in range(2):  # A new iteration begins anew.
        batches = list(endless.take(len(expected)))
        for ours, theirs in zip(batches, expected, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("first_step", [1, 5])
def test_begins_at_any_step_of_the_endless_sequence(relation, first_step):
    """Within the first epoch of 3 steps, and within the second."""
    options = {
        "training": True,
        "repeat": True,
        "augment": ColorJitter(),
        "mix": MixUp(1.0),
    }
    whole = list(dataset(relation[0], **options).take(first_step + 4))
    rest = dataset(relation[0], first_step=first_step, **options)
    assert int(rest.cardinality()) == tf.data.INFINITE_CARDINALITY
    for _ in range(2):  # Every iteration begins there.
        batches = list(rest.take(4))
        for ours, theirs in zip(batches, whole[first_step:], strict=True):
            assert_same(ours, theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": True, "first_step": 1},
        {"training": False, "first_step": 1},
        {"training": False, "repeat": True, "first_step": 1},
        {"training": True, "repeat": True, "first_step": -1},
    ],
)
def test_only_an_endless_sequence_begins_at_a_step(relation, changes):
    step = changes["first_step"]
    with pytest.raises(ValueError, match=f"`first_step`.*first_step={step}$"):
        dataset(relation[1], **changes)


@pytest.mark.parametrize("process", [(0, 1), (1, 2)])
def test_videos_of_a_step_are_those_that_are_read(relation, process):
    """Labels that are numbers say which video a clip is of."""
    videos = relation[0].subset(range(11))
    numbered = VideoList(
        videos.paths, range(11), tuple(str(number) for number in range(11))
    )
    arguments = {"batch_size": 2, "seed": 3}
    batches = dataset(
        numbered, training=True, repeat=True, process=process, **arguments
    )
    for step, (_, labels) in enumerate(batches.take(12)):
        found = step_videos(videos, **arguments, step=step, process=process)
        np.testing.assert_array_equal(found, labels)


def test_a_step_has_enough_videos(relation):
    with pytest.raises(ValueError, match="at least 14 videos.*Received: 12"):
        step_videos(relation[0], 7, 0, 0, process=(0, 2))


def test_evaluation_knows_how_many_batches_there_should_be(relation, broken):
    batches = dataset(relation[1], training=False)
    assert int(batches.cardinality()) == len(list(batches))
    videos = broken(relation[1], [2])
    batches = dataset(videos, training=False)
    assert int(batches.cardinality()) == len(list(batches))


def test_processes_together_read_what_one_would(relation):
    """Steps of 4 clips: of one process, of two with 2 each, of four with 1."""
    whole = list(dataset(relation[0], training=True, seed=5))
    for count in (2, 4):
        parts = [
            list(
                dataset(
                    relation[0],
                    training=True,
                    seed=5,
                    batch_size=4 // count,
                    process=(index, count),
                )
            )
            for index in range(count)
        ]
        for step, (frames, labels) in enumerate(whole):
            assert_same(
                (frames, labels),
                [
                    # Clips in turn: one of each process.
                    np.stack([part[step][i] for part in parts], 1).reshape(
                        value.shape
                    )
                    for i, value in enumerate((frames, labels))
                ],
            )


def test_processes_together_evaluate_every_video_once(relation):
    found = [
        arrays(dataset(relation[1], training=False, process=(index, 4)))[1]
        for index in range(4)
    ]
    assert [len(labels) for labels in found] == [2, 2, 1, 1]
    expected = relation[1].labels
    for index, labels in enumerate(found):
        assert labels.tolist() == expected[index::4].tolist()


def test_jitter_changes_the_size_of_training_clips_alone(relation):
    options = {"short_side": (24, 96), "seed": 1}
    uniform, inverse = (
        arrays(dataset(relation[1], training=True, jitter=jitter, **options))
        for jitter in ("uniform", "inverse")
    )
    assert_same(uniform[1:], inverse[1:])
    assert (uniform[0] != inverse[0]).any()
    assert_same(
        *(
            arrays(dataset(relation[1], training=False, jitter=jitter))
            for jitter in ("uniform", "inverse")
        )
    )


def test_workers_read_the_same_clips(relation):
    for training in (True, False):
        expected = arrays(dataset(relation[1], training=training))
        batches = dataset(relation[1], training=training, num_workers=2)
        assert_same(arrays(batches), expected)


def test_augmentation_is_a_function_of_the_seed(relation):
    plain = arrays(dataset(relation[1], training=True))
    options = {"training": True, "augment": ColorJitter()}
    batches = dataset(relation[1], **options)
    first, second = arrays(batches), arrays(batches)
    again = dataset(relation[1], num_parallel_calls=3, **options)
    assert_same(arrays(again), first)
    assert_same(arrays(again), second)
    assert first[1].tolist() == plain[1].tolist()
    assert first[0].dtype == np.uint8
    # Each clip has its own colours.
    changes = [
        np.mean(a - b) for a, b in zip(first[0] * 1.0, plain[0], strict=True)
    ]
    assert len(set(changes)) == len(changes)
    evaluated = dataset(relation[1], training=False, augment=ColorJitter())
    assert_same(arrays(evaluated), arrays(dataset(relation[1], training=False)))


def test_mixed_labels(relation):
    mix = MixUp(1.0)
    batches = dataset(relation[1], training=True, mix=mix, batch_size=3)
    assert batches.element_spec[1] == tf.TensorSpec((3, 2), tf.float32)
    labels = arrays(batches)[1]
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert ((labels > 0.01) & (labels < 0.99)).any()
    clips, labels = arrays(dataset(relation[1], training=False, mix=mix))
    expected = arrays(dataset(relation[1], training=False))
    np.testing.assert_array_equal(clips, expected[0])
    np.testing.assert_array_equal(labels, np.eye(2)[expected[1]])


def test_several_classes(relation):
    """In training the labels of the clip, in evaluation of the video."""
    paths = relation[1].paths[:3]
    actions = [[[0, 0.0, 60.0]], [[1, 50.0, 60.0]], []]
    videos = VideoList(paths, None, ("a", "b"), actions=actions)
    labels = arrays(dataset(videos, training=False))[1]
    assert labels.tolist() == [[1, 0], [0, 1], [0, 0]]
    # The videos end before the second action begins.
    batches = dataset(videos, training=True, batch_size=3)
    assert batches.element_spec[1] == tf.TensorSpec((3, 2), tf.float32)
    labels = arrays(batches)[1]
    assert sorted(labels.tolist()) == [[0, 0], [0, 0], [1, 0]]


def test_too_many_skips_end_the_iteration(relation, broken):
    videos = broken(relation[0], range(1, 12))
    skips = SkipLog(max_share=0.3)
    batches = dataset(videos, training=True, skips=skips, repeat=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="At most 30%"):
        list(batches.take(30))
