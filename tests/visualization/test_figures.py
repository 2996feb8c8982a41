import builtins
import io

import matplotlib.image
import numpy as np
import pytest

from keras_nonlocal.visualization import figures


def decode(png):
    return (matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).round()


def test_film_strip_is_the_frames_side_by_side(rng):
    frames = rng.integers(0, 256, (3, 5, 4, 3), "uint8")
    strip = decode(figures.film_strip(frames, gap=2))
    assert strip.shape == (5, 3 * 4 + 2 * 2, 3)
    for number, frame in enumerate(frames):
        left = number * 6
        np.testing.assert_array_equal(strip[:, left : left + 4], frame)
    assert (strip[:, 4:6] == 255).all()
    np.testing.assert_array_equal(
        decode(figures.film_strip(frames, gap=0)), np.hstack(list(frames))
    )


def test_curves_show_every_network_in_its_colour():
    def history(start):
        falling = [start, start / 2, start / 4]
        keys = ("loss", "val_loss", "accuracy", "val_accuracy")
        return dict.fromkeys(keys, falling)

    def colours(png):
        return {tuple(pixel) for pixel in decode(png).reshape(-1, 3)}

    one = colours(figures.training_curves({"a": history(1.0)}))
    two = colours(
        figures.training_curves({"a": history(1.0), "b": history(0.8)})
    )
    blue, orange = (0, 114, 178), (213, 94, 0)
    assert blue in one and orange not in one
    assert blue in two and orange in two


BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def shown(png):
    return {tuple(pixel) for pixel in decode(png).reshape(-1, 3)}


def test_epoch_curves_show_every_line_and_pass_over_what_is_missing():
    lines = {"one": [1.0, float("nan"), 0.5], "other": [0.2, 0.4, 0.3]}
    one = figures.epoch_curves({"loss": {"one": lines["one"]}})
    two = figures.epoch_curves({"loss": lines, "score": lines})
    assert BLUE in shown(one) and ORANGE not in shown(one)
    assert {BLUE, ORANGE} <= shown(two)
    height, width, _ = decode(one).shape
    assert decode(two).shape == (height, 2 * width, 3)


def test_error_curves_show_every_network_and_panel(rng):
    def errors():
        return rng.uniform(0.1, 0.5, (2, 3, 4))

    one = figures.error_curves({"a": {"x": errors()}})
    two = figures.error_curves({"a": {"x": errors(), "y": errors()}})
    assert BLUE in shown(one) and ORANGE not in shown(one)
    assert {BLUE, ORANGE} <= shown(two)
    panel = {"x": errors()}
    three = figures.error_curves({"a": panel, "b": panel, "c": panel})
    assert decode(three).shape[0] == 2 * decode(one).shape[0]
    # The fourth place stays empty.
    height, width = decode(three).shape[:2]
    assert (decode(three)[height // 2 + 20 :, width // 2 + 40 :] == 255).all()


def test_accuracies_are_at_their_distance(rng):
    points = np.array([[0.9, 0.8, 1.0], [0.6, 0.5, 0.7]])
    panels = {"near": {"x": points}, "far": {"x": points, "y": points - 0.05}}
    picture = decode(figures.accuracy_by_distance((0, 5), panels, "frames"))
    middle = picture.shape[1] // 2
    left, right = picture[:, :middle], picture[:, middle:]
    rows, columns = np.nonzero((left == BLUE).all(axis=-1))
    # Falls from the first distance to the second.
    first, last = columns.min(), columns.max()
    assert rows[columns == first].mean() < rows[columns == last].mean()
    assert not (left == ORANGE).all(axis=-1).any()
    assert (right == ORANGE).all(axis=-1).any()


@pytest.mark.parametrize("count", [2, 20, 400])
def test_confusion_matrix_shows_shares_of_each_class(count):
    matrix = 3 * np.eye(count, dtype=int)
    matrix[0, 1] = 9
    matrix[1] = 0
    # Neither formulas nor letters that the font has not are in the way.
    names = [f"${i} \N{SNOWMAN} {'and so on ' * 5}" for i in range(count)]
    pixels = decode(figures.confusion_matrix(matrix, names))

    def where(*colour):
        return np.argwhere((pixels == colour).all(axis=2))

    assert len(where(204, 204, 204))  # A row without videos.
    if count > 2:
        assert len(where(8, 48, 107))  # Rows that are all right.
        return
    # Rows are of true classes: one in four is right, on the left.
    right, wrong = where(106, 173, 213).mean(0), where(9, 83, 157).mean(0)
    assert right[0] == pytest.approx(wrong[0], abs=2) and right[1] < wrong[1]


def test_says_how_to_get_matplotlib(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install .*\[plot\]"):
        figures.require_matplotlib()
