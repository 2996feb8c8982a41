import dataclasses
import gzip
import json
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal import ResNet3D
from keras_nonlocal import insert_nonlocal
from tests import checks
from tests.models.test_resnet3d import SMALL
from tests.models.test_resnet3d import random_clip
from tests.models.test_resnet3d import small


@pytest.fixture(params=[".weights.h5", ".keras"])
def saved(request, tmp_path):
    model = small()
    path = str(tmp_path / f"small{request.param}")
    if request.param == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return model, path


def test_weights_argument(saved, rng):
    model, path = saved
    clip = random_clip(rng)
    loaded = ResNet3D(SMALL, classes=5, weights=path)
    np.testing.assert_array_equal(
        checks.numpy(loaded(clip)), checks.numpy(model(clip))
    )


def test_one_file_serves_without_top(saved, rng):
    model, path = saved
    clip = random_clip(rng)
    headless = ResNet3D(SMALL, include_top=False, pooling="avg", weights=path)
    with_weights = [layer for layer in headless.layers if layer.weights]
    assert len(with_weights) > 50
    for layer in with_weights:
        for ours, theirs in zip(
            layer.weights, model.get_layer(layer.name).weights, strict=True
        ):
            np.testing.assert_array_equal(
                checks.numpy(ours), checks.numpy(theirs)
            )
    assert checks.numpy(headless(clip)).shape == (2, 128)


def test_contradicting_number_of_classes(saved):
    _, path = saved
    with pytest.raises(ValueError, match="holds 5 classes but classes=7"):
        ResNet3D(SMALL, classes=7, weights=path)


def test_another_network_names_the_difference(saved):
    _, path = saved
    other = dataclasses.replace(SMALL, num_nonlocal=1)
    with pytest.raises(ValueError, match="num_nonlocal: 2 there, 1 here"):
        ResNet3D(other, classes=5, weights=path)


def test_equal_shapes_in_another_place_do_not_load(tmp_path):
    """Keras alone would fill one stage's block from the other's position."""
    one = dataclasses.replace(SMALL, num_nonlocal=1, nonlocal_stage="res3")
    path = str(tmp_path / "one.weights.h5")
    ResNet3D(one, classes=5).save_weights(path)
    moved = dataclasses.replace(one, nonlocal_stage="res4")
    with pytest.raises(ValueError, match="nonlocal_stage: 'res3' there"):
        ResNet3D(moved, classes=5, weights=path)


@pytest.fixture
def old(tmp_path):
    """A .keras file of the version before files told their network."""
    packed = pathlib.Path(__file__).parents[1] / "golden" / "small.keras.gz"
    path = tmp_path / "old.keras"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return str(path)


OLD = dataclasses.replace(
    VARIANTS["i3d_r50"], depth=26, width=2, num_nonlocal=1
)


def test_files_of_the_first_version(old, rng):
    loaded = ResNet3D(OLD, classes=3, weights=old)
    clip = rng.integers(0, 256, (1, 16, 64, 64, 3)).astype("uint8")
    expected = keras.saving.load_model(old)(clip)
    np.testing.assert_array_equal(
        checks.numpy(loaded(clip)), checks.numpy(expected)
    )
    frozen = dataclasses.replace(OLD, norm="affine", nonlocal_norm="affine")
    ResNet3D(frozen, classes=3, weights=old)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"mode": "dot_product"}, "mode"),
        ({"use_scale": False}, "use_scale"),
        ({"sub_sample": "projection"}, "sub_sample"),
        ({"stem": "stride1"}, "conv1: strides"),
        ({"pool1_padding": 1}, "pool1_pad: only here"),
        ({"res5_stride": 1}, "res5_0_branch2b: strides"),
        ({"head": "logit"}, "average"),
        ({"mean": 0.0}, "mean"),
    ],
)
def test_the_settings_in_an_old_keras_file_are_compared(changes, setting, old):
    other = dataclasses.replace(OLD, **changes)
    with pytest.raises(ValueError, match=f"(?s)set differently.*{setting}"):
        ResNet3D(other, classes=3, weights=old)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_broken_files(suffix, tmp_path):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"not a weights file")
    with pytest.raises(ValueError, match=str(path)):
        ResNet3D(SMALL, classes=5, weights=str(path))
    with pytest.raises(ValueError, match="no file"):
        ResNet3D(SMALL, weights=str(tmp_path / f"absent{suffix}"))


