import colorsys
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.data import augmentation
from keras_nonlocal.data.augmentation import ColorJitter
from keras_nonlocal.data.augmentation import Compose
from keras_nonlocal.data.augmentation import CutMix
from keras_nonlocal.data.augmentation import KerasAugmentation
from keras_nonlocal.data.augmentation import MixUp
from keras_nonlocal.data.augmentation import RandAugment
from keras_nonlocal.data.augmentation import RandomFlip

GRAY = np.array([0.2989, 0.5870, 0.1140])
layers = keras.layers
LAYERS = {
    "RandomFlip": lambda: layers.RandomFlip("horizontal"),
    "RandomRotation": lambda: layers.RandomRotation(0.2),
    "RandomZoom": lambda: layers.RandomZoom(0.3),
    "RandomTranslation": lambda: layers.RandomTranslation(0.3, 0.3),
    "RandomContrast": lambda: layers.RandomContrast((0.5, 0.5)),
    "RandomBrightness": lambda: layers.RandomBrightness(0.5),
    "RandomErasing": lambda: layers.RandomErasing((1, 1)),
    "RandomGrayscale": lambda: layers.RandomGrayscale(0.5),
    "RandomHue": lambda: layers.RandomHue(0.5),
    "RandomShear": lambda: layers.RandomShear(0.3, 0.3),
    "RandomGaussianBlur": lambda: layers.RandomGaussianBlur((1, 1)),
    "RandomColorJitter": lambda: layers.RandomColorJitter(
        (0, 255), 0.3, 0.3, 0.3, 0.3
    ),
    "RandomElasticTransform": lambda: layers.RandomElasticTransform(1.0, 1.0),
    "RandAugment": lambda: layers.RandAugment(num_ops=1),
    "Pipeline": lambda: layers.Pipeline(
        [layers.RandomRotation(0.2), layers.RandomBrightness(0.5)]
    ),
}


@pytest.fixture(scope="module")
def adapted():
    """The adapter of a layer of `LAYERS`, made once."""

    @functools.cache
    def make(name):
        return KerasAugmentation(LAYERS[name]())

    return make


@pytest.fixture
def still(rng):
    """Four equal frames of 12x16 pixels."""
    frame = rng.integers(256, size=(1, 12, 16, 3), dtype="uint8")
    return np.repeat(frame, 4, axis=0)


@pytest.fixture
def clip(rng):
    return rng.integers(256, size=(4, 12, 16, 3), dtype="uint8")


def outputs(augment, clip, count=6):
    return np.stack([augment(clip, [seed, 7]) for seed in range(count)])


def in_dataset(augment, clip, count=6):
    """As `outputs`, by two threads of `tf.data`."""
    dataset = tf.data.Dataset.range(count).map(
        lambda seed: augment(clip, tf.stack([seed, 7])), num_parallel_calls=2
    )
    return np.stack(list(dataset.as_numpy_iterator()))


def check(augment, clip):
    """Frames are treated alike, seeds matter."""
    results = outputs(augment, clip)
    assert results.dtype == clip.dtype
    assert (results == results[:, :1]).all()
    assert len({x.tobytes() for x in results}) > 1


@pytest.mark.parametrize("name", LAYERS)
def test_keras_layers_treat_frames_alike(name, adapted, still):
    check(adapted(name), still)


def test_keras_layers_in_dataset_as_eagerly(adapted, still):
    augment = adapted("RandomColorJitter")
    np.testing.assert_array_equal(
        outputs(augment, still), in_dataset(augment, still)
    )


@pytest.mark.parametrize(
    "augment",
    [ColorJitter(0.4, 0.4, 0.4, 0.1), RandAugment(num_ops=1)],
    ids=lambda augment: type(augment).__name__,
)
def test_frames_are_treated_alike(augment, still):
    # First in a graph: nothing that is made there may stay there.
    expected = in_dataset(augment, still)
    np.testing.assert_array_equal(outputs(augment, still), expected)
    check(augment, still)


