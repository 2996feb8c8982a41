import dataclasses
import json
import pathlib

import keras
import pytest

from keras_nonlocal import NonLocal
from keras_nonlocal import ResNet3D
from keras_nonlocal import Variant
from keras_nonlocal import insert_nonlocal
from keras_nonlocal.models.memory import memory_plan
from keras_nonlocal.models.rematerialization import rematerialize

_MEASURED = (
    pathlib.Path(__file__).parents[2]
    / "benchmarks"
    / "results"
    / "memory_plan.json"
)
TINY = Variant(depth=26, width=4, num_nonlocal=2, stem="stride1")


def chain(dtype=None):
    """3 to 8 to 4 channels, 10 x 10 positions."""
    kwargs = {"padding": "same", "use_bias": False, "dtype": dtype}
    x = entry = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, **kwargs)(x)
    x = keras.layers.BatchNormalization(dtype=dtype)(x)
    x = keras.layers.ReLU(dtype=dtype)(x)
    x = keras.layers.Conv2D(4, 3, **kwargs)(x)
    return keras.Model(entry, x)


# Bytes of its tensors, and of the second kernel.
ENTRY, MIDDLE, END, KERNEL = 1200, 3200, 1600, 3 * 3 * 8 * 4 * 4


@pytest.fixture(scope="module")
def network():
    return ResNet3D(TINY, classes=5)


def test_a_call_by_hand():
    """The norm reads one map and writes another; the ReLU needs no third."""
    plan = memory_plan(chain(), 1, None, 10)
    assert plan.step == plan.transient == ENTRY + 2 * MIDDLE
    assert (plan.kept, plan.gradients, plan.optimizer) == (0, 0, 0)
    assert plan.weights == 4 * (9 * 3 * 8 + 4 * 8) + KERNEL
    assert plan.total == plan.weights + plan.step


def test_a_training_step_by_hand():
    """Most exists when the second convolution has both of its gradients."""
    plan = memory_plan(chain(), 1, None, 10, training=True)
    assert plan.kept == ENTRY + 2 * MIDDLE + END
    assert plan.gradients == KERNEL
    assert plan.transient == END + MIDDLE
    assert plan.optimizer == 4 * (9 * 3 * 8 + 2 * 8) + KERNEL


def test_recomputing_norms_by_hand():
    """Of the two inner maps one is kept.

    The other is computed again from a copy, where the kernel is copied too.
    """
    plan = memory_plan(
        chain(), 1, None, 10, training=True, rematerialize="norms"
    )
    assert plan.kept == ENTRY + END
    assert plan.gradients == KERNEL
    # Copy of the kept map, normalised map, gradient of it and of the end.
    weights = KERNEL + 2 * 8 * 4
    assert plan.transient == 3 * MIDDLE + END + weights


def test_half_precision_by_hand():
    plan = memory_plan(chain(), 1, None, 10, "mixed_bfloat16")
    copies = 2 * (9 * 3 * 8 + 9 * 8 * 4)
    # The copy of the first kernel is no longer needed then.
    assert plan.step == ENTRY + 2 * MIDDLE // 2 + copies - 2 * 9 * 3 * 8
    built = memory_plan(chain("mixed_bfloat16"), 1, None, 10)
    assert built.step == plan.step


def test_slots_follow_the_optimizer():
    model = chain()
    trainable = 4 * (9 * 3 * 8 + 2 * 8) + KERNEL
    plain = memory_plan(model, 1, None, 10, training=True)
    slots = {"sgd": 0, "adam": 2}
    for name, count in slots.items():
        model.compile(name, "mse")
        plan = memory_plan(model, 1, None, 10, training=True)
        assert plan.optimizer == count * trainable
        assert plan.step == plain.step
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    plan = memory_plan(model, 1, None, 10, training=True)
    assert plan.optimizer == trainable
    assert plan.step == plain.step + trainable


def test_frozen_layers_keep_nothing():
    model = chain()
    model.layers[1].trainable = model.layers[2].trainable = False
    plan = memory_plan(model, 1, None, 10, training=True)
    assert plan.kept == ENTRY + MIDDLE + END
    assert plan.optimizer == KERNEL


@pytest.mark.parametrize("training", [False, True])
def test_largest_batch_is_the_largest(network, training):
    def total(batch):
        return memory_plan(network, batch, 4, 32, training=training).total

    assert total(2) > total(1)
    for budget in (total(1), total(7), 3 * total(7) + 1):
        plan = memory_plan(network, 1, 4, 32, training=training, budget=budget)
        assert total(plan.largest_batch) <= budget
        assert total(plan.largest_batch + 1) > budget
    plan = memory_plan(
        network, 1, 4, 32, training=training, budget=total(1) - 1
    )
    assert plan.largest_batch == 0


def test_more_computed_again_is_less_kept(network):
    none, norms, blocks = (
        memory_plan(network, 4, 8, 64, training=True, rematerialize=units).step
        for units in (None, "norms", "blocks")
    )
    assert blocks < 0.7 * norms < 0.7 * 0.95 * none


