import json

import keras
import numpy as np
import pytest

from keras_nonlocal.models.labels import class_names
from keras_nonlocal.models.labels import decode_predictions

NAMES = ("archery", "bowling", "juggling", "yoga")


def test_kinetics400():
    names = class_names("kinetics400")
    assert len(names) == len(set(names)) == 400
    assert list(names) == sorted(names)
    assert all(name == name.strip() and '"' not in name for name in names)
    assert names[5] == "archery"
    assert names[227] == "playing cricket"


def test_kinetics400_is_what_others_agree_on(shared):
    folder = shared / "data" / "annotations"
    label_map = folder / "kinetics400_label_map.txt"
    class_ids = folder / "kinetics400_nonlocal_classids.json"
    names = class_names("kinetics400")
    assert list(names) == label_map.read_text().splitlines()
    # Names of more than one word stand in quotes of their own there.
    by_name = json.loads(class_ids.read_text())
    assert {name.strip('"'): i for name, i in by_name.items()} == {
        name: i for i, name in enumerate(names)
    }


def test_coco_is_what_its_annotations_say(shared):
    path = shared / "data" / "coco128" / "instances_coco128.json"
    categories = json.loads(path.read_text())["categories"]
    ordered = sorted(categories, key=lambda category: category["id"])
    assert list(class_names("coco")) == [x["name"] for x in ordered]
    assert len(ordered) == 80


def test_unknown_data_set():
    with pytest.raises(ValueError, match=r"\['coco', 'kinetics400'\].*'ucf'"):
        class_names("ucf")


def test_best_first_and_equal_scores_by_index():
    scores = [[0.1, 0.4, 0.4, 0.1], [0.0, 0.25, 0.25, 0.5]]
    assert decode_predictions(np.array(scores), 3, NAMES) == [
        [(1, "bowling", 0.4), (2, "juggling", 0.4), (0, "archery", 0.1)],
        [(3, "yoga", 0.5), (1, "bowling", 0.25), (2, "juggling", 0.25)],
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_takes_tensors_of_the_backend(dtype):
    scores = keras.ops.cast(keras.ops.convert_to_tensor([[0, 3, 1, 2]]), dtype)
    ((best, second),) = decode_predictions(scores, 2, class_names=list(NAMES))
    assert (best, second) == ((1, "bowling", 3.0), (3, "yoga", 2.0))
    assert list(map(type, best)) == [int, str, float]


def test_kinetics_by_default():
    scores = np.zeros((2, 400), "float32")
    scores[0, 5] = scores[1, 399] = 1
    first, second = decode_predictions(scores)
    assert len(first) == len(second) == 5
    assert (first[0], second[0]) == ((5, "archery", 1.0), (399, "zumba", 1.0))


def test_more_asked_for_than_there_are():
    ((*found,),) = decode_predictions(np.eye(4)[:1], 10, NAMES)
    assert [index for index, _, _ in found] == [0, 1, 2, 3]
    assert decode_predictions(np.ones((0, 4)), 1, NAMES) == []


def test_infinite_logits_have_an_order():
    scores = np.array([[0, -np.inf, np.inf, 1]])
    ((*found,),) = decode_predictions(scores, 4, NAMES)
    assert [index for index, _, _ in found] == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.ones((1, 4))}, r"\(batch, 400\).*\(1, 4\)"),
        ({"scores": np.ones((1, 5)), "class_names": NAMES}, r"\(batch, 4\)"),
        ({"scores": np.ones(4), "class_names": NAMES}, r"shape \(4,\)"),
        (
            {"scores": [[1, 2, 3, 4], [1, 2, np.nan, 4]], "class_names": NAMES},
            r"NaN for the clips \[1\]",
        ),
        ({"scores": np.ones((1, 400)), "top": 0}, "`top`.*0"),
        ({"scores": np.ones((1, 400)), "top": 1.5}, "`top`.*1.5"),
        ({"scores": np.ones((1, 4)), "class_names": "ucf"}, "kinetics400"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(**arguments)
