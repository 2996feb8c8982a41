import keras
import pytest

import keras_nonlocal
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.weights.catalogue import CATALOGUE
from zoo import models


@pytest.mark.parametrize("page", sorted({page for page, _ in models.TABLES}))
def test_tables_are_not_stale(page):
    """After a change: `python -m zoo.models`."""
    assert page.read_text() == models.current(page)


def test_counts_are_of_the_networks_there_are():
    """After a change: `python -m zoo.models --count`."""
    records = {
        name: one["network"] for name, one in models.read_counts().items()
    }
    networks = models.all_networks()
    assert records == {name: models.record(networks[name]) for name in networks}
    assert set(VARIANTS) < set(records)


@pytest.mark.parametrize(
    "name", ["small_nl_c2d", "torchvision_resnet50", "inception_i3d_flow"]
)
def test_counts_are_right(name):
    counted = models.read_counts()[name]
    network = models.all_networks()[name]
    found = models.count(network, models.classes_of(name))
    assert found == {key: counted[key] for key in found}


def test_all_weights_and_networks_are_listed():
    counts = models.read_counts()
    weights = models.weights_table(counts)
    assert all(f"| `{name}` |" in weights for name in CATALOGUE)
    assert "`mmaction2_tsm_r50_nl_gaussian_1x1x8` | - |" in weights
    networks = models.networks_table(counts)
    assert networks.count("\n") == len(VARIANTS) + 2
    assert "NL" not in networks
    assert "1 block (dot product) in res4 | 32x2 | 26.4 M |" in networks


def test_constructors_build_what_their_rows_say():
    for constructor, name in models.CONSTRUCTORS.items():
        model = getattr(keras_nonlocal, constructor)
        variant = VARIANTS[name]
        assert str(variant.depth) in model.__name__
        assert (variant.num_nonlocal > 0) == constructor.startswith("NL")
        assert (variant.inflation is None) == ("C2D" in constructor)
    table = models.constructors_table(models.read_counts())
    assert (
        "| `NLC2D101` | 32x2 | 50.7 M | 43.2 | - | none are published |"
        in table
    )
    keras.utils.clear_session()


def test_a_page_must_have_the_place_of_the_table():
    text = "a\n<!-- x, made -->\n\nold\n<!-- end of x -->\nb"
    assert models.put(text, "x", "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="must have one pair of comments"):
        models.put("nothing", "x", "new\n")