@pytest.mark.parametrize(
    "mode, algorithm",
    [
        ("embedded_gaussian", "chunked"),
        ("gaussian", "chunked"),
        ("dot_product", "reassociated"),
        ("concatenation", "sorted"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_blocks_that_store_no_pairs(mode, algorithm, training):
    """12544 queries and 3136 keys: the pairs alone are 157 MB."""

    def step(algorithm):
        entry = keras.Input((16, 28, 28, 64))
        block = NonLocal(mode, algorithm=algorithm)
        model = keras.Model(entry, block(entry))
        return memory_plan(model, 1, 16, 28, training=training).step

    pairs = 12544 * 3136 * 4
    assert step("plain") > pairs > 2 * step(algorithm)


def test_networks_of_others():
    model = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, classes=3
    )
    plan = memory_plan(model, 2, None, 32, training=True)
    assert plan.assumed == ()
    name = model.layers[10].name
    longer = insert_nonlocal(model, after=name)
    with_block = memory_plan(longer, 2, None, 32, training=True)
    assert with_block.assumed == ()
    assert with_block.weights > plan.weights
    assert with_block.step > plan.step


class Counted(keras.layers.Layer):
    def call(self, inputs):
        return inputs

    def count_memory(self, input_shape, itemsize):
        return 1000 * input_shape[0] * itemsize, 10, 20


def test_layers_of_others():
    clip = keras.Input((None, None, 5))
    outputs = keras.ops.sin(Counted()(keras.layers.Dense(5)(clip)))
    model = keras.Model(clip, outputs)
    plan = memory_plan(model, 2, None, 1, training=True)
    # In, dense out, counted out, sine, and what the layer says.
    assert plan.kept == 4 * (2 * 5 * 4) + 1000 * 2 * 4
    assert plan.assumed == (model.operations[-1].name,)
    assert f"assumed: {plan.assumed[0]}" in str(plan)


def test_reads_as_a_table(network):
    plan = memory_plan(
        network, 3, 4, (32, 40), "mixed_bfloat16", True, budget=10**9
    )
    text = str(plan)
    for words in (
        "training step of resnet3d, 3 x 4 x 32 x 40 x 3, mixed_bfloat16",
        f"  total{plan.total / 1e6:38.1f} MB",
        f"largest batch in 1000.0 MB{plan.largest_batch:>17}",
        plan.largest[0][0],
    ):
        assert words in text
    assert sum(size for _, size in plan.largest) <= plan.kept + plan.transient
    assert dataclasses.is_dataclass(plan)


def test_refuses_what_it_cannot_plan(network):
    for arguments, message in (
        ((0, 4, 32), "`batch` must be a positive integer. Received: 0"),
        ((1, None, 32), "takes inputs of shape"),
        ((1, 4, (32, 1.5)), "positive integer. Received: 1.5"),
        ((1, 4, 32, None, False, 0), "`budget` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            memory_plan(network, *arguments)
    with pytest.raises(ValueError, match="`units` must be one of"):
        memory_plan(network, 1, 4, 32, training=True, rematerialize="all")
    entry = keras.Input((8, 8, 3))
    nested = keras.Model(entry, chain()(entry))
    with pytest.raises(ValueError, match="flat"):
        memory_plan(nested, 1, None, 8)
    conv = keras.layers.Conv2D(3, 1)
    twice = keras.Model(entry, conv(conv(entry)))
    with pytest.raises(ValueError, match="each layer once"):
        memory_plan(twice, 1, None, 8)
    with pytest.raises(ValueError, match="was rematerialized"):
        memory_plan(rematerialize(chain(), "norms"), 1, None, 8)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="measured on TensorFlow"
)
def test_predictions_are_near_what_was_measured():
    from keras_nonlocal.training.optimizers import SGD

    optimizers = {"ours": SGD, "keras": keras.optimizers.SGD}
    rows = json.loads(_MEASURED.read_text())["rows"]
    rows = [row for row in rows if row.get("predicted")]
    assert len(rows) >= 16
    models = {name: ResNet3D(name) for name in {row["variant"] for row in rows}}
    for row in rows:
        model = models[row["variant"]]
        optimizer = optimizers[row["optimizer"]](0.1, 0.9, nesterov=True)
        model.compile(optimizer, jit_compile=False)
        plan = memory_plan(
            model,
            row["batch"],
            row["frames"],
            row["size"],
            dtype=row["dtype"],
            training=row["training"],
            rematerialize=row["rematerialize"],
        )
        assert 0.75 < plan.step / row["measured"] < 1.25, row


def test_recomputing_was_measured_to_take_less():
    rows = json.loads(_MEASURED.read_text())["rows"]
    measured = {
        (row["dtype"], row["rematerialize"], row["optimizer"]): row["measured"]
        for row in rows
        if row["variant"] == "nl_i3d_r50_8x8"
        and row["training"]
        and not row["scope"]
        and (row["batch"], row["frames"]) == (1, 8)
    }
    for dtype in ("float32", "mixed_bfloat16"):
        ours = measured[dtype, None, "ours"]
        assert measured[dtype, "norms", "ours"] < 0.9 * ours
        assert measured[dtype, "blocks", "ours"] < 0.6 * ours
        assert ours < 0.95 * measured[dtype, None, "keras"]
