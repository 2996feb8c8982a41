import json
import math

import keras
import numpy as np
import pytest

from keras_nonlocal import NonLocal
from keras_nonlocal.visualization import attention_statistics as module
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.attention_statistics import (
    attention_statistics,
)
from tests import checks

SIZE = (3, 4, 6)


def network(channels=4, sub_sample=None, name="block", **arguments):
    """One block right on the pixels."""
    entry = keras.Input((*SIZE, channels))
    block = NonLocal(sub_sample=sub_sample, name=name, **arguments)
    model = keras.Model(entry, block(entry))
    checks.randomize(model)
    return model


def distances():
    """Of all pairs of pixels of the clip, in frames and in pixels."""
    places = np.argwhere(np.ones(SIZE, bool))
    apart = np.abs(places[:, None] - places)
    return apart[..., 0], np.hypot(apart[..., 1], apart[..., 2])


def check_histogram(histogram, apart, weights):
    """Counted by numpy, query by query."""
    expected, _ = np.histogram(apart, histogram.edges, weights=weights)
    np.testing.assert_allclose(
        histogram.share, expected / len(apart), atol=1e-6
    )
    assert histogram.mean == pytest.approx((apart * weights).mean(0).sum())
    uniform, _ = np.histogram(apart, histogram.edges)
    np.testing.assert_allclose(
        histogram.uniform, uniform / apart.size, atol=1e-12
    )
    assert histogram.uniform_mean == pytest.approx(apart.mean())


def test_uniform_attention():
    """A black clip: every key is as good as any other."""
    found = attention_statistics(
        network(), np.zeros((2, *SIZE, 4)), "block", num_queries=None
    )
    keys = math.prod(SIZE)
    assert found.num_keys == keys and found.num_queries == 2 * keys
    assert (found.num_clips, found.num_empty) == (2, 0)
    np.testing.assert_allclose(found.mean_map, 1 / keys, rtol=1e-5)
    np.testing.assert_allclose(found.uniform_map, 1 / keys)
    assert found.entropy == pytest.approx(math.log(keys), rel=1e-5)
    assert found.relative_entropy == pytest.approx(1, rel=1e-5)
    assert found.same_frame == pytest.approx(1 / 3, rel=1e-5)
    assert found.uniform_same_frame == pytest.approx(1 / 3)
    assert found.similarity == pytest.approx(1, rel=1e-5)
    assert found.information == pytest.approx(0, abs=1e-6)
    time, space = distances()
    uniform = np.full(time.shape, 1 / keys)
    check_histogram(found.time, time, uniform)
    check_histogram(found.space, space, uniform)
    assert found.time.edges.tolist() == [0, 0.5, 1.5, 2.5]


def test_every_query_looks_at_itself():
    """A channel of its own for each pixel, and large numbers."""
    keys = math.prod(SIZE)
    model = network(keys, mode="gaussian")
    clip = 10 * np.eye(keys).reshape(*SIZE, keys)
    found = attention_statistics(model, clip, "block", num_queries=None)
    assert found.entropy == pytest.approx(0, abs=1e-5)
    assert found.same_frame == pytest.approx(1)
    assert found.time.share.tolist() == pytest.approx([1, 0, 0])
    assert found.space.share[0] == pytest.approx(1)
    assert found.space.mean == pytest.approx(0, abs=1e-5)
    assert found.similarity == pytest.approx(0, abs=1e-5)
    # The query tells all.
    assert found.information == pytest.approx(math.log(keys), rel=1e-5)
    np.testing.assert_allclose(found.mean_map, 1 / keys, rtol=1e-5)


