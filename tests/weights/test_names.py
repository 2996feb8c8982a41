import dataclasses
import gzip
import json

import pytest

from keras_nonlocal.weights import names

RULES = [
    pytest.param(family, number, id=f"{family}-{number}")
    for family, table in names.FAMILIES.items()
    for number in range(len(table.rules))
]


@pytest.mark.parametrize(("family", "number"), RULES)
def test_each_row_has_a_true_example(family, number):
    rules = names.FAMILIES[family].rules
    source, target = rules[number].example
    assert names.FAMILIES[family].target(source) == target
    # The first row that fits decides: it must be this one.
    alone = dataclasses.replace(names.FAMILIES[family], rules=rules[:number])
    assert alone.target(source) is None
    alone = dataclasses.replace(alone, rules=(rules[number],))
    assert alone.target(source) == target


@pytest.mark.parametrize("family", names.FAMILIES)
def test_examples_tell_the_family(family):
    rules = names.FAMILIES[family].rules
    examples = [rule.example[0] for rule in rules]
    assert names.recognise(examples) == family
    assert names.recognise(["weights", "bias"]) is None


def test_prefixes():
    table = names.FAMILIES
    assert table["slowfast"].target("module.head.projection.bias") == (
        "logits/bias"
    )
    assert table["pytorchvideo"].target("model.blocks.0.conv.weight") == (
        "conv1/kernel"
    )


def test_sorting():
    targets, ignored, unknown = names.sort_out(
        "caffe2", ["conv1_w", "conv1_w_momentum", "lr", "conv1_v"]
    )
    assert targets == {"conv1/kernel": ["conv1_w"]}
    assert ignored == ["conv1_w_momentum", "lr"]
    assert unknown == ["conv1_v"]


def test_every_fixture_is_named_whole(shared):
    """The real parameter lists of all code bases, none left over."""
    seen = set()
    for path in (shared / "parity").glob("[!b]*.json.gz"):
        with gzip.open(path, "rt") as file:
            params = [name for name, _ in json.load(file)["params"]]
        family = names.recognise(params)
        seen.add(family)
        _, _, unknown = names.sort_out(family, params)
        assert unknown == [], path.name
    assert len(seen) == 6
