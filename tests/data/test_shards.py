import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data import decode
from keras_nonlocal.data import shard_video
from keras_nonlocal.data import shard_writer
from keras_nonlocal.data import shards
from keras_nonlocal.data import synthetic
from keras_nonlocal.data import transforms
from keras_nonlocal.data.augmentation import ColorJitter
from keras_nonlocal.data.beam import shard_pipeline
from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.shard_index import ShardIndex
from keras_nonlocal.data.videos import VideoList

CLIP = ClipSpec(4, 2)
ARGUMENTS = {"batch_size": 4, "crop_size": 24, "short_side": (28, 36)}


def write(videos, out, **changes):
    arguments = {"num_shards": 3, "quality": 100, "progress": False}
    return shard_writer.write_shards(videos, out, **(arguments | changes))


def read(directory, clip=CLIP, *, training, **changes):
    return shards.read_shards(
        directory, clip, training=training, **(ARGUMENTS | changes)
    )


def from_files(videos, clip=CLIP, *, training, **changes):
    return clip_dataset(
        videos, clip, training=training, **(ARGUMENTS | changes)
    )


def assert_same_clips(ours, theirs, mean=3.0, largest=None):
    """Other clips of these videos differ by 10 grey levels and more."""
    for (frames, labels), (others, other_labels) in zip(
        ours, theirs, strict=True
    ):
        np.testing.assert_array_equal(labels, other_labels)
        difference = np.abs(frames.numpy().astype(int) - others.numpy())
        assert difference.mean(axis=(1, 2, 3, 4)).max() < mean
        assert largest is None or difference.max() <= largest


def content(folder):
    return {
        path.name: path.read_bytes()
        for path in pathlib.Path(folder).iterdir()
        if path.name != ".lock"
    }


@pytest.fixture(scope="module")
def written(relation, tmp_path_factory):
    """The 12 videos in three shards."""
    out = tmp_path_factory.mktemp("written")
    write(relation[0], out)
    return out


@pytest.fixture
def copy(written, tmp_path):
    """The shards again, to be damaged."""
    for name, data in content(written).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """Videos of 20 frames of 48x32 pixels that tell each other's frames."""
    root = tmp_path_factory.mktemp("moving")
    rows, columns = np.mgrid[:32, :48]
    paths = []
    for number in range(6):
        waves = [
            np.sin(rows / 5 + number + frame / 2)
            + np.cos(columns / 7 - number * 2 + frame / 3)
            for frame in range(20)
        ]
        grey = np.rint(127 + 60 * np.array(waves)).astype("uint8")
        path = root / f"{number}.mp4"
        synthetic.write_video(path, np.repeat(grey[..., None], 3, -1))
        paths.append(str(path))
    return VideoList(tuple(paths), [0, 1, 2] * 2, ("left", "right", "up"))


@pytest.mark.parametrize(
    ("training", "clip", "changes"),
    [
        (True, CLIP, {}),
        (True, ClipSpec(4, 3, rule="slowfast"), {"flip": False}),
        (True, ClipSpec(4, 9), {"repeat": True, "process": (1, 2)}),
        (True, CLIP, {"repeat": True, "first_step": 3}),
        (True, CLIP, {"jitter": "inverse", "short_side": (24, 60)}),
        (False, CLIP, {"batch_size": 2}),
        (False, ClipSpec(3, 4, "slowfast", "loop"), {}),
        (False, ClipSpec(2, 2, "mmaction2"), {"process": (1, 2)}),
    ],
)
def test_clips_are_those_of_files(moving, tmp_path, training, clip, changes):
    write(moving, tmp_path)
    changes = {
        "batch_size": 3,
        "flip_pairs": [("left", "right")],
        "seed": 3,
        **changes,
    }
    ours = read(tmp_path, clip, training=training, **changes)
    theirs = from_files(moving, clip, training=training, **changes)
    assert ours.element_spec == theirs.element_spec
    if training:
        assert ours.cardinality() == theirs.cardinality()
    # Two epochs.
    for _ in range(1 if changes.get("repeat") else 2):
        assert_same_clips(ours.take(4), theirs.take(4))


