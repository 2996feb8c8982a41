"""The model: training, detections, files, frames."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_nonlocal.detection.mask_rcnn import LOSSES
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.detection.mask_rcnn import MaskRCNN50
from tests.checks import numpy
from tests.checks import outputs
from tests.checks import randomize
from tests.detection.detectors import tiny_detector

IMAGES = ("images", "sizes", "original_sizes")
OUTPUTS = {
    "boxes": (2, 8, 4),
    "scores": (2, 8),
    "classes": (2, 8),
    "masks": (2, 8, 28, 28),
    "num_detections": (2,),
}


@pytest.fixture(scope="module")
def batch():
    """Two images with objects; the second one is smaller."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (2, 3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(9, 30, (2, 3, 2))], -1)
    return {
        "images": rng.integers(0, 256, (2, 64, 96, 3)).astype("uint8"),
        "sizes": np.array([[64, 96], [60, 70]], "int32"),
        "original_sizes": np.array([[128, 192], [120, 140]], "int32"),
        "image_ids": np.array([7, 9]),
        "boxes": boxes.astype("float32"),
        "classes": np.array([[0, 2, -1], [1, -1, -1]], "int32"),
        "masks": rng.integers(0, 2, (2, 3, 14, 14)).astype("uint8"),
    }


@pytest.fixture(scope="module")
def random_detector():
    return spread(tiny_detector(score_threshold=0.0))


def spread(model, seed=0):
    """Weights with which classes and boxes differ from place to place."""
    for part in (model.trunk, model.rpn_head, model.box_head, model.mask_head):
        randomize(part, seed=seed, scale=0.1)
    return model


def values(model):
    return {weight.path: numpy(weight) for weight in model.weights}


def only(batch, *keys):
    return {key: batch[key] for key in keys}


def assert_same(found, expected, tolerance=1e-4):
    for key in OUTPUTS:
        np.testing.assert_allclose(
            found[key], expected[key], rtol=tolerance, atol=tolerance
        )


@pytest.fixture(scope="module")
def run(batch):
    """A short training: weights before and after, history, evaluation."""
    keras.utils.set_random_seed(0)
    # With all anchors sampled, every level of the pyramid has some.
    model = tiny_detector(rpn_samples=1536, rpn_positive_share=1.0)
    before = values(model)
    model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), jit_compile=False)
    history = model.fit(batch, batch_size=2, epochs=3, verbose=0).history
    after = values(model)
    evaluated = model.evaluate(batch, verbose=0, return_dict=True)
    return model, before, after, history, evaluated


def test_fit_shows_five_losses_and_their_sum(run):
    _, _, _, history, evaluated = run
    assert set(history) == set(evaluated) == {"loss", *LOSSES}
    total = np.sum([history[name] for name in LOSSES], axis=0)
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    # At the start both sides of a mask are as likely.
    np.testing.assert_allclose(history["mask_loss"][0], np.log(2), rtol=0.1)
    assert evaluated["loss"] < history["loss"][0]


def test_what_is_trained(run):
    _, before, after, _, _ = run
    changed = {
        path for path in before if not np.array_equal(before[path], after[path])
    }
    frozen = [
        path
        for path in before
        if path.startswith(("conv1/", "res2")) or "_bn/" in path
    ]
    assert len(frozen) > 40
    assert not changed & set(frozen)
    assert set(before) - set(frozen) - changed == set()


def test_predict(run, batch):
    """Targets are ignored, and so are keys that are not known."""
    model = run[0]
    found = model.predict(batch, batch_size=2, verbose=0)
    assert {key: value.shape for key, value in found.items()} == OUTPUTS
    assert_same(found, outputs(model, only(batch, *IMAGES)))


