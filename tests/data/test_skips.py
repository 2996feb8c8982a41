import json
import threading

import pytest

from keras_nonlocal.data import skips as module
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.skips import TooManySkipsError


def test_counts_by_what_happened():
    skips = SkipLog()
    skips.add_read("good.mp4")
    skips.add_read("half.mp4", "half.mp4: only 3 of 6 frames")
    skips.add("bad.mp4", VideoError("bad.mp4: no video stream"))
    skips.add("slow.mp4", TimeLimitError("slow.mp4: not read in 1 s"))
    assert skips.summary() == {
        "clips_read": 2,
        "clips_skipped": 2,
        "clips_slow": 1,
        "skipped": {
            "bad.mp4": "bad.mp4: no video stream",
            "slow.mp4": "slow.mp4: not read in 1 s",
        },
        "damaged": {"half.mp4": "half.mp4: only 3 of 6 frames"},
    }


def test_what_takes_too_long_twice_is_given_up():
    skips = SkipLog()
    for expected in (False, False, True):
        assert (skips.given_up("slow.mp4") is not None) == expected
        skips.add("slow.mp4", TimeLimitError("slow.mp4: not read in 1 s"))
    skips.add("bad.mp4", VideoError("bad.mp4: no video stream"))
    assert str(skips.given_up("slow.mp4")) == "slow.mp4: not read in 1 s"
    assert skips.given_up("bad.mp4") is None


def test_too_many_skips_end_the_run():
    skips = SkipLog(max_share=0.1)
    error = VideoError("bad.mp4: no video stream")
    for _ in range(9):
        skips.add("bad.mp4", error)  # 9 of 9, but of few clips.
    for _ in range(91):
        skips.add_read("good.mp4")
    with pytest.raises(TooManySkipsError, match="At most 10%.*11 of 102"):
        for _ in range(3):
            skips.add("bad.mp4", error)
    assert skips.count == 11
    assert "11 of 102" in skips.failure


def test_counts_images():
    skips = SkipLog(max_share=0.5, unit="image")
    skips.add_read("good.jpg")
    skips.add("bad.jpg", ValueError("bad.jpg: damaged"))
    summary = skips.summary()
    assert (summary["images_read"], summary["images_skipped"]) == (1, 1)
    with pytest.raises(TooManySkipsError, match="At most 50% of the images"):
        for _ in range(module._ENOUGH_CLIPS):
            skips.add("bad.jpg", ValueError("bad.jpg: damaged"))
    assert "cli.audit" not in skips.failure


def test_by_default_no_share_is_too_large():
    skips = SkipLog()
    for _ in range(2 * module._ENOUGH_CLIPS):
        skips.add("bad.mp4", VideoError("bad.mp4: no video stream"))
    assert skips.count == 200


def test_skip_log_counts_from_many_threads():
    skips = SkipLog()

    def add(name):
        for _ in range(200):
            skips.add(name, ValueError(f"{name} is broken"))

    threads = [
        threading.Thread(target=add, args=(f"{i % 2}.mp4",)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert skips.count == 1600
    reasons = {"0.mp4": "0.mp4 is broken", "1.mp4": "1.mp4 is broken"}
    assert skips.reasons == reasons
    # A caller that changes the copy does not change the log.
    skips.reasons.clear()
    assert skips.reasons == reasons


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_refuses(share):
    with pytest.raises(ValueError, match="`max_share` must be above 0"):
        SkipLog(max_share=share)


def test_refuses_units_that_are_not_known():
    with pytest.raises(ValueError, match="`unit` must be one of"):
        SkipLog(unit="frame")


def test_saves_names_that_are_no_text(tmp_path, monkeypatch):
    # pytest-xdist cannot carry such names in what it captures.
    monkeypatch.setattr(module.logging, "warning", lambda *_: None)
    skips = SkipLog()
    skips.add("bad\udcff.mp4", VideoError("bad\udcff.mp4: no"))
    path = tmp_path / "skipped.json"
    for _ in range(2):
        skips.save(path)
    assert json.loads(path.read_text()) == skips.summary()
    assert [file.name for file in tmp_path.iterdir()] == ["skipped.json"]
