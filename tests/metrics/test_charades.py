"""Against the definitions of the official scripts, written out anew."""

import numpy as np
import pytest

from keras_nonlocal.data.readers.charades import parse_charades
from keras_nonlocal.metrics import charades
from keras_nonlocal.metrics.average_precision import mean_average_precision


def official(scores, labels):
    """Goes down each class's ranking; the precision at every hit counts."""
    values = []
    for column in range(scores.shape[1]):
        ranking = sorted(
            range(len(scores)), key=lambda row: -scores[row, column]
        )
        hits, precisions = 0, []
        for place, row in enumerate(ranking, 1):
            if labels[row, column]:
                hits += 1
                precisions.append(hits / place)
        values.append(np.mean(precisions) if precisions else np.nan)
    return np.nanmean(values)


def official_classification(scores, labels):
    """Of videos without an action the script finds no scores."""
    known = labels.any(axis=1)
    return official(np.where(known[:, None], scores, -np.inf), labels)


@pytest.fixture(params=range(6))
def case(request):
    """Scores and labels; class 3 never occurs, some videos have none."""
    rng = np.random.default_rng(request.param)
    labels = rng.random((40, 7)) < rng.uniform(0.02, 0.5, 7)
    labels[:, 3] = False
    labels[rng.random(40) < 0.3] = False
    return rng.normal(size=(40, 7)).astype("float32"), labels


def test_classification_is_that_of_the_script(case):
    ours = charades.classification_map(*case)
    assert ours == pytest.approx(official_classification(*case), rel=1e-12)
    # What a mean over all of the videos would give.
    assert ours > mean_average_precision(*case)


def test_of_equal_scores_the_script_takes_the_order(case):
    """Ours is between the best of the orders and the worst."""
    scores, labels = case
    scores = np.round(scores)
    ours = charades.classification_map(scores, labels)
    best = official_classification(scores + labels / 10, labels)
    worst = official_classification(scores - labels / 10, labels)
    assert worst < ours < best
    assert charades.classification_map(scores[::-1], labels[::-1]) == ours


def test_localization_is_that_of_the_script(case):
    scores = case[0][:20].repeat(25, 0) + np.arange(500)[:, None] % 25 / 9
    labels = case[1][:20].repeat(25, 0) & (np.arange(500)[:, None] % 3 > 0)
    ours = charades.localization_map(
        scores.reshape(20, 25, 7), labels.reshape(20, 25, 7)
    )
    assert ours == pytest.approx(official(scores, labels), rel=1e-12)


CSV = """id,actions,length
A,c002 0.00 4.00;c000 3.90 50.00;c002 9.99 10.01,30.00
B,,12.50
C,c001 2.00 2.00;c001 3.00 2.50;c001 11.99 30.00,12.50"""


def test_labels_of_localization_from_the_annotations():
    """Each time is inside the actions of the csv file, ends included."""
    videos = parse_charades(CSV, class_names=["a", "b", "c"])
    lengths = [30.0, 12.5, 12.5]
    labels = charades.localization_labels(videos.actions, lengths, 3)
    expected = np.zeros((3, 25, 3))
    rows = [(0, 2, 0, 4), (0, 0, 3.9, 50), (0, 2, 9.99, 10.01)]
    for video, number, start, end in (*rows, (2, 1, 11.99, 30)):
        for place in range(25):
            time = place / 25 * lengths[video]
            if start <= time <= end:
                expected[video, place, number] = 1
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.float32
    # 0, 1.2, 2.4 and 3.6 seconds; from 4.8; between 9.6 and 10.8; 12.
    assert labels.sum((0, 1)).tolist() == [21, 1, 4]


def test_ends_of_an_action_are_inside():
    labels = charades.localization_labels([[[0, 2.0, 4.0]]], [50.0], 1)
    assert np.flatnonzero(labels).tolist() == [1, 2]


def read_by_script(text, numbered):
    """A word, a number if there is one, and the rest of the line."""
    found = {}
    for line in text.splitlines():
        name, rest = line.split(" ", 1)
        if numbered:
            number, rest = rest.split(" ", 1)
            name = f"{name}-{int(number):03d}"
        assert "\t" not in rest
        found[name] = [float(word) for word in rest.split(" ")]
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_submissions_hold_all_digits(rng, dtype):
    scores = rng.normal(size=(2, 25, 157)).astype(dtype)
    scores[0, 0, 0] = 1e-30
    classification = read_by_script(
        charades.classification_submission(["YSKX3", "46GP8"], scores[:, 0]),
        numbered=False,
    )
    assert list(classification) == ["YSKX3", "46GP8"]
    np.testing.assert_array_equal(
        np.array(list(classification.values()), dtype), scores[:, 0]
    )
    localization = read_by_script(
        charades.localization_submission(["YSKX3", "46GP8"], scores),
        numbered=True,
    )
    assert list(localization)[24:26] == ["YSKX3-025", "46GP8-001"]
    np.testing.assert_array_equal(
        np.array(list(localization.values()), dtype),
        scores.reshape(50, 157),
    )


VIDEO, TIMES = np.zeros((1, 157)), np.zeros((1, 25, 157))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("classification_map", (TIMES, TIMES), "`localization_map` is for"),
        ("classification_map", (VIDEO, VIDEO[0]), "shape of `scores`"),
        ("localization_map", (VIDEO, VIDEO), r"\(videos, 25, classes\)"),
        ("localization_map", (TIMES, VIDEO), r"Received: shape \(1, 157\)"),
        ("localization_map", (TIMES[:, :24],) * 2, r"\(1, 24, 157\)"),
        ("localization_labels", ([[]], []), "Received: 0 and 1"),
        ("localization_labels", ([[]], [0.0]), "length=0"),
        ("localization_labels", ([[]], [np.nan]), "length=nan"),
        ("localization_labels", ([[[157, 0, 1]]], [9.0]), "157 in video 0"),
        ("localization_labels", ([[[-1, 0, 1]]], [9.0]), "-1 in video 0"),
        ("classification_submission", (["A"], TIMES), r"\(videos, 157\)"),
        ("classification_submission", (["A", "B"], VIDEO), "of 2 videos"),
        ("classification_submission", (["A"], VIDEO[:, 1:]), r"\(1, 156\)"),
        ("classification_submission", (["A B"], VIDEO), "A B"),
        ("classification_submission", ([""], VIDEO), r"\[''\]"),
        ("classification_submission", (["A"], VIDEO * np.nan), "finite"),
        ("localization_submission", (["A"], VIDEO), r"\(videos, 25, 157\)"),
        ("localization_submission", (["A"] * 2, [*TIMES] * 2), "name twice"),
    ],
)
def test_refuses(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(charades, function)(*arguments)


def test_nothing_happens():
    assert np.isnan(charades.classification_map(VIDEO, VIDEO))
    assert np.isnan(charades.localization_map(TIMES, TIMES))
