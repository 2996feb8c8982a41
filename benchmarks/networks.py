"""Whole networks: inference and training against PyTorch."""

import dataclasses
import pathlib
import tempfile

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.harness import Side

PEER = "PyTorch"
# The compiler takes most of the first step's time.
_FIRST = harness.Settings(seconds=12.0, rounds=(4, 12), minutes=10)
_FURTHER = harness.Settings(seconds=12.0, rounds=(3, 12), minutes=4)
_FP32 = (
    ("as shipped", "as shipped", "eager", "float32"),
    ("channels last", "channels last", "eager", "float32"),
    ("compiled", "channels last", "compiled", "float32"),
    ("frozen", "as shipped", "frozen", "float32"),
    ("frozen, channels last", "channels last", "frozen", "float32"),
)
_BF16 = (
    ("autocast, channels last", "channels last", "eager", "autocast"),
    ("autocast, compiled", "channels last", "compiled", "autocast"),
    ("autocast, frozen", "channels last", "frozen", "autocast"),
    ("bf16 weights, frozen", "channels last", "frozen", "bfloat16"),
)
_PRECISIONS = {
    "fp32": ("float32", "float32", _FP32),
    "bf16": ("mixed_bfloat16", "bfloat16", _BF16),
}
_OURS = {
    False: ("plain", "folded", "frozen"),
    True: ("plain", "norms"),
}
# A training step's memory in bytes a clip of 8 frames, roughly.
_TRAINING_BYTES = 2e9


@dataclasses.dataclass(frozen=True)
class _Shape:
    batch: int
    frames: int
    size: int
    training: bool
    precision: str

    @property
    def name(self):
        work = "training" if self.training else "inference"
        return (
            f"{work} {self.precision} batch {self.batch}, "
            f"{self.frames}x{self.size}x{self.size}"
        )

    @property
    def like(self):
        """The shape that says which settings are worth trying here."""
        return dataclasses.replace(self, batch=1, frames=8)


def measure(context):
    """First batches of one short clip, then, of each, the best settings."""
    size = 64 if context.quick else 224
    first = [
        _Shape(1, 8, size, training, precision)
        for training in (False, True)
        for precision in _PRECISIONS
    ]
    further = [
        dataclasses.replace(shape, **change)
        for change in ({"frames": 32}, {"batch": 8})
        for shape in first
        if not (shape.training and "frames" in change)
    ]
    with tempfile.TemporaryDirectory() as folder:
        weights = str(pathlib.Path(folder) / "weights.npz")
        macs = harness.prepare(
            "benchmarks.tensorflow_sides:write_weights",
            {
                "path": weights,
                "variant": {},
                "clips": sorted({(s.frames, s.size) for s in first + further}),
            },
        )
        rows = []
        for shapes, settings in ((first, _FIRST), (further, _FURTHER)):
            cases = [_case(shape, weights, macs, rows) for shape in shapes]
            for now in context.run(cases, settings):
                yield [*rows, *now]
            rows = [*rows, *now]


def _case(shape, weights, macs, rows):
    arguments = {
        "weights": weights,
        "batch": shape.batch,
        "frames": shape.frames,
        "size": shape.size,
    }
    policy, dtype, settings = _PRECISIONS[shape.precision]
    work = "training" if shape.training else "inference"
    flops = 2.0 * shape.batch * macs[shape.frames, shape.size]
    counted = {"flops": flops * (3 if shape.training else 1), "dtype": dtype}
    sides = [
        Side(
            f"{PEER} {name}",
            f"benchmarks.torch_sides:{work}",
            {
                **arguments,
                "architecture": {},
                "layout": layout,
                "form": form,
                "precision": precision,
            },
            **counted,
        )
        for name, layout, form, precision in settings
        if not (shape.training and form == "frozen")
    ]
    sides += [
        Side(
            f"ours {form}",
            f"benchmarks.tensorflow_sides:{work}",
            {
                **arguments,
                "variant": {},
                "form": form,
                "precision": policy,
            },
            **counted,
        )
        for form in _OURS[shape.training]
    ]
    wanted = _worth_trying(rows, shape.like.name)
    sides = [side for side in sides if wanted is None or side.name in wanted]
    needed = _TRAINING_BYTES * shape.batch * shape.frames / 8 * len(sides)
    # Losses of a step with dropout are not comparable, logits are.
    tolerance = 1e-4 if shape.precision == "fp32" else 0.1
    return Case(
        shape.name,
        dataclasses.asdict(shape),
        tuple(sides),
        tuple(side.name for side in sides if side.name.startswith(PEER)),
        memory="all" if shape.training and not rows else "best",
        large=shape.training and needed > 0.7 * harness.total_memory(),
        tolerance=None if shape.training else tolerance,
    )


def _worth_trying(rows, name):
    """The two fastest of PyTorch and of ours in a case; `None` if unknown."""
    for row in rows:
        if row["name"] == name:
            ranked = sorted(
                (side["median"], side["name"])
                for side in row["sides"]
                if side["status"] == "ok"
            )
            if not ranked:
                return None
            return {
                side
                for start in (PEER, "ours")
                for side in [n for _, n in ranked if n.startswith(start)][:2]
            }
    return None
