"""Page and plots of the study, made from its results alone."""

import pathlib
import statistics
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.evaluation.intervals import mean_interval
from keras_nonlocal.visualization import figures
from zoo.studies.long_range import files
from zoo.studies.long_range import task
from zoo.studies.long_range.arms import ARMS

# What the paper's tables compare, for the error curves.
GROUPS = {
    "baselines": ("c2d", "control", "i3d", "nl1"),
    "pairwise functions": (
        "nl1_gaussian",
        "nl1",
        "nl1_dot_product",
        "nl1_concatenation",
    ),
    "number of blocks": ("c2d", "nl1", "nl3", "nl5", "control_5"),
    "space, time": ("c2d", "nl1_space", "nl1_time", "nl1"),
}
_PLOTTED = ("c2d", "control", "i3d", "nl1_space", "nl1_time", "nl1")
# Beside C2D and control: an arm and what else it is compared with.
_WITHIN = (
    ("nl1", "i3d"),
    ("nl5", "i3d"),
    ("nl1_gaussian", "nl1"),
    ("nl1_dot_product", "nl1"),
    ("nl1_concatenation", "nl1"),
    ("nl3", "nl1"),
    ("nl5", "nl1"),
    ("nl1_space", "nl1"),
    ("nl1_time", "nl1"),
)


def write(folder: pathlib.Path, results: dict[str, Any]) -> None:
    """Writes `README.md`, `curves.png` and `distance.png`, each whole."""
    study = Study(results)
    write_text(folder / "README.md", page(results))
    if study.arms:
        for name, draw in (
            ("curves.png", draw_curves),
            ("distance.png", draw_distances),
        ):
            with replacing(folder / name) as file:
                file.write(draw(study))


class Study:
    """The results, by arm and seed."""

    def __init__(self, results: dict[str, Any]):
        self.runs: dict[str, dict[int, dict[str, Any]]] = {}
        self.trunks = {}
        for run in results["runs"]:
            if run["arm"] == files.TRUNK:
                self.trunks[run["seed"]] = run["accuracy"]
            else:
                self.runs.setdefault(run["arm"], {})[run["seed"]] = run

    @property
    def arms(self) -> list[str]:
        """Those with a result, in the order of `ARMS`."""
        return [name for name in ARMS if name in self.runs]

    def accuracies(self, arm: str, cells: Iterable[int]) -> dict[int, float]:
        """Share of right answers in some cells, for each seed."""
        cells = list(cells)
        return {
            seed: sum(run["correct"][cell] for cell in cells)
            / sum(run["tested"][cell] for cell in cells)
            for seed, run in self.runs.get(arm, {}).items()
        }

    def differences(
        self, arm: str, other: str, cells: Iterable[int]
    ) -> list[float]:
        """Accuracy less that of another arm, for each seed both have."""
        cells = list(cells)
        ours = self.accuracies(arm, cells)
        theirs = self.accuracies(other, cells)
        return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


_ALL = range(len(task.CELLS))
_TOGETHER = [i for i, (delay, _) in enumerate(task.CELLS) if delay == 0]
_APART = [i for i, (delay, _) in enumerate(task.CELLS) if delay > 0]
# Right answers of a network that has learnt what it can.
_LEARNT = 0.9


