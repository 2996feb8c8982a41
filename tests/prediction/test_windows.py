"""Windows that slide over a video."""

import http.server
import pathlib
import threading
import tracemalloc

import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import ClipSource
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.frame_stream import TimedPicture
from keras_nonlocal.data.transforms import center_transform
from keras_nonlocal.evaluation.models import ClipInput
from keras_nonlocal.prediction import windows
from keras_nonlocal.prediction.windows import open_windows


def slide(video, clip, stride=None, **arguments):
    settings = ClipInput(clip, 28, 32)
    with open_windows(
        video, settings, stride, **{"time_limit": 60.0, **arguments}
    ) as opened:
        return list(opened.windows)


def clips_at(path, clip, starts):
    """The clips that begin at places of the line, as for training."""
    source = ClipSource.open(str(path), clip)
    transform = center_transform(
        source.index.height, source.index.width, 28, 32
    )
    return [source.read(source.numbers(s), transform) for s in starts]


@pytest.mark.parametrize(
    ("clip", "starts"),
    [
        # The last one ends with the video.
        (ClipSpec(4, 2), [*range(0, 75 - 7, 7), 75 - 7]),
        (ClipSpec(5, 3, "mmaction2"), [*range(0, 65, 13), 75 - 13]),
        # 4 x 6 x 25 / 30 = 20 frames.
        (ClipSpec(4, 6, "slowfast"), [0, 20, 40, 55]),
        # 3 s are 36 ticks, of which a window spans 7.
        (ClipSpec(4, 2, fps=12.0), [0, 7, 14, 21, 28, 29]),
        (ClipSpec(4, 2, fps=50.0), [*range(0, 147, 7), 143]),
    ],
)
def test_are_the_clips_that_begin_there(video, clip, starts):
    found = slide(video, clip)
    expected = clips_at(video, clip, starts)
    assert len(found) == len(expected)
    for window, frames in zip(found, expected, strict=True):
        np.testing.assert_array_equal(window.frames, frames)
    fps = clip.fps or 25.0
    np.testing.assert_allclose(
        [window.start for window in found], np.array(starts) / fps
    )
    assert found[-1].end == pytest.approx(3.0)


def test_stride_is_by_the_times_of_frames(uneven):
    """40 ms apart up to 1.6 s and then 80."""
    found = slide(uneven, ClipSpec(4, 2), 0.5)
    starts = [0, 13, 25, 38, 45, 52, 58, 64, 70, 73]
    times = [0, 0.52, 1.0, 1.52, 2.0, 2.56, 3.04, 3.52, 4.0, 4.24]
    np.testing.assert_allclose([w.start for w in found], times, atol=1e-6)
    for window, frames in zip(
        found, clips_at(uneven, ClipSpec(4, 2), starts), strict=True
    ):
        np.testing.assert_array_equal(window.frames, frames)


def test_at_a_rate_of_its_own_times_are_even(uneven):
    clip = ClipSpec(4, 5, fps=25.0)
    found = slide(uneven, clip, 0.6)
    np.testing.assert_allclose(
        [window.start for window in found],
        [0, 0.6, 1.2, 1.8, 2.4, 3.0, 3.6, 4.2 - 0.04],
        atol=0.05,
    )
    starts = [round(window.start * 25) for window in found]
    for window, frames in zip(
        found, clips_at(uneven, clip, starts), strict=True
    ):
        np.testing.assert_array_equal(window.frames, frames)


@pytest.mark.parametrize("short", ["loop", "clamp", "error"])
def test_a_video_shorter_than_a_window(video, short):
    clip = ClipSpec(8, 12, short=short)
    if short == "error":
        with pytest.raises(VideoError, match="needs 85 frames or more"):
            slide(video, clip)
        return
    (window,) = slide(video, clip)
    expected = read_clip(ClipRequest(str(video), clip, 28, (32, 32)))
    np.testing.assert_array_equal(window.frames, expected.frames)
    assert (window.start, window.end) == (0.0, pytest.approx(3.0))


def pictures(count, side=1):
    return (
        TimedPicture(number / 10, np.full((side, side, 3), number % 256, "u1"))
        for number in range(count)
    )