def test_all_queries_look_at_one_place(rng):
    """What the query is does not matter: theta is its bias."""
    model = network(mode="embedded_gaussian")
    block = model.get_layer("block")
    block.theta.kernel.assign(np.zeros(block.theta.kernel.shape))
    block.theta.bias.assign(np.full(block.theta.bias.shape, 50.0))
    clip = rng.normal(size=(*SIZE, 4))
    found = attention_statistics(model, clip, num_queries=None)["block"]
    assert found.similarity == pytest.approx(1, rel=1e-4)
    assert found.information == pytest.approx(0, abs=1e-4)
    assert found.mean_map.max() > 0.9 and found.relative_entropy < 0.1


@pytest.mark.parametrize(
    ("axes", "same_frame", "keys"), [("space", 1, 24), ("time", 1 / 3, 3)]
)
def test_windows(axes, same_frame, keys):
    """Distances and entropy are compared with what the window allows."""
    model = network(attention_axes=axes)
    found = attention_statistics(model, np.zeros((*SIZE, 4)), "block")
    assert found.num_keys == keys
    assert found.relative_entropy == pytest.approx(1, rel=1e-5)
    assert found.same_frame == pytest.approx(same_frame, rel=1e-5)
    assert found.uniform_same_frame == pytest.approx(same_frame)
    np.testing.assert_allclose(found.time.share, found.time.uniform, atol=1e-6)
    np.testing.assert_allclose(
        found.space.share, found.space.uniform, atol=1e-6
    )
    assert found.similarity == pytest.approx(1, rel=1e-5)
    assert (found.space.mean == 0) == (axes == "time")
    assert (found.time.mean == 0) == (axes == "space")


@pytest.mark.parametrize("mode", ["dot_product", "concatenation"])
def test_as_numpy_counts_it(mode, rng, monkeypatch):
    """All numbers of a random block, against all of its weights at once."""
    model = network(mode=mode)
    clip = rng.normal(size=(*SIZE, 4))
    # A few queries at a time.
    monkeypatch.setattr(module, "_MAX_PAIRS", 5 * math.prod(SIZE))
    found = attention_statistics(model, clip, "block", num_queries=None)
    weights = attend(model, clip).positions(
        "block", np.argwhere(np.ones(SIZE, bool))
    )
    assert not found.is_distribution
    weights = np.abs(weights.weights.astype("float64")).reshape(72, 72)
    empty = weights.sum(1) == 0
    assert found.num_empty == empty.sum() and found.num_queries == 72
    time, space = (apart[~empty] for apart in distances())
    weights = weights[~empty] / weights[~empty].sum(1, keepdims=True)
    check_histogram(found.time, time, weights)
    check_histogram(found.space, space, weights)
    np.testing.assert_allclose(found.mean_map.ravel(), weights.mean(0))
    assert found.same_frame == pytest.approx(
        (weights * (time == 0)).sum(1).mean()
    )
    logs = np.log(np.where(weights > 0, weights, 1))
    entropy = -(weights * logs).sum(1).mean()
    assert found.entropy == pytest.approx(entropy)
    units = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    cosines = (units @ units.T)[~np.eye(len(units), dtype=bool)]
    assert found.similarity == pytest.approx(cosines.mean())
    mean = weights.mean(0)
    mean = mean[mean > 0]
    information = -(mean * np.log(mean)).sum() - entropy
    assert found.information == pytest.approx(information)


def test_empty_queries_count_nowhere():
    """A concatenation whose ReLU is never passed."""
    model = network(mode="concatenation")
    model.get_layer("block").w_f.assign(np.full((4, 1), -1.0))
    for name in ("theta", "phi"):
        layer = getattr(model.get_layer("block"), name)
        layer.bias.assign(np.full(layer.bias.shape, 100.0))
    with pytest.raises(ValueError, match="gives no weight to any key"):
        attention_statistics(model, np.zeros((*SIZE, 4)))


