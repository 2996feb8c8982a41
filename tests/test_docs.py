"""The documentation is built without warnings, and complete."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys

import pytest

import keras_nonlocal
from docs import hooks


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: pip install 'keras-nonlocal[docs]'")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-d",
            folder,
        ],
        check=True,
        cwd=hooks.ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    return folder


def test_every_public_name_is_described(site):
    text = "".join(page.read_text() for page in site.glob("api/*.html"))
    modules = hooks.public_names()
    assert set(modules) == set(keras_nonlocal.__all__)
    missing = [
        name
        for name, module in modules.items()
        if name != "__version__"
        and f'id="keras_nonlocal.{module}.{name}"' not in text
    ]
    assert missing == []


def test_constructors_are_described_as_they_are_made(site):
    text = (site / "api" / "models.html").read_text()
    for name in ("C2D50", "NLI3D101"):
        one = text.partition(f'id="keras_nonlocal.models.video.{name}"')[2]
        one = one.partition('<h2 id="keras_nonlocal.')[0]
        assert "include_preprocessing" in one
        assert "Whether to end with the classifier." in one


def test_what_others_call_is_left_out(site):
    text = "".join(page.read_text() for page in site.glob("api/*.html"))
    for name in ("get_config", "on_epoch_end", "_check"):
        assert re.findall(rf'id="keras_nonlocal[^"]*\.{name}"', text) == []


def test_every_command_is_described(site):
    text = (site / "commands.html").read_text()
    commands = re.findall(r'<h2 id="(\w+)"', text)
    assert commands == sorted(commands)
    assert {"train", "predict", "features", "visualize", "app"} < set(commands)
    assert re.search(r"<code>--clip</code>: .*<code>8x8</code>", text)


def test_flags_are_those_of_the_commands(site):
    """Also where several commands have flags of the same name."""
    text = (site / "commands.html").read_text()
    parts = re.split(r'<h2 id="(\w+)"', text)[1:]
    found = {
        command: dict(re.findall(r"<li><code>--(\w+)</code>: (.*)</li>", part))
        for command, part in zip(parts[::2], parts[1::2], strict=True)
    }
    assert "Default: <code>8x8</code>." in found["train"]["clip"]
    assert "Default" not in found["benchmark"]["clip"]
    # Of the videos, which commands share.
    for command in ("audit", "evaluate", "prepare", "shard", "train"):
        assert "<code>ucf101</code>" in found[command]["format"]
    defined = importlib.import_module("keras_nonlocal.cli.predict").FLAGS
    for command in ("features", "predict"):
        assert found[command]["window"] == defined["window"].help
    threshold = defined["threshold"]
    assert found["predict"]["threshold"] == (
        f"{threshold.help} Default: <code>{threshold.default}</code>."
    )


def test_pages_need_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert re.findall(r'<script[^>]* src="(?:https?:)?//', text) == []
        assert re.findall(r'<link[^>]* href="(?:https?:)?//', text) == []
        assert re.findall(r'<img[^>]* src="(?:https?:)?//', text) == []


def test_links_of_the_files_of_the_project_lead_to_pages():
    text, pictures = hooks.project_page("README.md")
    assert "](fine_tuning.md)" in text
    assert "](images/grad_cam.jpg)" in text
    assert "](changelog.md)" in text
    assert "](recipes.md)" in text
    assert pictures == {}
    text, pictures = hooks.project_page("zoo/studies/long_range/README.md")
    assert all(picture.exists() for picture in pictures.values())
    assert "](images/zoo_studies_long_range_curves.png)" in text


def test_links_lead_to_files():
    """Those who read the pages as they are in the repository follow them."""
    docs = hooks.ROOT / "docs"
    pages = [hooks.ROOT / "README.md", *docs.glob("*.md")]
    links = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if not target.startswith("https:")
    ]
    assert len(links) > 50
    missing = [
        (page, target)
        for page, target in links
        if not (
            (hooks.ROOT if page == "README.md" else docs) / target
        ).is_file()
    ]
    assert missing == []


def test_links_to_what_is_no_page_are_words(tmp_path, monkeypatch):
    (tmp_path / "A.md").write_text("[a](b.py) [c](https://d) ![e](f.png)")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    text, pictures = hooks.project_page("A.md")
    assert text == "a [c](https://d) ![e](images/f.png)"
    assert pictures == {"images/f.png": tmp_path / "f.png"}


def test_pictures_are_small():
    for picture in (hooks.ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 300_000
