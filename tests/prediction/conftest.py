"""Two videos, and a small network with random weights."""

import pytest

from tests.data import files
from tests.prediction import networks


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """75 frames of 40 x 48 pixels at 25 a second."""
    frames = files.moving(3, 75, 48)[:, :40]
    folder = tmp_path_factory.mktemp("prediction")
    return files.write(folder / "even.mp4", frames)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """80 frames at times of two speeds."""
    ticks = [*range(0, 1600, 40), *range(1600, 4800, 80)]
    frames = files.moving(4, 80, 48)
    folder = tmp_path_factory.mktemp("prediction")
    return files.write(folder / "uneven.mp4", frames, ticks=ticks)


@pytest.fixture(scope="module")
def network():
    return networks.tiny()
