import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_nonlocal import VARIANTS
from keras_nonlocal.data.decode import read_frames
from keras_nonlocal.data.readers.recognize import read_videos
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.training.config import TrainConfig
from tests.checks import numpy
from zoo.studies.own_videos import arms
from zoo.studies.own_videos import features
from zoo.studies.own_videos import readme
from zoo.studies.own_videos import summary
from zoo.studies.own_videos.arrow_of_time import make_arrow_dataset
from zoo.studies.own_videos.compare import Plan
from zoo.studies.own_videos.compare import compare
from zoo.studies.own_videos.groups import groups_of
from zoo.studies.own_videos.heads import Heads
from zoo.studies.own_videos.networks import Networks
from zoo.studies.own_videos.outcome import Outcome
from zoo.studies.own_videos.study import Study

CONFIG = TrainConfig(
    ClipSpec(4), batch_size=4, epochs=1, crop_size=32, short_side=(32, 32)
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Segments of four videos, forwards and backwards, and a broken file."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("own")
    for name in ("ann 1", "bob 1", "ann 2", "bob 2"):
        frames = rng.integers(256, size=(19, 40, 48, 3), dtype="uint8")
        write_video(root / "clips" / f"{name}.mp4", frames)
    (root / "clips" / "text.mp4").write_text("not a video")
    (root / "clips" / "notes.txt").write_text("no video at all")
    make_arrow_dataset(root / "clips", root, num_frames=8, short_side=32)
    (root / "videos" / "broken.mp4").write_text("not a video")
    with open(root / "videos.csv", "a") as file:
        file.write("videos/broken.mp4,forwards,ann_1\n")
    return root


@pytest.fixture(scope="module")
def videos(root):
    return read_videos(root / "videos.csv")


def test_the_example_has_each_segment_both_ways(root, videos):
    assert videos.class_names == ("backwards", "forwards")
    assert len(videos) == 4 * 2 * 2 + 1
    sources = groups_of(videos, "source", root / "videos.csv")
    assert sorted(set(sources)) == ["ann_1", "ann_2", "bob_1", "bob_2"]
    backwards, forwards = (
        read_frames(path, np.arange(8), 32).astype(int)
        for path in videos.paths[:2]
    )
    near = np.abs(forwards - backwards[::-1]).mean()
    assert near < np.abs(forwards - backwards).mean() / 3


def test_the_example_needs_two_videos(root, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match="--clips must have two or more"):
        make_arrow_dataset(tmp_path, tmp_path / "out")


def test_groups(root, videos):
    table = root / "videos.csv"
    few = videos.subset(np.arange(len(videos) - 1))
    people = groups_of(few, r"/(\w+?)_\d", table)
    assert set(people) == {"ann", "bob"}
    assert set(groups_of(videos, "folder", table)) == {"videos"}
    # Above the root nothing counts.
    with pytest.raises(ValueError, match="must be found in the path of every"):
        groups_of(few, f"({root.name})", table)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            r"_(\d)_",
            r"every video, with a group. Received: 'videos/broken.mp4'",
        ),
        (r"videos(x)?", "Received: 'videos/ann_1_0_backwards.mp4'"),
        ("(a", "must be a regular expression"),
        (r"\(a", "must have parentheses"),
        ("subject", "--groups=subject: .* columns subject"),
    ],
)
def test_groups_that_not_every_video_has(root, videos, how, words):
    with pytest.raises(ValueError, match=words):
        groups_of(videos, how, root / "videos.csv")


def test_columns_are_those_of_tables(root, videos):
    with pytest.raises(ValueError, match="where --data is no table"):
        groups_of(videos, "source", root)


@pytest.fixture(scope="module")
def compared(root, videos):
    groups = groups_of(videos, "source", root / "videos.csv")
    plan = Plan(CONFIG, folds=2, seeds=1).smoke()
    return compare(videos, groups, plan, root / "out", base=root)


def test_every_video_is_tested_once_by_every_arm(compared):
    assert len(compared["videos"]) == 16
    assert len(compared["runs"]) == 2 * len(arms.ARMS)
    for arm in arms.ARMS:
        runs = [run for run in compared["runs"] if run["arm"] == arm]
        tested = [int(n) for run in runs for n in run["predictions"]]
        assert sorted(tested) == list(range(16))
        assert all(run["tested"] == 8 for run in runs)
    run = compared["runs"][0]
    right = [
        compared["videos"][int(number)]["label"] == label
        for number, label in run["predictions"].items()
    ]
    assert run["correct"] == sum(right)


def test_groups_are_not_on_both_sides(compared):
    places = {(x["group"], x["fold"]) for x in compared["videos"]}
    assert len(places) == len({group for group, _ in places}) == 4


def test_bad_videos_are_left_out_and_named(compared):
    assert list(compared["skipped"]) == ["videos/broken.mp4"]
    assert "could not be read: 1." in summary.introduction(compared)[0]


