import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from keras_nonlocal.visualization import frame_strip
from keras_nonlocal.visualization.frame_strip import Strip
from keras_nonlocal.visualization.video_clip import VideoClip


@pytest.fixture(scope="module")
def strip():
    """The third frame of nine is not shown."""
    clip = VideoClip(
        np.zeros((9, 20, 30, 3), "uint8"),
        np.arange(9),
        np.full(9, np.nan),
        (0.0, 0.0, 20.0, 30.0),
        "a",
    )
    return Strip.of(clip, np.array([0, 1, 3, 4, 5, 6, 7, 8]), 4)


def test_places_are_in_their_frame(strip):
    # A gap is a twenty-fifth of the height.
    assert strip.size == (8 * 30 + 7 * 0.8, 20)
    assert strip.point(0, np.array([5, 7])) == (7, 5)
    assert strip.point(3, np.array([5, 7])) == (2 * 30.8 + 7, 5)
    assert strip.labels[2] == "frame 3"


@pytest.mark.parametrize("from_frame", [0, 4, 8])
@pytest.mark.parametrize("row", [0, 2, 10, 17, 19])
@pytest.mark.parametrize("column", [0, 29])
def test_no_arrow_leaves_the_frames(strip, from_frame, row, column):
    figure, panel = frame_strip.draw(strip, "title", "text")
    start = strip.point(from_frame, np.array([row, column]))
    for frame in (0, 1, 4, 8):
        for end in ((0, 0), (3, 29), (10, 15), (19, 0), (19, 29)):
            point = strip.point(frame, np.array(end))
            frame_strip.arrow(panel, start, point, 0.5, is_negative=False)
    figure.canvas.draw()
    to_pixels = panel.transData.inverted()
    for arrow in panel.findobj(FancyArrowPatch):
        (line, *_), _ = arrow._get_path_in_displaycoord()
        places = to_pixels.transform(line.interpolated(20).vertices)
        assert (places > -0.51).all()
        assert (places < np.array(strip.size) - 0.49).all()


def test_arrows_are_curved(strip):
    _, panel = frame_strip.draw(strip, "title", "text")
    start = strip.point(4, np.array([15, 15]))
    # All to the side where there is more space, upwards, and as much as others.
    for frame, bend in ((0, 0.12), (3, 0.12), (5, -0.12), (8, -0.12)):
        end = strip.point(frame, np.array([15, 15]))
        assert frame_strip._bend(panel, start, end) == pytest.approx(bend)
