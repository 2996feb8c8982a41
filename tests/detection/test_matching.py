import functools

import keras
import numpy as np
import pytest

from keras_nonlocal.detection import matching as module
from keras_nonlocal.detection.boxes import pairwise_iou
from tests.checks import numpy
from tests.detection import runs

# Of the tests of detectron2: 3 objects, 4 anchors.
IOU = np.array(
    [
        [0.15, 0.45, 0.2, 0.6],
        [0.3, 0.65, 0.05, 0.1],
        [0.05, 0.4, 0.25, 0.4],
    ],
    "float32",
).T


def test_matcher_of_detectron2():
    for low_quality, expected in (
        (True, [-1, 1, 0, 1]),
        (False, [-1, -1, 0, -1]),
    ):
        match = functools.partial(
            module.match, low=0.3, high=0.7, low_quality=low_quality
        )
        results = runs.results(
            lambda iou, valid, match=match: match(iou, valid=valid),
            IOU,
            np.ones(3, bool),
        )
        for way, (index, label) in results.items():
            np.testing.assert_array_equal(index, [1, 1, 2, 0], err_msg=way)
            np.testing.assert_array_equal(label, expected, err_msg=way)
            assert index.dtype == label.dtype == "int32"


def test_assigner_of_mmdetection():
    priors = [
        [0, 0, 10, 10],
        [10, 10, 20, 20],
        [5, 5, 15, 15],
        [32, 32, 38, 42],
    ]
    objects = [[0, 0, 10, 9], [0, 10, 10, 19]]
    index, label = module.match(
        pairwise_iou(priors, objects), 0.5, 0.5, True, [True, True]
    )
    # Counted from 1; 0 is no object.
    found = np.where(numpy(label) == 1, numpy(index) + 1, 0)
    np.testing.assert_array_equal(found, [1, 0, 2, 0])


def test_limits_belong_to_the_upper_label():
    iou = np.array([[0.3], [0.7], [0.29], [0.69]], "float32")
    _, label = module.match(iou, 0.3, 0.7, False, [True])
    np.testing.assert_array_equal(numpy(label), [-1, 1, 0, -1])


def test_all_that_share_the_best_overlap_are_positive():
    iou = np.array([[0.25, 0.0], [0.25, 0.6], [0.125, 0.0]], "float32")
    index, label = module.match(iou, 0.3, 0.7, True, [True, True])
    np.testing.assert_array_equal(numpy(label), [1, 1, 0])
    # The second keeps the object that it overlaps most.
    np.testing.assert_array_equal(numpy(index), [0, 1, 0])


def test_an_object_that_nothing_touches_makes_none_positive():
    iou = np.array([[0.0, 0.2], [0.0, 0.1]], "float32")
    _, label = module.match(iou, 0.3, 0.7, True, [True, True])
    np.testing.assert_array_equal(numpy(label), [1, 0])


def test_slots_without_an_object_might_as_well_not_be_there(rng):
    iou = rng.uniform(size=(2, 6, 4)).astype("float32")
    valid = np.array([[True, False, True, False], [False] * 4])
    index, label = module.match(iou, 0.3, 0.7, True, valid)
    fewer = module.match(iou[:1, :, [0, 2]], 0.3, 0.7, True, [[True, True]])
    np.testing.assert_array_equal(numpy(index)[0], numpy(fewer[0])[0] * 2)
    np.testing.assert_array_equal(numpy(label)[0], numpy(fewer[1])[0])
    np.testing.assert_array_equal(numpy(label)[1], np.zeros(6))
    np.testing.assert_array_equal(numpy(index)[1], np.zeros(6))


def test_limits_in_order():
    with pytest.raises(ValueError, match="low=0.7, high=0.3"):
        module.match(IOU, 0.7, 0.3, True, [True] * 3)


def test_there_are_slots_for_objects():
    with pytest.raises(ValueError, match=r"slot for an object.*\(4, 0\)"):
        module.match(np.zeros((4, 0)), 0.3, 0.7, True, np.zeros(0, bool))


