"""Features as a user asks for them."""

import h5py
import numpy as np
import pytest

from keras_nonlocal import export_saved_model
from keras_nonlocal.prediction.features import extract_features
from tests.cli import usage
from tests.data import files
from tests.prediction import networks


@pytest.fixture
def root(tmp_path):
    """A video, a file that is none, and a network."""
    files.write(tmp_path / "a.mp4", files.moving(0, 60))
    (tmp_path / "text.mp4").write_text("not a video")
    model = networks.tiny()
    model.save(tmp_path / "tiny.keras")
    export_saved_model(model, tmp_path / "served")
    return tmp_path


def test_features(root):
    a, text = str(root / "a.mp4"), str(root / "text.mp4")
    model = f"--model={root / 'tiny.keras'}"
    out = f"--out={root}/features/{{name}}.h5"
    uses = [
        (model, "--layers"),
        (model, out, "--layer=relu", "--nopool", "--stride=0.4", a, text),
        (model, "--out=x.txt", a),
        (model, out, "--layer=rellu", a),
        (model, f"--out={root}/x.h5", a, text),
        (f"--model={root / 'served'}", "--layers"),
    ]
    layers, written, *wrong = usage.run("features", uses)
    assert layers[0] == 0
    assert [line.split()[0] for line in layers[1].splitlines()][-4:] == [
        "relu",
        "pool",
        "dropout",
        "scores",
    ]
    expected = extract_features(
        networks.tiny(), a, "relu", stride=0.4, pool=False, progress=False
    )
    with h5py.File(root / "features" / "a.h5") as file:
        np.testing.assert_allclose(
            file["features"], expected.values, rtol=1e-5, atol=1e-4
        )
        np.testing.assert_allclose(file["seconds"], expected.seconds)
    assert written[0] == 1 and f"{text}\n  cannot be read" in written[1]
    shape = str(expected.values.shape)
    assert f"relu: {shape} in {root}/features/a.h5" in written[1]
    messages = (
        "must end with .npy or .h5",
        "as relu. Received: layer='rellu'",
        "must have {name} in it",
        "exported models have no layers",
    )
    for (status, output), message in zip(wrong, messages, strict=True):
        assert status == 1 and message in output
    assert len(list((root / "features").iterdir())) == 1
