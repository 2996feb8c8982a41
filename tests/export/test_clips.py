import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nonlocal.export import clips as export
from keras_nonlocal.export import saved_model
from tests.models.test_resnet3d import SMALL
from tests.models.test_resnet3d import random_clip
from tests.models.test_resnet3d import small

ABOUT = {"class_names": ["a", "b", "c", "d", "e"], "clip": "8x2"}
# A process that has Keras and TensorFlow but not this package.
FRESH = """
import sys
import numpy as np
import tensorflow as tf
assert "keras_nonlocal" not in sys.modules
folder, clips, scores = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
signature, = serve.structured_input_signature[1].values()
assert signature.dtype == tf.uint8, signature
data = np.load(clips)
np.savez(scores, **{
    name: next(iter(serve(tf.constant(data[name])).values()))
    for name in data
})
assert "keras_nonlocal" not in sys.modules
"""


def test_a_fresh_process_serves_any_size(rng, tmp_path):
    model = small()
    export.export_saved_model(model, tmp_path / "served", ABOUT)
    shapes = [(1, 8, 48, 48, 3), (3, 8, 48, 48, 3), (2, 11, 40, 64, 3)]
    arrays = {f"clip{i}": random_clip(rng, s) for i, s in enumerate(shapes)}
    np.savez(tmp_path / "clips.npz", **arrays)
    subprocess.run(
        [sys.executable, "-c", FRESH]
        + [str(tmp_path / x) for x in ("served", "clips.npz", "scores.npz")],
        check=True,
        cwd=tmp_path,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "PATH": ""},
    )
    served = np.load(tmp_path / "scores.npz")
    for name, clip in arrays.items():
        expected = np.asarray(model(clip))
        np.testing.assert_allclose(served[name], expected, atol=1e-5)
        assert np.std(expected) > 1e-3


def test_too_small_a_clip_is_an_error_not_a_nan(tmp_path, rng):
    export.export_saved_model(small(), tmp_path / "served")
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    frames, side = SMALL.minimum_size()
    smallest = (1, frames, side, side, 3)
    assert np.all(np.isfinite(loaded.serve(random_clip(rng, smallest))))
    for axis in (1, 2, 3):
        shape = list(smallest)
        shape[axis] -= 1
        message = rf"at least \[{frames}, {side}, {side}\] frames"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            loaded.serve(random_clip(rng, shape))


def test_about_is_kept(tmp_path):
    export.export_saved_model(small(), tmp_path / "served", ABOUT)
    assert saved_model.read_about(tmp_path / "served") == ABOUT
    with pytest.raises(ValueError, match=r"assets\.extra"):
        saved_model.read_about(tmp_path)


def test_does_not_overwrite_unless_told(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "precious").touch()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export.export_saved_model(small(), tmp_path / "served")
    assert (tmp_path / "served" / "precious").exists()
    export.export_saved_model(small(), tmp_path / "served", overwrite=True)
    assert not (tmp_path / "served" / "precious").exists()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        export.export_saved_model(small(), tmp_path / "file", overwrite=True)


def test_refuses_a_model_that_cannot_take_uint8(tmp_path):
    with pytest.raises(ValueError, match="include_preprocessing"):
        export.export_saved_model(
            small(include_preprocessing=False), tmp_path / "served"
        )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy, tmp_path, rng):
    keras.config.set_dtype_policy(policy)
    model = small(changes={"res3_group": 4})
    export.export_saved_model(model, tmp_path / "served")
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    clip = random_clip(rng, (1, 16, 48, 48, 3))
    expected = model.predict(clip, verbose=0)
    np.testing.assert_allclose(loaded.serve(clip), expected, atol=1e-5)


def test_writes_nothing_that_differs(tmp_path, monkeypatch):
    """A graph whose outputs are not the model's is not left behind."""
    monkeypatch.setattr(export, "_TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="differs"):
        export.export_saved_model(small(), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []


def test_frozen_graph(tmp_path, rng):
    """Any size, the same scores; neither variables nor norms."""
    model = small()
    export.export_saved_model(model, tmp_path / "served", ABOUT, frozen=True)
    assert saved_model.read_about(tmp_path / "served") == ABOUT
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures[
        "serving_default"
    ]
    (signature,) = serve.structured_input_signature[1].values()
    assert signature.dtype == tf.uint8
    for shape in ((1, 8, 48, 48, 3), (2, 11, 40, 64, 3)):
        clip = random_clip(rng, shape)
        (scores,) = serve(tf.constant(clip)).values()
        expected = np.asarray(model(clip))
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        assert np.std(expected) > 1e-3
    frames, side = SMALL.minimum_size()
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least"):
        serve(tf.zeros((1, frames, side, side - 1, 3), tf.uint8))
    graph = serve.graph.as_graph_def()
    nodes = [node for f in graph.library.function for node in f.node_def]
    kinds = {node.op for node in [*graph.node, *nodes]}
    assert {"Const", "Conv3D"} <= kinds
    assert not kinds & {"ReadVariableOp", "VarHandleOp", "FusedBatchNormV3"}


def test_frozen_half_precision(tmp_path, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small()
    export.export_saved_model(model, tmp_path / "served", frozen=True)
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    clip = random_clip(rng)
    expected = model.predict(clip, verbose=0)
    np.testing.assert_allclose(loaded.serve(clip), expected, rtol=0.1)


def test_too_many_weights_for_a_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="`frozen` is for models of up to"):
        export.export_saved_model(small(), tmp_path / "served", frozen=True)
    assert list(tmp_path.iterdir()) == []