def test_sampler_of_torchvision():
    label = np.array([0, 0, 1, -1, 0, 1, -1, 1, 0, 0, 0], "int32")
    for seed in range(5):
        drawn = module.sample(label, 4, 0.25, seed)
        assert sorted(label[numpy(drawn.index)]) == [0, 0, 0, 1]
        assert numpy(drawn.is_live).all()


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        (20, 20, (4, 14)),
        (2, 20, (2, 16)),
        (20, 3, (4, 3)),
        (0, 3, (0, 3)),
        (1, 0, (1, 0)),
        (0, 0, (0, 0)),
    ],
)
def test_counts(positive, negative, expected, rng):
    label = np.repeat([1, 0, -1], [positive, negative, 20]).astype("int32")
    label = np.stack([rng.permutation(label) for _ in range(3)])
    # A quarter of 18 is 4.5.
    drawn = sampled(label, 18, 0.25, seed=1)
    for row, index, is_live, is_positive in zip(label, *drawn, strict=True):
        taken = row[index]
        count = sum(expected)
        np.testing.assert_array_equal(is_live, np.arange(18) < count)
        np.testing.assert_array_equal(is_positive, np.arange(18) < expected[0])
        np.testing.assert_array_equal(taken[is_positive], 1)
        np.testing.assert_array_equal(taken[is_live & ~is_positive], 0)
        assert len(set(index[is_live])) == count
        assert not index[~is_live].any()


def test_takes_all_where_there_is_room():
    label = np.array([[1, 0, -1, 0, 1], [0, -1, 0, 0, 0]], "int32")
    for number in (5, 9):
        drawn = sampled(label, number, 0.5, seed=0)
        assert drawn.index.shape == (2, number)
        for row, expected in enumerate(([0, 1, 3, 4], [0, 2, 3, 4])):
            taken = drawn.index[row][drawn.is_live[row]]
            assert sorted(taken) == expected
        assert drawn.is_positive.sum() == 2


def test_shapes_are_known_in_every_way():
    label = np.array([[1, 0, -1, 0, 1, 0], [-1, 1, 1, 0, 1, 1]], "int32")
    for number, counts in ((4, [4, 3]), (8, [5, 5])):
        sample = functools.partial(
            module.sample, number=number, positive_share=0.5, seed=3
        )
        results = runs.results(lambda x, sample=sample: sample(x), label)
        for way, drawn in results.items():
            assert drawn.index.shape == (2, number), way
            assert drawn.is_live.sum(-1).tolist() == counts, way
            for row, index, is_live in zip(
                label, drawn.index, drawn.is_live, strict=True
            ):
                assert (row[index[is_live]] >= 0).all(), way


def test_draws_all_alike():
    # 3000 draws of 3 of 12 negative boxes and of 1 of 4 positive ones.
    label = np.repeat([0, 1, 0, -1], [5, 4, 7, 2]).astype("int32")
    drawn = sampled(np.tile(label, (3000, 1)), 4, 0.25, seed=7)
    counts = np.bincount(drawn.index.ravel(), minlength=18)
    for kind, each in ((0, 3000 * 3 / 12), (1, 3000 / 4)):
        # Five deviations of a binomial count.
        assert np.abs(counts[label == kind] - each).max() < 5 * each**0.5
    assert not counts[label == -1].any()
    # And independently: pairs of neighbours are as frequent as they should be.
    first_two = np.any(drawn.index == 0, -1) & np.any(drawn.index == 1, -1)
    expected = 3000 * 3 * 2 / (12 * 11)
    assert abs(first_two.sum() - expected) < 5 * expected**0.5


def test_a_generator_draws_anew_an_integer_does_not():
    label = np.zeros(100, "int32")
    generator = keras.random.SeedGenerator(0)
    draws = [
        numpy(module.sample(label, 5, 0.5, seed).index).tolist()
        for seed in (generator, generator, 4, 4)
    ]
    assert draws[0] != draws[1]
    assert draws[2] == draws[3]


@pytest.mark.parametrize(("number", "share"), [(0, 0.5), (4, 1.5), (4, -0.1)])
def test_refuses_samples_that_are_none(number, share):
    with pytest.raises(ValueError, match=f"number={number}, positive_share="):
        module.sample(np.zeros(3, "int32"), number, share, 0)


def sampled(label, *arguments, **options):
    return runs.result(lambda x: module.sample(x, *arguments, **options), label)