def test_pixels_are_those_of_files_where_nothing_is_rescaled(relation, written):
    same = {"short_side": (32, 32), "crop_size": 20}
    assert_same_clips(
        read(written, training=True, **same),
        from_files(relation[0], training=True, **same),
        mean=1.0,
        largest=5,
    )


def test_size_of_the_shards_may_be_another(moving, tmp_path):
    """Crops are where they are in the files, from smaller frames too."""
    write(moving, tmp_path, short_side=24, quality=95)
    for side in (16, 24, 40):
        changes = {"short_side": (side, side), "crop_size": 12}
        assert_same_clips(
            read(tmp_path, training=True, **changes),
            from_files(moving, training=True, **changes),
            mean=6.0,
        )


def test_segments_actions_and_constant_rate(moving, tmp_path):
    """Labels are of what happens in the clip, on a timeline of its own."""
    actions = [
        [[number % 3, 0.0, 0.2], [(number + 1) % 3, 0.5, 0.6]]
        for number in range(6)
    ]
    videos = VideoList(
        moving.paths,
        None,
        moving.class_names,
        segments=[[0.1, np.nan], [0.0, 0.5], [0.2, 0.7]] * 2,
        actions=actions,
    )
    index = write(videos, tmp_path, fps=40.0)
    assert [row.num_frames for row in index.rows()][:2] == [29, 21]
    clip = ClipSpec(3, 2, fps=40.0)
    changes = {"batch_size": 2, "flip_pairs": [("left", "up")]}
    numbers = {True: {0, 1}, False: {2}}
    for training in (True, False):
        ours = read(tmp_path, clip, training=training, **changes)
        theirs = from_files(videos, clip, training=training, **changes)
        for _ in range(2):
            assert_same_clips(ours, theirs)
        labels = np.concatenate([labels for _, labels in ours])
        assert labels.dtype == "float32"
        assert set(labels.sum(axis=1)) == numbers[training]
    # That of the shards if the clip does not say.
    first, second = (
        next(iter(read(tmp_path, x, training=False)))[0]
        for x in (clip, ClipSpec(3, 2))
    )
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match=r"`clip.fps` must be None or 40"):
        read(tmp_path, ClipSpec(3, fps=25.0), training=True)
    again = ShardIndex.load(tmp_path).videos()
    np.testing.assert_array_equal(again.segments, videos.segments)
    np.testing.assert_array_equal(again.labels, videos.labels)
    np.testing.assert_array_equal(again.actions, videos.actions)