def page(results: dict[str, Any]) -> str:
    """The page as Markdown."""
    study = Study(results)
    sections = [
        _opening(results, study),
        _findings(study),
        _task(),
        _setting(results, study),
        _accuracies(study),
        _against(study),
        _within(study),
        _seeds(study),
        _remarks(results, study),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def draw_curves(study: Study) -> bytes:
    """Errors over epochs, a panel for each of `GROUPS`."""

    def errors(arm: str, metric: str) -> np.ndarray:
        runs = study.runs[arm].values()
        return 1 - np.array([run["history"][metric] for run in runs])

    return figures.error_curves(
        {
            group: {
                ARMS[arm].title: (
                    errors(arm, "accuracy"),
                    errors(arm, "val_accuracy"),
                )
                for arm in names
                if arm in study.arms
            }
            for group, names in GROUPS.items()
        }
    )


def draw_distances(study: Study) -> bytes:
    """Accuracy over the delay, a panel for each of the reaches."""

    def points(arm: str, reach: str) -> np.ndarray:
        cells = [task.CELLS.index((delay, reach)) for delay in task.DELAYS]
        return np.array(
            [
                _mean_and_ends(study.accuracies(arm, [cell]).values())
                for cell in cells
            ]
        )

    panels = {
        f"{reach} in space": {
            ARMS[arm].title: points(arm, reach)
            for arm in _PLOTTED
            if arm in study.arms
        }
        for reach in task.REACHES
    }
    return figures.accuracy_by_distance(
        task.DELAYS, panels, "frames from one ring to the other"
    )


def _mean_and_ends(values: Iterable[float]) -> tuple[float, float, float]:
    values = list(values)
    if len(values) > 1:
        return mean_interval(values)
    return values[0], values[0], values[0]


def _opening(results: dict[str, Any], study: Study) -> str:
    counts = sorted({len(runs) for runs in study.runs.values()})
    seeds = " to ".join(str(count) for count in counts[:1] + counts[1:][-1:])
    versions = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    return f"""\
# Does a non-local block relate what is far apart?

<!-- Written by zoo/studies/long_range/report.py from results.json. -->

{len(study.arms)} networks, {seeds} seeds each, trained on a CPU on a \
made-up question about two rings, which may be several frames and most of a \
picture apart. Measured on {results["date"]}, {results["machine"]}, Python \
{results["python"]}, {versions}; {results["seconds"] / 3600:.1f} hours of \
trainings, of one thread each."""


def _task() -> str:
    colours, cells = len(task.COLOURS), len(task.CELLS)
    ceiling = task.additive_ceiling(colours)
    delays = ", ".join(map(str, task.DELAYS))
    whole = (len(_TOGETHER) + ceiling * len(_APART)) / cells
    return f"""\
## The question
A clip shows two rings in one of {colours} colours among discs and squares in \
the same colours, over noise. Do the rings have the same colour? From one ring \
to the other it is {delays} frames, and in each case they are near (about \
0.3 of the picture's side) or far (about 0.7): {cells} cells, each with both \
classes alike, and every network is trained on all and tested in each. A ring \
is seen in one frame only. Places, frames and distractors are drawn without \
regard to class and colours.

What networks without relations between frames can get right (`task.py` has \
the argument): with the rings in different frames, one frame is \
right in {0.5:.0%} of the cases, and scores of single frames that are \
averaged, as in the C2D here, at most {ceiling:.0%}, however \
trained. So it is with controls and with blocks that look at their own frame. \
With both rings in one frame nothing keeps them from 100 %. Over all cells the \
ceiling is {whole:.1%}."""


def _setting(results: dict[str, Any], study: Study) -> str:
    settings = results["settings"]
    trunks = list(study.trunks.values())
    accuracy = f"{min(trunks):.1%}" if trunks else "-"
    return f"""\
## Networks and training
ResNets of 26 layers, {settings["width"]} channels wide at the first, on \
{settings["num_frames"]} frames of {settings["size"]} x {settings["size"]} \
pixels, without strides or pooling over time before the last average. As the \
paper begins with ImageNet, a seed's trunk begins with \
{settings["trunk_frames"]} single frames, whose one ring's colour it learns to \
tell (right in {accuracy} of other frames, or more). All networks of a seed \
start from this trunk and so compute the same: fresh blocks are the identity, \
and kernels of I3D start with zeros for the other frames. They then see the \
same {settings["train_clips"]} clips {settings["epochs"]} times in the same \
order, in batches of {settings["batch_size"]}, under Adam with a rate of up to \
{settings["learning_rate"]}. Size of the question, rate and epochs were chosen \
on the C2D and a block with a seed that is not among those here; they are the \
same for all.

One block stands before the last residual block of res3; three stand in res3 \
and res4, five in res3, res4 and res5. A control is a residual block of \
1x1x1 convolutions in the same place, with as many parameters as the embedded \
Gaussian block (within 2 %). Blocks and controls start as in the paper's text \
(He et al.). With the normal of deviation 0.01 of the paper's code a block was \
as good as the identity in a trial: with so few channels the variance of what \
reaches its batch norm is far below the norm's epsilon."""


def _accuracies(study: Study) -> str:
    head = ["network", "parameters", "million MACs", "all"]
    head += [_cell_name(cell) for cell in _ALL]
    rows = []
    for arm in study.arms:
        run = next(iter(study.runs[arm].values()))
        rows.append(
            [
                ARMS[arm].title,
                f"{run['parameters']:,}",
                f"{run['macs'] / 1e6:.1f}",
                _share(study.accuracies(arm, _ALL).values()),
                *(
                    _share(study.accuracies(arm, [cell]).values())
                    for cell in _ALL
                ),
            ]
        )
    return f"""\
## Right answers
In per cent of {_tested(study)} test clips, the same for all: the mean over \
seeds and the 95 % interval of that mean (Student's t). A column is a cell: \
frames from one ring to the other, near or far in space.

{_table(head, rows)}

![Error over epochs](curves.png)

Training error dashed, validation error solid; the bands reach from the lowest \
seed to the highest.

![Right answers over distance](distance.png)"""


def _against(study: Study) -> str:
    parts = []
    for title, pairs in (
        ("C2D", [(arm, "c2d") for arm in study.arms if arm != "c2d"]),
        ("the control", _with_controls(study)),
    ):
        rows = _difference_rows(study, pairs, name_both=False)
        if rows:
            head = ["network", "all", *map(_cell_name, _ALL)]
            parts.append(
                f"### Less the right answers of {title}\n" + _table(head, rows)
            )
    if not parts:
        return ""
    opening = (
        "## Paired differences\n"
        "In percentage points, of the same seed: the same first weights of the "
        "trunk, clips and order. Mean and 95 % interval; bold where the "
        "interval leaves out 0."
    )
    return "\n\n".join([opening, *parts])


def _with_controls(study: Study) -> list[tuple[str, str]]:
    pairs = [(arm, ARMS[arm].control) for arm in study.arms]
    return [(arm, c) for arm, c in pairs if c is not None and c in study.arms]


def _within(study: Study) -> str:
    pairs = [pair for pair in _WITHIN if set(pair) <= set(study.arms)]
    rows = _difference_rows(study, pairs, name_both=True)
    if not rows:
        return ""
    head = ["networks", "all", *map(_cell_name, _ALL)]
    return "### Less the right answers of another\n" + _table(head, rows)


def _difference_rows(
    study: Study, pairs: Sequence[tuple[str, str]], name_both: bool
) -> list[list[str]]:
    rows = []
    for arm, other in pairs:
        title = ARMS[arm].title
        if name_both:
            title += f" less {ARMS[other].title.removeprefix('+ ')}"
        rows.append(
            [
                title,
                *(
                    _points(study.differences(arm, other, cells))
                    for cells in (_ALL, *([cell] for cell in _ALL))
                ),
            ]
        )
    return rows


def _findings(study: Study) -> str:
    parts = []
    for title, pairs in _questions():
        lines = [
            _sentence(study, arm, other)
            for arm, other in pairs
            if len(study.differences(arm, other, _ALL)) > 1
        ]
        if lines:
            parts.append("\n".join([f"{title}:", *lines]))
    if not parts:
        return ""
    opening = (
        "## What was found\n"
        "Of each network against another, over the same seeds: in which cells "
        "the 95 % interval of the difference is above 0, below 0, or holds 0, "
        'so that it cannot be said. "1 frame, far" is a cell: the second ring '
        "one frame later and far from the first."
    )
    return "\n\n".join([opening, *parts])


def _questions() -> list[tuple[str, list[tuple[str, str]]]]:
    blocks = [(name, arm) for name, arm in ARMS.items() if arm.is_nonlocal]
    return [
        (
            "More parameters and local kernels, against the plain network",
            [(name, "c2d") for name in ("control", "control_5", "i3d")],
        ),
        (
            "Non-local blocks, against controls without attention where there "
            "are some (as many parameters; the Gaussian block has fewer)",
            [(name, arm.control or "c2d") for name, arm in blocks],
        ),
        ("Of one kind and another", list(_WITHIN)),
    ]


def _sentence(study: Study, arm: str, other: str) -> str:
    """In which cells one network is better than another."""
    verdicts: dict[str, list[str]] = {"more": [], "fewer": [], "unsaid": []}
    for cell in _ALL:
        verdict = _verdict(study.differences(arm, other, [cell]))
        verdicts[verdict].append(_cell_name(cell))
    parts = []
    for verdict, text in (
        ("more", "more right answers"),
        ("fewer", "fewer right answers"),
        ("unsaid", "cannot be said"),
    ):
        if verdicts[verdict]:
            every = len(verdicts[verdict]) == len(task.CELLS)
            where = "every cell" if every else "; ".join(verdicts[verdict])
            parts.append(f"{text} in: {where}")
    overall = study.differences(arm, other, _ALL)
    title = ARMS[arm].title.removeprefix("+ ")
    return (
        f"- **{title}** against {ARMS[other].title.removeprefix('+ ')}: "
        f"{_points(overall, bold=False)} points over all cells. "
        f"{_capitalized('. '.join(map(_capitalized, parts)))}."
    )


def _verdict(values: list[float]) -> str:
    _, low, high = mean_interval(values)
    if low == high:  # Seeds that agree by chance, as few clips as they count.
        return "unsaid"
    if low > 0:
        return "more"
    return "fewer" if high < 0 else "unsaid"


def _seeds(study: Study) -> str:
    seeds = sorted({seed for runs in study.runs.values() for seed in runs})
    rows = []
    for arm in study.arms:
        together = study.accuracies(arm, _TOGETHER)
        apart = study.accuracies(arm, _APART)
        rows.append(
            [
                ARMS[arm].title,
                *(
                    f"{together[seed]:.1%}, {apart[seed]:.1%}"
                    if seed in apart
                    else "-"
                    for seed in seeds
                ),
            ]
        )
    head = ["network", *(f"seed {seed}" for seed in seeds)]
    return (
        "## Every seed\n"
        "Right answers with both rings in one frame, and with the rings in "
        f"different frames.\n\n{_table(head, rows)}"
    )


def _learnt(study: Study) -> str:
    """How many seeds learnt what no network is kept from."""
    counts = []
    for arm in study.arms:
        shares = study.accuracies(arm, _TOGETHER).values()
        reached = sum(share >= _LEARNT for share in shares)
        title = ARMS[arm].title.removeprefix("+ ")
        counts.append(f"{title} {reached} of {len(shares)}")
    return (
        f"- Seeds that are right in {_LEARNT:.0%} or more with both rings in "
        f"one frame, which nothing keeps a network from: {'; '.join(counts)}. "
        "Where not all are, differences mix what a network can compute with "
        "how fast it learns."
    )


def _remarks(results: dict[str, Any], study: Study) -> str:
    failed = [f"- {job}: {why}" for job, why in results["failed"].items()]
    lines = ["Failed trainings, left out above:", *failed] if failed else []
    spread = statistics.NormalDist().inv_cdf(0.975)
    tested = results["settings"]["test_clips"] / len(task.CELLS)
    chance = spread * (0.25 / tested) ** 0.5
    return "\n".join(
        [
            "## What to make of it",
            "- Small networks on made-up clips for a minute each: it shows "
            "whether a block can do what the paper says it does, not what it "
            "is worth on real videos.",
            "- The intervals tell how sure a mean over seeds is, each by "
            "itself; of many that hold no difference, one in twenty leaves out "
            f"0. A cell has {tested:.0f} test clips, the same for all seeds, "
            f"which alone leave +-{100 * chance:.0f} points for a network near "
            "50 %. Where all seeds agree an interval has no width.",
            _learnt(study),
            "- What a network has not learnt in this many steps it may learn "
            "in more.",
            *lines,
            "",
            "Again: `python -m zoo.studies.long_range --out runs/long_range "
            "--publish`. Page and plots alone: `--report_only`.",
        ]
    )


def _tested(study: Study) -> int:
    runs = [run for runs in study.runs.values() for run in runs.values()]
    return sum(runs[0]["tested"]) if runs else 0


def _cell_name(cell: int) -> str:
    delay, reach = task.CELLS[cell]
    return f"{delay} frame{'s' * (delay != 1)}, {reach}"


def _share(values: Iterable[float]) -> str:
    values = [100 * value for value in values]
    if len(values) < 2:
        return f"{values[0]:.1f}"
    mean, low, high = mean_interval(values)
    return f"{mean:.1f} [{max(low, 0):.1f}, {min(high, 100):.1f}]"


def _points(values: list[float], bold: bool = True) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:+.1f}" if values else "-"
    mean, low, high = mean_interval([100 * value for value in values])
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if bold and low < high and low * high > 0 else text


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
