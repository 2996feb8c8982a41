"""Writes `zoo/README.md`: all recipes, their targets and what was measured.

python -m zoo.readme

It is made of the files in `zoo/configs`, the catalogue of released weights and
`zoo/results/RECIPE.json`, copies of what `keras_nonlocal.cli.evaluate` leaves
as `evaluation.json`.
"""

import json
import pathlib
import re

from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import load_recipe
from keras_nonlocal.weights.catalogue import CATALOGUE

ZOO = pathlib.Path(__file__).resolve().parent
README = ZOO / "README.md"

# By what stands in a recipe's `source`; it is in each section that it names.
SECTIONS = {
    "2a": "Table 2a: pairwise functions",
    "2b": "Table 2b: one block, by stage",
    "2c": "Table 2c: more blocks",
    "2d": "Table 2d: space, time, space and time",
    "2e": "Table 2e: non-local blocks and 3-D convolutions",
    "2f": "Table 2f: non-local blocks in 3-D networks",
    "2g": "Table 2g: clips of 128 frames",
    "table 4": "Table 4: Charades",
    "the published code": "The paper's published code, beyond the tables",
    "SlowFast": "SlowFast's settings",
    "feature banks": "Charades as in the code of long-term feature banks",
    "not in the paper": "Not in the paper",
}
HEADER = (
    "recipe",
    "network",
    "clip",
    "training",
    "paper",
    "released weights",
    "measured here",
)
INTRODUCTION = """\
# Experiments

<!-- Written by `python -m zoo.readme`: edit zoo/readme.py. -->

A recipe is a Python file that says which network is trained how and tested
how; it needs nothing but videos. The column *paper* has the paper's figures,
which are what to aim at, *released weights* those that the publishers of
weights give for them, and *measured here* what this project has measured:
nothing, unless it says so.

```
python -m keras_nonlocal.cli.train \\
    --config zoo/configs/kinetics400/nl_i3d_r50_32x2.py \\
    --data TRAIN --validation VAL --out runs/nl_i3d_r50_32x2
python -m keras_nonlocal.cli.evaluate \\
    --config zoo/configs/kinetics400/nl_i3d_r50_32x2.py \\
    --data VAL --model runs/nl_i3d_r50_32x2/model.keras
```

TRAIN and VAL are folders with a folder of videos for each class, or lists in
one of the formats of `keras_nonlocal.read_videos`. Batches are those of the
machine that is named in a recipe; with others, rate and length of the training
are scaled. The networks of longer clips and of Charades start from a smaller
experiment's weights: released ones, or those that its recipe leaves in `runs`.
The tests run all recipes in small.
"""


def recipes() -> dict[pathlib.Path, Recipe]:
    """All recipes by their files, smaller networks first."""
    files = sorted((ZOO / "configs").glob("*/*.py"))
    found = {file: load_recipe(file) for file in files}
    return dict(sorted(found.items(), key=lambda item: _size(item[1])))


def _size(recipe: Recipe) -> tuple[str, int, bool, int]:
    network = recipe.network
    inflated = network.inflation is not None
    return recipe.dataset, network.depth, inflated, network.num_nonlocal


def page() -> str:
    """What `zoo/README.md` should be."""
    parts = [INTRODUCTION]
    found = recipes()
    for key, title in SECTIONS.items():
        rows = [
            _row(file, recipe)
            for file, recipe in found.items()
            if re.search(rf"\b{key}\b", recipe.source)
        ]
        parts.append(f"## {title}\n\n{_table(rows)}\n")
    studies = sorted((ZOO / "studies").glob("*/README.md"))
    if studies:
        lines = [f"- {_link(_title(file), file)}" for file in studies]
        parts.append("\n".join(["## Studies", "", *lines, ""]))
    return "\n".join(parts)


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [HEADER, ("---",) * len(HEADER), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(file: pathlib.Path, recipe: Recipe) -> tuple[str, ...]:
    return (
        _link(recipe.name, file),
        _network(recipe.network),
        str(recipe.config.clip),
        _training(recipe.config),
        _figures(recipe.published) or "-",
        _released(recipe.released),
        _measured(recipe.name),
    )


def _link(text: str, file: pathlib.Path) -> str:
    return f"[{text}]({file.relative_to(ZOO).as_posix()})"


def _title(file: pathlib.Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _network(network: Variant) -> str:
    kind = {None: "C2D", "3x1x1": "I3D", "3x3x3": "I3D 3x3x3"}
    words = f"{kind[network.inflation]} R{network.depth}"
    count = network.num_nonlocal
    if not count:
        return words
    parts = [f"NL {words}, {count} block{'s' * (count > 1)}"]
    if network.mode != "embedded_gaussian":
        parts.append(f"({network.mode.replace('_', ' ')})")
    if network.attention_axes != "spacetime":
        parts.append(f"over {network.attention_axes}")
    if count == 1:
        parts.append(f"in {network.nonlocal_stage}")
    return " ".join(parts)


def _training(config: TrainConfig) -> str:
    length = f"{config.epochs} epochs"
    if config.steps is not None:
        length = f"{config.steps // 1000}k steps"
    return f"{length} of {config.batch_size} clips, rate {config.learning_rate}"


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{key} {value}" for key, value in figures.items())


def _released(name: str | None) -> str:
    if name is None:
        return "-"
    entry = CATALOGUE[name]
    return f"`{name}` ({entry.licence}): {_figures(entry.scores)}"


def _measured(name: str) -> str:
    """The figures of all views, from the results of a recipe."""
    file = ZOO / "results" / f"{name}.json"
    if not file.exists():
        return "not measured"
    results = json.loads(file.read_text(encoding="utf-8"))
    setting, figures = list(results["settings"].items())[-1]
    shown = {
        key: round(100 * figures[key], 1)
        for key in ("top1", "top5", "mAP")
        if figures.get(key) is not None
    }
    where = f"{setting} of {results['tested']:,} videos"
    return _link(f"{_figures(shown)} ({where})", file)


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8")