def test_unreadable_videos_are_left_out_and_listed(moving, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    paths = list(moving.paths)
    paths[2] = paths[5] = str(broken)
    videos = VideoList(tuple(paths), moving.labels, moving.class_names)
    out = tmp_path / "out"
    index = write(videos, out, num_shards=2, num_workers=1)
    listed = ShardIndex.load(out).videos()
    assert listed.paths == videos.paths == index.videos().paths
    assert listed.problem_counts() == {"unreadable video": 2}
    assert str(listed.problems[0]).startswith(
        f"{broken}: unreadable video (Invalid data"
    )
    for training in (True, False):
        assert_same_clips(
            read(out, training=training, batch_size=2),
            from_files(videos, training=training, batch_size=2),
        )
    nothing = videos.subset([2, 5])
    with pytest.raises(ValueError, match="must be readable. Received none"):
        write(nothing, tmp_path / "nothing", num_shards=1)
    broken.write_bytes(pathlib.Path(paths[0]).read_bytes())
    assert (
        not write(nothing, tmp_path / "nothing", num_shards=1).videos().problems
    )
    # What cannot be read stays so, unless all of it is written anew.
    changes = {"num_shards": 2, "num_workers": 1}
    assert len(write(videos, out, **changes).videos().problems) == 2
    index = write(videos, out, overwrite=True, **changes)
    assert not index.videos().problems


@pytest.mark.parametrize("missing", [True, False])
def test_what_may_pass_is_tried_again(moving, tmp_path, monkeypatch, missing):
    """A video that was missing, or took too long."""
    late = tmp_path / "late.mp4"
    paths = (*moving.paths[:5], str(late))
    videos = VideoList(paths, moving.labels, moving.class_names)

    def read_part(request):
        if request.path == str(late):
            raise decode.TimeLimitError(f"{late}: too slow")
        return shard_video.read_part(request)

    if not missing:
        late.write_bytes(pathlib.Path(moving.paths[5]).read_bytes())
        monkeypatch.setattr(shard_writer, "read_part", read_part)
    out = tmp_path / "out"
    assert len(write(videos, out).videos().problems) == 1
    monkeypatch.undo()
    before = content(out)
    late.write_bytes(pathlib.Path(moving.paths[5]).read_bytes())
    assert not write(videos, out).videos().problems
    changed = {
        name for name, data in content(out).items() if data != before[name]
    }
    shard = "shard-00002-of-00003"
    assert changed == {f"{shard}.tfrecord", f"{shard}.json", "index.json"}


@pytest.mark.parametrize("error", [ValueError, MemoryError])
def test_whatever_a_video_does_is_its_own_problem(
    moving, tmp_path, monkeypatch, error
):
    def read_part(request):
        if request.path == moving.paths[1]:
            raise error("an odd video")
        return shard_video.read_part(request)

    monkeypatch.setattr(shard_writer, "read_part", read_part)
    (problem,) = write(moving, tmp_path).videos().problems
    assert problem.where == moving.paths[1]


def write_pictures(folder, *shape, count=3):
    folder.mkdir()
    picture = tf.io.encode_png(np.zeros((*shape, 3), "uint8")).numpy()
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture)
    return str(folder)


def test_pictures_too_wide_for_jpeg(moving, tmp_path):
    wide = write_pictures(tmp_path / "wide", 2, 65501, count=1)
    videos = VideoList((moving.paths[0], wide), [0, 1], moving.class_names)
    (problem,) = write(videos, tmp_path / "out", num_shards=1).videos().problems
    assert "at most 65500 pixels a side. Received: 2x65501" in problem.detail


def test_actions_need_times(moving, tmp_path):
    """As in `clip_dataset`; the frame rate of the list is a setting."""
    folder = write_pictures(tmp_path / "pictures", 32, 32)
    videos = VideoList(
        (moving.paths[0], folder), None, ("a",), actions=[[[0, 0.0, 1.0]]] * 2
    )
    out = tmp_path / "out"
    (problem,) = write(videos, out, num_shards=1).videos().problems
    assert "its frame rate must be known" in problem.detail
    known = dataclasses.replace(videos, fps=2.0)
    with pytest.raises(ValueError, match="begun with other fps_of_videos"):
        write(known, out, num_shards=1)
    write(known, out, num_shards=1, overwrite=True)
    again = ShardIndex.load(out).videos()
    assert again.fps == 2.0 and not again.problems


def test_videos_too_short_for_a_clip(moving, tmp_path):
    videos = VideoList(
        moving.paths,
        moving.labels,
        moving.class_names,
        segments=[[0.0, 0.2], [0.0, 0.6]] * 3,
    )
    write(videos, tmp_path)
    clip = ClipSpec(5, 2, short="error")
    for training in (True, False):
        ours = read(tmp_path, clip, training=training)
        assert_same_clips(ours, from_files(videos, clip, training=training))
    with pytest.raises(ValueError, match="must fit into one of the 6 videos"):
        read(tmp_path, ClipSpec(30, 2, short="error"), training=True)


def test_augment_and_mix(moving, tmp_path):
    write(moving, tmp_path)

    def mix(clips, labels, seed):
        return clips, labels + tf.cast(seed[0] % 7, tf.float32)

    for training in (True, False):
        changes = {"augment": ColorJitter(0.3, 0.0, 0.0), "mix": mix}
        ours = read(tmp_path, training=training, **changes)
        theirs = from_files(moving, training=training, **changes)
        assert_same_clips(ours, theirs, mean=4.0)


