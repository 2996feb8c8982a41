import numpy as np
import pytest

from keras_nonlocal.data.folds import grouped_folds


def a_study(seed, num_groups=30, num_classes=4):
    """Groups of 1 to 8 videos whose classes are of one or two kinds."""
    rng = np.random.default_rng(seed)
    groups, labels = [], []
    for group in range(num_groups):
        kinds = rng.integers(num_classes, size=2)
        size = int(rng.integers(1, 9))
        groups += [f"person{group}"] * size
        labels += rng.choice(kinds, size).tolist()
    order = rng.permutation(len(groups))
    return np.array(groups)[order], np.array(labels)[order]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("k", [2, 5, 10])
def test_no_group_is_on_both_sides(seed, k):
    groups, labels = a_study(seed)
    folds = grouped_folds(groups, k, labels, seed)
    assert folds.shape == groups.shape
    assert set(folds.tolist()) == set(range(k))
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    for fold in range(k):
        assert set(labels[folds != fold]) == set(labels)


@pytest.mark.parametrize("seed", range(20))
def test_classes_are_balanced(seed):
    groups, labels = a_study(seed, num_groups=60)
    folds = grouped_folds(groups, 3, labels)
    for label in set(labels):
        counts = np.bincount(folds[labels == label], minlength=3)
        # Whole groups are dealt, of at most 8.
        assert counts.max() - counts.min() <= 8


def test_is_better_balanced_than_chance():
    def unevenness(folds, labels):
        table = np.zeros((5, 4))
        np.add.at(table, (folds, labels), 1)
        return (table / table.sum(axis=0)).std(axis=0).mean()

    greedy, chance = [], []
    for seed in range(20):
        groups, labels = a_study(seed)
        greedy.append(unevenness(grouped_folds(groups, 5, labels), labels))
        names, numbers = np.unique(groups, return_inverse=True)
        dealt = np.random.default_rng(seed).permutation(len(names)) % 5
        chance.append(unevenness(dealt[numbers], labels))
    assert np.mean(greedy) < np.mean(chance) / 2


def test_leaves_one_group_out():
    groups = ["a"] * 5 + ["b"] + ["c"] * 2
    folds = grouped_folds(groups, 3, labels=[0, 1, 0, 1, 0, 1, 0, 1])
    assert len({*zip(groups, folds.tolist(), strict=True)}) == 3


def test_a_rare_class_is_in_two_folds():
    groups = np.repeat(np.arange(20), 10)
    labels = np.zeros(200, int)
    labels[[0, 55]] = 1
    folds = grouped_folds(groups, 2, labels)
    assert folds[0] != folds[55]
    assert abs(np.sum(folds == 0) - 100) <= 10


def test_without_labels_folds_have_the_same_size():
    folds = grouped_folds(np.repeat(np.arange(12), 3), 4)
    assert np.bincount(folds).tolist() == [9] * 4


def test_the_seed_decides_among_equals():
    groups, labels = np.repeat(np.arange(12), 2), np.tile([0, 1], 12)
    first = grouped_folds(groups, 3, labels, seed=1)
    np.testing.assert_array_equal(
        first, grouped_folds(groups, 3, labels, seed=1)
    )
    assert any(
        (grouped_folds(groups, 3, labels, seed=seed) != first).any()
        for seed in range(2, 5)
    )


def test_groups_of_any_kind():
    expected = grouped_folds([0, 0, 1, 2], 3)
    for groups in (("x", "x", "y", "z"), [(1, 2), (1, 2), 3, "z"]):
        np.testing.assert_array_equal(grouped_folds(groups, 3), expected)


@pytest.mark.parametrize(
    ("groups", "k", "labels", "words"),
    [
        ("aab", 3, None, "`k` must be from 2 .*k=3, 2 groups of 3 videos"),
        ("aab", 1, None, "`k` must be from 2 .*k=1"),
        ("", 2, None, "0 groups of 0 videos"),
        (["a", None, "b"], 2, None, "`groups` must be known.*None for video 1"),
        ([1.0, 2.0, np.nan], 2, None, "`groups` must be known.*video 2"),
        ("ab", 2, [0], "`labels` must be one for each.*1 labels, 2 groups"),
        (
            "aabbc",
            2,
            ["run", "run", "run", "run", "jump"],
            r"class 'jump', whose 1 videos \(of 1 groups\)",
        ),
    ],
)
def test_what_cannot_be_dealt_is_refused(groups, k, labels, words):
    with pytest.raises(ValueError, match=words):
        grouped_folds(list(groups), k, labels)
