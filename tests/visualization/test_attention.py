import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_nonlocal import NonLocal
from keras_nonlocal import fold_batch_norm
from keras_nonlocal import insert_nonlocal
from keras_nonlocal import nonlocal_layers
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.visualization import attention
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.attention import attention_maps
from tests import checks
from tests import reference

SIZE = (4, 12, 16)


def affinities(x, layer):
    """f(x_i, x_j) / C(x) of all pairs, in float64, from the equations."""
    weights = {w.path.split("/", 1)[1]: checks.numpy(w) for w in layer.weights}

    def project(name, x):
        kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
        return x @ kernel.astype("float64") + bias

    pool = (1, 2, 2)
    keys = x
    if layer.sub_sample == "input":
        keys = reference._max_pool(x, pool)
    theta, phi = x, keys
    if layer.mode != "gaussian":
        theta, phi = project("theta", x), project("phi", keys)
    if layer.sub_sample == "projection":
        phi = reference._max_pool(phi, pool)
    depth = theta.shape[-1]
    f = np.einsum("...d,tyxd->...tyx", theta, phi)
    if layer.mode == "concatenation":
        w_f = weights["w_f"][:, 0].astype("float64")
        f = theta @ w_f[:depth]
        f = np.maximum(f[..., None, None, None] + phi @ w_f[depth:], 0)
    if layer.mode == "embedded_gaussian":
        f = f / np.sqrt(depth)
    if "gaussian" in layer.mode:
        f = np.exp(f - f.max((3, 4, 5), keepdims=True))
        return f / f.sum((3, 4, 5), keepdims=True)
    return f / np.prod(phi.shape[:3])


