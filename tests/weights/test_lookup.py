"""From names to weights: the catalogue, the cache and what they refuse."""

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest

from keras_nonlocal import C2D50
from keras_nonlocal import NLC2D101
from keras_nonlocal import NLI3D50
from keras_nonlocal import NLI3D101
from keras_nonlocal import VARIANTS
from keras_nonlocal import InceptionI3D
from keras_nonlocal import ResNet2D
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import list_weights
from keras_nonlocal.models import applications
from keras_nonlocal.weights import catalogue
from keras_nonlocal.weights import convert
from keras_nonlocal.weights import lookup
from keras_nonlocal.weights.files import open_checkpoint
from tests import checks
from tests import parity
from tests.weights import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]
CATALOGUE = catalogue.CATALOGUE
SMALL = Variant(depth=26, width=4, num_nonlocal=1, stem="stride1")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "keras_nonlocal"


@pytest.fixture
def site(tmp_path):
    """A folder behind a web server on loopback."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def model():
    model = ResNet3D(SMALL, classes=5)
    checks.randomize(model, scale=0.1)
    return model


@pytest.fixture
def published(site, model, monkeypatch):
    """A small entry of the catalogue, on the local site."""
    folder, url = site
    blobs = checkpoints.tensors_of(model, checkpoints.caffe2_name)
    content = pickle.dumps({"blobs": blobs}, 2)
    (folder / "small.pkl").write_bytes(content)
    entry = catalogue.WeightsEntry(
        "small",
        SMALL,
        f"{url}/small.pkl",
        catalogue.NON_COMMERCIAL,
        dataset="colours",
        classes=5,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
    )
    monkeypatch.setitem(CATALOGUE, "small", entry)
    return entry


def assert_same(one, other):
    for ours, theirs in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(checks.numpy(ours), checks.numpy(theirs))


@pytest.mark.parametrize("name", CATALOGUE)
def test_entries_are_whole(name):
    entry = CATALOGUE[name]
    assert entry.name == name
    assert entry.url.startswith("https://") or entry.package
    assert entry.licence
    if entry.network is None:
        assert entry.note
        with pytest.raises(ValueError, match="temporal shift|MXNet"):
            ResNet3D(weights=name)
    elif entry.digest is not None:
        algorithm, _, start = entry.digest.partition(":")
        # Detectron2's names have six digits of the md5.
        shortest = {"sha256": 8, "sha1": 8, "md5": 6}[algorithm]
        assert re.fullmatch("[0-9a-f]+", start) and len(start) >= shortest


def test_all_published_files_are_listed(capsys):
    list_weights()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CATALOGUE) + 1
    assert "i3d_nonlocal_32x2_IN_pretrain_400k" in lines[4]
    assert "74.9" in lines[4] and "CC-BY-NC-4.0" in lines[4]
    # The files of the code bases' own lists, counted there.
    counts = {"gluoncv": 12, "mmaction2": 15, "slowfast": 4, "lfb": 4}
    counts |= {"detectron2_mask": 5, "detectron_mask": 6}
    for family, count in counts.items():
        assert sum(name.startswith(family) for name in CATALOGUE) == count


# What the published networks count, from the code bases' own tables.
PARAMETERS = {
    "slowfast_I3D_NLN_8x8_R50": 35_401_936,
    "pytorchvideo_I3D_8x8_R50": 28_043_472,
    "pytorchvideo_C2D_8x8_R50": 24_327_632,
    "mmaction2_i3d_r50_nl_embedded_gaussian_32x2": 35_397_840,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_pinned_networks(name):
    model = convert.build(CATALOGUE[name].network, 400)
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert count == PARAMETERS[name]


def test_parameters_of_the_heavy_network():
    """33.08 million with the statistics of the norms."""
    model = convert.build(
        CATALOGUE["mmaction2_i3d_r50_heavy_32x2"].network, 400
    )
    assert round(model.count_params() / 1e6, 2) == 33.08


@pytest.mark.parametrize(
    ("variant", "entry"),
    [
        ("nl_i3d_r50", "i3d_nonlocal_32x2_IN_pretrain_400k"),
        ("nl_i3d_r50_8x8", "i3d_nonlocal_8x8_IN_pretrain_400k"),
        ("nl_i3d_r50_32x4", "i3d_nonlocal_32x4_I3D_pretrain_400k"),
        ("nl_i3d_r50_128x1", "i3d_nonlocal_128x1_I3D_pretrain_400k"),
        ("i3d_r50_8x8", "i3d_baseline_8x8_IN_pretrain_400k"),
        ("i3d_r50_32x4", "i3d_baseline_32x4_I3D_pretrain_400k"),
        ("c2d_r50", "c2d_baseline_32x2_IN_pretrain_400k"),
    ],
)
def test_the_data_set_means_the_variants_own_entry(variant, entry):
    found = lookup.default_entry(VARIANTS[variant], "kinetics400")
    assert found.name == entry


@pytest.mark.parametrize("variant", ["nl10_i3d_r101", "i3d_3x3x3_r50"])
def test_variants_without_public_weights_say_so(variant):
    with pytest.raises(ValueError, match="No kinetics400 weights are publish"):
        ResNet3D(variant, weights="kinetics400")
    with pytest.raises(ValueError, match="No kinetics400 weights are publish"):
        NLC2D101(weights="kinetics400")


def test_constructors_take_the_pinned_network():
    def pin(network, weights):
        return lookup.pinned_network(network, weights)[0]

    own = VARIANTS["nl_i3d_r50"]
    slowfast = CATALOGUE["slowfast_I3D_NLN_8x8_R50"]
    assert pin(own, slowfast.name) == slowfast.network
    assert pin(own, "kinetics400") == own
    r101 = pin(VARIANTS["nl_i3d_r101"], "kinetics400")
    assert r101 == CATALOGUE["gluoncv_i3d_nl5_resnet101_v1_kinetics400"].network


@pytest.mark.parametrize(
    ("constructor", "field"),
    [(NLI3D101, "depth"), (C2D50, "inflation")],
)
def test_another_architecture_is_refused(constructor, field):
    with pytest.raises(ValueError, match=f"another network.\n(.*\n)*{field}"):
        constructor(weights="i3d_nonlocal_8x8_IN_pretrain_400k")


def test_constructors_do_not_guess_the_network_of_a_file(tmp_path):
    """An 8x8 file would load into the 32x2 network, and be wrong there."""
    model = ResNet3D("nl_i3d_r50_8x8", classes=5)
    blobs = checkpoints.tensors_of(model, checkpoints.caffe2_name)
    path = tmp_path / "mine.pkl"
    path.write_bytes(pickle.dumps(blobs, 2))
    with pytest.raises(ValueError, match="does not tell all of its network"):
        NLI3D50(weights=path, classes=5)
    ResNet3D("nl_i3d_r50_8x8", weights=path, classes=5)
    # A file that is called as it was published is that file.
    published = tmp_path / "i3d_nonlocal_8x8_IN_pretrain_400k.pkl"
    path.rename(published)
    loaded = NLI3D50(weights=published, classes=5)
    assert loaded.get_layer("conv1").strides == (1, 2, 2)
    # Our own files say of which network they are.
    own = tmp_path / "own.weights.h5"
    loaded.save_weights(own)
    again = NLI3D50(weights=own, classes=5)
    assert again.get_layer("conv1").strides == (1, 2, 2)
    with pytest.raises(ValueError, match="stem: 'stride1' there"):
        ResNet3D("nl_i3d_r50", weights=own, classes=5)
    # Keras itself would not see the difference.
    with pytest.raises(ValueError, match="of another network"):
        NLI3D50(classes=5).load_weights(own)


def test_a_variant_must_not_contradict_an_entry():
    variant = dataclasses.replace(VARIANTS["nl_i3d_r50"], pool1_padding=1)
    with pytest.raises(ValueError, match="pool1_padding: 0 there, 1 here"):
        ResNet3D(variant, weights="i3d_nonlocal_32x2_IN_pretrain_400k")
    with pytest.raises(ValueError, match="are of Variant"):
        ResNet2D("resnet50", weights="i3d_nonlocal_32x2_IN_pretrain_400k")


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="(?s)Did you mean.*Entries: c2d_b"):
        NLI3D50(weights="i3d_nonlocal_32x2")
    with pytest.raises(ValueError, match="None, a name of"):
        NLI3D50(weights=3)
    with pytest.raises(ValueError, match="`variant` may be left out where"):
        ResNet3D()


def test_an_entry_is_fetched_converted_and_kept(
    cache, site, published, model, caplog
):
    loaded = ResNet3D(weights="small", classes=5)
    assert_same(loaded, model)
    assert sorted(p.name for p in cache.iterdir()) == [
        "downloads",
        "small.weights.h5",
        "small.weights.h5.lock",
    ]
    (site[0] / "small.pkl").unlink()
    again = ResNet3D(SMALL, weights="colours", classes=5)
    assert_same(again, model)
    headless = ResNet3D(weights="small", include_top=False, pooling="avg")
    assert headless.output_shape == (None, 128)
    shown = [r for r in caplog.records if "not for commercial" in r.message]
    assert len(shown) == 1


def test_the_converted_file_knows_its_network(cache, published, model):
    ResNet3D(weights="small", classes=5)
    path = cache / "small.weights.h5"
    about = open_checkpoint(path).about
    assert about["entry"] == "small"
    assert about["licence"] == "CC-BY-NC-4.0"
    assert convert.restore(about["network"]) == SMALL
    assert_same(ResNet3D(weights=path, classes=5), model)
    wrong = dataclasses.replace(SMALL, mode="dot_product")
    with pytest.raises(ValueError, match="mode: 'embedded_gaussian' there"):
        ResNet3D(wrong, weights=path, classes=5)


def test_a_published_file_by_its_path_is_recognised(site, published, model):
    path = site[0] / "small.pkl"
    assert_same(ResNet3D(weights=path, classes=5), model)
    other = dataclasses.replace(SMALL, stem="stride4")
    with pytest.raises(ValueError, match="stem: 'stride1' there"):
        ResNet3D(other, weights=path, classes=5)


def test_a_changed_file_is_not_loaded(cache, site, published):
    with open(site[0] / "small.pkl", "ab") as file:
        file.write(b"more")
    with pytest.raises(OSError, match="sha256"):
        ResNet3D(weights="small", classes=5)
    assert not (cache / "small.weights.h5").exists()


def test_offline_says_where_to_put_the_file(cache, site, published, model):
    content = (site[0] / "small.pkl").read_bytes()
    (site[0] / "small.pkl").unlink()
    place = cache / "downloads" / "small.pkl"
    with pytest.raises(OSError, match=str(place)):
        ResNet3D(weights="small", classes=5)
    place.write_bytes(content)
    assert_same(ResNet3D(weights="small", classes=5), model)


def test_a_file_in_an_archive(cache, site, published, model, monkeypatch):
    folder, url = site
    with tarfile.open(folder / "all.tar.gz", "w:gz") as archive:
        archive.add(folder / "small.pkl", "models/inner/small.pkl")
    entry = dataclasses.replace(
        published,
        url=f"{url}/all.tar.gz",
        member="inner/small.pkl",
        digest=None,
    )
    monkeypatch.setitem(CATALOGUE, "small", entry)
    assert_same(ResNet3D(weights="small", classes=5), model)
    absent = dataclasses.replace(entry, name="absent", member="x.pkl")
    monkeypatch.setitem(CATALOGUE, "absent", absent)
    with pytest.raises(ValueError, match="does not hold x.pkl"):
        ResNet3D(weights="absent", classes=5)


def test_several_processes_at_once(cache, published, tmp_path):
    script = tmp_path / "load.py"
    script.write_text(
        "from keras_nonlocal import ResNet3D, Variant\n"
        "from keras_nonlocal.weights import catalogue\n"
        "variant = Variant(depth=26, width=4, num_nonlocal=1, stem='stride1')\n"
        "entry = catalogue.WeightsEntry(\n"
        f"    'small', variant, {published.url!r}, 'x', dataset='colours',\n"
        f"    classes=5, digest={published.digest!r})\n"
        "catalogue.CATALOGUE['small'] = entry\n"
        "ResNet3D(weights='small', classes=5)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, script], cwd=ROOT, env=os.environ)
        for _ in range(2)
    ]
    assert [process.wait(200) for process in processes] == [0, 0]


def test_an_error_page_does_not_stay(
    cache, site, published, model, monkeypatch
):
    folder, _ = site
    entry = dataclasses.replace(published, digest=None)
    monkeypatch.setitem(CATALOGUE, "small", entry)
    content = (folder / "small.pkl").read_bytes()
    (folder / "small.pkl").write_bytes(b"<html>Sign in</html>")
    with pytest.raises(ValueError, match="error page"):
        ResNet3D(weights="small", classes=5)
    (folder / "small.pkl").write_bytes(content)
    assert_same(ResNet3D(weights="small", classes=5), model)
    # A damaged file of the cache is made anew.
    path = cache / "small.weights.h5"
    path.write_bytes(path.read_bytes()[:1000])
    assert_same(ResNet3D(weights="small", classes=5), model)


def test_sigmoid_networks_are_not_given_a_softmax():
    with pytest.raises(ValueError, match="classifier_activation='sigmoid'"):
        ResNet3D(weights="lfb_r50_charades", classes=157)


@pytest.mark.parametrize(
    ("constructor", "weights"),
    [
        (ResNet3D, "kinetics400"),
        (ResNet3D, "inception_i3d_rgb_kinetics400"),
        (ResNet3D, "torchvision_resnet50"),
        (ResNet2D, "i3d_baseline_8x8_IN_pretrain_400k"),
        (ResNet2D, "imagenet"),
        (NLI3D50, ["a"]),
        (NLI3D50, {}),
        (NLI3D50, np.zeros(3)),
        (NLI3D50, "imagenet"),
        (InceptionI3D, "torchvision_resnet50"),
    ],
)
def test_weights_that_a_constructor_cannot_take(constructor, weights):
    with pytest.raises(ValueError, match="weights|variant"):
        constructor(weights=weights)


def test_an_image_networks_weights_are_to_be_inflated():
    with pytest.raises(ValueError, match=r"inflate\(ResNet2D"):
        ResNet3D("i3d_r50", weights="torchvision_resnet50")


@pytest.mark.parametrize(
    "changes", [{"norm": "sync_batch"}, {"norm": "affine"}, {"num_frames": 64}]
)
def test_other_training_is_served_by_the_same_entry(changes):
    variant = dataclasses.replace(VARIANTS["nl_i3d_r50_8x8"], **changes)
    entry = lookup.default_entry(variant, "kinetics400")
    assert entry.name == "i3d_nonlocal_8x8_IN_pretrain_400k"


FIXTURES = {
    "caffe2_c2d_baseline_8x8_r50": "c2d_baseline_8x8_IN_pretrain_400k",
    "caffe2_c2d_nonlocal_8x8_r50": "c2d_nonlocal_8x8_IN_pretrain_400k",
    "caffe2_i3d_baseline_32x4_r50": "i3d_baseline_32x4_I3D_pretrain_400k",
    "caffe2_i3d_nonlocal_32x2_r50": "i3d_nonlocal_32x2_IN_pretrain_400k",
    "caffe2_i3d_nonlocal_32x4_r50": "i3d_nonlocal_32x4_I3D_pretrain_400k",
    "caffe2_i3d_nonlocal_8x8_r50": "i3d_nonlocal_8x8_IN_pretrain_400k",
    "gluoncv_i3d_nl5_resnet50_v1_kinetics400": (
        "gluoncv_i3d_nl5_resnet50_v1_kinetics400"
    ),
    "mmaction2_c2d_r50_8x8": "mmaction2_c2d_r50_8x8",
    "mmaction2_i3d_r50_32x2": "mmaction2_i3d_r50_32x2",
    "mmaction2_i3d_r50_nl_embedded_32x2": (
        "mmaction2_i3d_r50_nl_embedded_gaussian_32x2"
    ),
    "slowfast_i3d_nln_8x8_r50": "slowfast_I3D_NLN_8x8_R50",
    "torchvision_resnet50": "torchvision_resnet50",
    "torchvision_resnext101_32x8d": "torchvision_resnext101_32x8d",
}
# Fields that mean nothing without blocks, or that a fixture does not tell.
_UNTOLD = {"nonlocal_places", "mean", "std"}
_OF_BLOCKS = {"sub_sample", "use_scale", "nonlocal_bias", "res3_group"}


@pytest.mark.parametrize("name", FIXTURES)
def test_entries_pin_what_the_code_bases_built(shared, name):
    module = parity.weights_module(shared / "parity")
    data = module.load(shared / "parity" / f"{name}.json.gz")
    told = applications.describe(parity.variant(data))
    pinned = applications.describe(CATALOGUE[FIXTURES[name]].network)
    free = _UNTOLD | applications.TRAINING_FIELDS - {"norm", "nonlocal_norm"}
    if not told["num_nonlocal"]:
        free = free | _OF_BLOCKS | {"nonlocal_norm"}
    for field in told.keys() - free:
        assert pinned[field] == told[field], field


def test_networks_as_json():
    for entry in CATALOGUE.values():
        if entry.network is not None:
            text = json.dumps(applications.describe(entry.network))
            assert convert.restore(json.loads(text)) == entry.network
    with pytest.raises(ValueError, match="kind of a network"):
        convert.restore({"kind": "Sequential"})
    with pytest.raises(ValueError, match="this version"):
        convert.restore({"kind": "Variant", "colour": 3})
    with pytest.raises(ValueError, match="this version"):
        convert.restore({"kind": "Variant", "width": "x", "depth": []})


def test_conversion_writes_only_our_own_kind(published, site, tmp_path):
    file = open_checkpoint(site[0] / "small.pkl")
    with pytest.raises(ValueError, match="end in .weights.h5"):
        convert.convert(file, tmp_path / "model.h5", SMALL)


def test_weights_of_a_package_that_is_not_installed(cache, monkeypatch):
    entry = CATALOGUE["inception_i3d_rgb_kinetics400"]
    absent = dataclasses.replace(entry, package="no_such_package")
    monkeypatch.setitem(CATALOGUE, entry.name, absent)
    with pytest.raises(ValueError, match=r"keras-nonlocal\[pretrained\]"):
        InceptionI3D(weights=entry.name)
