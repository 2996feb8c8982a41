import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import TrainConfig
from keras_nonlocal import VideoList
from keras_nonlocal.data.synthetic import write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Sixteen videos whose class is their brightness, easy to learn."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for number in range(16):
        label = number % 2
        frames = rng.integers(0, 60, (12, 36, 40, 3)) + 150 * label
        path = folder / f"{number:02}.mp4"
        write_video(path, frames.astype("uint8"))
        paths.append(str(path))
        labels.append(label)
    return VideoList(tuple(paths), np.array(labels, "int32"), ("dark", "light"))


@pytest.fixture
def config():
    return TrainConfig(
        clip=ClipSpec(4, 2),
        batch_size=4,
        epochs=2,
        learning_rate=0.005,
        crop_size=32,
        short_side=(32, 36),
    )