def test_flips_in_dataset_as_eagerly(clip):
    flip = RandomFlip([(0, 1)])

    def augment(frames, seed):
        frames, label = flip(frames, tf.constant(1), seed)
        return tf.concat(
            [tf.reshape(frames, [-1]), [tf.cast(label, "uint8")]], 0
        )

    np.testing.assert_array_equal(
        outputs(augment, clip), in_dataset(augment, clip)
    )


def factor(augment, seed, clip_value=100.0):
    """What `augment` multiplies a grey clip by."""
    clip = np.full((1, 1, 1, 3), clip_value, "float32")
    return augment(clip, seed).numpy().ravel()[0] / clip_value


def jitter_by_hand(clip, brightness, contrast, saturation, hue, order):
    clip = clip.astype("float64")
    for name in order:
        gray = (clip * GRAY).sum(-1, keepdims=True)
        if name == "brightness":
            clip = clip * brightness
        elif name == "contrast":
            mean = gray.mean((1, 2, 3), keepdims=True)
            clip = contrast * clip + (1 - contrast) * mean
        elif name == "saturation":
            clip = saturation * clip + (1 - saturation) * gray
        else:
            pixels = [colorsys.rgb_to_hsv(*x) for x in clip.reshape(-1, 3)]
            turned = [((h + hue) % 1, s, v) for h, s, v in pixels]
            rgb = [colorsys.hsv_to_rgb(*x) for x in turned]
            clip = np.reshape(rgb, clip.shape)
        clip = clip.clip(0, 255)
    return clip


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_of_one_kind_is_a_factor_in_range(name, clip):
    off = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    augment = ColorJitter(**off | {name: 0.4})
    same_draw = ColorJitter(**off | {"brightness": 0.4})
    factors = []
    for seed in range(20):
        drawn = factor(same_draw, [seed, 0])
        expected = jitter_by_hand(clip, drawn, drawn, drawn, 0, [name])
        result = augment(clip, [seed, 0]).numpy()
        assert np.abs(result - expected).max() < 0.51
        factors.append(drawn)
    assert 0.6 <= min(factors) < 0.75 and 1.25 < max(factors) <= 1.4


def test_brightness_is_never_negative():
    factors = [
        factor(ColorJitter(5.0, 0, 0), [seed, 0], 1) for seed in range(9)
    ]
    assert min(factors) >= 0 and 2 < max(factors) <= 6


def test_hue_turns(clip):
    augment = ColorJitter(0, 0, 0, hue=0.5)
    red = np.float32([200, 0, 0]).reshape(1, 1, 1, 3)
    turns = []
    for seed in range(9):
        turn = colorsys.rgb_to_hsv(*augment(red, [seed, 0]).numpy().ravel())[0]
        expected = jitter_by_hand(clip, 1, 1, 1, turn, ["hue"])
        result = augment(clip, [seed, 0]).numpy()
        assert np.abs(result - expected).max() < 0.52
        turns.append(turn)
    assert max(turns) > 0.55 and min(turns) < 0.45