def test_truncated_files(saved, tmp_path):
    _, path = saved
    with open(path, "rb") as file:
        content = file.read()
    for length in (20, 1000, len(content) // 2, len(content) - 100):
        (tmp_path / "short").write_bytes(content[:length])
        with pytest.raises(ValueError, match="short"):
            ResNet3D(SMALL, classes=5, weights=tmp_path / "short")


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_a_backbone_loads_its_own_file(suffix, tmp_path, rng):
    backbone = ResNet3D(SMALL, include_top=False, pooling="max")
    checks.randomize(backbone, scale=0.1)
    path = str(tmp_path / f"backbone{suffix}")
    if suffix == ".keras":
        backbone.save(path)
    else:
        backbone.save_weights(path)
    loaded = ResNet3D(SMALL, include_top=False, pooling="max", weights=path)
    clip = random_clip(rng)
    np.testing.assert_array_equal(
        checks.numpy(loaded(clip)), checks.numpy(backbone(clip))
    )
    with pytest.raises(ValueError, match="Missing.*logits"):
        ResNet3D(SMALL, classes=5, weights=path)


def test_more_classes_than_features(tmp_path):
    path = str(tmp_path / "many.weights.h5")
    ResNet3D(SMALL, classes=400).save_weights(path)
    headless = ResNet3D(SMALL, include_top=False, weights=path)
    assert headless.output_shape[-1] == 128
    with pytest.raises(ValueError, match="holds 400 classes but classes=7"):
        ResNet3D(SMALL, classes=7, weights=path)


def test_behind_other_layers(saved, rng):
    model, path = saved
    entry = keras.Input((None, None, None, 3))
    doubled = keras.layers.Conv3D(3, 1, use_bias=False)(entry)
    behind = ResNet3D(SMALL, classes=5, input_tensor=doubled, weights=path)
    kernel = 0.5 * np.eye(3, dtype="float32")[None, None, None]
    behind.layers[1].set_weights([kernel])
    clip = random_clip(rng).astype("float32")
    np.testing.assert_allclose(
        checks.numpy(behind(clip)), checks.numpy(model(clip / 2)), atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "dot_product"},
        {"use_scale": False},
        {"sub_sample": "projection"},
        {"res3_group": 4},
        {"attention_axes": "space"},
        {"stem": "stride4"},
        {"pool1_padding": 1},
        {"pool2": False},
        {"stride_in_1x1": True},
        {"res5_stride": 1},
        {"head": "logit"},
        {"mean": 0.0},
    ],
)
def test_other_settings_do_not_load(changes, suffix, tmp_path):
    """All of these have the same names and shapes."""
    path = str(tmp_path / f"small{suffix}")
    model = small()
    if suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    ((field, value),) = changes.items()
    other = dataclasses.replace(SMALL, **changes)
    with pytest.raises(ValueError, match=f"{field}: .* there, {value!r} here"):
        ResNet3D(other, classes=5, weights=path)
    # What belongs to training may differ, and who normalises.
    ResNet3D(
        dataclasses.replace(SMALL, dropout_rate=0.1),
        classes=5,
        weights=path,
        classifier_activation=None,
        include_preprocessing=False,
    )


def test_half_precision_files(tmp_path, rng):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = small()
        path = str(tmp_path / "half.weights.h5")
        model.save_weights(path)
    finally:
        keras.config.set_dtype_policy(policy)
    loaded = ResNet3D(SMALL, classes=5, weights=path)
    np.testing.assert_array_equal(
        checks.numpy(loaded.get_layer("conv1").kernel),
        np.asarray(
            keras.ops.convert_to_numpy(
                keras.ops.cast(model.get_layer("conv1").kernel, "float32")
            )
        ),
    )


def test_networks_are_equal_however_they_were_written(tmp_path):
    listed = dataclasses.replace(
        SMALL, mean=[1.0, 2.0, 3.0], dropout_rate=np.float32(0.5)
    )
    path = str(tmp_path / "listed.weights.h5")
    ResNet3D(listed, classes=5).save_weights(path)
    for mean in (1.0, 2.0, 3.0), np.array([1.0, 2.0, 3.0]):
        same = dataclasses.replace(SMALL, mean=mean)
        ResNet3D(same, classes=5, weights=path)


def test_files_after_insertion_are_of_the_network_with_blocks(tmp_path):
    plain = dataclasses.replace(SMALL, num_nonlocal=0)
    one = dataclasses.replace(SMALL, num_nonlocal=1)
    (place,) = one.nonlocal_blocks()
    inserted = insert_nonlocal(
        ResNet3D(plain, classes=5), after="{}_{}".format(*place)
    )
    path = str(tmp_path / "inserted.weights.h5")
    inserted.save_weights(path)
    ResNet3D(one, classes=5, weights=path)


