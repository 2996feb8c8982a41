import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import preparation
from keras_nonlocal.data import transcode
from keras_nonlocal.data.jobs import Journal
from keras_nonlocal.data.preparation import prepare
from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.videos import Problem
from keras_nonlocal.data.videos import VideoList
from tests.data import files

NAMES = ("jump", "run")


def listed(paths, labels=None, **fields):
    paths = [os.fspath(path) for path in paths]
    labels = np.zeros(len(paths), int) if labels is None else labels
    return VideoList(paths, labels, fields.pop("names", NAMES), **fields)


def everything(path):
    return decode.read_frames(path, range(decode.scan(path).num_frames))


def assert_alike(path, expected):
    """The same frames; the one before or after would be 15 levels off."""
    frames = everything(path).astype(int)
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).mean(axis=(1, 2, 3)).max() < 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A video with one keyframe, larger than what is made of it."""
    frames = files.moving(0, num_frames=40, size=64)
    root = tmp_path_factory.mktemp("source")
    return files.write(root / "video.mp4", frames)


def test_frames_times_and_keyframes(source, tmp_path):
    videos = listed([source], [1])
    result = prepare(
        videos, tmp_path, short_side=32, gop=10, crf=4, num_workers=1
    )
    (path,) = result.paths
    assert result.labels.tolist() == [1] and result.problems == ()
    assert read_folder(tmp_path).paths == (path,)
    old, new = decode.scan(source), decode.scan(path)
    assert (new.height, new.width, new.rotation) == (32, 32, 0)
    assert new.num_frames == 40 and new.fps == 25
    np.testing.assert_allclose(new.times, old.times, atol=1e-4)
    assert len(old.keyframes) == 1
    assert np.diff([*new.keyframes, 40]).max() <= 10
    expected = decode.read_frames(source, range(40), 32).astype(int)
    assert_alike(path, expected)


def test_sound_is_left_out(source, tmp_path):
    with_sound = tmp_path / "sound.mkv"
    with av.open(str(with_sound), "w") as container:
        pictures = container.add_stream("mpeg4", 25)
        sound = container.add_stream("pcm_s16le", 8000)
        pictures.height = pictures.width = 32
        for frame in files.moving(0, 8):
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(pictures.encode(frame))
        tone = np.zeros((1, 8000), "int16")
        tone = av.AudioFrame.from_ndarray(tone, "s16", "mono")
        tone.rate = 8000
        container.mux(sound.encode(tone))
        container.mux(pictures.encode())
    (path,) = prepare(listed([with_sound]), tmp_path / "out").paths
    with av.open(path) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_rotated_odd_and_small(source, tmp_path):
    files.turn(source, tmp_path / "turned.mp4")
    # 17 rows of 33 pixels are 18 of 34, as each colour is that of 2x2 pixels.
    odd = files.moving(1, 8, 40)[:, :17, :33]
    files.write(tmp_path / "odd.avi", odd, "ffv1")
    turned, odd_result = prepare(
        listed([tmp_path / "turned.mp4", tmp_path / "odd.avi"]),
        tmp_path / "out",
        crf=4,
    ).paths
    upright = everything(source)
    assert decode.scan(turned).rotation == 0
    assert_alike(turned, np.rot90(upright, -1, (1, 2)).astype(int))
    frames = everything(odd_result)
    assert frames.shape == (8, 18, 34, 3)
    differences = np.abs(frames[:, :17, :33].astype(int) - odd)
    assert differences.mean() < 4


def test_uneven_times_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    ticks = np.cumsum(rng.integers(20, 200, 24)).tolist()
    frames = files.moving(2, num_frames=24)
    path = files.write(tmp_path / "uneven.mkv", frames, ticks=ticks)
    (result,) = prepare(listed([path]), tmp_path / "out").paths
    seconds = (np.array(ticks) - ticks[0]) / 1000
    np.testing.assert_allclose(decode.scan(result).times, seconds, atol=1e-4)


def test_folder_of_pictures(tmp_path):
    frames = files.moving(3, num_frames=8)
    folder = files.write_folder(tmp_path / "in", frames)
    (result,) = prepare(listed([folder]), tmp_path / "out", crf=4).paths
    assert_alike(result, frames.astype(int))
    assert decode.scan(result).fps == 25


def test_segments_and_actions(source, tmp_path):
    videos = listed(
        [source, source],
        np.array([[1, 1], [1, 0]]),
        segments=[[0.4, 0.8], [1.2, np.nan]],
        actions=[
            [[0, 0.0, 0.6], [1, 0.5, 1.6], [1, 1.0, 1.6]],
            [[0, 0.0, 2.0]],
        ],
    )
    result = prepare(videos, tmp_path, crf=4)
    assert result.segments is None
    np.testing.assert_allclose(
        result.actions[0], [[0, 0.0, 0.2], [1, 0.1, 0.4]]
    )
    np.testing.assert_allclose(result.actions[1], [[0, 0.0, 0.8]])
    np.testing.assert_array_equal(result.labels, videos.labels)
    whole = everything(source).astype(int)
    assert_alike(result.paths[0], whole[10:20])
    assert_alike(result.paths[1], whole[30:])
    assert len(set(result.paths)) == 2
    assert os.path.basename(os.path.dirname(result.paths[0])) == "videos"


def test_long_videos_take_little_memory(source, tmp_path, monkeypatch):
    """Part by part it comes to the same."""
    requests = [
        transcode.TranscodeRequest(
            str(source), str(tmp_path / name), str(tmp_path / ".part")
        )
        for name in ("parts", "whole")
    ]
    with monkeypatch.context() as patch:
        patch.setattr(transcode, "_MAX_BYTES", 7 * 64 * 64 * 3)
        transcode.transcode(requests[0])
    transcode.transcode(requests[1])
    parts, whole = (tmp_path / name for name in ("parts", "whole"))
    assert parts.read_bytes() == whole.read_bytes()
    assert not (tmp_path / ".part").exists()


def test_bad_files_are_left_out(source, tmp_path):
    files.damage(source, tmp_path / "damaged.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    names = ["damaged.mp4", "text.mp4", "nowhere.mp4"]
    paths = [source, *(tmp_path / name for name in names)]
    earlier = Problem("unknown label", "a list")
    videos = listed(paths, [1, 0, 0, 0], problems=(earlier,))
    out = tmp_path / "out"
    result = prepare(videos, out)
    assert len(result) == 1 and result.labels.tolist() == [1]
    assert result.problems[0] == earlier
    problems = result.problems[1:]
    assert [os.path.basename(x.where) for x in problems] == names
    assert {x.kind for x in problems} == {"cannot be prepared"}
    assert "frames could be read" in problems[0].detail
    summary = json.loads((out / "prepared.json").read_text())
    assert [x["where"] for x in summary["problems"][1:]] == [
        x.where for x in problems
    ]
    assert summary["videos"] == [
        {
            "path": result.paths[0],
            "source": str(source),
            "segment": None,
            "label": 1,
        }
    ]
    assert [x.name for x in (out / "jump").iterdir()] == []


def test_a_decoder_that_hangs(source, tmp_path, monkeypatch):
    target = "tests.data.job_targets:transcode"
    monkeypatch.setattr(preparation, "_TRANSCODE", target)
    result = prepare(listed([source]), tmp_path, time_limit=0.3)
    assert len(result) == 0
    (problem,) = result.problems
    assert problem.where == str(source) and "0.3" in problem.detail
    assert list((tmp_path / "jump").iterdir()) == []


def test_only_changed_files_are_encoded_again(source, tmp_path):
    sources = [tmp_path / "in" / name for name in ("a.mp4", "b.mp4")]
    sources[0].parent.mkdir()
    for path in sources:
        shutil.copy(source, path)
    out = tmp_path / "out"

    def times(**arguments):
        result = prepare(listed(sources), out, **arguments)
        return [os.stat(path).st_mtime_ns for path in result.paths]

    first = times()
    assert times() == first
    # A file that has been cut off since is none of ours.
    path = prepare(listed(sources), out).paths[0]
    os.truncate(path, 100)
    second = times()
    assert second[0] > first[0] and second[1] == first[1]
    assert decode.scan(path).num_frames == 40
    files.write(sources[1], files.moving(5))
    third = times()
    assert third[0] == second[0] and third[1] > second[1]
    fourth = times(crf=30)
    assert min(fourth) > max(third)


def test_videos_of_another_list_are_refused(source, tmp_path):
    """They would be read with the label and the name of earlier."""
    sources = [tmp_path / "in" / f"{name}.mp4" for name in "ab"]
    sources[0].parent.mkdir()
    for path in sources:
        shutil.copy(source, path)
    out = tmp_path / "out"
    prepare(listed(sources), out, short_side=16)
    for videos in (listed(sources, [1, 0]), listed(sources[1:])):
        with pytest.raises(ValueError, match="1 such videos.*jump/a.mp4"):
            prepare(videos, out, short_side=16)
    assert len(read_folder(out)) == 2
    (out / "jump" / "a.mp4").unlink()
    assert len(prepare(listed(sources, [1, 0]), out, short_side=16)) == 2


def test_what_cannot_be_read_any_more_is_not_kept(source, tmp_path):
    path, out = tmp_path / "a.mp4", tmp_path / "out"
    shutil.copy(source, path)
    prepare(listed([path, source]), out, short_side=16)
    path.write_text("no video")
    result = prepare(listed([path, source]), out, short_side=16)
    assert result.problem_counts() == {"cannot be prepared": 1}
    assert read_folder(out).paths == result.paths


def test_a_journal_that_leads_elsewhere(source, tmp_path):
    out, other = tmp_path / "out", tmp_path / "a" / "b.mp4"
    for folder in out, other.parent:
        folder.mkdir()
        (folder / "b.mp4").write_text("mine")
    targets = ["../a/b.mp4", "../../b.mp4", str(other), "b.mp4", "..", 3, None]
    with Journal(out / "prepared.jsonl") as journal:
        for target in targets:
            journal.add({"target": target}, 4)
        journal.add(["target"], 4)
    assert len(prepare(listed([source]), out, short_side=16)) == 1
    assert other.exists() and (out / "b.mp4").exists()


def test_a_full_disk_is_no_fault_of_the_videos(source, tmp_path):
    other = shutil.copy(source, tmp_path / "other.mp4")
    out = tmp_path / "out"
    # The first is there already.
    first = files.write(tmp_path / "a.mp4", files.moving(0, 1))
    (path,) = prepare(listed([first]), out).paths
    before = os.stat(path).st_mtime_ns
    videos = listed([first, source, other])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*mp4"):
            prepare(videos, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(out / "jump") == ["a.mp4"]
    result = prepare(videos, out)
    assert len(result) == 3 and result.problems == ()
    assert os.stat(path).st_mtime_ns == before


def test_a_video_that_was_cut_off_is_left_out(tmp_path):
    """Or the new file would have no trace of it."""
    whole = files.write(tmp_path / "whole.avi", files.moving(0), "mpeg4")
    files.cut(whole, tmp_path / "cut.avi", 0.7)
    videos = listed([whole, tmp_path / "cut.avi"])
    result = prepare(videos, tmp_path / "out")
    assert len(result) == 1
    (problem,) = result.problems
    assert problem.where == videos.paths[1]
    assert "truncated: " in problem.detail
    assert "of 64 frames that its header promises" in problem.detail


def test_pictures_that_were_written_anew(tmp_path):
    folder = files.write_folder(tmp_path / "in", files.moving(3, 3))
    other = files.write_folder(tmp_path / "other", files.moving(4, 3))
    videos = listed([folder])
    (result,) = prepare(videos, tmp_path / "out", crf=4).paths
    for picture in other.iterdir():
        (folder / picture.name).write_bytes(picture.read_bytes())
    prepare(videos, tmp_path / "out", crf=4)
    assert_alike(result, files.moving(4, 3).astype(int))


def test_names_stay_but_for_those_that_several_have(source, tmp_path):
    paths = []
    for name in ("a/x.mp4", "b/X.mp4", "b/y.avi"):
        paths.append(tmp_path / "in" / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, paths[-1])
    out = tmp_path / "out"
    result = prepare(listed(paths), out, short_side=16, num_workers=1)
    names = [os.path.relpath(path, out) for path in result.paths]
    assert names[2] == "jump/y.mp4"
    assert re.fullmatch("jump/x-[0-9a-f]{12}.mp4", names[0])
    assert re.fullmatch("jump/X-[0-9a-f]{12}.mp4", names[1])
    again = prepare(listed(paths[::-1]), out, short_side=16, num_workers=1)
    assert again.paths == result.paths[::-1]


def test_names_from_strangers(source, tmp_path):
    """Classes and files with names that lead elsewhere, or to one another."""
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["a\n$(x).mp4", "\udcff.mp4", ".hidden.mp4", "x" * 250 + ".mp4"]
    paths = [folder / name for name in names]
    for path in paths:
        shutil.copy(source, path)
    classes = ("../up", "a/b", "a_b", "..")
    videos = listed(paths, [0, 1, 2, 3], names=classes)
    out = tmp_path / "out"
    result = prepare(videos, out)
    assert len(result) == 4 and result.problems == ()
    folders = {os.path.dirname(path) for path in result.paths}
    assert len(folders) == 4
    assert {os.path.dirname(path) for path in folders} == {str(out)}
    assert len(read_folder(out)) == 4


def test_goes_on_after_a_kill(source, tmp_path):
    script = f"""
