"""What the results of a study say, and a page that says it."""

import dataclasses
from collections import Counter

import numpy as np

from keras_nonlocal.evaluation.intervals import mean_interval
from keras_nonlocal.visualization import report
from zoo.studies.own_videos.arms import ARMS
from zoo.studies.own_videos.arms import BASELINE
from zoo.studies.own_videos.arms import CONTROL
from zoo.studies.own_videos.arms import NONLOCAL

NAMES = {
    BASELINE: "baseline",
    CONTROL: "baseline + control",
    NONLOCAL: "baseline + non-local",
}
PAIRS = ((NONLOCAL, CONTROL), (NONLOCAL, BASELINE), (CONTROL, BASELINE))
# A page of more rows is none that anyone reads: they are in the JSON file.
_MAX_ROWS = 500
METHOD = (
    "Each number is a mean over folds of the mean over seeds. Intervals are "
    "95 % t-intervals over the folds, whose test groups no other fold tests: "
    "neither the videos of one group nor several seeds are independent. The "
    "training sets of two folds overlap, so that the intervals are rather too "
    "narrow. A difference is taken between arms in the same fold with the same "
    "seeds. The control has within 2 % as many parameters as the non-local "
    "block, and no attention. Three comparisons are made: one interval in "
    "twenty misses by chance alone."
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One arm against another, in points of accuracy.

    Attributes:
        arm: The one.
        against: The other.
        mean: Mean over the folds, 1.0 for a hundred points.
        low: Lower end of its interval.
        high: Upper end.
        folds: The differences of the folds.
    """

    arm: str
    against: str
    mean: float
    low: float
    high: float
    folds: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """Whether it helps."""
        # Folds of few videos may agree by rounding; their spread is none.
        if self.low < self.high and (self.low > 0 or self.high < 0):
            return "helps" if self.mean > 0 else "hurts"
        return "cannot be said"


def fold_accuracies(results: dict, arm: str) -> np.ndarray:
    """Share of right answers in each fold, a mean over seeds."""
    shares: dict[int, list[float]] = {}
    for run in results["runs"]:
        if run["arm"] == arm:
            share = run["correct"] / run["tested"]
            shares.setdefault(run["fold"], []).append(share)
    return np.array([np.mean(shares[fold]) for fold in sorted(shares)])


def differences(results: dict) -> list[Difference]:
    """Every pair of arms that is compared."""
    found = []
    for arm, against in PAIRS:
        folds = fold_accuracies(results, arm) - fold_accuracies(
            results, against
        )
        mean, low, high = mean_interval(folds.tolist())
        found.append(
            Difference(arm, against, mean, low, high, tuple(folds.tolist()))
        )
    return found


def accuracy(results: dict, arm: str) -> tuple[float, float, float]:
    """Mean over the folds and its interval, which may not leave 0..1."""
    mean, low, high = mean_interval(fold_accuracies(results, arm).tolist())
    return mean, max(low, 0.0), min(high, 1.0)


def chance(results: dict) -> float:
    """Share of the most frequent class."""
    labels = Counter(video["label"] for video in results["videos"])
    return max(labels.values()) / len(results["videos"])


def sentences(results: dict) -> list[str]:
    """What can be said, and what cannot."""
    guess = chance(results)
    doubtful = [
        f"{NAMES[arm]} ({mean:.1%}, {low:.1%} to {high:.1%})"
        for arm in ARMS
        for mean, low, high in [accuracy(results, arm)]
        if low <= guess
    ]
    said = []
    if doubtful:
        said.append(
            f"Not surely better than the {guess:.0%} of naming the most "
            f"frequent class each time: {', '.join(doubtful)}."
        )
    return said + [_sentence(x) for x in differences(results)]


def _sentence(difference: Difference) -> str:
    what, other = _ARTICLES[difference.arm], _ARTICLES[difference.against]
    numbers = (
        f"{_points(difference.mean)} points of accuracy, 95 % interval "
        f"{_points(difference.low)} to {_points(difference.high)} over "
        f"{len(difference.folds)} folds"
    )
    if difference.verdict == "cannot be said":
        return f"Whether {what} helps over {other} cannot be said: {numbers}."
    return (
        f"{what[0].upper()}{what[1:]} {difference.verdict} over {other}: "
        f"{numbers}."
    )


_ARTICLES = {
    BASELINE: "the baseline",
    CONTROL: "the control of as many parameters",
    NONLOCAL: "the non-local block",
}


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def introduction(results: dict) -> list[str]:
    """What was compared on what."""
    settings, videos = results["settings"], results["videos"]
    groups = {video["group"] for video in videos}
    seeds = {run["seed"] for run in results["runs"]}
    folds = {run["fold"] for run in results["runs"]}
    return [
        f"{len(videos)} videos of {len(results['class_names'])} classes "
        f"({', '.join(results['class_names'])}) in {len(groups)} groups, dealt "
        f"into {len(folds)} folds of whole groups; {len(seeds)} seeds. "
        f"Videos that could not be read: {len(results['skipped'])}.",
        f"Trunk: {settings['trunk']}. Clips: {settings['clip']}, "
        f"{settings['crop_size']} x {settings['crop_size']} pixels. "
        f"{settings['epochs']} epochs in batches of {settings['batch_size']}, "
        f"learning rate {settings['learning_rate']:g}. Block: "
        f"{settings['number']} x {settings['mode']} over "
        f"{settings['attention_axes']}, "
        f"{settings['inter_channels'] or 'half the'} channels inside.",
    ]


def accuracy_rows(results: dict) -> tuple[tuple, list]:
    """Header and rows of the table of accuracies."""
    rows = []
    for arm in ARMS:
        mean, low, high = accuracy(results, arm)
        parameters = next(
            run["parameters"] for run in results["runs"] if run["arm"] == arm
        )
        rows.append(
            (
                NAMES[arm],
                f"{mean:.1%}",
                f"{low:.1%} to {high:.1%}",
                f"{parameters:,}",
            )
        )
    return ("arm", "accuracy", "95 % interval", "parameters"), rows


def difference_rows(results: dict) -> tuple[tuple, list]:
    """Header and rows of the table of differences."""
    rows = [
        (
            f"{NAMES[x.arm]} against {NAMES[x.against]}",
            _points(x.mean),
            f"{_points(x.low)} to {_points(x.high)}",
            x.verdict,
        )
        for x in differences(results)
    ]
    return ("comparison", "points", "95 % interval", "verdict"), rows


def fold_rows(results: dict) -> tuple[tuple, list]:
    """Header and rows of the table of folds."""
    shares = {arm: fold_accuracies(results, arm) for arm in ARMS}
    rows = []
    for fold in range(len(shares[BASELINE])):
        videos = [x for x in results["videos"] if x["fold"] == fold]
        groups = sorted({x["group"] for x in videos})
        rows.append(
            (
                _shortened(", ".join(groups)),
                str(len(videos)),
                *(f"{shares[arm][fold]:.1%}" for arm in ARMS),
            )
        )
    return ("groups tested", "videos", *(NAMES[arm] for arm in ARMS)), rows


def video_rows(results: dict) -> tuple[tuple, list]:
    """Header and rows of the table of videos: how often each arm was right."""
    rows = []
    for number, video in enumerate(results["videos"][:_MAX_ROWS]):
        rows.append(
            (
                _place(video),
                video["group"],
                results["class_names"][video["label"]],
                *(_answers(results, number, arm) for arm in ARMS),
            )
        )
    return ("video", "group", "class", *(NAMES[arm] for arm in ARMS)), rows


def _answers(results: dict, number: int, arm: str) -> str:
    """The classes that a video was given, and how often."""
    given = Counter(
        results["class_names"][run["predictions"][str(number)]]
        for run in results["runs"]
        if run["arm"] == arm and str(number) in run["predictions"]
    )
    return ", ".join(f"{count} x {name}" for name, count in given.most_common())


def _place(video: dict) -> str:
    if video["segment"] is None:
        return video["path"]
    start, end = video["segment"]
    last = "end" if end is None else f"{end:g}"
    return f"{video['path']}, {start:g} to {last} s"


def _shortened(text: str, length: int = 120) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def page(results: dict, title: str) -> str:
    """The study as an HTML page."""
    left_out = [*results["problems"].items(), *results["skipped"].items()]
    sections = [
        *map(report.paragraph, introduction(results)),
        report.heading("What it says"),
        *map(report.paragraph, sentences(results)),
        report.table(*accuracy_rows(results)),
        report.heading("Differences"),
        report.table(*difference_rows(results)),
        report.paragraph(METHOD, note=True),
        report.heading("Folds"),
        report.table(*fold_rows(results)),
        report.heading("Videos and what each was taken for"),
        report.table(*video_rows(results)),
    ]
    if len(results["videos"]) > _MAX_ROWS:
        note = f"The first {_MAX_ROWS}; results.json has all."
        sections.append(report.paragraph(note, note=True))
    sections.append(report.heading("Videos that were left out"))
    if left_out:
        rows = [(what, str(why)) for what, why in left_out]
        sections.append(report.table(("what", "why, or how many"), rows))
    else:
        sections.append(report.paragraph("None."))
    # Names of files may hold bytes that are no text.
    return report.page(title, sections).encode(errors="replace").decode()