def test_no_python_runs_in_the_graph(relation, written):
    for training in (True, False):
        ours = shards.graph_operations(read(written, training=training))
        theirs = shards.graph_operations(
            from_files(relation[0], training=training)
        )
        assert not any("PyFunc" in operation for operation in ours)
        assert any("PyFunc" in operation for operation in theirs)


def test_records_are_plain_examples(relation, written):
    """Readable with TensorFlow alone."""
    records = tf.data.TFRecordDataset(ShardIndex.load(written).paths())
    examples = [
        tf.train.Example.FromString(record.numpy()).features.feature
        for record in records
    ]
    paths = [
        example["path"].bytes_list.value[0].decode() for example in examples
    ]
    assert tuple(paths) == relation[0].paths
    labels = [example["labels"].int64_list.value[0] for example in examples]
    assert labels == relation[0].labels.tolist()
    frames = examples[3]["frames"].bytes_list.value
    expected = decode.read_frames(paths[3], range(16))
    for frame, picture in zip(frames, expected, strict=True):
        pixels = tf.io.decode_jpeg(frame, dct_method="INTEGER_ACCURATE")
        assert np.abs(pixels.numpy().astype(int) - picture).max() <= 5
    times = np.frombuffer(examples[3]["times"].bytes_list.value[0], "<f8")
    np.testing.assert_allclose(times, np.arange(16) / synthetic.FPS)


@pytest.mark.parametrize("jitter", transforms.JITTERS)
def test_crops_in_the_graph_are_those_of_transforms(rng, jitter):
    for height, width in rng.integers(32, 2000, (20, 2)).tolist():
        units = rng.random(4)
        size = (tf.constant(height, tf.int64), tf.constant(width, tf.int64))
        row = shards._Row(*[None] * 4, *size, *[None] * 3)
        for short_side in ((32, 32), (40, 97)):
            found = shards._random_crop(
                [tf.constant(unit) for unit in units],
                row,
                32,
                short_side,
                True,
                jitter,
            )
            expected = transforms.random_transform(
                units.tolist(), height, width, 32, short_side, True, jitter
            )
            side = expected.short_side
            assert [int(value) for value in found] == [
                *transforms.rescaled_size(height, width, side),
                expected.top,
                expected.left,
                expected.flip,
            ]


def test_a_damaged_record_is_an_error(copy):
    index = ShardIndex.load(copy)
    path = pathlib.Path(index.paths()[1])
    data = bytearray(path.read_bytes())
    row = index.shards[1].videos[0]
    data[row.offset + 12 + row.length // 2] ^= 1
    path.write_bytes(data)
    clips = read(copy, training=False, batch_size=1)
    iterator = iter(clips)
    for _ in range(4):
        next(iterator)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        list(clips)
    assert "damaged record at byte" in str(error.value)
    assert path.name in str(error.value)
    with pytest.raises(ValueError, match=f"1 that are .*{path.name}"):
        read(copy, training=False, verify=True)


def test_a_cut_or_missing_shard_is_an_error(copy):
    path = pathlib.Path(ShardIndex.load(copy).paths()[2])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"missing or changed.*{path.name}"):
        read(copy, training=False)
    path.unlink()
    with pytest.raises(ValueError, match=f"missing or changed.*{path.name}"):
        read(copy, training=False)


def test_a_shard_that_goes_missing_later_is_an_error(copy, monkeypatch):
    """Not something to wait for; nor does it matter where the process is."""
    monkeypatch.chdir(copy)
    clips = read(".", training=False, batch_size=1, num_parallel_calls=1)
    monkeypatch.chdir("/")
    iterator = iter(clips)
    next(iterator)
    path = pathlib.Path(ShardIndex.load(copy).paths()[2])
    path.unlink()
    errors = []

    def read_all():
        try:
            list(clips)
        except tf.errors.InvalidArgumentError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read_all, daemon=True)
    thread.start()
    thread.join(30)
    assert "missing or damaged record" in errors[0]
    assert str(path) in errors[0]


def test_a_record_of_another_video_is_an_error(copy):
    path = copy / "index.json"
    text = path.read_text()
    values = json.loads(text)
    values["shards"][0]["videos"][0]["path"] = "other.mp4"
    path.write_text(json.dumps(values))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="A record must be"
    ):
        list(read(copy, training=False))


