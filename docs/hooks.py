"""What MkDocs makes of other files of the project.

Pages of its Markdown files, of all public names, which are read in the source
without running it, and of the flags of all commands.
"""

import ast
import functools
import json
import os
import pathlib
import posixpath
import re
import subprocess
import sys
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "keras_nonlocal"
# By page, the file that it is.
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "recipes.md": "zoo/README.md",
    "long_range.md": "zoo/studies/long_range/README.md",
    "own_videos.md": "zoo/studies/own_videos/README.md",
    "benchmarks.md": "benchmarks/results/README.md",
}
# By page, which modules of the package it is about, and names that are not in
# `__all__`.
REFERENCE = {
    "layers": ("Layers", ("layers",), ()),
    "models": ("Models", ("models",), ()),
    "weights": ("Weights", ("weights",), ("weights.catalogue.WeightsEntry",)),
    "detection": (
        "Detection",
        ("detection",),
        (
            "detection.boxes",
            "detection.anchors",
            "detection.matching",
            "detection.nms",
            "detection.roi_align",
            "detection.masks",
        ),
    ),
    "data": (
        "Data",
        ("data",),
        (
            "data.decode.VideoError",
            "data.shards.distribute",
            "data.beam.shard_pipeline",
        ),
    ),
    "training": ("Training", ("training",), ("training.distribution.join",)),
    "evaluation": (
        "Evaluation",
        ("evaluation", "metrics"),
        ("evaluation.models.OpenedModel", "metrics.charades"),
    ),
    "prediction": (
        "Prediction",
        ("prediction",),
        (
            "prediction.predict.WindowScores",
            "prediction.timeline.Segment",
        ),
    ),
    "visualization": (
        "Visualization",
        ("visualization",),
        ("visualization.grad_cam.GradCam",),
    ),
    "export": ("Export", ("export",), ("export.saved_model.read_about",)),
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are no files of this folder."""
    for page, source in PAGES.items():
        text, pictures = project_page(source)
        files.append(File.generated(config, page, content=text))
        for target, picture in pictures.items():
            files.append(
                File.generated(config, target, abs_src_path=str(picture))
            )
    for name, text in reference_pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Leads links to other files of the project to their pages."""
    if page.file.generated_by:
        return markdown
    return relinked(markdown, "docs")[0]


def project_page(source: str) -> tuple[str, dict[str, pathlib.Path]]:
    """A Markdown file of the project as a page, and the pictures it needs."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return relinked(text, posixpath.dirname(source))


def relinked(text: str, folder: str) -> tuple[str, dict[str, pathlib.Path]]:
    """Markdown whose links lead to pages, and the pictures it needs.

    Links to what is no page lose their address: there is nothing to open.

    Args:
        text: Whose links lead to files of the project.
        folder: The folder that they start from, in the project.
    """
    pages = {file: page for page, file in PAGES.items()}
    pictures = {}

    def relink(match: re.Match[str]) -> str:
        is_picture, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        if path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif is_picture:
            file = ROOT / path
            path = f"images/{path.replace('/', '_')}"
            pictures[path] = file
        elif path in pages:
            path = pages[path]
        else:
            return text
        return f"{is_picture}[{text}]({path}{hash_}{anchor})"

    return _LINK.sub(relink, text), pictures


def public_names() -> dict[str, str]:
    """The module, within the package, of every public name."""
    tree = _parse(f"{PACKAGE}/__init__.py")
    modules = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.removeprefix(f"{PACKAGE}.")
            modules.update({alias.name: module for alias in node.names})
    modules.update(_constant(tree, "_ON_USE"))
    return {name: modules[name] for name in _constant(tree, "__all__")}


def reference_pages() -> dict[str, str]:
    """A page of names for each part of the package."""
    public = public_names()
    del public["__version__"]
    pages = {}
    for page, (title, parts, others) in REFERENCE.items():
        found = [
            f"{module}.{name}"
            for name, module in public.items()
            if module.partition(".")[0] in parts
        ]
        lines = [f"# {title}", ""]
        if found:
            names = ", ".join(f"`{path.rpartition('.')[2]}`" for path in found)
            lines += [f"From `{PACKAGE}`: {names}.", ""]
        for path in found:
            lines += [f"::: {PACKAGE}.{path}", ""]
        for path in others:
            lines += [
                f"::: {PACKAGE}.{path}",
                "    options:",
                "      show_root_full_path: true",
                "",
            ]
        pages[page] = "\n".join(lines)
    return pages


def commands_page() -> str:
    """All commands with their flags."""
    lines = [
        "# Commands",
        "",
        f"`python -m {PACKAGE}.cli.NAME --help` prints the same.",
        "",
    ]
    for command, flags in command_flags().items():
        about = ast.get_docstring(_parse(f"{PACKAGE}/cli/{command}.py")) or ""
        lines += [f"## {command}", "", _fenced(about), ""]
        lines += [_flag_line(**flag) for flag in flags]
        lines += [""]
    return "\n".join(lines)


@functools.cache
def command_flags() -> dict[str, list[dict[str, str]]]:
    """Name, default, values and help of all flags, by command."""
    ended = subprocess.run(
        [sys.executable, "-m", "docs.command_flags"],
        check=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(ended.stdout)


def _flag_line(name: str, default: str, values: str, help: str) -> str:
    ends = [help]
    if values:
        ends.append(f"One of `{values.replace(', ', '`, `')}`.")
    if default:
        ends.append(f"Default: `{default}`.")
    return f"- `--{name}`: {' '.join(ends)}"


def _fenced(text: str) -> str:
    """Text of a docstring in which commands stand indented."""
    parts = []
    for part in re.split(r"\n\s*\n", text):
        is_command = re.match(r" *python -m ", part)
        parts.append(f"```\n{_dedent(part)}\n```" if is_command else part)
    return "\n\n".join(parts)


def _dedent(text: str) -> str:
    return "\n".join(
        ("    " if line.startswith("     ") else "") + line.strip()
        for line in text.splitlines()
    )


def _parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _constant(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == name
        ):
            return ast.literal_eval(node.value)
    raise ValueError(f"{PACKAGE}/__init__.py has no {name}")
