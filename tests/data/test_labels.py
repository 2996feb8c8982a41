import numpy as np
import pytest

from keras_nonlocal.data import labels

NAMES = ("clap", "turn left", "turn right", "wave left", "wave right")
PAIRS = ((1, 2), (4, 3))


def test_pairs_of_names_to_numbers():
    names = [("turn left", "turn right"), ["wave right", "wave left"]]
    assert labels.class_pairs(names, NAMES) == PAIRS
    assert labels.class_pairs([], NAMES) == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([("turn left", "turn rihgt")], "turn rihgt"),
        ([("clap", "turn left"), ("turn left", "turn right")], "one place"),
        ([("clap", "clap")], "one place"),
        ([("clap", "turn left", "turn right")], "pairs"),
    ],
)
def test_refuses_pairs(names, message):
    with pytest.raises(ValueError, match=message):
        labels.class_pairs(names, NAMES)


def test_refuses_negative_numbers():
    with pytest.raises(ValueError, match="class numbers"):
        labels.checked_pairs([(-1, 2)])


def test_swaps_a_class_number():
    swapped = [labels.swap_labels(np.int32(i), True, PAIRS) for i in range(7)]
    assert [int(x) for x in swapped] == [0, 2, 1, 4, 3, 5, 6]
    assert {(x.dtype, x.shape) for x in swapped} == {(np.dtype("int32"), ())}


def test_swaps_many_labels():
    before = np.array([1, 1, 0, 0.5, 0], "float32")
    after = labels.swap_labels(before, True, PAIRS)
    np.testing.assert_array_equal(after, np.float32([1, 0, 1, 0, 0.5]))
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(
        labels.swap_labels(after, True, PAIRS), before
    )


def test_without_pairs_labels_stay():
    assert labels.swap_labels(3, True, ()) == 3
    assert labels.swap_labels([0, 1], True, ()).tolist() == [0, 1]


def test_labels_of_clips_as_they_are_stay():
    assert labels.swap_labels(1, False, PAIRS) == 1
    assert labels.swap_labels(np.arange(5), False, PAIRS).tolist() == [
        *range(5)
    ]


def test_refuses_labels_of_other_classes():
    with pytest.raises(ValueError, match=r"classes in \[0, 4\)"):
        labels.swap_labels(np.zeros(4), True, PAIRS)
    with pytest.raises(ValueError, match=r"shape \(2, 5\)"):
        labels.swap_labels(np.zeros((2, 5)), True, PAIRS)
