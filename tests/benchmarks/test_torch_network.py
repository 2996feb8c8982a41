import dataclasses

import numpy as np
import pytest

from benchmarks import tensorflow_sides
from benchmarks import worker
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS
from tests.checks import numpy
from tests.checks import randomize

torch = pytest.importorskip("torch")
torch_network = pytest.importorskip("benchmarks.torch_network")

VARIANT = dataclasses.replace(
    VARIANTS["nl_i3d_r50_8x8"], depth=26, width=8, num_nonlocal=2, crop_size=64
)
ARCHITECTURE = torch_network.Architecture(
    blocks=(2, 2, 2, 2),
    inflated=((True, True), (True, False), (True, False), (False, True)),
    non_local=VARIANT.nonlocal_blocks(),
    width=8,
    classes=5,
    window=2,
)


@pytest.fixture
def networks():
    ours = ResNet3D(
        VARIANT,
        classes=5,
        classifier_activation=None,
    )
    randomize(ours, scale=0.1)
    theirs = torch_network.Network(ARCHITECTURE).eval()
    return ours, theirs


def weights_of(model):
    return {weight.path: numpy(weight) for weight in model.weights}


# At 96 pixels there are several positions to average over.
@pytest.mark.parametrize("size", [64, 96])
def test_gives_what_ours_gives(networks, rng, size):
    ours, theirs = networks
    torch_network.copy_weights(theirs, weights_of(ours))
    clips = rng.integers(0, 256, (2, 4, size, size, 3)).astype("float32")
    expected = numpy(ours(clips, training=False))
    with torch.no_grad():
        found = theirs(torch.from_numpy(clips).permute(0, 4, 1, 2, 3)).numpy()
    assert np.max(np.abs(expected)) > 0.01
    np.testing.assert_allclose(
        found, expected, atol=1e-4 * np.max(np.abs(expected))
    )


def test_is_the_benchmarked_network_by_default():
    torch_names = torch_network.Network(
        dataclasses.replace(torch_network.Architecture(), width=2)
    ).state_dict()
    variant = dataclasses.replace(VARIANTS[tensorflow_sides.NETWORK], width=2)
    ours = ResNet3D(variant, classes=400)
    assert sum(not name.endswith("tracked") for name in torch_names) == len(
        ours.weights
    )


def test_weights_have_to_fit(networks):
    ours, theirs = networks
    weights = weights_of(ours)
    kernel = weights.pop("conv1/kernel")
    with pytest.raises(ValueError, match="no conv1/kernel"):
        torch_network.copy_weights(theirs, weights)
    weights = {**weights, "conv1/kernel": kernel, "conv2/kernel": kernel}
    with pytest.raises(ValueError, match="conv2/kernel"):
        torch_network.copy_weights(theirs, weights)


def test_sides_of_networks_agree(tmp_path, monkeypatch):
    """On one file of weights, in all forms that compile nothing."""
    from benchmarks import torch_sides

    path = str(tmp_path / "weights.npz")
    monkeypatch.setattr(tensorflow_sides, "CLASSES", 5)
    changes = {
        field.name: getattr(VARIANT, field.name)
        for field in dataclasses.fields(VARIANT)
    }
    macs = tensorflow_sides.write_weights(path, changes, [(4, 64)])
    assert macs[4, 64] > 1e6
    common = {"weights": path, "batch": 1, "frames": 4, "size": 64}
    ours = {**common, "variant": changes, "precision": "float32"}
    theirs = {
        **common,
        "architecture": dataclasses.asdict(ARCHITECTURE),
        "layout": "channels last",
        "precision": "float32",
    }
    (expected,) = worker.sample(torch_sides.inference(form="eager", **theirs)())
    tolerance = 1e-4 * np.max(np.abs(expected))
    for form in ("plain", "frozen"):
        (found,) = worker.sample(
            tensorflow_sides.inference(form=form, **ours)()
        )
        np.testing.assert_allclose(found, expected, atol=tolerance)
    step = torch_sides.training(form="eager", **theirs)
    assert np.all(np.isfinite([step(), step()]))