@pytest.mark.parametrize(
    ("mode", "sub_sample"),
    [
        ("embedded_gaussian", "input"),
        ("gaussian", "input"),
        ("dot_product", "projection"),
        ("concatenation", None),
    ],
)
def test_weights_are_those_of_the_equations(mode, sub_sample, rng, monkeypatch):
    entry = keras.Input((*SIZE, 2))
    x = layers.Conv3D(4, 3, (1, 2, 2), padding="same", name="conv")(entry)
    block = NonLocal(mode=mode, sub_sample=sub_sample, name="block")
    model = keras.Model(entry, block(x))
    checks.randomize(model)
    clip = rng.normal(size=(*SIZE, 2)).astype("float32")
    features = keras.Model(entry, x).predict(clip[None], verbose=0)[0]
    expected = affinities(features.astype("float64"), block)
    # A few queries at a time.
    monkeypatch.setattr(attention, "_MAX_PAIRS", 3 * expected[0, 0, 0].size)
    found = attend(model, clip)
    positions = np.argwhere(np.ones(features.shape[:3], bool))[::7]
    maps = found.positions("block", positions)
    assert maps.mode == mode and maps.weights.dtype == np.float32
    np.testing.assert_allclose(
        maps.weights, expected[tuple(positions.T)], rtol=1e-4, atol=1e-6
    )
    assert maps.is_distribution == ("gaussian" in mode)
    assert maps.num_keys == expected[0, 0, 0].size
    assert maps.keys.shape == maps.weights.shape[1:]
    # The same by places of the clip.
    places = found.grid("block").centres(positions)
    again = found.maps("block", places + 0.4)
    np.testing.assert_array_equal(again.positions, positions)
    np.testing.assert_array_equal(again.weights, maps.weights)
    np.testing.assert_allclose(
        found.outputs, checks.numpy(model(clip[None]))[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "sees"),
    [
        ({"attention_axes": "space"}, lambda t, y, x: t == 2),
        ({"attention_axes": "time"}, lambda t, y, x: (y == 3) & (x == 4)),
        ({"temporal_group": 2}, lambda t, y, x: t // 2 == 1),
    ],
)
def test_weights_outside_the_window_are_zero(arguments, sees, rng):
    entry = keras.Input((4, 6, 6, 3))
    block = NonLocal(sub_sample=None, name="block", **arguments)
    model = keras.Model(entry, block(entry))
    checks.randomize(model)
    clip = rng.normal(size=(4, 6, 6, 3))
    maps = attention_maps(model, clip, query=(2, 3, 4))
    inside = np.broadcast_to(sees(*np.ogrid[:4, :6, :6]), (4, 6, 6))
    assert (maps.weights[0][~inside] == 0).all()
    assert maps.num_keys == inside.sum()
    assert maps.weights[0][inside].sum() == pytest.approx(1, abs=1e-5)
    (strongest,) = maps.strongest(1000)
    assert len(strongest) == (maps.weights > 0).sum()
    assert (np.diff(strongest[:, 3]) <= 0).all()


@pytest.mark.parametrize(
    ("arguments", "box"),
    [
        ({"temporal_group": 2}, np.s_[4:8]),
        ({"attention_axes": "space"}, np.s_[4:6]),
        ({"attention_axes": "time"}, np.s_[:, 4:8, 8:12]),
    ],
)
def test_nothing_leaks_out_of_the_window_on_the_clip(arguments, box, rng):
    """Up to the pixels of the last position that the query sees."""
    entry = keras.Input((8, 16, 16, 3))
    x = layers.AveragePooling3D((2, 4, 4))(entry)
    block = NonLocal(sub_sample=None, name="block", **arguments)
    model = keras.Model(entry, block(x))
    checks.randomize(model)
    found = attend(model, rng.normal(size=(8, 16, 16, 3)))
    # The first query has another window.
    maps = found.maps("block", [(0, 0, 0), (4, 5, 9)])
    heat = maps.on_clip()[1]
    assert (heat[box] > 0).all()
    assert np.count_nonzero(heat) == heat[box].size
    # The window's own edge is held.
    weights = maps.weights[1][maps.seen[1]]
    assert heat[box].min() >= weights.min() * (1 - 1e-5)
    assert heat[box].max() <= weights.max() * (1 + 1e-5)
    assert maps.on_clip((4, 4, 4)).shape == (2, 4, 4, 4)
    one = dataclasses.replace(
        maps, positions=maps.positions[1:], weights=maps.weights[1:]
    )
    np.testing.assert_array_equal(one.on_clip()[0], heat)


def test_strongest_are_those_of_the_largest_absolute_weights(rng):
    entry = keras.Input((2, 3, 4, 4))
    block = NonLocal(mode="dot_product", sub_sample=None, name="block")
    model = keras.Model(entry, block(entry))
    checks.randomize(model)
    maps = attention_maps(model, rng.normal(size=(2, 3, 4, 4)), query=(0, 0, 0))
    (found,) = maps.strongest(5)
    weights = maps.weights[0]
    flat = sorted(weights.ravel(), key=abs, reverse=True)[:5]
    assert found[:, 3].tolist() == [float(weight) for weight in flat]
    assert min(flat) < 0 < max(flat)
    for t, y, x, weight in found:
        assert weights[int(t), int(y), int(x)] == weight


def tiny(rng):
    """A backbone in a model, with one block in each."""
    entry = keras.Input((None, None, None, 3))
    x = layers.Conv3D(4, 3, 2, padding="same", name="conv")(entry)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    backbone = keras.Model(entry, x, name="backbone")
    entry = keras.Input((None, None, None, 3))
    x = layers.Rescaling(1 / 255)(entry)
    x = backbone(x)
    x = layers.Conv3D(4, 1, name="conv")(x)
    x = layers.Add(name="add")([x, layers.Conv3D(4, 1, name="side")(x)])
    x = layers.GlobalAveragePooling3D()(x)
    model = keras.Model(entry, layers.Dense(3, name="top")(x))
    model = insert_nonlocal(model, ["backbone/relu", "conv"])
    checks.randomize(model)
    return model


def test_every_form_of_a_network_attends_alike(rng, tmp_path):
    model = tiny(rng)
    clip = rng.integers(0, 256, (4, 12, 16, 3), "uint8")
    plain = attend(model, clip)
    names = ("backbone/nonlocal_relu", "nonlocal_conv")
    assert plain.blocks == tuple(nonlocal_layers(model)) == names
    assert plain.size == (4, 12, 16)
    model.save(tmp_path / "model.keras")
    forms = {
        "reloaded": keras.models.load_model(tmp_path / "model.keras"),
        "folded": fold_batch_norm(model),
    }
    query = [(0, 3, 3), (3, 11, 0)]
    for form in forms.values():
        other = attend(form, clip[None])
        assert other.blocks == names
        for name in names:
            np.testing.assert_allclose(
                other.maps(name, query).weights,
                plain.maps(name, query).weights,
                rtol=1e-3,
                atol=1e-6,
            )
            for axis in ("times", "rows", "columns"):
                np.testing.assert_array_equal(
                    getattr(other.grid(name), axis),
                    getattr(plain.grid(name), axis),
                )
        np.testing.assert_allclose(
            other.outputs, plain.outputs, rtol=1e-3, atol=1e-5
        )
    np.testing.assert_allclose(
        plain.outputs, checks.numpy(model(clip[None]))[0], rtol=1e-4
    )


def test_rematerialized_network(rng):
    entry = keras.Input((4, 8, 8, 3))
    x = layers.Conv3D(4, 3, (1, 2, 2), padding="same")(entry)
    for number in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Add()([x, layers.Conv3D(4, 1)(y)])
        x = NonLocal(name=f"block{number}")(x)
    x = layers.Add()([x, layers.Conv3D(4, 1)(x)])
    model = keras.Model(entry, x)
    checks.randomize(model, scale=0.3)
    clip = rng.normal(size=(4, 8, 8, 3))
    plain, other = attend(model, clip), attend(rematerialize(model), clip)
    assert plain.blocks == other.blocks == ("block0", "block1")
    np.testing.assert_allclose(
        other.maps("block1", (1, 2, 3)).weights,
        plain.maps("block1", (1, 2, 3)).weights,
        rtol=1e-4,
        atol=1e-6,
    )


def moving_squares(squares, size=(4, 32, 48), side=8):
    """A noisy clip with squares of some colours.

    Args:
        squares: For each colour the (row, column) of its corner in each frame.
        size: Frames, height and width.
        side: Of the squares.
    """
    clip = np.random.default_rng(0).uniform(0, 0.1, (*size, 3))
    for colour, corners in squares.items():
        for frame, (row, column) in enumerate(corners):
            clip[frame, row : row + side, column : column + side] = colour
    return clip.astype("float32")


RED = [(4, 0), (8, 16), (16, 24), (24, 40)]
GREEN = [(20, 36), (20, 24), (4, 12), (0, 4)]


@pytest.fixture(scope="module")
def matching():
    """Its block looks at what has the query's colour."""
    entry = keras.Input((None, 32, 48, 3))
    x = layers.ZeroPadding3D((0, 1, 1))(entry)
    x = layers.Conv3D(3, (1, 3, 3), (1, 2, 2), use_bias=False, name="blur")(x)
    x = layers.AveragePooling3D((1, 2, 2))(x)
    block = NonLocal(inter_channels=3, sub_sample=None, name="block")
    model = keras.Model(entry, block(x))
    kernel = np.eye(3)[None, None, None] * np.full((1, 3, 3, 1, 1), 1 / 9)
    model.get_layer("blur").kernel.assign(kernel)
    for projection in (block.theta, block.phi):
        projection.kernel.assign(6 * np.eye(3))
    return model


@pytest.mark.parametrize(("corners", "start"), [(RED, 0), (GREEN, 2)])
def test_looks_where_the_square_is(matching, corners, start):
    colours = {(1, 0, 0): RED, (0, 1, 0): GREEN}
    clip = moving_squares(colours)
    row, column = corners[start]
    maps = attention_maps(
        matching, clip, "block", (start, row + 3.5, column + 3.5)
    )
    heat = maps.on_clip()[0]
    assert heat.shape == clip.shape[:3]
    for frame, (top, left) in enumerate(corners):
        y, x = np.unravel_index(heat[frame].argmax(), heat.shape[1:])
        assert top <= y < top + 8 and left <= x < left + 8
        # Four positions of 4 x 4 pixels: the centre of mass is the square's.
        mass = heat[frame] / heat[frame].sum()
        assert mass.sum(1) @ np.arange(32) == pytest.approx(top + 3.5, abs=2)
        assert mass.sum(0) @ np.arange(48) == pytest.approx(left + 3.5, abs=2)
    # The strongest positions lie in the squares too, four in each frame.
    (strongest,) = maps.strongest(16)
    for t, y, x, _ in strongest:
        top, left = corners[int(t)]
        assert top <= y < top + 8 and left <= x < left + 8


def test_weights_at_pixels(matching, rng):
    maps = attention_maps(matching, rng.random((4, 32, 48, 3)))
    # Without a query: the middle.
    found = attend(matching, np.zeros((4, 32, 48, 3)))
    assert found.middle.tolist() == [1.5, 15.5, 23.5]
    np.testing.assert_array_equal(maps.queries, [[1.5, 15.5, 23.5]])
    assert maps.clip_size == (4, 32, 48)
    keys = maps.keys
    heat = maps.on_clip()
    assert keys.rows[1] == 5 and keys.columns[2] == 9
    assert heat[0, 3, 5, 9] == pytest.approx(maps.weights[0, 3, 1, 2])
    between = maps.weights[0, 3, 1:3, 2]
    assert heat[0, 3, 6, 9] == pytest.approx(between @ [0.75, 0.25])


def test_images_and_sequences(rng):
    for shape, query, size in [
        ((8, 12, 3), (0, 7, 2), (1, 8, 12)),
        ((10, 3), (9, 0, 0), (10, 1, 1)),
    ]:
        entry = keras.Input(shape)
        model = keras.Model(entry, NonLocal(name="block")(entry))
        checks.randomize(model)
        clip = rng.normal(size=shape)
        maps = attention_maps(model, clip, query=query)
        assert maps.on_clip().shape == (1, *size)
        direct = model.get_layer("block").attention(
            clip[None], [query[1:] if len(shape) == 3 else query[:1]]
        )
        np.testing.assert_allclose(
            maps.weights.ravel(), checks.numpy(direct).ravel(), rtol=1e-5
        )


def test_channels_first(rng):
    """TensorFlow has no such convolution on a CPU; padding shifts as well."""
    first = keras.Input((3, 4, 6, 8))
    x = layers.ZeroPadding3D((0, 1, 2), data_format="channels_first")(first)
    block = NonLocal(data_format="channels_first", name="block")
    model = keras.Model(first, block(x))
    checks.randomize(model)
    clip = rng.normal(size=(3, 4, 6, 8))
    found = attend(model, clip)
    assert found.size == (4, 6, 8)
    assert found.grid("block").rows.tolist() == list(range(-1, 7))
    maps = found.maps("block", (3, 5, 0))
    assert maps.positions.tolist() == [[3, 6, 2]]
    assert maps.weights.shape == (1, 4, 4, 6)


def test_channels_first_clips_of_a_network_with_channels_last(rng):
    clip = rng.normal(size=(4, 6, 8, 3))
    entry = keras.Input((4, 6, 8, 3))
    block = NonLocal(name="block")
    plain = keras.Model(entry, block(entry))
    checks.randomize(plain)
    first = keras.Input((3, 4, 6, 8))
    moved = keras.Model(first, block(layers.Permute((2, 3, 4, 1))(first)))
    found = attend(moved, np.moveaxis(clip, -1, 0))
    assert found.size == (4, 6, 8)
    np.testing.assert_allclose(
        found.maps("block", (3, 5, 0)).weights,
        attend(plain, clip).maps("block", (3, 5, 0)).weights,
        rtol=1e-5,
    )


def test_what_cannot_be_asked_is_refused(rng):
    """A block whose answer would be wrong, or that would be left out."""
    entry = keras.Input((6, 6, 6, 3))
    block = NonLocal(name="block")
    x = layers.Permute((2, 3, 1, 4))(entry)
    with pytest.raises(ValueError, match="in the order of the clip"):
        attend(keras.Model(entry, block(x)), np.zeros((6, 6, 6, 3)))
    frame = keras.Input((6, 6, 3))
    inner = keras.Model(frame, NonLocal()(layers.ReLU()(frame)))
    for layer in (NonLocal(), inner, layers.TimeDistributed(NonLocal())):
        x = layers.TimeDistributed(layer, name="frames")(entry)
        model = keras.Model(entry, block(x))
        with pytest.raises(ValueError, match="TimeDistributed.*'frames'"):
            attend(model, np.zeros((6, 6, 6, 3)))
    model = keras.Model(entry, block(entry))
    checks.randomize(model)
    clip = rng.normal(size=(6, 6, 6, 3))
    clip[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="weights of block 'block' are not"):
        attention_maps(model, clip, query=(0, 0, 0))


def test_a_shared_block_is_listed_once_for_each_call(rng):
    entry = keras.Input((4, 8, 3))
    block = NonLocal(name="block")
    x = layers.MaxPooling2D(2)(block(entry))
    model = keras.Model(entry, block(x))
    checks.randomize(model)
    found = attend(model, rng.normal(size=(4, 8, 3)))
    assert found.blocks == ("block", "block:2")
    assert found.grid("block").shape == (1, 4, 8)
    assert found.grid("block:2").shape == (1, 2, 4)


def test_says_what_is_wrong(matching, rng):
    clip = np.zeros((2, 32, 48, 3))
    found = attend(matching, clip)
    for query in [(2, 0, 0), (0, -0.6, 0), (0, 0, 47.6), (np.nan, 0, 0)]:
        with pytest.raises(ValueError, match="`query` must be in the clip"):
            found.maps("block", query)
    found.maps("block", (1.5, -0.5, 47.5))
    with pytest.raises(ValueError, match="`query` must be .t, y, x."):
        found.maps("block", (0, 0))
    with pytest.raises(ValueError, match=r"`block` must be one of \['block'\]"):
        found.maps("other", (0, 0, 0))
    with pytest.raises(ValueError, match="`positions` must be on the block's"):
        found.positions("block", [[0, 8, 0]])
    with pytest.raises(ValueError, match="`positions` must be .* integers"):
        found.positions("block", [[0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="`count` must be positive"):
        found.maps("block", (0, 0, 0)).strongest(0)
    with pytest.raises(ValueError, match="`clip` must be one clip"):
        attend(matching, clip[:, :16])
    with pytest.raises(ValueError, match="`clip` must be one clip"):
        attend(matching, np.stack([clip, clip]))
    with pytest.raises(ValueError, match="must hold a NonLocal layer"):
        attend(keras.Sequential([keras.Input((4,)), layers.ReLU()]), clip)
    with pytest.raises(ValueError, match="must be a functional model"):
        attend(keras.Model(), clip)
    with pytest.raises(
        ValueError, match="`block` must be given.*nonlocal_conv"
    ):
        attention_maps(tiny(rng), np.zeros((4, 8, 8, 3)))
