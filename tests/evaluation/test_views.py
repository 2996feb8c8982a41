import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import score_video
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.synthetic import write_video


@pytest.fixture
def video(tmp_path):
    """Forty frames, each as bright as five times its number."""
    frames = np.arange(40, dtype="uint8")[:, None, None, None] * 5
    path = tmp_path / "ramp.mp4"
    write_video(path, np.broadcast_to(frames, (40, 48, 64, 3)))
    return path


def test_mean_over_evenly_spread_clips(video):
    seen = []

    def predict(clip):
        assert clip.shape == (1, 4, 32, 32, 3) and clip.dtype == np.uint8
        seen.append(np.round(clip.mean((0, 2, 3, 4)) / 5).astype(int).tolist())
        return np.array([[clip.mean(), 1.0]])

    scores = score_video(
        predict,
        video,
        ClipSpec(4, 3),
        num_clips=4,
        crop_size=32,
        short_side=32,
    )
    starts = [0, 10, 20, 30]
    # The last clip loops.
    assert seen == [[(s + 3 * i) % 40 for i in range(4)] for s in starts]
    assert scores[0] / 5 == pytest.approx(np.mean(seen), abs=0.5)
    assert scores[1] == 1.0


def test_unreadable_video(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(VideoError, match="text.mp4"):
        score_video(lambda clip: clip, path, ClipSpec(4))