def test_the_page(root, compared):
    page = (root / "out" / "index.html").read_text()
    for text in (
        "videos/ann_1_0_forwards.mp4",
        "videos/broken.mp4",
        "cannot be said",
        "baseline + non-local",
        "smoke: tiny, random",
    ):
        assert text in page
    assert os.fspath(root) not in page
    assert json.loads((root / "out" / "results.json").read_text()) == compared


def test_a_stopped_run_goes_on(root, videos, compared, monkeypatch):
    """Nothing is decoded again, and only the run that is missing is trained."""
    (folder,) = (root / "out" / "runs").iterdir()
    (folder / "control-fold1-seed0.json").unlink()
    trained = []
    run = Heads.run

    def spy(self, arm, train, test, seed):
        trained.append((arm, len(test), seed))
        return run(self, arm, train, test, seed)

    monkeypatch.setattr(Heads, "run", spy)
    groups = groups_of(videos, "source", root / "videos.csv")
    plan = Plan(CONFIG, folds=2, seeds=1).smoke()
    again = compare(videos, groups, plan, root / "out", base=root)
    assert trained == [("control", 8, 0)]
    for key in ("videos", "settings", "class_names"):
        assert again[key] == compared[key]
    for one, other in zip(again["runs"], compared["runs"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


class Counting:
    """Trains nothing; says that all is of class 0."""

    def __init__(self):
        self.calls = []

    def run(self, arm, train, test, seed):
        self.calls.append((arm, seed))
        assert not set(train) & set(test)
        return Outcome(dict.fromkeys(test.tolist(), 0), 1, [1.0, 0.5])


def a_study(videos, root, **settings):
    groups = groups_of(videos, "source", root / "videos.csv")
    return Study.deal(videos, groups, 2, settings)


def test_results_of_other_settings_are_not_mixed(videos, root, tmp_path):
    trainer = Counting()
    a_study(videos, root, epochs=1).run(trainer, 1, tmp_path)
    assert len(trainer.calls) == 6
    a_study(videos, root, epochs=1).run(trainer, 2, tmp_path)
    assert trainer.calls[6:] == [(arm, 1) for arm in arms.ARMS] * 2
    a_study(videos, root, epochs=2).run(trainer, 1, tmp_path)
    assert len(trainer.calls) == 6 + 6 + 6
    os.utime(videos.paths[0], (1, 1))
    a_study(videos, root, epochs=1).run(trainer, 1, tmp_path)
    assert len(trainer.calls) == 6 + 6 + 6 + 6


def test_a_loss_that_is_not_finite_ends_the_study(videos, root, tmp_path):
    class Diverging(Counting):
        def run(self, arm, train, test, seed):
            return Outcome({0: 0}, 1, [1.0, float("nan")])

    with pytest.raises(ValueError, match="baseline, fold 0, seed 0: the loss"):
        a_study(videos, root).run(Diverging(), 1, tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_what_cannot_be_compared_is_refused(videos, root):
    groups = groups_of(videos, "source", root / "videos.csv")
    one = videos.subset(videos.labels == 0)
    with pytest.raises(ValueError, match="two or more classes"):
        Study.deal(one, groups[: len(one)], 2, {})
    several = dataclasses.replace(videos, labels=np.ones((len(videos), 2)))
    with pytest.raises(ValueError, match="one class a video"):
        Study.deal(several, groups, 2, {})
    with pytest.raises(ValueError, match="`k` must be from 2"):
        Study.deal(videos, groups, 5, {})


def test_a_trunk_that_is_not_known():
    with pytest.raises(ValueError, match="--trunk must be inception or .*c2d"):
        Plan(CONFIG, trunk="resnet")


def test_features_are_taken_once(videos, tmp_path):
    trunk, skips = features.tiny_trunk(), SkipLog()
    some = videos.subset([0, 1, len(videos) - 1])
    files = features.extract(trunk, some, CONFIG, tmp_path, skips)
    assert files[2] is None and skips.count == 1
    maps = np.load(files[0])
    assert maps.shape == (2, 4, 4, 16) and maps.dtype == "float16"
    content = files[1].read_bytes()
    files[1].write_bytes(content[:200])
    os.utime(files[0], (1, 1))
    again = features.extract(trunk, some, CONFIG, tmp_path, skips)
    assert again == files
    assert files[0].stat().st_mtime == 1
    assert files[1].read_bytes() == content
    trunk.layers[2].kernel.assign(trunk.layers[2].kernel * 2)
    other = features.extract(trunk, some, CONFIG, tmp_path, skips)
    assert not set(other[:2]) & set(files[:2])
    assert not list(tmp_path.glob("*.part"))


def test_heads_learn(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    files = [tmp_path / f"{number}.npy" for number in range(24)]
    for file, label in zip(files, labels, strict=True):
        maps = rng.normal(label, 0.3, size=(2, 2, 2, 16))
        np.save(file, maps.astype("float16"))
    config = dataclasses.replace(CONFIG, epochs=20, learning_rate=0.05)
    heads = Heads(files, labels, 2, config, arms.Block())
    outcome = heads.run("nonlocal", np.arange(14), np.arange(14, 24), seed=0)
    right = {number: number % 2 for number in range(14, 24)}
    assert outcome.predictions == right
    assert len(outcome.losses) == 20
    assert outcome.losses[-1] < outcome.losses[0] / 3


@pytest.mark.parametrize(
    "block", [arms.Block(), arms.Block("gaussian", "time")]
)
def test_arms_start_alike(block):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 4, 4, 16)).astype("float32")
    logits, sizes = {}, {}
    for arm in arms.ARMS:
        keras.utils.set_random_seed(1)
        model = arms.head(arm, maps.shape[1:], 3, block)
        logits[arm], sizes[arm] = numpy(model(maps)), model.count_params()
        np.testing.assert_array_equal(logits[arm], logits["baseline"])
    assert sizes["control"] == pytest.approx(sizes["nonlocal"], rel=0.02)
    assert sizes["baseline"] == 17 * 3


def test_whole_networks_start_alike(videos):
    variant = dataclasses.replace(VARIANTS["small_nl_c2d"], width=4)
    clip = np.random.default_rng(0).integers(256, size=(1, 2, 32, 32, 3))
    trained = Networks(videos, variant, CONFIG, arms.Block(number=2))
    logits, sizes = {}, {}
    for arm in arms.ARMS:
        keras.utils.set_random_seed(1)
        model = arms.network(arm, variant, 2, trained.block)
        logits[arm], sizes[arm] = numpy(model(clip)), model.count_params()
        np.testing.assert_array_equal(logits[arm], logits["baseline"])
    assert sizes["control"] == pytest.approx(sizes["nonlocal"], rel=0.02)
    assert sizes["baseline"] < sizes["control"]


def a_small_network(arm, variant, classes, block):
    """Stands for one of the paper's, to try what trains and tests it."""
    inputs = keras.Input((None, None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling3D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


@pytest.fixture
def networks(videos, monkeypatch):
    monkeypatch.setattr(arms, "network", a_small_network)
    config = dataclasses.replace(CONFIG, epochs=2, max_skipped=1.0)
    return Networks(videos, VARIANTS["small_c2d"], config, arms.Block())


def test_whole_networks_are_trained_and_tested(videos, networks):
    numbers = np.arange(len(videos))
    outcome = networks.run("baseline", numbers[5:], numbers[:5], seed=0)
    assert sorted(outcome.predictions) == [0, 1, 2, 3, 4]
    assert len(outcome.losses) == 2
    assert list(outcome.skipped) == [videos.paths[-1]]
    assert outcome.parameters == 3 * 2 + 2
    again = networks.run("baseline", numbers[5:], numbers[:5], seed=0)
    assert again == outcome


def test_a_fold_that_cannot_be_read(videos, networks):
    numbers = np.arange(len(videos))
    with pytest.raises(ValueError, match="must be readable"):
        networks.run("baseline", numbers[:-1], numbers[-1:], seed=0)


def results_with(shares):
    """Results of one seed, from the accuracies of each arm in each fold."""
    runs = [
        {"arm": arm, "fold": fold, "seed": 0, "tested": 100, "correct": share}
        for arm, folds in shares.items()
        for fold, share in enumerate(folds)
    ]
    return {"runs": runs, "videos": [{"label": 0}, {"label": 1}]}


@pytest.mark.parametrize(
    ("nonlocal_", "verdict"),
    [
        ([70, 72, 74], "helps"),
        ([50, 54, 52], "hurts"),
        ([50, 70, 66], "cannot be said"),
        # Three times the same step is no spread to judge by.
        ([65, 67, 65], "cannot be said"),
    ],
)
def test_verdicts(nonlocal_, verdict):
    control = [60, 62, 60]
    results = results_with(
        {"baseline": [60, 60, 61], "control": control, "nonlocal": nonlocal_}
    )
    (found,) = (
        x for x in summary.differences(results) if x.against == "control"
    )
    assert found.verdict == verdict
    assert found.arm == "nonlocal"
    expected = np.mean(np.subtract(nonlocal_, control)) / 100
    assert found.mean == pytest.approx(expected)


def test_the_readme_is_that_of_the_results():
    results = json.loads((readme.FOLDER / "results.json").read_text())
    text = (readme.FOLDER / "README.md").read_text()
    assert text == readme.readme(results)
    assert "python -m zoo.studies.own_videos --data" in text


def test_wrong_flags_are_errors_of_usage(root):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "zoo.studies.own_videos", "--smoke"),
            *(f"--data={root / 'videos.csv'}", "--groups=subject"),
            f"--out={root / 'refused'}",
        ],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(readme.__file__).parents[3],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=100,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "must have a header with the columns subject" in (
        result.stdout + result.stderr
    )
    assert not (root / "refused").exists()
