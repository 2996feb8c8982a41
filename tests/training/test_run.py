import dataclasses
import json

import keras
import numpy as np

from keras_nonlocal import Variant
from keras_nonlocal import VideoList
from keras_nonlocal.export.saved_model import read_about
from keras_nonlocal.training.run import run

TINY = Variant(depth=26, width=4, num_nonlocal=1, stem="stride1")


def test_predicts_a_video_that_can_be_read_everywhere(
    videos, config, tmp_path, shared
):
    """The middle clip of the first test video can be read, the last cannot."""
    damaged = str(shared / "data" / "awkward" / "corrupted.mp4")
    test_videos = VideoList(
        (damaged, *videos.paths[:3]),
        [0, 0, 1, 0],
        videos.class_names,
        [[0, float("nan")], [0, float("nan")], [0.2, 0.4], [0, 1]],
    )
    config = dataclasses.replace(config, epochs=1)
    numbers = run(
        {"tiny": TINY}, config, videos, test_videos, tmp_path, title="a run"
    )
    assert numbers["networks"][0]["tested"] == 4
    assert numbers["predicted_video"]["path"] == videos.paths[0]
    assert numbers["predicted_video"]["class_name"] == "dark"
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["predicted_video"] == numbers["predicted_video"]
    page = (tmp_path / "index.html").read_text()
    assert "its class is dark" in page
    about = read_about(tmp_path / "tiny" / "saved_model")
    assert about["clip"]["rule"] == "paper"


def test_a_stage_starts_from_the_one_before(videos, config, tmp_path):
    """At a rate of nearly zero it also ends there."""
    config = dataclasses.replace(config, epochs=1, learning_rate=1e-12)
    plain = dataclasses.replace(TINY, num_nonlocal=0)
    run(
        {"plain": plain, "blocks": TINY},
        config,
        videos,
        videos.subset([0, 1]),
        tmp_path,
        title="two stages",
        staged=True,
    )
    about = json.loads((tmp_path / "blocks" / "config.json").read_text())
    before = tmp_path / "plain" / "model.keras"
    assert about["config"]["weights"] == str(before)
    assert about["config"]["from_baseline"]
    one = keras.models.load_model(before)
    two = keras.models.load_model(tmp_path / "blocks" / "model.keras")
    for name in ("conv1", "res4_1_branch2b", "res5_1_branch2c_bn"):
        for ours, theirs in zip(
            two.get_layer(name).get_weights(),
            one.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