def test_sampled_queries(rng):
    model = network(sub_sample="input")
    clips = rng.normal(size=(3, *SIZE, 4))
    exact = attention_statistics(model, clips, "block", num_queries=None)
    one, same, other = (
        attention_statistics(
            model, iter(clips), "block", num_queries=40, seed=i
        )
        for i in (0, 0, 1)
    )
    assert one.as_dict() == same.as_dict() != other.as_dict()
    assert one.num_queries == 120 and exact.num_queries == 216
    assert one.entropy == pytest.approx(exact.entropy, rel=0.2)
    # More than there are: all of them.
    many = attention_statistics(model, clips, "block", num_queries=1000)
    assert many.as_dict() == exact.as_dict()
    text = json.dumps(exact.as_dict(), allow_nan=False)
    assert json.loads(text)["time"]["share"] == exact.time.share.tolist()
    # Keys of 2 x 2 pixels.
    assert exact.mean_map.shape == (3, 2, 3)
    assert json.loads(text)["key_rows"] == [0.5, 2.5]


def test_uniform_map_is_where_queries_could_look(rng):
    """Of few queries that see few keys a mean map is mostly their draw."""
    model = network(attention_axes="time")
    found, other = (
        attention_statistics(model, clip, "block", num_queries=9)
        for clip in (np.zeros((*SIZE, 4)), rng.normal(size=(*SIZE, 4)))
    )
    np.testing.assert_array_equal(found.uniform_map, other.uniform_map)
    assert np.abs(other.mean_map - other.uniform_map).max() > 0.01
    looked = found.uniform_map.sum(axis=0)
    assert looked.sum() == pytest.approx(1) and (looked == 0).any()
    np.testing.assert_allclose(found.mean_map, found.uniform_map, atol=1e-7)


def test_key_frames_of_many_frames():
    """The query's own is the one that its frame was pooled into."""
    entry = keras.Input((24, 2, 2, 4))
    block = NonLocal(pool_size=(12, 1, 1), sub_sample="input", name="block")
    model = keras.Model(entry, block(entry))
    found = attention_statistics(
        model, np.zeros((24, 2, 2, 4)), "block", num_queries=None
    )
    assert found.num_keys == 8
    assert found.same_frame == pytest.approx(0.5, rel=1e-5)
    assert found.uniform_same_frame == pytest.approx(0.5)


def test_forms_of_clips_count_alike(rng):
    """What was run before, and tensors."""
    model = network()
    clip = rng.normal(size=(*SIZE, 4)).astype("float32")
    expected = attention_statistics(model, clip, "block").as_dict()
    found = attend(model, clip)
    tensor = keras.ops.convert_to_tensor(clip)
    for clips in (found, [found], tensor, tensor[None], iter([tensor])):
        again = attention_statistics(model, clips, "block")
        assert again.as_dict() == expected


def test_pooled_time_and_one_key():
    """Frames that share a key are all its own."""
    model = network(pool_size=(3, 4, 6), sub_sample="input")
    found = attention_statistics(model, np.zeros((*SIZE, 4)), "block")
    assert found.num_keys == 1 and found.same_frame == 1
    assert (found.entropy, found.relative_entropy) == (0, 1)
    alone = attention_statistics(
        model, np.zeros((*SIZE, 4)), "block", num_queries=1
    )
    assert alone.similarity is None


def test_says_what_is_wrong():
    model = network()
    with pytest.raises(ValueError, match="`num_queries` must be positive"):
        attention_statistics(model, [], num_queries=0)
    with pytest.raises(ValueError, match="`model` must be a functional"):
        attention_statistics(keras.Model(), np.zeros((1, *SIZE, 4)))
    with pytest.raises(ValueError, match="`clips` must hold a clip"):
        attention_statistics(model, [])
    with pytest.raises(ValueError, match="`block` must be one of"):
        attention_statistics(model, np.zeros((*SIZE, 4)), "other")
    entry = keras.Input((None, None, 4))
    free = keras.Model(entry, NonLocal(name="block")(entry))
    clips = [np.zeros((4, 4, 4)), np.zeros((4, 6, 4))]
    with pytest.raises(ValueError, match="`clips` must be of one size"):
        attention_statistics(free, clips)
