"""The non-local operation alone: time and memory against positions."""

import dataclasses
import math

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.harness import Side

DEPTH = 256
# The Gaussian compares inputs, which are twice as wide as what is summed.
GAUSSIAN_DEPTH = 512
SOFTMAX = ("gaussian", "embedded_gaussian")
LINEAR = ("dot_product", "concatenation")
MODES = (*SOFTMAX, *LINEAR)
# As of `keras_nonlocal.ops.algorithms`, which this process does not import.
FORCED = {
    # No "fused", which takes phi and g of one width.
    "gaussian": ("plain", "chunked"),
    "embedded_gaussian": ("plain", "chunked", "fused"),
    "dot_product": ("plain", "reassociated"),
    "concatenation": ("plain", "sorted"),
}
SIZES = (784, 3136, 12544, 50176)
GROWTH_SIZES = (12544, 25088, 50176, 100352, 200704)
# Beyond the grid: (mode, queries, keys).
TARGETS = (
    ("dot_product", 12544, 3136),
    ("concatenation", 12544, 3136),
    ("embedded_gaussian", 25088, 6272),
    ("concatenation", 50176, 12544),
)
PLAIN = ("Keras plain", "torch plain")
# Of the matmul peak, for a guess at how long a call will take.
_GUESSED_FRACTION = 0.5
_KNOT_BLOCK = 128
# Where a rectified pair rounds to either side of 0, its gradient jumps.
_KINK = 0.05


def cases(peaks, limit, sizes=SIZES, growth=GROWTH_SIZES, targets=TARGETS):
    """The grid, the rows of the table of aims, and growth with positions.

    Args:
        peaks: Floating point operations per second, by dtype.
        limit: Sides that by counted work take longer, in seconds, are left
            out of the grid; ten times that for the rows of the table.
        sizes: Queries of the grid; keys are as many, and a quarter.
        growth: Queries of the growth cases, with a quarter as many keys.
        targets: (mode, queries, keys) of the rows.

    Returns:
        A list of `Case`, those of the table first.
    """
    rate = _GUESSED_FRACTION * peaks["float32"]
    shapes = list(targets)
    shapes += [(mode, n, n // 4) for mode in LINEAR for n in growth]
    grid = [(n, m) for n in sizes for m in (n // 4, n)]
    shapes += [(mode, *size) for size in grid for mode in MODES]
    return [
        _case(*shape, backward, rate, 10 * limit if shape in targets else limit)
        for shape in dict.fromkeys(shapes)
        for backward in (False, True)
    ]


def measure(context):
    """All cases; a trial takes the small ones."""
    settings = harness.Settings(seconds=6.0, rounds=(3, 25), minutes=7.5)
    if context.quick:
        made = cases(
            context.peaks,
            1.0,
            sizes=(784,),
            growth=(784, 1568, 3136),
            targets=(("embedded_gaussian", 3136, 784),),
        )
    else:
        made = cases(context.peaks, limit=4.0)
    yield from context.run(made, settings)


def name_of(mode, queries, keys, backward):
    """Of a case."""
    passes = "forward+backward" if backward else "forward"
    return f"{mode} {queries}x{keys} {passes}"


def _case(mode, queries, keys, backward, rate, most):
    depth = GAUSSIAN_DEPTH if mode == "gaussian" else DEPTH
    shape = {
        "mode": mode,
        "queries": queries,
        "keys": keys,
        "depth": depth,
        "width": DEPTH,
        "backward": backward,
    }
    sides = [
        _side("Keras plain", "tensorflow_sides:plain_operation", shape),
        _side("torch plain", "torch_sides:plain_operation", shape),
    ]
    if mode in SOFTMAX:
        sides.append(
            _side("torch SDPA", "torch_sides:attention_operation", shape)
        )
    for algorithm in ("auto", *FORCED[mode]):
        sides.append(
            _side(
                f"ours {algorithm}",
                "tensorflow_sides:our_operation",
                shape,
                algorithm,
            )
        )
    sides = [_checked(side, shape, rate, most) for side in sides]
    needed = sum(bytes_of(side) for side in sides if side.skip is None)
    return Case(
        name_of(mode, queries, keys, backward),
        shape,
        tuple(sides),
        tuple(side.name for side in sides if not side.name.startswith("ours")),
        large=needed > harness.total_memory() / 2,
        tolerance=_KINK if mode == "concatenation" and backward else 1e-3,
    )


def _side(name, function, shape, algorithm=None):
    arguments = dict(shape)
    if algorithm is not None:
        arguments["algorithm"] = algorithm
    form = _form(shape, algorithm)
    return Side(
        name, f"benchmarks.{function}", arguments, flops=flops(form, **shape)
    )


def _form(shape, algorithm):
    """What is computed, "auto" being the cheapest."""
    forms = (
        ("plain",) if algorithm in (None, "plain") else FORCED[shape["mode"]]
    )
    if algorithm == "auto":
        return min(forms, key=lambda form: flops(form, **shape))
    return algorithm if algorithm in forms else "plain"


def flops(form, mode, queries, keys, depth, width, backward):
    """Counted work of a form: matrix products, and the passes of the sorted.

    A backward pass is twice the forward one. What a form computes again to
    save memory is not counted.
    """
    if form == "reassociated":
        count = 2 * (queries + keys) * depth * width
    elif form == "sorted":
        # Two numbers a position; two prefix sums by blocks, one look-up.
        count = 2 * (queries + keys) * depth
        count += 2 * keys * width * _KNOT_BLOCK + 3 * queries * width
    elif mode == "concatenation":
        count = 2 * (queries + keys) * depth + 2 * queries * keys * width
    else:
        count = 2 * queries * keys * (depth + width)
    return float(count * (3 if backward else 1))


def bytes_of(side):
    """Counted memory of a call, for a plain form; of others next to none."""
    shape = side.arguments
    tensors = (shape["queries"] + shape["keys"]) * (
        shape["depth"] + shape["width"]
    )
    if not _stores_affinity(side):
        return 4 * tensors * 4
    matrices = 4 if shape["backward"] else 2
    return 4 * (tensors + matrices * shape["queries"] * shape["keys"])


def _stores_affinity(side):
    # On TensorFlow the fused form is a plain one.
    return side.name.endswith(("plain", "fused"))


def _checked(side, shape, rate, most):
    """The side, with the reason if it is not to be run."""
    needed, there = bytes_of(side), harness.total_memory()
    seconds, skip = side.flops / rate, None
    if needed > 0.7 * there:
        skip = (
            "does not fit",
            f"{4 if shape['backward'] else 2} tensors of {shape['queries']} x "
            f"{shape['keys']} float32 are {needed / 1e9:.0f} GB of "
            f"{there / 1e9:.0f}",
        )
    elif seconds > most:
        skip = (
            "not run",
            f"{side.flops:.2g} operations: {seconds:.0f} s a call at "
            f"{_GUESSED_FRACTION:.0%} of the matmul peak, more than {most:g}",
        )
    return dataclasses.replace(side, skip=skip)


def slope(sizes, values):
    """Least-squares slope of log(values) over log(sizes)."""
    xs, ys = [math.log(x) for x in sizes], [math.log(y) for y in values]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum(
        (x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)
    ) / sum((x - x_mean) ** 2 for x in xs)
