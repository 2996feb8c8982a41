"""`python -m keras_nonlocal.cli.shard` as a user runs it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from keras_nonlocal.data import synthetic
from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.shard_writer import write_shards
from keras_nonlocal.data.shards import read_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of two classes, one of them broken."""
    root = tmp_path_factory.mktemp("videos")
    synthetic.make_relation_dataset(
        root, 16, 2, num_frames=200, size=96, progress=False
    )
    (root / "train" / "same_colour" / "bro\nken.mp4").write_text("not a video")
    return root / "train"


def start(folder, out, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "keras_nonlocal.cli.shard",
            f"--data={folder}",
            f"--out={out}",
            "--num_shards=9",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def content(out):
    return {
        path.name: path.read_bytes()
        for path in pathlib.Path(out).iterdir()
        if path.name != ".lock"
    }


def test_killed_half_way_it_ends_with_the_same_files(folder, tmp_path):
    undisturbed = tmp_path / "undisturbed"
    write_shards(read_folder(folder), undisturbed, num_shards=9, progress=False)
    out = tmp_path / "out"
    killed = start(folder, out)
    while not list(out.glob("shard-*.json")):
        assert killed.poll() is None
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "index.json").exists()
    finished = {
        path: path.stat().st_ino
        for path in out.glob("*.tfrecord")
        if path.with_suffix(".json").exists()
    }
    again = start(folder, out)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert "16 of 17 videos in 9 shards" in output
    assert "bro\\nken.mp4: unreadable video" in output
    assert content(out) == content(undisturbed)
    assert {path: path.stat().st_ino for path in finished} == finished
    clips = read_shards(
        out,
        ClipSpec(2),
        batch_size=17,
        training=True,
        crop_size=32,
        short_side=(32, 32),
        verify=True,
    )
    assert len(list(clips)) == 1


def test_it_says_what_is_wrong(tmp_path):
    empty = start(tmp_path, tmp_path / "out")
    output, _ = empty.communicate(timeout=120)
    assert empty.returncode == 1
    assert str(tmp_path) in output and "Traceback" not in output
    assert not os.path.exists(tmp_path / "out")


def test_a_full_disk_leaves_nothing_unfinished(folder, tmp_path):
    out = tmp_path / "out"
    # Files may have 8 KiB, or 4 where a block is half a KiB.
    full = subprocess.run(
        ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh"]
        + [sys.executable, "-m", "keras_nonlocal.cli.shard"]
        + [f"--data={folder}", f"--out={out}", "--num_shards=2"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert full.returncode == 1
    assert "too large" in full.stdout + full.stderr
    assert "Traceback" not in full.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "settings.json",
    ]