def test_a_file_without_a_record_is_told(tmp_path, caplog):
    path = str(tmp_path / "bare.weights.h5")
    small().save_weights(path)
    with h5py.File(path, "r+") as file:
        del file["layers/network_record"]
    ResNet3D(SMALL, classes=5, weights=path)
    assert "does not say which network it is of" in caplog.text


def test_a_model_in_a_model_is_told(tmp_path):
    path = str(tmp_path / "outer.weights.h5")
    inner = small()
    x = keras.Input(inner.input_shape[1:])
    keras.Model(x, inner(x)).save_weights(path)
    with pytest.raises(ValueError, match="not a layer but a model in it"):
        ResNet3D(SMALL, classes=5, weights=path)


def test_files_from_before_a_field_are_of_the_same_network(tmp_path):
    path = str(tmp_path / "before.weights.h5")
    model = small()
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        own = file["layers/network_record/vars"]
        fields = json.loads(own["network"][()].tobytes())
        del fields["res3_group"], own["network"]
        own["network"] = np.frombuffer(json.dumps(fields).encode(), "uint8")
    model.load_weights(path)
    other = dataclasses.replace(SMALL, use_scale=not SMALL.use_scale)
    with pytest.raises(ValueError, match="weights are of another network"):
        ResNet3D(other, classes=5).load_weights(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(5, "int32"), "is of int32"),
        (np.ones(5, "complex64"), "is of complex64"),
        (np.array([b"x"] * 5), "is of "),
        (np.full(5, 1e300), "not finite"),
        (np.full(5, np.nan, "float32"), "not finite"),
    ],
)
def test_numbers_that_cannot_be(value, message, tmp_path):
    def change(file):
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = value

    path = hostile(str(tmp_path / "bad.weights.h5"), change)
    with pytest.raises(ValueError, match=message):
        ResNet3D(SMALL, classes=5, weights=path)


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 10**7},
        {"dropout_rate": "a"},
        {"mean": "x"},
        {"std": 0},
        {"mean": [1, 2]},
        {"kind": {}},
    ],
)
def test_hostile_records(fields, tmp_path):
    def change(file):
        own = file["layers/network_record/vars"]
        record = json.loads(own["network"][()].tobytes()) | fields
        del own["network"]
        own["network"] = np.frombuffer(json.dumps(record).encode(), "uint8")

    path = hostile(str(tmp_path / "bad.weights.h5"), change)
    with pytest.raises(ValueError, match="bad.weights.h5"):
        ResNet3D(weights=path, classes=5)


def hostile(path, change):
    """A file of weights to which something was done."""
    small().save_weights(path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def external(file):
    group = file["layers/dense/vars"]
    del group["1"]
    group.create_dataset("1", (5,), "uint8", external=[("/dev/zero", 0, 5)])


def enormous(file):
    group = file["layers/dense/vars"]
    del group["1"]
    group.create_dataset("1", (2**46,), "float32", chunks=(1024,))


def cyclic(file):
    file["layers/dense/again"] = file["layers/dense"]


def linked(file):
    file["layers/more"] = h5py.ExternalLink("/etc/passwd", "/")


def linked_array(file):
    del file["layers/dense/vars/1"]
    file["layers/dense/vars/1"] = h5py.ExternalLink("other.h5", "/a")


def many_paths(file):
    """Seven levels of thirty links to one group each: 30 ** 7 paths."""
    group = file["layers/dense"]
    for level in range(7):
        inner = file.create_group(f"level{level}")
        inner.create_group("vars")
        for number in range(30):
            group[f"link{number}"] = inner
        group = inner


def about(text):
    def change(file):
        file.attrs["keras_nonlocal"] = text

    return change


@pytest.mark.parametrize(
    "change",
    [
        external,
        enormous,
        cyclic,
        linked,
        linked_array,
        many_paths,
        *map(about, ["[]", "3", "{", '{"a": ' * 10_000, [1, 2]]),
    ],
)
def test_hostile_files(change, tmp_path):
    path = hostile(str(tmp_path / "bad.weights.h5"), change)
    with pytest.raises(ValueError, match="bad.weights.h5"):
        ResNet3D(SMALL, classes=5, weights=path)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config": 3},
        {"config": {"layers": [{"name": "a"}]}},
        {"config": {"layers": [{"name": "a", "class_name": 1, "config": 2}]}},
    ],
)
def test_hostile_configurations(config, tmp_path):
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ValueError, match="bad.keras"):
        ResNet3D(SMALL, classes=5, weights=path)


def test_bombs(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"\0" * 10_000_000)
    with pytest.raises(ValueError, match="larger than the file"):
        ResNet3D(SMALL, classes=5, weights=path)