def test_what_training_would_ignore_is_refused(batch):
    model = tiny_detector()
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        with pytest.raises(ValueError, match=f"`{name}` must be None"):
            model.compile("sgd", **{name: {"mask_loss": 1.0}})
    model.compile("sgd")
    weights = np.ones(2)
    for run, name in (
        (model.fit, "class_weight"),
        (model.fit, "sample_weight"),
        (model.evaluate, "sample_weight"),
        (model.compute_loss, "sample_weight"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be None"):
            run(batch, **{name: weights})


def test_losses_need_targets(random_detector, batch):
    found = random_detector(only(batch, *IMAGES))
    with pytest.raises(ValueError, match="fit and evaluate need the targets"):
        random_detector.compute_loss(y_pred=found)


def test_a_class_too_many_does_not_pass_for_another(random_detector, batch):
    for number, expected in ((2, 0), (3, 5), (99, 5)):
        classes = np.full_like(batch["classes"], number)
        losses = random_detector({**batch, "classes": classes})
        wrong = [name for name, loss in losses.items() if np.isnan(loss)]
        assert len(wrong) == expected, (number, losses)


def test_detections(random_detector, batch):
    found = outputs(random_detector, only(batch, *IMAGES))
    assert {key: value.shape for key, value in found.items()} == OUTPUTS
    number = found["num_detections"]
    assert min(number) > 2
    for image, sizes in enumerate(batch["original_sizes"]):
        live = np.arange(8) < number[image]
        assert np.all((found["classes"][image] >= 0) == live)
        scores = found["scores"][image]
        assert np.all(np.diff(scores) <= 0)
        boxes = found["boxes"][image]
        assert np.all(boxes >= 0)
        assert np.all(boxes[:, 2:] <= sizes[::-1] + 1e-4)
        assert np.max(boxes) > np.max(batch["sizes"][image]) / 2
        masks = found["masks"][image][live]
        assert np.all((masks > 0) & (masks < 1))


def test_original_frame(random_detector, batch):
    """Boxes are scaled along each axis, nothing else changes."""
    scaled = outputs(random_detector, only(batch, *IMAGES))
    plain = outputs(random_detector, only(batch, "images", "sizes"))
    plain["boxes"] = plain["boxes"] * 2
    assert_same(scaled, plain)


def test_what_stands_beyond_an_image_is_ignored(random_detector, batch):
    images = batch["images"].astype("float32")
    other = images.copy()
    other[1, 60:] = np.nan
    other[1, :, 70:] = 1e9
    sizes = only(batch, "sizes")
    found = outputs(random_detector, {"images": images, **sizes})
    assert_same(
        outputs(random_detector, {"images": other, **sizes}), found, 1e-6
    )
    # The sizes do not have to be multiples of 32.
    cut = outputs(random_detector, images[1:, :60, :70])
    found = {key: value[1:] for key, value in found.items()}
    assert_same(cut, found)


def test_a_fresh_block_is_the_identity(batch):
    block = spread(tiny_detector(score_threshold=0.0), seed=3)
    plain = MaskRCNN(block.variant.with_nonlocal(0))
    by_path = {weight.path: weight for weight in block.weights}
    for weight in plain.weights:
        weight.assign(by_path[weight.path])
    out = block.trunk.get_layer("nonlocal_res4_0").out
    given = only(batch, *IMAGES)
    with_block = outputs(block, given)
    for weight in out.weights:
        weight.assign(np.zeros(weight.shape))
    fresh, baseline = outputs(block, given), outputs(plain, given)
    for key in OUTPUTS:
        np.testing.assert_array_equal(fresh[key], baseline[key])
    assert np.max(np.abs(with_block["boxes"] - baseline["boxes"])) > 1


def test_boxes_of_detectron_end_with_their_last_pixel(batch):
    """Inside the model only: an object may be as wide as its image."""
    model = spread(
        tiny_detector(name="mask_rcnn_r50_detectron", score_threshold=0.0)
    )
    kernel, bias = model.box_head.get_layer("box_deltas").weights
    kernel.assign(np.zeros(kernel.shape))
    # As large as they may be: an object covers its image.
    bias.assign([0.0, 0.0, 99.0, 99.0] * 3)
    found = outputs(model, only(batch, *IMAGES))
    for image, (height, width) in enumerate(batch["original_sizes"]):
        largest = np.max(found["boxes"][image], axis=0)
        np.testing.assert_array_equal(largest[2:], [width, height])


def test_files(random_detector, batch, tmp_path):
    given = only(batch, *IMAGES)
    expected = outputs(random_detector, given)
    path = str(tmp_path / "model.keras")
    random_detector.save(path)
    reloaded = keras.models.load_model(path)
    assert reloaded.variant == random_detector.variant
    assert_same(outputs(reloaded, given), expected, 1e-6)
    path = str(tmp_path / "model.weights.h5")
    random_detector.save_weights(path)
    fresh = MaskRCNN.from_config(random_detector.get_config())
    fresh.load_weights(path)
    assert_same(outputs(fresh, given), expected, 1e-6)
    trained = len(random_detector.trainable_weights)
    assert len(fresh.trainable_weights) == trained
    other = dataclasses.replace(random_detector.variant, aligned=False)
    with pytest.raises(ValueError, match="of another network"):
        MaskRCNN(other).load_weights(path)


def test_what_was_frozen_stays_so_in_a_file(tmp_path):
    """If not, the state of the optimizer would not fit either."""
    model = tiny_detector()
    model.trunk.trainable = False
    model.trunk.get_layer("conv1").trainable = True
    model.box_head.get_layer("box_fc1").trainable = False
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    path = tmp_path / "model.keras"
    model.save(path)
    reloaded = keras.models.load_model(path)
    trained, expected = (
        [weight.path for weight in x.trainable_weights]
        for x in (reloaded, model)
    )
    assert trained == expected
    assert reloaded.optimizer.momentum == 0.9
    assert len(reloaded.optimizer.variables) == len(model.optimizer.variables)
    reloaded.trunk.trainable = True
    assert reloaded.trunk.get_layer("conv1").trainable_weights
    config = model.get_config()
    del config["frozen"]
    assert len(MaskRCNN.from_config(config).trainable_weights) > len(expected)


def test_a_config_keeps_its_dtype_policy(batch):
    keras.config.set_dtype_policy("mixed_bfloat16")
    config = tiny_detector().get_config()
    keras.config.set_dtype_policy("float32")
    model = MaskRCNN.from_config(config)
    assert keras.config.dtype_policy().name == "float32"
    half = model.trunk.get_layer("conv1")
    assert (half.compute_dtype, half.kernel.dtype) == ("bfloat16", "float32")
    losses = outputs(model, batch)
    assert set(losses) == set(LOSSES)
    for value in losses.values():
        assert value.dtype == "float32"
        assert np.isfinite(value)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="XLA is an option there"
)
def test_training_compiled_by_xla(batch):
    model = tiny_detector(
        frozen_stages=5,
        mask_convs=1,
        anchor_ratios=(1.0,),
        name="mask_rcnn_r50",
    )
    model.compile(keras.optimizers.SGD(0.01), jit_compile=True)
    loss = model.train_on_batch(batch, return_dict=True)
    assert set(loss) == {"loss", *LOSSES}
    assert all(np.isfinite(value) and value > 0 for value in loss.values())


def test_parameters():
    """detectron2's numbers of trained parameters of R50-FPN."""
    model = MaskRCNN50(nonlocal_blocks=1)
    assert model.name == "nl_mask_rcnn_r50"

    def count(weights):
        return sum(int(np.prod(weight.shape)) for weight in weights)

    block = model.trunk.get_layer("nonlocal_res4_4")
    assert block.count_params() == 2_099_712
    trained = count(model.trainable_weights)
    assert trained - block.count_params() == 44_120_816
    affine = [weight for weight in model.weights if "_bn/" in weight.path]
    # detectron2 counts the four numbers of a batch norm; two are left of it.
    total = count(model.weights) - block.count_params() + count(affine)
    assert total == 44_449_456


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "maskrcnn-benchmark"}, "`preset` must be one of"),
        ({"nonlocal_blocks": 5}, "`nonlocal_blocks` must be 0 or 1"),
        ({"classes": 0}, "`classes` must be a positive integer"),
        (
            {
                "weights": "a.pkl",
                "backbone_weights": "b.pkl",
                "preset": "paper",
            },
            "pass one of the two",
        ),
    ],
)
def test_refused_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        MaskRCNN50(**arguments)


def test_refused_inputs(random_detector, batch):
    with pytest.raises(ValueError, match="all of them or none.*only boxes"):
        random_detector(only(batch, "images", "boxes"))
    with pytest.raises(
        ValueError, match=r"`images`.*\(batch, height, width, 3"
    ):
        random_detector(batch["images"][0])
    with pytest.raises(ValueError, match="must have 'images'.*'sizes'"):
        random_detector(only(batch, "sizes"))
    for name, value in (
        ("sizes", batch["sizes"][0]),
        ("boxes", batch["boxes"][..., :2]),
        ("masks", batch["masks"][0]),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be of shape"):
            random_detector({**batch, name: value})


def test_a_variant_is_needed():
    with pytest.raises(ValueError, match="`variant` must be one of"):
        MaskRCNN("mask_rcnn")
    with pytest.raises(ValueError, match="`variant` may be left out where"):
        MaskRCNN(None)
