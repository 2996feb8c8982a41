import csv
import dataclasses
import http.server
import os
import shutil
import threading
import time

import av
import numpy as np
import pytest

from keras_nonlocal.data import decode
from keras_nonlocal.data import synthetic

# Enough to tell frames apart, and little memory for the 1080p files.
SHORT_SIDE = 48

NOT_VIDEOS = {
    "crunching.mp3",
    "with-attached-pic.mp3",
    "result.webm",
    "nasa_13013.mp4.audio.mp3",
    "gs-16b-2c-44100hz.mp4",
    "made/not_a_video.mp4",
    "made/truncated_60pct.mp4",
}
# The manifest counts the first video stream, 320x180; the best one has more.
OTHER_STREAM = {"nasa_13013.mp4": 390}


def reference(path, short_side=SHORT_SIDE):
    """Every frame in the decoder's order, until the end or an error."""
    frames, complete = [], True
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        try:
            for frame in container.decode(stream):
                height, width = frame.height, frame.width
                if short_side is not None:
                    shorter = min(height, width)
                    height = height * short_side // shorter
                    width = width * short_side // shorter
                rgb = frame.reformat(
                    width, height, "rgb24", interpolation="BILINEAR"
                )
                turns = frame.rotation // 90
                frames.append(np.rot90(rgb.to_ndarray(), turns))
        except av.FFmpegError:
            complete = False
    return np.stack(frames), complete


