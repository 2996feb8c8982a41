import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from keras_nonlocal.visualization.detection_figures import draw_objects
from keras_nonlocal.visualization.detection_figures import place_label
from keras_nonlocal.visualization.figures import COLOURS

GREY = np.full((320, 640, 3), 128, "uint8")
BOX = np.array([[100.0, 100, 300, 300]])


def decode(data, file_format="png"):
    picture = matplotlib.image.imread(io.BytesIO(data), file_format)
    if picture.dtype == np.uint8:
        return picture[..., :3].astype(int)
    return (picture[..., :3] * 255).round().astype(int)


def draw(*arguments, **options):
    return decode(draw_objects(*arguments, **options))


def colour(number):
    return np.round(255 * np.array(to_rgb(COLOURS[number]))).astype(int)


def coloured(picture, number):
    return np.abs(picture - colour(number)).max(axis=-1) <= 2


def test_a_box_stands_where_its_pixels_are():
    picture = draw(GREY, BOX, np.array([1]))
    assert picture.shape == GREY.shape
    # Of lines three pixels wide the middle one; right of the name.
    rows = np.flatnonzero(coloured(picture, 1)[:, 200])
    columns = np.flatnonzero(coloured(picture, 1)[200])
    assert (rows.min(), rows.max() + 1) == (100, 301)
    assert (columns.min(), columns.max() + 1) == (100, 301)
    # Nothing but the box and its name is drawn over.
    assert (picture[110:290, 110:290] == 128).all()
    assert (picture[:, 320:] == 128).all()


def test_a_mask_is_tinted_and_outlined():
    mask = np.zeros((1, 320, 640), bool)
    mask[0, 150:250, 150:250] = True
    picture = draw(GREY, BOX, np.array([2]), masks=mask)
    expected = np.rint(0.65 * 128 + 0.35 * colour(2))
    np.testing.assert_allclose(picture[200, 200], expected, atol=1)
    assert coloured(picture, 2)[150, 150:250].all()
    assert (picture[149, 150:250] == 128).all()


def test_dashes_names_and_classes_can_be_told_apart():
    boxes = np.array([[10.0, 60, 200, 250], [300, 60, 500, 250]])
    classes, names = np.array([0, 7]), ["cat"] * 8
    plain = draw(GREY, boxes, classes, class_names=names)
    dashed = draw(
        GREY, boxes, classes, class_names=names, dashed=np.array([False, True])
    )
    assert coloured(plain, 0).any() and coloured(plain, 1).any()
    np.testing.assert_array_equal(plain[:, :250], dashed[:, :250])
    assert coloured(dashed, 1).sum() < 0.8 * coloured(plain, 1).sum()
    # Names of any kind: formulas, without end, unknown, without a glyph.
    for name in ("$x", "long " * 20, "", "\u2603\U0001f600"):
        named = draw(GREY, boxes[:1], np.array([0]), class_names=[name])
        assert not np.array_equal(named, draw(GREY, boxes[:1], np.array([0])))


def test_names_keep_off_each_other():
    size, bounds = np.array([60.0, 14]), np.array([400.0, 300])
    taken = np.zeros((0, 4))
    for _ in range(8):
        place = place_label(size, np.array([100, 100, 240, 200]), taken, bounds)
        low = np.maximum(place[:2], taken[:, :2])
        assert (low >= np.minimum(place[2:], taken[:, 2:])).any(axis=1).all()
        taken = np.concatenate([taken, place[None]])
    # Inside the picture, wherever the box is.
    for box in ([-50, -50, 10, 10], [390, 290, 500, 500], [0, 0, 400, 300]):
        x1, y1, x2, y2 = place_label(size, np.array(box), taken[:0], bounds)
        assert 0 <= x1 < x2 <= 400 and 0 <= y1 < y2 <= 300


def test_sizes_and_formats():
    small = draw(GREY[:32, :48], BOX[:0], np.zeros(0, int))
    assert small.shape == (427, 640, 3)
    large = np.zeros((2600, 1300, 3), "uint8")
    data = draw_objects(
        large, 8 * BOX, np.array([1]), np.array([0.5]), file_format="jpeg"
    )
    assert decode(data, "jpeg").shape == (1280, 640, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GREY[..., 0], BOX, [0]), {}, "`image` must be uint8"),
        ((GREY / 255, BOX, [0]), {}, "`image` must be uint8"),
        ((GREY, BOX, [0, 1]), {}, "`classes` must have the shape"),
        ((GREY, BOX, [0]), {"scores": [1, 2]}, "`scores` must"),
        ((GREY, BOX, [0]), {"masks": np.ones((1, 2, 2))}, "`masks` must"),
        ((GREY, BOX * np.nan, [0]), {}, "`boxes` must be finite"),
        ((GREY, BOX, [0]), {"file_format": "gif"}, "`file_format` must"),
    ],
)
def test_what_cannot_be_drawn(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        draw_objects(*arguments, **options)