@pytest.mark.parametrize(
    "change",
    [{"labels": [7]}, {"labels": []}, {"offset": 5}, {"length": 9}]
    + [{"num_frames": 0}, {"fps": "x"}, {"height": -1}],
)
def test_load_refuses_records_that_cannot_be(copy, change):
    path = copy / "index.json"
    values = json.loads(path.read_text())
    values["shards"][1]["videos"][1].update(change)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"`directory` must have an index.js"):
        ShardIndex.load(copy)


def test_jitter_is_one_of_two(written):
    with pytest.raises(ValueError, match="jitter='square'"):
        read(written, training=True, jitter="square")


def test_every_process_needs_a_video(written):
    with pytest.raises(ValueError, match="must have at least 13 videos"):
        read(written, training=False, process=(12, 13))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        '{"version": 99}',
        '{"version": 1, "settings": {}, "shards": []}',
    ],
)
def test_load_says_what_is_wrong(tmp_path, text):
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"`directory` must have an index.js"):
        ShardIndex.load(tmp_path)


def test_load_takes_no_files_of_other_folders(copy):
    path = copy / "index.json"
    values = json.loads(path.read_text())
    values["shards"][0]["name"] = "../secret.tfrecord"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is not the name of a shard"):
        ShardIndex.load(copy)


def test_writing_mends_what_is_damaged(relation, written, copy):
    (copy / "shard-00000-of-00003.tfrecord").write_bytes(b"damaged")
    (copy / "shard-00001-of-00003.tfrecord").unlink()
    (copy / "shard-00002-of-00003.json").write_text("{")
    (copy / "index.json").unlink()
    (copy / "shard-00001-of-00003.part").write_text("unfinished")
    write(relation[0], copy)
    assert content(copy) == content(written)


def test_writing_goes_on_where_it_was(relation, written, copy, monkeypatch):
    """Also after an error half way through a shard."""
    for name in ("00001-of-00003.tfrecord", "00002-of-00003.json"):
        (copy / f"shard-{name}").unlink()
    read_paths = []

    def fail_later(request):
        if len(read_paths) == 2:
            raise OSError("the disk is gone")
        read_paths.append(request.path)
        return shard_video.read_part(request)

    monkeypatch.setattr(shard_writer, "read_part", fail_later)
    with pytest.raises(OSError, match="the disk is gone"):
        write(relation[0], copy)
    monkeypatch.undo()
    assert set(read_paths) <= set(relation[0].paths[4:])
    write(relation[0], copy)
    assert content(copy) == content(written)


def test_parts_are_put_together(relation, written, tmp_path, monkeypatch):
    """A long video is read in pieces; here of 5 frames and one."""
    monkeypatch.setattr(shard_video, "_PART_BYTES", 5 * 32 * 32 * 3)
    write(relation[0], tmp_path)
    assert content(tmp_path) == content(written)


def test_other_lists_and_settings_are_refused(relation, written, copy):
    before = content(copy)
    for videos, changes, what in (
        (relation[0], {"quality": 90}, "quality"),
        (relation[0], {"num_shards": 2}, "num_shards"),
        (relation[0].subset(range(11)), {}, "videos"),
    ):
        with pytest.raises(ValueError, match=f"begun with other {what}"):
            write(videos, copy, **changes)
    with pytest.raises(ValueError, match="begun with other decoder") as kept:
        write(relation[0], copy, decoder="pyav")
    assert content(copy) == before
    # Whoever still has the error does not hold the folder.
    assert kept.tb is not None
    write(relation[1], copy, num_shards=1, overwrite=True)
    assert ShardIndex.load(copy).videos().paths == relation[1].paths
    assert len(list(copy.glob("shard-*"))) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_stay(relation, tmp_path, overwrite):
    others = ["shard-000000.tar", "movie.avi.part", "shard-1.part", "a.json"]
    for name in others:
        (tmp_path / name).write_text("precious")
    write(relation[1], tmp_path, overwrite=overwrite)
    write(relation[1], tmp_path, overwrite=overwrite)
    (tmp_path / "settings.json").unlink()
    before = content(tmp_path)
    assert before.keys() >= {"index.json", *others}
    with pytest.raises(ValueError, match="index.json for example"):
        write(relation[1], tmp_path, overwrite=overwrite)
    assert content(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}'])
