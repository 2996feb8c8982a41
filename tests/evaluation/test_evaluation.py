import json

import numpy as np
import pytest

from keras_nonlocal.evaluation.intervals import wilson_interval

# By hand: right, right, wrong (0 for 1, 0.6), wrong (2 for 0, 0.9).
SCORES = [
    [0.7, 0.2, 0.1],
    [0.1, 0.6, 0.3],
    [0.6, 0.3, 0.1],
    [0.0, 0.1, 0.9],
]
LABELS = [0, 1, 1, 0]


def test_figures_of_one_class_each(make):
    result = make(SCORES, LABELS)
    assert result.setting == "2 clips" and result.tested == 4
    assert result.figures() == {
        "top1": 0.5,
        "top5": None,
        "interval": list(wilson_interval(2, 4)),
        "correct": 2,
        "top1_skipped_wrong": 0.5,
    }
    # The other setting has the scores of other classes.
    assert result.figures("1 clip")["top1"] == 0
    np.testing.assert_array_equal(result.per_class(), [0.5, 0.5, np.nan])
    np.testing.assert_array_equal(result.videos_per_class(), [2, 2, 0])
    np.testing.assert_array_equal(
        result.confusion(), [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    )


def test_top5_with_more_than_five_classes(make):
    scores = np.eye(6)[[0, 0]] * 0.5 + np.linspace(0.1, 0, 6)
    result = make(scores, [5, 4])
    assert result.figures()["top5"] == 0.5 and result.figures()["top1"] == 0


def test_skipped_videos_are_in_no_denominator_but_one(make):
    result = make(SCORES, [0, 2, 1, 1, 0], skipped=[1])
    figures = result.figures()
    assert (figures["top1"], figures["top1_skipped_wrong"]) == (0.5, 0.4)
    assert result.paths == tuple(f"rgb/{n}.mp4" for n in (0, 2, 3, 4))


def test_most_confident_mistakes_come_first(make):
    result = make(SCORES, [0, 2, 1, 1, 0], skipped=[1])
    found = [(m.number, m.predicted) for m in result.mistakes()]
    assert found == [(4, 2), (3, 0)]
    assert result.mistakes()[0].score == pytest.approx(0.9)
    assert len(result.mistakes(limit=1)) == 1
    assert make(SCORES[:2], LABELS[:2]).mistakes() == []


MANY = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_figures_of_several_classes(make):
    result = make(SCORES, MANY)
    # Without the video that has none, class 0 is found in places 1 and 2
    # (0.7, 0.1, 0.0), class 1 in 1 and 3 (0.6, 0.2, 0.1); class 2 never occurs.
    expected = [1.0, (1 + 2 / 3) / 2]
    np.testing.assert_allclose(result.per_class(), [*expected, np.nan])
    assert result.figures() == {
        "mAP": pytest.approx(np.mean(expected)),
        "classes": 2,
        "without_class": 1,
        "mAP_skipped_wrong": pytest.approx(np.mean(expected)),
    }
    np.testing.assert_array_equal(result.videos_per_class(), [2, 2, 0])
    # The highest scores of classes that a video has not.
    found = [(m.number, m.predicted) for m in result.mistakes(2)]
    assert found == [(3, 2), (2, 0)]
    with pytest.raises(ValueError, match="one class each"):
        result.confusion()


def test_skipped_videos_of_several_classes_come_last(make):
    result = make(SCORES, [*MANY, [1, 0, 0]], skipped=[4])
    first, second = (1 + 1 + 3 / 4) / 3, (1 + 2 / 3) / 2
    assert result.figures()["mAP_skipped_wrong"] == pytest.approx(
        np.mean([first, second])
    )


def test_form_of_the_file(make, tmp_path):
    make(SCORES, [0, 2, 1, 1, 0], skipped=[1]).to_json(tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    assert list(content) == [
        "schema",
        "name",
        "protocol",
        "clip",
        "dataset",
        "multi_label",
        "settings",
        "tested",
        "skipped",
        "seconds",
        "classes",
        "skipped_videos",
    ]
    assert (content["schema"], content["tested"], content["skipped"]) == (
        1,
        4,
        1,
    )
    assert list(content["settings"]) == ["1 clip", "2 clips"]
    assert content["settings"]["2 clips"]["top1"] == 0.5
    assert content["protocol"]["num_clips"] == 2
    assert content["clip"]["num_frames"] == 8
    assert content["classes"][2] == {
        "name": "class 2",
        "videos": 0,
        "top1": None,
    }
    assert content["skipped_videos"] == [
        {"path": "rgb/1.mp4", "reason": "rgb/1.mp4: no video"}
    ]


def test_no_number_is_none(make):
    """JSON has no NaN."""
    summary = make(SCORES, np.zeros((4, 3), int)).summary()
    assert summary["settings"]["2 clips"]["mAP"] is None
    json.dumps(summary, allow_nan=False)
