import dataclasses

import numpy as np
import pytest

from keras_nonlocal.evaluation.ensemble import combine
from keras_nonlocal.evaluation.protocols import Protocol

LABELS = [0, 1, 1, 0]


@pytest.fixture
def rgb(make, rng):
    return make(rng.random((4, 3)), LABELS, name="rgb")


@pytest.fixture
def flow(make, rng):
    """The same videos in another order, in other files."""
    order = [2, 0, 3, 1]
    flow = make(rng.random((4, 3)), np.array(LABELS)[order], name="flow")
    paths = [f"flow/{number}.avi" for number in order]
    return dataclasses.replace(
        flow, videos=dataclasses.replace(flow.videos, paths=tuple(paths))
    )


def test_scores_of_the_same_videos_are_averaged(rgb, flow):
    result = combine([rgb, flow], weights=[3, 1], match="stem")
    assert result.name == "rgb + flow" and result.videos is rgb.videos
    back = [1, 3, 0, 2]
    for setting, scores in result.scores.items():
        assert scores.dtype == np.float32
        np.testing.assert_allclose(
            scores,
            0.75 * rgb.scores[setting] + 0.25 * flow.scores[setting][back],
            rtol=1e-6,
        )
    members = result.about["members"]
    assert [(m["name"], m["weight"]) for m in members] == [
        ("rgb", 0.75),
        ("flow", 0.25),
    ]
    assert result.about["seconds"] == 3.0 and "versions" in result.about


def test_equal_weights_and_three_members(rgb):
    others = [
        dataclasses.replace(
            rgb, scores={"2 clips": rgb.scores["2 clips"] * factor}
        )
        for factor in (2, 6)
    ]
    result = combine([rgb, *others])
    # Of the settings that all have.
    assert list(result.scores) == ["2 clips"]
    np.testing.assert_allclose(
        result.scores["2 clips"], 3 * rgb.scores["2 clips"], rtol=1e-6
    )


def test_videos_that_one_could_not_read(make, rng):
    one = make(rng.random((3, 3)), LABELS, skipped=[1])
    other = make(rng.random((3, 3)), LABELS, skipped=[2])
    result = combine([one, other])
    np.testing.assert_array_equal(result.numbers, [0, 3])
    assert list(result.skipped) == [1, 2]
    scores = [x.scores["2 clips"] for x in (one, other)]
    np.testing.assert_allclose(
        result.scores["2 clips"],
        (scores[0][[0, 2]] + scores[1][[0, 2]]) / 2,
        rtol=1e-6,
    )
    other = make(rng.random((1, 3)), LABELS, skipped=[0, 2, 3])
    with pytest.raises(ValueError, match="tested a video in common"):
        combine([one, other])


def test_parts_of_one_file_are_told_apart(make, rng):
    def parts(segments):
        result = make(rng.random((2, 3)), [0, 1], segments=segments)
        videos = dataclasses.replace(result.videos, paths=("a", "a"))
        return dataclasses.replace(result, videos=videos)

    one = parts([[0, 1], [1, np.nan]])
    assert combine([one, parts([[0, 1], [1, np.nan]])]).tested == 2
    with pytest.raises(ValueError, match=r"same videos.*2 that only one"):
        combine([one, parts([[0, 1], [1, 2]])])
    with pytest.raises(ValueError, match="differ in their path or segment"):
        combine([parts(None), parts(None)])


def test_refuses_what_does_not_belong_together(make, rgb, flow, rng):
    scores = rng.random((4, 3))
    by_logits = make(scores, LABELS, protocol=Protocol("x", average="logit"))
    other_setting = dataclasses.replace(rgb, scores={"5 clips": scores})
    for others, message in (
        ([], "two or more"),
        ([flow], r"same videos.*8 that only one of 'rgb' and 'flow'"),
        ([make(scores, LABELS, classes=("a", "b", "c"))], "same classes"),
        ([make(scores, np.eye(3)[[0, 1, 1, 0]])], "same kind of labels"),
        ([by_logits], "same kind of scores.*probability.*logit"),
        ([make(scores, [0, 1, 1, 2])], "same labels.*2 in 'net' .*3.mp4"),
        ([other_setting], "setting in common"),
    ):
        with pytest.raises(ValueError, match=message):
            combine([rgb, *others])
    for weights in ([1], [1, 0], [1, -1], [1, np.nan]):
        with pytest.raises(ValueError, match="2 positive numbers"):
            combine([rgb, rgb], weights)
    with pytest.raises(ValueError, match="`match` must be one of"):
        combine([rgb, rgb], match="name")
