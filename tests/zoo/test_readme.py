import dataclasses
import json
import re

import numpy as np
import pytest

from keras_nonlocal import ClipSpec
from keras_nonlocal import VideoList
from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.training.environment import environment
from zoo import readme


def test_is_not_stale():
    """After a change: `python -m zoo.readme`."""
    assert readme.README.read_text() == readme.page()


def test_links_lead_to_files():
    links = re.findall(r"\]\((.+?)\)", readme.README.read_text())
    assert len(links) >= 68
    assert [link for link in links if not (readme.ZOO / link).exists()] == []


def test_every_recipe_is_in_it():
    text = readme.README.read_text()
    for recipe in readme.recipes().values():
        assert f"[{recipe.name}]" in text


def test_a_section_that_names_no_recipe_is_none():
    sources = [recipe.source for recipe in readme.recipes().values()]
    for key in readme.SECTIONS:
        assert any(re.search(rf"\b{key}\b", source) for source in sources)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(readme, "ZOO", tmp_path)
    return tmp_path


def evaluation(videos, scores):
    return Evaluation(
        "mine",
        "folder",
        videos,
        ClipSpec(8, 8),
        dataclasses.replace(PROTOCOLS["paper"], num_clips=10),
        np.arange(len(videos)),
        {"1 clip": scores[::-1].copy(), "10 whole frames": scores},
        {},
        {**environment(), "seconds": 1.0},
    )


def test_measured_figures_are_those_of_all_views(zoo):
    assert readme._measured("mine") == "not measured"
    videos = VideoList("abcd", [0, 1, 0, 1], tuple("uvwxyz"))
    scores = np.eye(6, dtype="float32")[[0, 1, 0, 2]]
    evaluation(videos, scores).to_json(zoo / "results" / "mine.json")
    assert readme._measured("mine") == (
        "[top1 75.0, top5 100.0 (10 whole frames of 4 videos)]"
        "(results/mine.json)"
    )


def test_measured_figures_of_several_classes(zoo):
    videos = VideoList("ab", [[1, 0], [0, 0]], ("u", "v"))
    scores = np.array([[0.9, 0.1], [0.2, 0.1]], "float32")
    evaluation(videos, scores).to_json(zoo / "results" / "mine.json")
    assert readme._measured("mine").startswith("[mAP 100.0 (10 whole frames")


def test_measured_figures_of_a_detector(zoo):
    found = {"AP": 0.39, "AP50": 0.611, "AP75": None}
    figures = {"box": found, "mask": {"AP": 0.355}, "images": 5000}
    (zoo / "results" / "mine.json").write_text(json.dumps(figures))
    assert readme._measured("mine") == (
        "[box AP 39.0, box AP50 61.1, mask AP 35.5 (5,000 images)]"
        "(results/mine.json)"
    )


def test_what_was_learnt_by_heart_is_linked(zoo):
    assert readme._learnt_by_heart() == []
    found = {
        "box": {"AP50": 0.97},
        "mask": {"AP50": 0.951},
        "seconds": 200.4,
        "machine": "x86_64, 2 cores",
    }
    (zoo / "results" / "coco_overfit.json").write_text(json.dumps(found))
    (line,) = readme._learnt_by_heart()
    assert line.endswith(
        "[box AP50 0.97, mask AP50 0.95 in 200 s](results/coco_overfit.json) "
        "(x86_64, 2 cores)"
    )


def test_studies_are_linked_by_their_titles(zoo):
    study = zoo / "studies" / "long_range"
    study.mkdir(parents=True)
    (study / "README.md").write_text("# How far\n\ntext\n")
    assert "- [How far](studies/long_range/README.md)" in readme.page()
