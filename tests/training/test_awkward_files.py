"""A training set of nothing but files that break loaders."""

import csv
import json
import os

import av
import keras
import numpy as np
import pytest

from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.training.callbacks import SkipReport


@pytest.fixture
def endless(tmp_path):
    """Ten hours of pictures of 16 pixels in one file that has no index."""
    path, part = tmp_path / "endless.h264", tmp_path / "part.h264"
    with av.open(str(part), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), "uint8"))
        for _ in range(1000):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(part.read_bytes() * 990)
    return path


def manifest(folder):
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def has_no_video(row):
    return (
        row["open_error"]
        or "NO VIDEO STREAM" in row.values()
        or "cover art" in row["why"]
    )


def skips_of_an_epoch(is_bad):
    """Each video is asked for once, and the next one for each that is bad."""
    count = 0
    for number in range(len(is_bad)):
        while is_bad[number % len(is_bad)]:
            count, number = count + 1, number + 1
    return count


def test_damage_is_that_of_the_manifest(shared):
    """Of the last frame of each file, in whose place an earlier one comes."""
    folder = shared / "data" / "awkward"
    damage = {}
    for row in manifest(folder):
        path = folder / row["file"]
        if not has_no_video(row):
            units = (1 - 1e-9, 0.0, 0.0, 0.0, 0.0)
            clip = read_clip(
                ClipRequest(str(path), ClipSpec(1), 1, (1, 1), units=units)
            )
            if clip.damage is not None:
                damage[row["file"]] = clip.damage
    expected = {
        row["file"]: row["decoded_frames"]
        for row in manifest(folder)
        if row["decode_error"]
    }
    assert set(damage) == set(expected)
    for name, count in expected.items():
        assert f"only {count} of " in damage[name]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_fit_completes_and_names_every_bad_file(
    shared, tmp_path, endless, num_workers
):
    folder = shared / "data" / "awkward"
    rows = manifest(folder)
    assert len(rows) == 48
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    paths = sorted(str(folder / row["file"]) for row in rows)
    # Between files that can be read, so that each is asked for once.
    paths = [paths[0], str(endless), *paths[1:], str(pipe)]
    videos = VideoList(paths, np.arange(len(paths)) % 2, ("a", "b"))
    skips = SkipLog(max_share=0.5)
    batches = clip_dataset(
        videos,
        ClipSpec(4, 2),
        batch_size=5,
        training=True,
        crop_size=16,
        short_side=(16, 20),
        num_workers=num_workers,
        time_limit=2.0,
        skips=skips,
    )
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    path = tmp_path / "skipped.json"
    history = model.fit(
        batches,
        shuffle=False,
        verbose=0,
        callbacks=[SkipReport(skips, path)],
    ).history
    assert np.isfinite(history["loss"]).all()
    assert history["slow"] == [1]
    written = json.loads(path.read_text())
    bad = {str(folder / row["file"]) for row in rows if has_no_video(row)}
    bad |= {str(pipe), str(endless)}
    assert set(written["skipped"]) == bad
    assert written["clips_read"] == len(paths)
    expected = skips_of_an_epoch([path in bad for path in paths])
    assert written["clips_skipped"] == expected
    assert history["skipped"] == [expected]
    for path, reason in written["skipped"].items():
        assert path in reason
    assert "not a regular file" in written["skipped"][str(pipe)]
    damaged = {str(folder / row["file"]) for row in rows if row["decode_error"]}
    assert set(written["damaged"]) <= damaged