import sys, types
package = types.ModuleType("keras_nonlocal")
package.__path__ = [{os.path.dirname(preparation.__file__)!r} + "/.."]
sys.modules["keras_nonlocal"] = package
from keras_nonlocal.data.preparation import prepare
from keras_nonlocal.data.videos import VideoList
prepare(VideoList(sys.argv[2:], [0] * 20, ("jump", "run")), sys.argv[1])
"""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    paths = [folder / f"{number:02}.mp4" for number in range(20)]
    for path in paths:
        shutil.copy(source, path)
    process = subprocess.Popen([sys.executable, "-c", script, out, *paths])
    journal, end = out / "prepared.jsonl", time.monotonic() + 30
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {
        path: path.stat().st_mtime_ns
        for path in (out / "jump").iterdir()
        if path.suffix == ".mp4" and not path.name.startswith(".")
    }
    result = prepare(listed(paths), out)
    assert len(result) == 20 and result.problems == ()
    again = [p for p, time in done.items() if p.stat().st_mtime_ns != time]
    # Those that were finished, but not noted down.
    assert len(again) <= 2 < len(done)
    assert len(list((out / "jump").iterdir())) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"short_side": 1}, "`short_side` must be an integer from 2 to 4096"),
        ({"gop": 0}, "`gop` must be an integer from 1"),
        ({"crf": 52}, "`crf` must be an integer from 0 to 51"),
        ({"crf": 20.0}, "`crf` must be an integer"),
        ({"num_workers": -1}, "num_workers"),
        ({"time_limit": 0}, "time_limit"),
    ],
)
def test_arguments(source, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(listed([source]), tmp_path, **arguments)


def test_videos_are_not_in_the_new_folder(source):
    with pytest.raises(ValueError, match="`out` must be a folder that"):
        prepare(listed([source]), source.parent)