def test_jitter_is_some_order_of_its_kinds(clip, monkeypatch):
    """Saturated values tell one order from another."""
    clip = clip[:2, :4, :4]
    drawn = []
    uniform = tf.random.stateless_uniform

    def spy(*args, **kwargs):
        drawn.append(uniform(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(tf.random, "stateless_uniform", spy)
    kinds = ("brightness", "contrast", "saturation", "hue")
    orders = set()
    for seed in range(6):
        drawn.clear()
        result = ColorJitter(0.9, 0.9, 0.9, 0.3)(clip, [seed, 0]).numpy()
        units = next(x.numpy() for x in drawn)
        factors = 0.1 + 1.8 * units[:3]
        by_hand = {
            order: jitter_by_hand(clip, *factors, 0.6 * units[3] - 0.3, order)
            for order in itertools.permutations(kinds)
        }
        fit = [
            order
            for order, expected in by_hand.items()
            if np.abs(result - expected).max() < 0.6
        ]
        assert fit
        orders.update(fit[:1])
    assert len(orders) > 2


def test_jitter_of_nothing_changes_nothing(clip):
    result = ColorJitter(0, 0, 0)(clip, [0, 0])
    np.testing.assert_array_equal(result, clip)


def test_jitter_keeps_floats_unrounded(clip):
    floats = ColorJitter()(clip.astype("float32"), [3, 0]).numpy()
    rounded = ColorJitter()(clip, [3, 0]).numpy()
    assert floats.dtype == "float32" and (floats % 1).any()
    np.testing.assert_array_equal(np.round(floats), rounded)


@pytest.mark.parametrize(
    "arguments",
    [{"brightness": -0.1}, {"hue": 0.6}, {"contrast": float("nan")}],
)
def test_jitter_refuses_ranges(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
        ColorJitter(**arguments)


@pytest.mark.parametrize("label", [1, [0.0, 1.0, 0.5]])
def test_flips_half_with_their_labels(label, clip):
    flip = RandomFlip(label_pairs=[(2, 1)])
    swapped = 2 if label == 1 else [0.0, 0.5, 1.0]
    flips = 0
    for seed in range(40):
        frames, after = flip(clip, label, [seed, 0])
        flipped = not np.array_equal(frames, clip)
        expected = clip[:, :, ::-1] if flipped else clip
        np.testing.assert_array_equal(frames, expected)
        np.testing.assert_array_equal(after, swapped if flipped else label)
        flips += flipped
    assert 12 <= flips <= 28


def test_flip_refuses_labels_that_do_not_fit(clip):
    with pytest.raises(ValueError, match="one place"):
        RandomFlip([(0, 1), (1, 2)])
    with pytest.raises(ValueError, match=r"\[0, 2\)"):
        RandomFlip([(1, 2)])(clip, [0.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match="one clip"):
        RandomFlip()(clip, [[0.0, 1.0]], [0, 0])


def test_adapter_does_what_the_layer_does(adapted, clip):
    """A layer without randomness, and one with a known result."""
    invert = KerasAugmentation(layers.RandomBrightness((1, 1)))
    assert (invert(clip, [0, 0]).numpy() == 255).all()
    results = outputs(adapted("RandomFlip"), clip)
    mirrored = [np.array_equal(x, clip[:, :, ::-1]) for x in results]
    same = [np.array_equal(x, clip) for x in results]
    assert all(np.logical_xor(mirrored, same))
    assert any(mirrored) and any(same)


def test_adapter_neither_uses_nor_changes_the_layers_seed(adapted, clip):
    layer = layers.RandomRotation(0.2, seed=1)
    before = [variable.numpy() for variable in layer.variables]
    result = KerasAugmentation(layer)(clip, [1, 1])
    after = [variable.numpy() for variable in layer.variables]
    np.testing.assert_array_equal(before, after)
    other = adapted("RandomRotation")
    other(clip, [5, 5])
    np.testing.assert_array_equal(result, other(clip, [1, 1]))


def test_adapter_takes_layers_that_crop(clip):
    crop = KerasAugmentation(layers.RandomCrop(5, 6))
    result = crop(clip, [1, 1]).numpy()
    assert result.shape == (4, 5, 6, 3)
    windows = np.lib.stride_tricks.sliding_window_view(clip, (5, 6), (1, 2))
    found = (windows == result.transpose(0, 3, 1, 2)[:, None, None]).all(
        (0, 3, 4, 5)
    )
    assert found.sum() == 1


class StatefulNoise(layers.Layer):
    def call(self, images):
        return images + tf.random.uniform([])


class NumpyNoise(layers.Layer):
    def call(self, images):
        return images + np.random.default_rng().uniform()


class UnseededNoise(layers.Layer):
    """Draws from Keras's global generator: that can be seeded."""

    def call(self, images):
        return images + keras.random.uniform([])


def test_adapter_seeds_the_global_generator(still):
    check(KerasAugmentation(UnseededNoise()), still.astype("float32"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (StatefulNoise, r"uses \['RandomUniform'\]"),
        (NumpyNoise, "two results for one seed"),
        # Its choices are those of Python's `random`.
        (lambda: layers.AugMix(), "two results for one seed"),
        (lambda: layers.BatchNormalization(), "changes .*moving_mean"),
        (lambda: layers.MixUp(), "augmentation.MixUp"),
        (lambda: layers.CutMix(), "augmentation.CutMix"),
        (lambda: len, "must be a Keras layer"),
    ],
)
def test_adapter_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        KerasAugmentation(make())


@pytest.mark.parametrize("name", ["RandomFlip", "RandomHue", "RandAugment"])
def test_keras_cv_layers_treat_frames_alike(name, still):
    keras_cv = pytest.importorskip("keras_cv", reason="needs keras-cv")
    arguments = {
        "RandomFlip": {},
        "RandomHue": {"factor": 0.5, "value_range": (0, 255)},
        "RandAugment": {"value_range": (0, 255)},
    }[name]
    check(KerasAugmentation(getattr(keras_cv.layers, name)(**arguments)), still)


def test_strength_of_rand_augment(clip):
    """Two operations, auto-contrast and equalization, have none."""

    def changed(magnitude):
        return [
            not np.array_equal(operation(tf.constant(clip), [1, 2]), clip)
            for operation in augmentation._rand_augment_operations(magnitude)
        ]

    assert changed(0.0) == 12 * [False] + 2 * [True]
    assert changed(1.0) == [False] + 13 * [True]


def test_solarizes_what_is_bright():
    clip = tf.reshape(tf.constant([0, 100, 254, 255], "uint8"), [4, 1, 1, 1])
    for seed in range(5):
        result = augmentation._solarize(0.5, clip, [seed, 0]).numpy().ravel()
        assert result.tolist() == [0, 100, 1, 0]


@pytest.mark.parametrize("arguments", [(0, 0.3), (2, 1.1), (2, -0.1)])
def test_rand_augment_refuses(arguments):
    with pytest.raises(ValueError, match="`num_ops` must be positive"):
        RandAugment(*arguments)


def test_steps_have_their_own_seeds():
    jitter = ColorJitter(0.4, 0, 0)
    twice = factor(Compose([jitter, jitter]), [1, 2])
    seeds = [tf.random.fold_in([1, 2], number) for number in range(2)]
    factors = [factor(jitter, seed) for seed in seeds]
    assert twice == pytest.approx(np.prod(factors), rel=1e-5)
    assert factors[0] != pytest.approx(factors[1], rel=1e-2)


@pytest.fixture
def batch(rng):
    return rng.integers(256, size=(5, 2, 9, 7, 3), dtype="uint8")


@pytest.mark.parametrize("mix", [MixUp(1.0), CutMix(1.0)])
def test_mixes_alike_in_dataset(mix, batch):
    labels = np.eye(5, dtype="float32")
    dataset = tf.data.Dataset.range(4).map(
        lambda seed: mix(batch, labels, tf.stack([seed, 7])),
        num_parallel_calls=2,
    )
    results = list(dataset.as_numpy_iterator())
    for seed, (clips, targets) in enumerate(results):
        expected_clips, expected_targets = mix(batch, labels, [seed, 7])
        np.testing.assert_array_equal(clips, expected_clips)
        np.testing.assert_array_equal(targets, expected_targets)
    assert len({clips.tobytes() for clips, _ in results}) == 4


def test_mix_up_blends_clips_as_labels(batch):
    clips, targets = MixUp(1.0, num_classes=5)(batch, np.arange(5), [1, 2])
    own, other = np.diag(targets), np.diag(np.roll(targets, 1, 1))
    np.testing.assert_allclose(own + other, 1, atol=1e-6)
    assert np.count_nonzero(targets) == 10 and targets.dtype == "float32"
    share = own.reshape(5, 1, 1, 1, 1).astype("float64")
    expected = share * batch + (1 - share) * np.roll(batch, 1, axis=0)
    assert clips.dtype == "uint8"
    assert np.abs(clips.numpy() - expected).max() <= 0.5 + 1e-3


def test_mix_up_of_many_labels(batch):
    labels = np.float32([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
    _, targets = MixUp(1.0)(batch, labels, [1, 2])
    _, shares = MixUp(1.0)(batch, np.eye(5), [1, 2])
    share = np.diag(shares)[:, None]
    expected = share * labels + (1 - share) * np.roll(labels, 1, 0)
    np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_cut_mix_takes_a_box_of_all_frames():
    batch = np.zeros((5, 3, 9, 7, 1), "uint8") + np.arange(
        5, dtype="uint8"
    ).reshape(5, 1, 1, 1, 1)
    for seed in range(10):
        clips, targets = CutMix(1.0, num_classes=5)(
            batch, np.arange(5), [seed, 2]
        )
        for i, clip in enumerate(clips.numpy()):
            cut = clip[..., 0] != i
            assert (clip[..., 0][cut] == (i - 1) % 5).all()
            assert (cut == cut[0]).all()
            rows, columns = cut[0].any(1), cut[0].any(0)
            np.testing.assert_array_equal(cut[0], np.outer(rows, columns))
            # One run of rows and one of columns.
            assert np.abs(np.diff(rows)).sum() <= 2
            assert np.abs(np.diff(columns)).sum() <= 2
            kept = 1 - np.float32(cut[0].sum() / 63)
            expected = np.zeros(5, "float32")
            expected[i], expected[i - 1] = kept, 1 - kept
            np.testing.assert_allclose(targets[i], expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0, 8.0])
def test_shares_are_of_the_beta_distribution(alpha):
    shares = augmentation._beta(alpha, 4000, [1, 2]).numpy().astype("float64")
    assert np.isfinite(shares).all()
    assert 0 <= shares.min() and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (8 * alpha + 4), rel=0.1)


@pytest.mark.parametrize("mix", [MixUp(1.0, num_classes=3), CutMix(1.0, 3)])
@pytest.mark.parametrize("label", [3, -1])
def test_mix_refuses_class_numbers_out_of_range(mix, label, batch):
    # In a graph, where a check that nothing depends on could get lost.
    dataset = tf.data.Dataset.from_tensors([0, 1, 2, 0, label]).map(
        lambda labels: mix(batch, labels, [1, 2])
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 3\)"):
        next(iter(dataset))


def test_mix_refuses(batch):
    with pytest.raises(ValueError, match="`alpha` must be positive"):
        MixUp(0.0)
    with pytest.raises(ValueError, match="num_classes=None"):
        MixUp(1.0)(batch, np.arange(5), [1, 2])
    with pytest.raises(ValueError, match="num_classes=4"):
        CutMix(1.0, num_classes=4)(batch, np.eye(5), [1, 2])
    with pytest.raises(ValueError, match="rank 5"):
        MixUp(1.0)(batch[0], np.eye(5), [1, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many"):
        MixUp(1.0)(batch, np.eye(1, 5), [1, 2])


@pytest.mark.parametrize("augment", [ColorJitter(), RandAugment()])
def test_refuses_what_is_no_clip(augment, clip):
    with pytest.raises(ValueError, match="rank 4"):
        augment(clip[0], [1, 2])
    with pytest.raises(ValueError, match="3 channels"):
        augment(clip[..., :1], [1, 2])
    with pytest.raises(ValueError, match="`seed` must"):
        augment(clip, 1)
