"""Writes `zoo/README.md`: all recipes, their targets and what was measured.

python -m zoo.readme

It is made of the files in `zoo/configs`, the catalogue of released weights and
`zoo/results/RECIPE.json`, copies of what `keras_nonlocal.cli.evaluate` leaves
as `evaluation.json`.
"""

import json
import pathlib
import re

from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import RunConfig
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.recipes import BaseRecipe
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
    "table 5": "Table 5: Mask R-CNN on COCO",
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
_SCORES = ("top1", "top5", "mAP")
_NOTES = {
    "table 5": """\
The paper tells network and data. Rate, length, batch and all else are
Detectron's, the code base it was probably run with; which of its schedules is
not known, so that 1x and 3x have the same target. The table of keypoints
(table 6) is left out.

""",
}
INTRODUCTION = """\
# Experiments

<!-- Written by `python -m zoo.readme`: edit zoo/readme.py. -->

A recipe is a Python file that says which network is trained how and tested
how; it needs nothing but videos or images. The column *paper* has the paper's
figures, which are what to aim at, *released weights* those that the publishers
of weights give for them, and *measured here* what this project has measured:
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
one of the formats of `keras_nonlocal.read_videos`. Detectors are trained and
tested by `keras_nonlocal.cli.detect`, as their files say. Batches are those of
the machine that is named in a recipe; with others, rate and length of the
training are scaled. The networks of longer clips and of Charades start from a
smaller experiment's weights: released ones, or those that its recipe leaves in
`runs`. The tests run all recipes in small.
"""


def recipes() -> dict[pathlib.Path, BaseRecipe]:
    """All recipes by their files, smaller networks first."""
    files = sorted((ZOO / "configs").glob("*/*.py"))
    found = {file: load_recipe(file, kind=BaseRecipe) for file in files}
    return dict(sorted(found.items(), key=lambda item: _size(item[1])))


def _size(recipe: BaseRecipe) -> tuple[str, int, bool, int]:
    network = recipe.network
    if isinstance(recipe, DetectorRecipe):
        trunk = network.trunk
        return recipe.dataset, trunk.depth, False, trunk.num_nonlocal
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
        what = "image" if key == "table 5" else "clip"
        parts.append(
            f"## {title}\n\n{_NOTES.get(key, '')}{_table(rows, what)}\n"
        )
    studies = sorted((ZOO / "studies").glob("*/README.md"))
    lines = [f"- {_link(_title(file), file)}" for file in studies]
    lines += _learnt_by_heart()
    if lines:
        parts.append("\n".join(["## Studies", "", *lines, ""]))
    return "\n".join(parts)


def _learnt_by_heart() -> list[str]:
    """A line about `zoo.studies.coco_overfit`, once it was measured."""
    file = ZOO / "results" / "coco_overfit.json"
    if not file.exists():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    figures = _link(
        f"box AP50 {found['box']['AP50']:.2f}, mask AP50 "
        f"{found['mask']['AP50']:.2f} in {found['seconds']:.0f} s",
        file,
    )
    study = _link(
        "A narrow detector learns eight images by heart",
        ZOO / "studies" / "coco_overfit" / "__init__.py",
    )
    return [f"- {study}: {figures} ({found['machine']})"]


def _table(rows: list[tuple[str, ...]], example: str) -> str:
    header = [example if cell == "clip" else cell for cell in HEADER]
    lines = [header, ("---",) * len(HEADER), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _row(file: pathlib.Path, recipe: BaseRecipe) -> tuple[str, ...]:
    return (
        _link(recipe.name, file),
        _network(recipe),
        _example(recipe),
        _training(recipe.config),
        _figures(recipe.published) or "-",
        _released(recipe.released),
        _measured(recipe.name),
    )


def _link(text: str, file: pathlib.Path) -> str:
    return f"[{text}]({file.relative_to(ZOO).as_posix()})"


def _title(file: pathlib.Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _network(recipe: BaseRecipe) -> str:
    if isinstance(recipe, DetectorRecipe):
        return _detector(recipe.network)
    return _video_network(recipe.network)


def _detector(network: DetectorVariant) -> str:
    trunk = network.trunk
    kind = "X" if trunk.groups > 1 else "R"
    words = f"Mask R-CNN {kind}{trunk.depth}-FPN"
    return f"NL {words}, 1 block in res4" if trunk.num_nonlocal else words


def _video_network(network: Variant) -> str:
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


def _example(recipe: BaseRecipe) -> str:
    """The clips, or the short and the longest side of the images."""
    if not isinstance(recipe, DetectorRecipe):
        return str(recipe.config.clip)
    sides = recipe.config.short_side
    low, high = min(sides), max(sides)
    short = str(low) if low == high else f"{low} to {high}"
    return f"{short}, at most {recipe.config.max_side}"


def _training(config: RunConfig) -> str:
    unit = "clips" if isinstance(config, TrainConfig) else "images"
    length = f"{config.epochs} epochs"
    if config.steps is not None:
        length = f"{config.steps // 1000}k steps"
    rate = config.learning_rate
    return f"{length} of {config.batch_size} {unit}, rate {rate}"


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{key} {value}" for key, value in figures.items())


def _released(name: str | None) -> str:
    if name is None:
        return "-"
    entry = CATALOGUE[name]
    return f"`{name}` ({entry.licence}): {_figures(entry.scores)}"


def _measured(name: str) -> str:
    """The figures of the test, or of all views, from a recipe's results."""
    file = ZOO / "results" / f"{name}.json"
    if not file.exists():
        return "not measured"
    results = json.loads(file.read_text(encoding="utf-8"))
    if "settings" in results:
        return _link(_measured_views(results), file)
    return _link(_measured_objects(results), file)


def _measured_views(results: dict) -> str:
    setting, figures = list(results["settings"].items())[-1]
    shown = _percent({key: figures.get(key) for key in _SCORES})
    return f"{_figures(shown)} ({setting} of {results['tested']:,} videos)"


def _measured_objects(results: dict) -> str:
    shown = _percent(
        {
            f"{kind} {key}": results[kind].get(key)
            for kind in ("box", "mask")
            for key in ("AP", "AP50", "AP75")
        }
    )
    return f"{_figures(shown)} ({results['images']:,} images)"


def _percent(figures: dict[str, float | None]) -> dict[str, float]:
    return {
        key: round(100 * value, 1)
        for key, value in figures.items()
        if value is not None
    }


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8")