def test_windows_of_uneven_times_follow_each_other():
    times = [0.0, 0.1, 0.3, 0.35, 0.8, 0.9, 1.3]
    frame = np.zeros((32, 32, 3), "u1")
    for clip in (ClipSpec(1), ClipSpec(2), ClipSpec(3)):
        found = slide(iter([(7 + x, frame) for x in times]), clip)
        inner = [w for w in found if w.end < 1.3]
        assert [w.start for w in found[1:]][: len(inner)] == pytest.approx(
            [w.end for w in inner][: len(found) - 1]
        )
        # Of the last frame the time of the one before is taken.
        assert found[-1].end == pytest.approx(1.7)


def test_what_the_end_cuts_off():
    def starts(count, clip, stride):
        found = windows.sliding_windows(pictures(count), clip, stride, 10.0)
        return [round(10 * window.start) for window in found]

    # Overlapping ones are replaced by one that ends with the video.
    assert starts(10, ClipSpec(4), 0.2) == [0, 2, 4, 6]
    assert starts(11, ClipSpec(4), 0.2) == [0, 2, 4, 6, 7]
    # Between far ones there is nothing, unless one has begun.
    assert starts(20, ClipSpec(4), 1.0) == [0, 10]
    assert starts(22, ClipSpec(4), 1.0) == [0, 10, 18]
    # However short the stride, each frame begins one window.
    assert starts(6, ClipSpec(4), 0.001) == [0, 1, 2]


def test_memory_does_not_grow_with_the_video():
    def peak(count):
        tracemalloc.start()
        try:
            source = windows.sliding_windows(
                pictures(count, 32), ClipSpec(4, 4), 0.4, 10.0
            )
            for _ in source:
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # 60 and 1,200 times 3 KB.
    assert peak(1200) < 1.2 * peak(60) < 500_000


@pytest.fixture
def server(video):
    """Serves the video, and what would make FFmpeg ask for more."""
    asked = []
    content = {"/a%20b.mp4": video.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/live":
                self.send_response(200)
                kind = "multipart/x-mixed-replace; boundary=x"
                self.send_header("Content-Type", kind)
                self.end_headers()
                return
            if self.path not in content:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content[self.path])))
            self.end_headers()
            self.wfile.write(content[self.path])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        address = f"http://localhost:{server.server_port}"
        content["/list.m3u8"] = (
            f"#EXTM3U\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n".encode()
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield address, asked
        server.shutdown()
        thread.join()


def test_a_url_is_downloaded(server, video, monkeypatch, tmp_path):
    address, asked = server
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = f"{address}/a%20b.mp4"
    settings = ClipInput(ClipSpec(4, 2), 28, 32)
    with open_windows(url, settings, time_limit=60.0) as opened:
        found = list(opened.windows)
        assert opened.name == url
    for window, other in zip(found, slide(video, ClipSpec(4, 2)), strict=True):
        np.testing.assert_array_equal(window.frames, other.frames)
    assert asked == ["/a%20b.mp4"]
    # A playlist is no video, and nothing in it is asked for.
    with pytest.raises(VideoError, match="list.m3u8") as error:
        slide(f"{address}/list.m3u8", ClipSpec(4, 2))
    assert asked[1:] == ["/list.m3u8"] and str(tmp_path) not in str(error.value)
    with pytest.raises(VideoError, match="of the type multipart/x-mixed"):
        slide(f"{address}/live", ClipSpec(4, 2))
    with pytest.raises(VideoError, match="a.mp4: Invalid IPv6 URL"):
        slide("http://[x/a.mp4", ClipSpec(4, 2))
    with pytest.raises(VideoError, match="404"):
        slide(f"{address}/absent.mp4", ClipSpec(4, 2))
    monkeypatch.setattr(windows, "MAX_DOWNLOAD", 1000)
    with pytest.raises(VideoError, match="larger than"):
        slide(f"{address}/a%20b.mp4", ClipSpec(4, 2))
    assert list(pathlib.Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("stride", [0, -1.0, float("nan"), float("inf")])
def test_refuses_strides_that_are_none(video, stride):
    with pytest.raises(ValueError, match="`stride` must be"):
        slide(video, ClipSpec(4), stride)


def test_refuses_windows_that_do_not_fit_into_memory(video, monkeypatch):
    monkeypatch.setattr(windows, "_MAX_BYTES", 28 * 28 * 3 * 6)
    with pytest.raises(VideoError, match="the 7 frames of a window must take"):
        slide(video, ClipSpec(4, 2))
    # Before there are so many places of frames.
    with pytest.raises(ValueError, match="`window` must be of frames"):
        slide(video, ClipSpec(10**12))
    with pytest.raises(ValueError, match="`batch_size` must be"):
        next(windows.batches([], 0))