def test_damaged_settings_are_named(relation, tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=f"Received: {tmp_path}/settings.json"):
        write(relation[1], tmp_path, overwrite=True)


def test_one_process_writes_at_a_time(relation, written):
    settings = ShardIndex.load(written).settings
    with shard_writer.claimed(relation[0], written, settings, "auto", 3, False):
        with pytest.raises(ValueError, match="no other process writes"):
            write(relation[0], written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_shards": 0}, "`num_shards` must be from 1 to the 12 videos"),
        ({"num_shards": 13}, "`num_shards` must be from 1 to the 12 videos"),
        ({"quality": 0}, "`quality` must be from 1 to 100"),
        ({"short_side": 0}, "`short_side` must be positive or None"),
        ({"fps": -1.0}, "`fps` must be positive or None"),
        ({"num_workers": -1}, "`num_workers` must be 0 or more"),
        ({"decoder": "x"}, "`decoder` must be one of"),
        ({"time_limit": 0.0}, "`time_limit` must be positive"),
    ],
)
def test_write_checks_its_arguments(relation, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write(relation[0], tmp_path / "new", **changes)


def test_the_pipeline_checks_its_limit(relation, tmp_path, monkeypatch):
    module = types.ModuleType("apache_beam")
    monkeypatch.setitem(sys.modules, "apache_beam", module)
    with pytest.raises(ValueError, match="`time_limit` must be positive"):
        shard_pipeline(relation[0], tmp_path, time_limit=0.0)


def test_a_video_that_takes_too_long(relation, tmp_path):
    with pytest.raises(ValueError, match="not read within the limit"):
        write(relation[0], tmp_path, time_limit=1e-9)


_WORKER = """
import sys
import tensorflow as tf
service = tf.data.experimental.service
server = service.WorkerServer(service.WorkerConfig(sys.argv[1]))
print("ready", flush=True)
server.join()
"""


@pytest.fixture(scope="module")
def service():
    """The address of a dispatcher, and two workers in their own processes."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, address],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        yield dispatcher.target, workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def keys(batches):
    """Something that tells a batch from all others."""
    return [
        (frames.numpy().tobytes(), tuple(labels.numpy()))
        for frames, labels in batches
    ]


def test_service_makes_every_batch_once(written, service):
    address, _ = service
    clips = read(written, training=False, batch_size=1)
    assert sorted(keys(shards.distribute(clips, address))) == sorted(
        keys(clips)
    )


def test_service_goes_on_without_a_worker_that_was_killed(written, service):
    """No batch comes twice, and few are lost."""
    address, workers = service
    clips = read(written, training=True, repeat=True, batch_size=3, seed=5)
    served = shards.distribute(clips, address)
    assert served.cardinality() == tf.data.INFINITE_CARDINALITY
    iterator = iter(served)
    found = keys(itertools.islice(iterator, 10))
    workers[0].kill()
    workers[0].wait()
    found += keys(itertools.islice(iterator, 60))
    steps = {key: step for step, key in enumerate(keys(clips.take(120)))}
    assert len(steps) == 120
    seen = sorted(steps[key] for key in found)
    assert len(set(seen)) == 70
    # Whatever is missing was being made, or lies ahead.
    assert seen[-1] < 70 + 20


def test_service_refuses_what_it_cannot_do(relation, written):
    for clips, what in (
        (read(written, training=True), "counts epochs"),
        (from_files(relation[0], training=False), r"calls Python \(PyFunc\)"),
    ):
        with pytest.raises(ValueError, match=what):
            shards.distribute(clips, "grpc://localhost:1")
    clips = read(written, training=False)
    for address in ("grpc://localhost:1", "nowhere"):
        with pytest.raises(ValueError, match=f"a dispatcher.*{address}"):
            shards.distribute(clips, address)
