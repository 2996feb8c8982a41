"""Features of a video over time."""

import gc
import json
import weakref

import h5py
import keras
import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import InceptionI3D
from keras_nonlocal import ResNet3D
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.evaluation.models import ClipInput
from keras_nonlocal.prediction import features
from keras_nonlocal.prediction.features import extract_features
from keras_nonlocal.prediction.features import write_features
from keras_nonlocal.prediction.windows import open_windows
from tests import checks
from tests.prediction import networks


@pytest.fixture(scope="module")
def clips(video):
    settings = ClipInput(ClipSpec(4, 2), 28, 32)
    with open_windows(video, settings, 0.5, time_limit=60.0) as opened:
        found = list(opened.windows)
    seconds = np.array([(window.start, window.end) for window in found])
    return np.stack([window.frames for window in found]), seconds


def extract(*arguments, **options):
    return extract_features(*arguments, **{"progress": False, **options})


def test_are_what_the_layer_gives(network, video, clips):
    frames, seconds = clips
    maps = checks.numpy(
        keras.Model(network.input, network.get_layer("relu").output)(frames)
    )
    whole = extract(network, video, "relu", stride=0.5, pool=False)
    assert whole.values.shape == (len(frames), 4, 10, 10, 5)
    assert whole.values.dtype == np.float32
    np.testing.assert_allclose(whole.values, maps, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(whole.seconds, seconds)
    pooled = extract(network, video, "relu", stride=0.5, batch_size=1)
    np.testing.assert_allclose(
        pooled.values, maps.mean((1, 2, 3)), rtol=1e-5, atol=1e-4
    )
    assert (pooled.layer, pooled.stride) == ("relu", 0.5)


def test_by_default_what_the_classifier_takes(network, video):
    found = extract(network, video)
    assert found.layer == "pool" and found.values.shape == (11, 5)
    same = extract(network, video, "relu")
    np.testing.assert_allclose(found.values, same.values, rtol=1e-5)
    # 0.28 s are 7 frames, the span of a window.
    np.testing.assert_allclose(np.diff(found.seconds[:-1, 0]), 0.28)


def test_the_default_of_our_networks():
    small = {"input_shape": (8, 32, 32, 3)}
    networks = {
        "pool5": ResNet3D("small_nl_c2d", classes=5, **small),
        "avg_pool": InceptionI3D(classes=5, **small),
    }
    for name, model in networks.items():
        assert features._up_to(model, None)[1] == name
    trunk = ResNet3D("small_c2d", include_top=False, pooling="avg", **small)
    part, name = features._up_to(trunk, None)
    assert part.output_shape == trunk.output_shape == (None, 128 * 4)


@pytest.mark.parametrize("ending", [".npy", ".h5"])
def test_files(network, video, tmp_path, ending):
    path = tmp_path / f"x{ending}"
    path.write_text("old")
    expected = extract(network, video, "relu", stride=0.1, pool=False)
    about = write_features(
        network,
        video,
        path,
        "relu",
        stride=0.1,
        pool=False,
        batch_size=3,
        progress=False,
    )
    expected.write(tmp_path / f"y{ending}")
    for stem in "xy":
        values, seconds, found = read(tmp_path / f"{stem}{ending}")
        np.testing.assert_allclose(values, expected.values, rtol=1e-6)
        np.testing.assert_allclose(seconds, expected.seconds, atol=1e-6)
        assert found == json.loads(json.dumps(about))
    assert about["shape"] == list(expected.values.shape)
    assert about["layer"] == "relu" and about["stride"] == 0.1
    assert about["clip"]["num_frames"] == 4 and not about["pooled"]
    assert not list(tmp_path.glob("*.part"))


def test_h5_takes_the_space_of_what_is_in_it(tmp_path):
    for size, bound in ((1 << 20, 4.3e6), (4, 2e4)):
        values = np.ones((1, size), "float32")
        found = features.Features(values, np.zeros((1, 2)), "x", None, {})
        found.write(tmp_path / "a.h5")
        assert (tmp_path / "a.h5").stat().st_size < bound


def test_the_layer_must_have_one_output():
    clip = keras.Input((4, 28, 28, 3))
    shared = keras.layers.Dense(3, name="shared")
    both = keras.layers.GRU(3, return_state=True, name="both")
    x = shared(shared(clip))
    x, state = both(keras.layers.Reshape((4, -1))(x))
    model = keras.Model(clip, [x, state])
    for layer, message in (
        ("shared", "layer='shared', which gives 2"),
        ("both", "layer='both', which gives 2"),
        (None, "must be given for a model of several outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            features._up_to(model, layer)
    # What else calls a layer does not matter.
    part, _ = features._up_to(keras.Model(clip, shared(clip)), "shared")
    assert part.output_shape == (None, 4, 28, 28, 3)
    mixed = keras.Model(clip, keras.ops.concatenate([clip, clip], axis=0))
    with pytest.raises(ValueError, match="a row for each clip"):
        extract(mixed, np.zeros((4, 32, 32, 3), "u1"), None, ClipSpec(4), fps=2)


def test_a_part_is_made_once_and_goes_with_its_model():
    model = networks.tiny()
    part, _ = features._up_to(model, "relu")
    assert features._up_to(model, "relu")[0] is part
    seen = weakref.ref(model)
    del model, part
    gc.collect()
    assert seen() is None


def read(path):
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            about = json.loads(file.attrs["about"])
            return file["features"][:], file["seconds"][:], about
    about = json.loads(path.with_name(f"{path.name}.json").read_text())
    return np.load(path), np.array(about.pop("seconds")), about


@pytest.mark.parametrize("ending", [".npy", ".h5"])
def test_nothing_is_written_of_what_cannot_be_read(network, tmp_path, ending):
    def frames():
        for number in range(40):
            yield number / 10, np.zeros((32, 40, 3), "uint8")
        raise VideoError("the camera was pulled out")

    path = tmp_path / f"x{ending}"
    with pytest.raises(VideoError, match="pulled out"):
        write_features(network, frames(), path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_says_what_is_wrong(network, video, tmp_path):
    raw = ResNet3D("small_c2d", classes=2, include_preprocessing=False)
    for changes, message in (
        ({"layer": "rellu"}, "as relu. Received: layer='rellu'"),
        ({"model": lambda x: x}, "functions and exported models have no"),
        ({"model": raw}, "include_preprocessing=True"),
        ({"batch_size": 0}, "`batch_size` must be"),
    ):
        arguments = {"model": network, "video": video, **changes}
        with pytest.raises(ValueError, match=message):
            extract(**arguments)
    with pytest.raises(ValueError, match="must end with .npy or .h5"):
        write_features(network, video, tmp_path / "x.txt")
