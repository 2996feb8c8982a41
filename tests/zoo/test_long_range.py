import dataclasses
import itertools
import json
import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.checks import randomize
from zoo.studies.long_range import files
from zoo.studies.long_range import networks
from zoo.studies.long_range import report
from zoo.studies.long_range import schedule
from zoo.studies.long_range import task
from zoo.studies.long_range import training
from zoo.studies.long_range.arms import ARMS
from zoo.studies.long_range.files import Job
from zoo.studies.long_range.settings import FULL
from zoo.studies.long_range.settings import SMOKE

TINY = dataclasses.replace(SMOKE, epochs=1, train_clips=task.ROUND)


@pytest.fixture(scope="module")
def clips():
    return task.make_clips(80 * task.ROUND, (3, 1), size=32)


def test_cells_have_both_classes_and_all_colours_alike(clips):
    counts = np.zeros((len(task.CELLS), 2), int)
    np.add.at(counts, (clips.cells, clips.labels), 1)
    assert (counts == 80).all()
    same = clips.colours[:, 0] == clips.colours[:, 1]
    np.testing.assert_array_equal(same, clips.labels)
    for ring, label in itertools.product(range(2), range(2)):
        chosen = clips.colours[clips.labels == label, ring]
        counts = np.bincount(chosen, minlength=len(task.COLOURS))
        assert np.ptp(counts) <= 2 * len(task.CELLS)


def test_rings_are_where_their_cell_says(clips):
    for index in range(60):
        delay, reach = task.CELLS[clips.cells[index]]
        first, second = clips.times[index]
        assert second - first == delay
        low, high = np.multiply(task.REACHES[reach], 32)
        apart = np.hypot(*(clips.centers[index, 0] - clips.centers[index, 1]))
        assert low <= apart < high
        for ring in range(2):
            row, column = clips.centers[index, ring]
            # A point of the ring, which is 3.5 pixels wide across its hole.
            pixel = clips.frames[
                index, clips.times[index, ring], int(row), int(column + 2.6)
            ].astype(int)
            colour = task.COLOURS[clips.colours[index, ring]]
            assert np.abs(pixel - colour).max() <= 12


def test_class_tells_nothing_of_all_else(clips):
    nuisances = np.column_stack(
        [
            clips.times,
            clips.centers.reshape(-1, 4),
            clips.distractors,
            clips.distractors.sum(axis=1),
            clips.cells,
            np.arange(len(clips.labels)),
            clips.colours,
        ]
    )
    for cell in (None, *range(len(task.CELLS))):
        chosen = clips.cells == cell if cell is not None else slice(None)
        label = clips.labels[chosen]
        for values in nuisances[chosen].T:
            if np.ptp(values):
                related = np.corrcoef(values, label)[0, 1]
                assert abs(related) < 4 / np.sqrt(len(label))


def test_all_else_is_drawn_without_knowing_the_colours(clips, monkeypatch):
    monkeypatch.setattr(task, "_colours", lambda label, turn: (0, 0))
    other = task.make_clips(task.ROUND * 2, (3, 2), size=32)
    monkeypatch.undo()
    usual = task.make_clips(task.ROUND * 2, (3, 2), size=32)
    assert (usual.colours != other.colours).any()
    for name in ("labels", "cells", "times", "centers", "distractors"):
        np.testing.assert_array_equal(
            getattr(usual, name), getattr(other, name)
        )


def test_same_seed_same_clips_and_no_clip_is_in_two_sets():
    sets = [
        task.make_clips(4 * task.ROUND, seed, size=32).frames
        for seed in (
            training.train_seed(0),
            training.train_seed(1),
            training.VAL_SEED,
            training.TEST_SEED,
        )
    ]
    again = task.make_clips(4 * task.ROUND, training.train_seed(1), size=32)
    np.testing.assert_array_equal(sets[1], again.frames)
    different = {clip.tobytes() for clips in sets for clip in clips}
    assert len(different) == 16 * task.ROUND


