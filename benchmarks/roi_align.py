"""RoIAlign on a feature pyramid, against torchvision's.

torchvision has to be of the same build as PyTorch; where it does not load, its
rows say so.
"""

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.harness import Side

PEER = "torchvision"
SIDES = {
    PEER: ("torchvision_regions", {}),
    "ours": ("our_regions", {"jit_compile": False}),
    "ours, XLA": ("our_regions", {"jit_compile": True}),
}
# (regions, bins a side, samples a side of a bin): the box head, with the fixed
# and the adaptive ratio, and the mask head in training.
WORK = ((512, 7, 2), (512, 7, 0), (128, 14, 2))
PYRAMID = {"height": 800, "width": 1344, "channels": 256}
_SETTINGS = harness.Settings(
    seconds=20.0, rounds=(7, 25), minutes=6.0, has_pool=True
)


def measure(context):
    """All cases; a trial takes a small pyramid."""
    pyramid = PYRAMID
    if context.quick:
        pyramid = {"height": 128, "width": 192, "channels": 8}
    yield from context.run(cases(pyramid), _SETTINGS)


def cases(pyramid):
    """Each piece of work, forward and with its gradient."""
    return [
        _case(*work, backward, pyramid)
        for work in WORK
        for backward in (False, True)
    ]


def name_of(regions, size, ratio, backward):
    """Of a case."""
    samples = f"{ratio}x{ratio}" if ratio else "adaptive"
    passes = "forward+backward" if backward else "forward"
    return f"{regions} regions of {size}x{size}, {samples} samples, {passes}"


def _case(regions, size, ratio, backward, pyramid):
    about = {
        "regions": regions,
        "size": size,
        "sampling_ratio": ratio,
        "backward": backward,
        **pyramid,
    }
    return Case(
        name_of(regions, size, ratio, backward),
        {**about, "tensorflow_pool": _SETTINGS.has_pool},
        tuple(
            Side(
                name,
                f"benchmarks.roi_align_sides:{function}",
                {**about, **arguments},
            )
            for name, (function, arguments) in SIDES.items()
        ),
        (PEER,),
        tolerance=1e-4,
    )
