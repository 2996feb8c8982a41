import dataclasses
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


def test_studies_are_linked_by_their_titles(zoo):
    study = zoo / "studies" / "long_range"
    study.mkdir(parents=True)
    (study / "README.md").write_text("# How far\n\ntext\n")
    assert "- [How far](studies/long_range/README.md)" in readme.page()
