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


def test_says_how_to_get_matplotlib(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install .*\[plot\]"):
        figures.require_matplotlib()