def assert_frame_exact(path, every=False):
    expected, complete = reference(path)
    assert complete
    total = len(expected)
    assert decode.scan(path).num_frames == total
    rng = np.random.default_rng(0)
    clips = [[0], [total - 1], [total // 2, total - 1, 0, total // 2]]
    starts = [total // 3, *rng.integers(total, size=2)]
    clips += [(start + 2 * np.arange(8)) % total for start in starts]
    clips += [[number] for number in range(total) if every]
    for indices in clips:
        frames = decode.read_frames(path, indices, SHORT_SIDE)
        np.testing.assert_array_equal(frames, expected[indices])


def names(shared, folder):
    root = shared / "data" / folder
    found = (path for path in root.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(root)) for path in found)


def test_every_awkward_file(shared):
    """Frame-exact, or a `VideoError` that says how far decoding came."""
    folder = shared / "data" / "awkward"
    with open(folder / "manifest.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(names(shared, "awkward")) - {"manifest.csv"}
    for name, row in rows.items():
        path = str(folder / name)
        begin = time.monotonic()
        if name in NOT_VIDEOS:
            with pytest.raises(decode.VideoError, match=name):
                decode.scan(path)
        elif row["decode_error"]:
            last = decode.scan(path).num_frames - 1
            message = f"{name}: only {row['decoded_frames']} of {last + 1} "
            with pytest.raises(decode.VideoError, match=message):
                decode.read_frames(path, [0, last])
        else:
            total = OTHER_STREAM.get(name, int(row["decoded_frames"]))
            assert decode.scan(path).num_frames == total, name
            assert_frame_exact(path)
        assert time.monotonic() - begin < 20, name


def test_every_real_clip(shared):
    for name in names(shared, "real_clips"):
        assert_frame_exact(str(shared / "data" / "real_clips" / name))


def test_frames_before_the_damage_are_read(shared):
    path = shared / "data" / "awkward" / "corrupted.mp4"
    expected, complete = reference(path)
    assert not complete
    assert len(expected) == 28
    frames = decode.read_frames(path, [27, 3], SHORT_SIDE)
    np.testing.assert_array_equal(frames, expected[[27, 3]])


@pytest.mark.parametrize(
    ("name", "size", "turns"),
    [
        ("video_0.mov", (320, 568), 0),
        ("video_90.mov", (568, 320), 3),
        ("video_180.mov", (320, 568), 2),
        ("video_270.mov", (568, 320), 1),
    ],
)
def test_rotation(shared, name, size, turns):
    path = shared / "data" / "awkward" / name
    index = decode.scan(path)
    assert (index.height, index.width, index.rotation) == (*size, turns)
    assert decode.read_frames(path, [0]).shape == (1, *size, 3)
    smaller = decode.read_frames(path, [0], 64).shape
    assert smaller == ((1, 113, 64, 3) if turns % 2 else (1, 64, 113, 3))


def write(
    path, codec="libx264", options=(), num_frames=60, skip=0, size=64, rate=25
):
    """Writes noise that moves, leaving out the first `skip` packets."""
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(16, 16, 3), dtype="uint8")
    noise = noise.repeat(size // 8, 0).repeat(size // 8, 1)
    packets = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate, options=dict(options))
        stream.height, stream.width = size, size
        stream.pix_fmt = "yuv420p"
        for i in range(num_frames):
            image = np.roll(noise, (i, 3 * i), (0, 1))[:size, :size]
            image = np.ascontiguousarray(image)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            packets += stream.encode(frame)
        packets += stream.encode()
        if skip == "to keyframe":
            skip = [i for i, p in enumerate(packets) if p.is_keyframe][1]
        for packet in packets[skip:]:
            container.mux(packet)
    return str(path)


X264 = {"bf": "3", "g": "10", "preset": "veryfast"}
OPEN_GOP = X264 | {"x264-params": "open-gop=1:scenecut=0"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", X264),
        ("a.mkv", "libx264", OPEN_GOP),
        ("a.ts", "libx264", OPEN_GOP),
        ("a.mkv", "libx264", {"g": "10", "x264-params": "intra-refresh=1"}),
        ("a.avi", "libx264", OPEN_GOP),
        ("a.ts", "libx264", X264 | {"x264-params": "tff=1"}),
        ("a.mp4", "libx264", X264 | {"x264-params": "bff=1"}),
        ("a.avi", "mpeg4", {"g": "10", "bf": "2"}),
        ("a.mpg", "mpeg2video", {"g": "10", "bf": "2"}),
        ("a.webm", "libvpx-vp9", {"g": "10", "cpu-used": "8"}),
    ],
)
def test_frame_exact_for_streams_of_all_kinds(tmp_path, name, codec, options):
    assert_frame_exact(write(tmp_path / name, codec, options), every=True)


def hide_frames(source, target, hidden):
    """Copies a VP8 file, clearing the header's bit "show this frame"."""
    with av.open(source) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if not packet.size:
                break
            content = bytearray(bytes(packet))
            content[0] &= 0xEF if number in hidden else 0xFF
            copy = av.Packet(bytes(content))
            copy.pts, copy.dts = packet.pts, packet.dts
            copy.time_base, copy.stream = packet.time_base, stream
            copy.is_keyframe = packet.is_keyframe
            new.mux(copy)


def test_hidden_frames_of_vp8_do_not_count(tmp_path):
    options = {"g": "10", "auto-alt-ref": "0"}
    path = write(tmp_path / "a.webm", "libvpx", options)
    hide_frames(path, tmp_path / "b.webm", {15, 43})
    assert decode.scan(tmp_path / "b.webm").num_frames == 58
    assert len(decode.scan(tmp_path / "b.webm").keyframes) > 1
    assert_frame_exact(tmp_path / "b.webm", every=True)


@pytest.mark.parametrize(
    ("options", "skip"),
    [
        (X264, 4),
        (X264 | {"bf": "0"}, 4),
        (OPEN_GOP, "to keyframe"),  # And its leading pictures.
    ],
)
def test_cut_stream_is_decoded_from_the_start(tmp_path, options, skip):
    path = write(tmp_path / "a.mkv", options=options, skip=skip)
    expected, _ = reference(path)
    assert len(expected) < decode.scan(path).num_frames
    for number in range(len(expected)):
        frames = decode.read_frames(path, [number], SHORT_SIDE)
        np.testing.assert_array_equal(frames, expected[[number]])


def test_frames_with_the_same_time(tmp_path):
    """Matroska rounds to milliseconds, here two frames to each."""
    options = X264 | {"bf": "0", "g": "9"}
    path = write(tmp_path / "a.mkv", options=options, rate=2000)
    assert_frame_exact(path, every=True)


def concatenated(tmp_path):
    """A raw stream that goes from 64x64 to 128x128 pixels at frame 10."""
    path = tmp_path / "both.h264"
    with open(path, "wb") as file:
        for size in (64, 128):
            part = write(tmp_path / f"{size}.h264", num_frames=10, size=size)
            with open(part, "rb") as source:
                shutil.copyfileobj(source, file)
    return path


def test_a_size_that_changes_is_rescaled(tmp_path):
    path = concatenated(tmp_path)
    first, second = decode.read_frames(path, [0, 10]).astype(int)
    assert first.shape == (64, 64, 3)
    # Both parts begin with the same picture.
    assert np.abs(first - second).mean() < 10


def test_a_size_that_grows_beyond_the_limit(tmp_path, monkeypatch):
    path = concatenated(tmp_path)
    monkeypatch.setattr(decode, "MAX_PIXELS", 64 * 64)
    assert decode.read_frames(path, [5]).shape == (1, 64, 64, 3)
    with pytest.raises(decode.VideoError, match=r"only \d+ of 20"):
        decode.read_frames(path, [15])


@pytest.fixture
def video(tmp_path):
    return write(tmp_path / "video.mp4", options=X264)


@pytest.fixture
def decodings(monkeypatch):
    """The keyframes at which decoding began, or "start" for counting."""
    by_times, by_counting = decode._decode_by_times, decode._decode_by_counting
    begun = []

    def spy_times(path, index, keyframe, clip):
        begun.append(keyframe)
        return by_times(path, index, keyframe, clip)

    def spy_counting(*args):
        begun.append("start")
        return by_counting(*args)

    monkeypatch.setattr(decode, "_decode_by_times", spy_times)
    monkeypatch.setattr(decode, "_decode_by_counting", spy_counting)
    return begun


def test_starts_at_the_nearest_keyframe(video, decodings):
    decode.read_frames(video, [35, 41, 39])
    assert decodings == [30]
    decode.read_frames(video, [40])
    assert decodings == [30, 40]


def test_wrong_timestamps_are_noticed(video, decodings, monkeypatch):
    index = decode.scan(video)
    wrong = np.delete(index.timestamps, 44)
    wrong = dataclasses.replace(index, timestamps=wrong)
    monkeypatch.setattr(decode, "scan", lambda path: wrong)
    expected, _ = reference(video)
    frames = decode.read_frames(video, [42, 50], SHORT_SIDE)
    np.testing.assert_array_equal(frames, expected[[42, 50]])
    assert decodings == [40, "start"]


def test_a_promise_not_kept_is_an_error(video, monkeypatch):
    index = dataclasses.replace(decode.scan(video), num_frames=70)
    monkeypatch.setattr(decode, "scan", lambda path: index)
    with pytest.raises(decode.VideoError, match="only 60 of 70 frames"):
        decode.read_frames(video, [65])


def test_size_and_transform(video):
    full = decode.read_frames(video, [5, 5, 2])
    assert full.shape == (3, 64, 64, 3)
    assert full.dtype == np.uint8
    np.testing.assert_array_equal(full[0], full[1])
    cropped = decode.read_frames(video, [5, 5, 2], None, lambda f: f[3:, :9])
    np.testing.assert_array_equal(cropped, full[:, 3:, :9])


def test_mirrored_and_turned_frames(video):
    frames = decode.read_frames(video, [7, 3, 7])
    mirrored = decode.read_frames(video, [7, 3, 7], None, lambda f: f[:, ::-1])
    np.testing.assert_array_equal(mirrored, frames[:, :, ::-1])
    turned = decode.read_frames(video, [7, 3, 7], None, np.rot90)
    np.testing.assert_array_equal(turned, np.rot90(frames, axes=(1, 2)))
    assert mirrored.flags.c_contiguous


def test_a_transform_may_give_any_array(video):
    means = decode.read_frames(
        video, [7, 3], None, lambda f: f.mean((0, 1), "float32")
    )
    frames = decode.read_frames(video, [7, 3])
    assert means.dtype == np.float32
    np.testing.assert_array_equal(means, frames.mean((1, 2), "float32"))


def test_frames_that_nothing_needs_are_not_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", options=X264 | {"g": "60", "sc": "0"})
    original, numbers = decode._numbered_frames, []

    def spy(*args):
        for number, frame in original(*args):
            numbers.append(number)
            yield number, frame

    monkeypatch.setattr(decode, "_numbered_frames", spy)
    decode.read_frames(path, [0, 40])
    assert numbers == sorted(set(numbers))
    assert {0, 40} < set(numbers)
    assert len(numbers) < 30  # Of 41.


@pytest.mark.parametrize("indices", [[], [-1], [60]])
def test_indices_must_exist(video, indices):
    with pytest.raises(ValueError, match="`indices` must be one or more"):
        decode.read_frames(video, indices)


def test_a_changed_file_is_scanned_again(video, tmp_path):
    assert decode.scan(video).num_frames == 60
    assert decode.scan(video) is decode.scan(video)
    other = write(tmp_path / "other.mp4", num_frames=7)
    shutil.copy(other, video)
    assert decode.scan(video).num_frames == 7


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(decode.VideoError, match="No such file"):
        decode.scan(tmp_path / "missing.mp4")
    with pytest.raises(decode.VideoError, match=str(tmp_path)):
        decode.read_frames(tmp_path, [0])


def test_playlists_do_not_reach_the_network(tmp_path):
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        path = tmp_path / "list.m3u8"
        address = f"http://localhost:{server.server_port}/a.ts"
        path.write_text(f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(decode.VideoError, match=r"list\.m3u8"):
            decode.scan(path)
        server.shutdown()
        thread.join()
    assert requests == []


def test_playlists_do_not_reach_other_files(video, tmp_path):
    write(tmp_path / "a.ts", options=X264, num_frames=5)
    os.mkfifo(tmp_path / "pipe.ts")
    playlist = (
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST"
    )
    # To open the pipe would wait for ever.
    for name, text in (
        ("a.m3u8", playlist.format(f"file://{tmp_path}/a.ts")),
        ("pipe.m3u8", playlist.format(f"file://{tmp_path}/pipe.ts")),
        ("a.mp4", "ffconcat version 1.0\nfile a.ts\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(decode.VideoError, match="that name files are not"):
            decode.scan(tmp_path / name)


def test_limits(video, monkeypatch):
    with pytest.raises(decode.VideoError, match="pixels"):
        decode.read_frames(video, [0], short_side=2**13 + 1)
    decode._scan.cache_clear()
    monkeypatch.setattr(decode, "MAX_PACKETS", 59)
    with pytest.raises(decode.VideoError, match="more than 59 packets"):
        decode.scan(video)
    monkeypatch.setattr(decode, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(decode.VideoError, match="frames of 64x64 pixels"):
        decode.scan(video)


def test_exactly_at_the_limits(video, monkeypatch):
    decode._scan.cache_clear()
    monkeypatch.setattr(decode, "MAX_PACKETS", 60)
    monkeypatch.setattr(decode, "MAX_PIXELS", 64 * 64)
    assert decode.read_frames(video, [59]).shape == (1, 64, 64, 3)


def damaged(data, rng):
    """A shortened copy, and one with some bytes replaced."""
    yield data[: rng.integers(len(data))]
    changed = bytearray(data)
    for position in rng.integers(len(data), size=20):
        changed[position] = rng.integers(256)
    yield bytes(changed)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_damage_gives_frames_or_a_video_error(tmp_path, suffix):
    whole = write(tmp_path / f"whole.{suffix}", options=X264, num_frames=30)
    with open(whole, "rb") as file:
        data = file.read()
    rng = np.random.default_rng(0)
    path = tmp_path / f"damaged.{suffix}"
    outcomes = set()
    for _ in range(40):
        for content in damaged(data, rng):
            path.write_bytes(content)
            try:
                last = decode.scan(path).num_frames - 1
                frames = decode.read_frames(path, [0, last // 2, last], 32)
                assert frames.dtype == np.uint8
                assert len(frames) == 3
                outcomes.add("read")
            except decode.VideoError as error:
                assert str(path) in str(error)
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_files_are_closed(video, tmp_path):
    broken = tmp_path / "broken.mp4"
    with open(video, "rb") as file:
        broken.write_bytes(file.read()[:-3000])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        decode._scan.cache_clear()
        decode.read_frames(video, [45])
        with pytest.raises(decode.VideoError):
            decode.read_frames(broken, [59])
    assert len(os.listdir("/proc/self/fd")) == before


def test_ffmpeg_is_silent(tmp_path, capfd):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    with pytest.raises(decode.VideoError):
        decode.scan(path)
    assert capfd.readouterr() == ("", "")


def test_synthetic_colours_survive(tmp_path):
    frames = np.zeros((4, 32, 32, 3), "uint8")
    frames[:, :16] = [220, 40, 40]
    synthetic.write_video(tmp_path / "a.mp4", frames)
    read = decode.read_frames(tmp_path / "a.mp4", range(4)).astype(int)
    assert np.abs(read - frames)[:, 2:14].max() < 16


def test_a_pipe_is_refused_at_once(tmp_path):
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with pytest.raises(decode.VideoError, match="not a regular file"):
        decode.scan(path)


def test_awkward_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.zeros((3, 16, 16, 3), "uint8")
    synthetic.write_video(tmp_path / "c:olon.mp4", frames)
    assert decode.scan("c:olon.mp4").num_frames == 3
    with pytest.raises(decode.VideoError, match="null"):
        decode.scan("a\0b.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times(tmp_path, name):
    index = decode.scan(write(tmp_path / name, options=X264))
    assert index.fps == 25
    assert index.times.dtype == np.float64
    np.testing.assert_allclose(index.times, np.arange(60) / 25, atol=1e-3)


def test_times_of_a_variable_rate(shared):
    path = shared / "data" / "awkward" / "made" / "vfr_2_speeds.mp4"
    index = decode.scan(path)
    gaps = np.diff(index.times)
    assert (gaps.min(), gaps.max()) == pytest.approx((0.02, 0.1), abs=1e-3)
    assert 17 < index.fps < 18


@pytest.mark.parametrize(
    ("name", "skip"), [("reordered.avi", 0), ("cut.mkv", "to keyframe")]
)
def test_times_that_cannot_be_trusted(tmp_path, name, skip):
    index = decode.scan(write(tmp_path / name, options=OPEN_GOP, skip=skip))
    assert index.times.shape == (0,)
    assert index.fps == 25


def retimed(source, target, seconds):
    """Copies a video, its frames at the given seconds."""
    with av.open(source) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for packet, second in zip(packets, seconds, strict=True):
            packet.pts = packet.dts = round(second / packet.time_base)
            packet.stream = stream
            new.mux(packet)
    return str(target)


@pytest.mark.parametrize(
    ("seconds", "sane"),
    [
        ([0, 1, 61, 62, 63], True),
        ([0, 1, 61.1, 62.1, 63.1], False),
        (np.arange(5) * 50_000, False),
        (np.linspace(0, 86_000, 1436), True),
        (np.linspace(0, 86_500, 1450), False),
    ],
)
def test_clocks_that_jump(tmp_path, seconds, sane):
    source = write(
        tmp_path / "a.mkv", "mpeg4", num_frames=len(seconds), size=16
    )
    index = decode.scan(retimed(source, tmp_path / "b.mkv", seconds))
    assert len(index.timestamps) == len(seconds)
    assert len(index.times) == (len(seconds) if sane else 0)


def test_the_rate_may_be_unknown(tmp_path):
    source = write(tmp_path / "a.mkv", "libvpx", num_frames=1)
    path = retimed(source, tmp_path / "b.mkv", [0])
    assert decode.scan(path).fps == 0.0


def test_a_time_limit_that_is_kept_changes_nothing(video):
    expected = decode.read_frames(video, [3, 40])
    with decode.time_limit(60):
        np.testing.assert_array_equal(
            decode.read_frames(video, [3, 40]), expected
        )


def test_scanning_ends_with_the_time_and_can_be_repeated(video):
    decode._scan.cache_clear()
    message = r"video\.mp4: not read within the limit of 1e-09 s"
    with decode.time_limit(1e-9):
        with pytest.raises(decode.TimeLimitError, match=message):
            decode.scan(video)
    assert decode.scan(video).num_frames == 60


def test_reading_ends_with_the_time(video, decodings):
    """And is not taken for a broken file, which would be read again."""
    decode.scan(video)
    seen = []

    def slow(frame):
        seen.append(time.sleep(0.05))
        return frame

    with decode.time_limit(0.12):
        with pytest.raises(decode.TimeLimitError, match="limit of 0.12 s"):
            decode.read_frames(video, range(30, 60), transform=slow)
    assert decodings == [30]
    assert 1 < len(seen) < 10


def test_the_first_time_limit_to_end_holds(video):
    decode.scan(video)
    with decode.time_limit(1e-9):
        with decode.time_limit(60):
            with pytest.raises(decode.TimeLimitError, match="1e-09 s"):
                decode.read_frames(video, [0])
    with decode.time_limit(60):
        with decode.time_limit(1e-9):
            with pytest.raises(decode.TimeLimitError, match="1e-09 s"):
                decode.read_frames(video, [0])
        assert len(decode.read_frames(video, [0])) == 1


def test_a_time_limit_is_of_one_thread(video):
    shapes = []

    def read():
        shapes.append(decode.read_frames(video, [59]).shape)

    with decode.time_limit(1e-9):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert shapes == [(1, 64, 64, 3)]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_limit_must_be_positive(seconds):
    with pytest.raises(ValueError, match="`seconds` must be positive"):
        with decode.time_limit(seconds):
            pass


def test_ffmpeg_is_interrupted_within_one_call(video, tmp_path):
    """Matroska is searched byte by byte: this file would take minutes."""
    path = tmp_path / "a.mkv"
    write(path, options=X264, num_frames=3)
    with open(path, "r+b") as file:
        file.truncate(2**38)  # Takes no space on disk.
    begin = time.monotonic()
    with decode.time_limit(0.2):
        with pytest.raises(decode.TimeLimitError, match=r"a\.mkv"):
            decode.scan(path)
    assert time.monotonic() - begin < 5


def test_a_file_that_grows_is_read_as_it_was(tmp_path, monkeypatch):
    path = write(tmp_path / "a.ts", options=X264)
    with open(path, "rb") as file:
        content = file.read()
    original = decode._in_time

    def appending(path, packets):
        """A writer that is always faster than the reader."""
        with open(path, "ab") as file:
            for packet in original(path, packets):
                file.write(content)
                file.flush()
                yield packet

    monkeypatch.setattr(decode, "_in_time", appending)
    assert decode.scan(path).num_frames == 60
    assert decode.scan(path).num_frames > 600
