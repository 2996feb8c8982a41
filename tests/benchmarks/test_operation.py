import numpy as np
import pytest

from benchmarks import operation
from benchmarks import worker
from benchmarks.harness import total_memory
from keras_nonlocal.ops import algorithms

PEAKS = {"float32": 4e11}


def named(cases):
    return {case.name: case for case in cases}


def test_grid_has_what_is_asked_for():
    cases = named(operation.cases(PEAKS, limit=4.0))
    for mode in operation.MODES:
        for queries in (784, 3136, 12544, 50176):
            for keys in (queries, queries // 4):
                for backward in (False, True):
                    name = operation.name_of(mode, queries, keys, backward)
                    assert name in cases
    for name in (
        "embedded_gaussian 25088x6272 forward+backward",
        "concatenation 50176x12544 forward+backward",
        "dot_product 200704x50176 forward",
    ):
        assert name in cases
    expected = dict(algorithms.ALGORITHMS)
    # It takes phi and g of one width only.
    expected["gaussian"] = ("plain", "chunked")
    assert operation.FORCED == expected


def test_what_cannot_be_run_says_why():
    cases = named(operation.cases(PEAKS, limit=4.0, sizes=(200704,)))
    case = cases["dot_product 200704x200704 forward"]
    sides = {side.name: side for side in case.sides}
    status, reason = sides["Keras plain"].skip
    bytes_needed = 2 * 4 * 200704**2
    assert bytes_needed > total_memory() and status == "does not fit"
    assert reason.startswith("2 tensors of 200704 x 200704 float32 are 32")
    assert sides["ours reassociated"].skip is sides["ours auto"].skip is None
    small = operation.cases({"float32": 1e6}, limit=1.0, sizes=(784,))[0]
    assert {side.skip[0] for side in small.sides} == {"not run"}


def test_work_is_counted():
    shape = {"queries": 100, "keys": 50, "depth": 8, "width": 4}
    count = operation.flops("plain", "dot_product", backward=False, **shape)
    assert count == 2 * 100 * 50 * 12
    trained = operation.flops("plain", "dot_product", backward=True, **shape)
    assert trained == 3 * count
    count = operation.flops(
        "reassociated", "dot_product", backward=False, **shape
    )
    assert count == 2 * 150 * 8 * 4
    count = operation.flops("plain", "concatenation", backward=False, **shape)
    assert count == 2 * 150 * 8 + 2 * 100 * 50 * 4


def test_slope_is_fitted():
    sizes = [10, 100, 1000]
    assert operation.slope(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(
        1.5
    )
    assert operation.slope([1, 2, 4], [5, 5, 5]) == 0


@pytest.mark.parametrize("mode", operation.MODES)
def test_sides_do_the_same_work(mode):
    torch_sides = pytest.importorskip("benchmarks.torch_sides")
    from benchmarks import tensorflow_sides

    shape = {
        "mode": mode,
        "queries": 12,
        "keys": 6,
        "depth": 8 if mode == "gaussian" else 4,
        "width": 4,
        "backward": True,
    }
    calls = [
        tensorflow_sides.plain_operation(**shape),
        torch_sides.plain_operation(**shape),
        *(
            tensorflow_sides.our_operation(algorithm=algorithm, **shape)
            for algorithm in ("auto", *operation.FORCED[mode])
        ),
    ]
    if mode in operation.SOFTMAX:
        calls.append(torch_sides.attention_operation(**shape))
    expected = worker.sample(calls[0]())
    # The sums, and gradients by theta, phi, g and perhaps w_f.
    assert len(expected) == (5 if mode == "concatenation" else 4)
    for call in calls[1:]:
        found = worker.sample(call())
        for ours, theirs in zip(found, expected, strict=True):
            assert np.any(theirs)
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