@pytest.mark.parametrize(
    ("count", "options", "named"),
    [
        (task.ROUND + 1, {}, "count"),
        (0, {}, "count"),
        (task.ROUND, {"num_frames": max(task.DELAYS)}, "num_frames"),
        (task.ROUND, {"size": 8}, "size"),
    ],
)
def test_bad_arguments(count, options, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        task.make_clips(count, (0,), **options)


def test_ceiling_is_that_of_the_best_additive_scores():
    grid = np.array(list(itertools.product(range(4), repeat=6)))
    scores = grid[:, :3, None] + grid[:, None, 3:]
    # Equal and unequal pairs weigh the same in total.
    weights = np.where(np.eye(3), 1 / 6, 1 / 12)
    best = 0
    for threshold in range(8):
        is_above = scores >= threshold
        share = (weights * (is_above == np.eye(3, dtype=bool))).sum((1, 2))
        best = max(best, share.max(), (1 - share).max())
    assert best == pytest.approx(task.additive_ceiling(3))


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """A trunk whose norms are not those of a fresh network."""
    keras.utils.set_random_seed(1)
    model = networks.trunk_model(TINY, len(task.COLOURS))
    randomize(model, scale=0.1)
    path = tmp_path_factory.mktemp("trunk") / "trunk.weights.h5"
    model.save_weights(path)
    return str(path)


def margin(model, frames):
    """The score of one class less that of the other."""
    return np.diff(np.log(model(frames)), axis=1)


def test_all_compute_the_same_at_first(clips, trunk):
    frames = clips.frames[:3, : TINY.num_frames]
    margins, parameters = {}, {}
    for name in ("c2d", "i3d", "control", "nl1"):
        keras.utils.set_random_seed(2)
        model = networks.build(ARMS[name], TINY, trunk)
        parameters[name] = model.count_params()
        margins[name] = margin(model, frames)
        if name == "c2d":
            # Its score is the average of its frames' scores.
            still = [frames[:, [t] * TINY.num_frames] for t in range(7)]
            margins["of frames"] = np.mean(
                [margin(model, x) for x in still], axis=0
            )
    expected = margins["c2d"]
    spread = np.ptp(expected)
    assert 0.001 < spread and np.abs(expected).max() < 10
    for other in margins.values():
        np.testing.assert_allclose(other, expected, atol=0.01 * spread)
    added = {k: v - parameters["c2d"] for k, v in parameters.items()}
    assert added["control"] == pytest.approx(added["nl1"], rel=0.02)


@pytest.fixture
def eagerly():
    """Without a graph, whose making takes longer than a few steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental")
def test_trains_an_arm_and_reports_on_it(tmp_path, eagerly):
    trunk = files.trunk_path(tmp_path, 0)
    accuracy = training.pretrain(0, TINY, trunk)
    runs = [{"arm": files.TRUNK, "seed": 0, "accuracy": accuracy}]
    result = training.train("nl1", 0, TINY, trunk)
    assert result["tested"] == [4] * len(task.CELLS)
    assert max(result["correct"]) <= 4
    assert len(result["history"]["val_accuracy"]) == TINY.epochs
    runs.append({"arm": "nl1", "seed": 0, **result})
    results = {
        "date": "2000-01-01",
        "machine": "m",
        "python": "3",
        "versions": {},
        "seconds": 1,
        "settings": TINY.as_dict(),
        "failed": {"i3d, seed 0": "exit status 1: why"},
        "runs": runs,
    }
    report.write(tmp_path, results)
    text = (tmp_path / "README.md").read_text()
    assert "- i3d, seed 0: exit status 1: why" in text
    assert ARMS["nl1"].title in text and ARMS["nl5"].title not in text
    for name in ("curves.png", "distance.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


STUB = """
import json, pathlib, sys
from zoo.studies.long_range import files
from zoo.studies.long_range.settings import Settings
arm, seed, out, settings = sys.argv[1:]
out, job = pathlib.Path(out), files.Job(arm, int(seed))
if arm == "i3d":
    raise ValueError("too hot")
if arm == files.TRUNK and job.seed == 0:
    files.trunk_path(out, job.seed).touch()
elif arm == files.TRUNK:
    raise ValueError("too cold")
files.write_result(out, job, Settings(**json.loads(settings)), {"seconds": 1})
"""


def test_failures_are_noted_and_done_work_is_kept(tmp_path):
    stub = (sys.executable, "-c", STUB)
    jobs = files.list_jobs(["c2d", "i3d"], [0, 1])
    failed = schedule.run(jobs, tmp_path, TINY, 2, print, stub)
    assert failed == {
        "trunk, seed 1": "exit status 1: ValueError: too cold",
        "i3d, seed 0": "exit status 1: ValueError: too hot",
        "c2d, seed 1": "its trunk was not trained",
        "i3d, seed 1": "its trunk was not trained",
    }
    done = files.result_path(tmp_path, Job("c2d", 0))
    written = done.stat().st_mtime_ns
    lines = []
    stub = (sys.executable, "-c", STUB.replace('"i3d"', '"none"'))
    failed = schedule.run(jobs, tmp_path, TINY, 2, lines.append, stub)
    assert "i3d, seed 0" not in failed
    assert lines[0] == "2 of 6 trainings are done already"
    assert done.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="made with the same settings"):
        schedule.run(jobs, tmp_path, SMOKE, 2, print, stub)


def test_what_interrupts_it_ends_the_trainings(tmp_path):
    stub = "import os, pathlib, sys, time\n"
    stub += "pathlib.Path(sys.argv[3], sys.argv[2]).write_text("
    stub += "str(os.getpid()))\n"

    def interrupt(line):
        raise KeyboardInterrupt

    # Seed 0 ends at once, and telling so is interrupted.
    stub += "while sys.argv[2] == '1' or not os.path.exists("
    stub += "os.path.join(sys.argv[3], '1')): time.sleep(0.05)"
    jobs = [Job(files.TRUNK, seed) for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        schedule.run(
            jobs, tmp_path, TINY, 2, interrupt, (sys.executable, "-c", stub)
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "1").read_text()), 0)


def test_findings_follow_the_intervals():
    def run(arm, seed, correct):
        cells = len(task.CELLS)
        return {
            "arm": arm,
            "seed": seed,
            "correct": correct + [50] * (cells - len(correct)),
            "tested": [100] * cells,
        }

    runs = []
    for seed in range(3):
        runs.append(run("c2d", seed, [50, 90, 50 + 10 * seed]))
        runs.append(run("nl1", seed, [90 + seed, 60 - seed, 70 - 10 * seed]))
    study = report.Study({"runs": runs})
    text = report._sentence(study, "nl1", "c2d")
    first, second = (report._cell_name(cell) for cell in range(2))
    assert f"More right answers in: {first}. " in text
    assert f"Fewer right answers in: {second}. " in text
    assert "Cannot be said in: " in text


def test_page_is_not_stale():
    """After a change: python -m zoo.studies.long_range --report_only."""
    results = json.loads((files.HOME / "results.json").read_text())
    assert (files.HOME / "README.md").read_text() == report.page(results)
    assert results["settings"] == FULL.as_dict()
