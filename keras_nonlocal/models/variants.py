"""Every network of the paper, as data.

`Variant` holds all that the paper ablates and all that differs between the
code bases that publish weights; `VARIANTS` is the only place where the
networks are listed, with two small ones for demonstrations.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_nonlocal.layers.batch_norm import NORMS
from keras_nonlocal.layers.non_local import SUB_SAMPLES
from keras_nonlocal.ops.pairwise import MODES
from keras_nonlocal.ops.windows import AXES

STAGES = ("res2", "res3", "res4", "res5")
BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
INFLATIONS = (None, "3x1x1", "3x3x3")
INFLATED = ("alternate", "all", "late")
HEADS = ("probability", "logit", "feature")

# Temporal stride of conv1, then temporal kernel and stride of pool1.
STEMS: dict[str, tuple[int, int, int]] = {
    "stride1": (1, 1, 1),
    "stride4": (2, 2, 2),
    "stride4_skip": (2, 1, 2),
}

# Blocks of a stage (0-based) that a non-local block follows, for each depth
# and number of blocks, over (res3, res4). One block alone is not listed: it
# stands before the last residual block of `nonlocal_stage`.
_PLACES: dict[tuple[int, int], tuple[tuple[int, ...], tuple[int, ...]]] = {
    (26, 2): ((1,), (1,)),
    (50, 5): ((1, 3), (1, 3, 5)),
    (50, 10): ((0, 1, 2, 3), (0, 1, 2, 3, 4, 5)),
    (101, 5): ((1, 3), (6, 13, 20)),
    (101, 10): ((0, 1, 2, 3), (2, 6, 10, 14, 18, 22)),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network: what `ResNet3D` builds.

    The defaults are the released code's ("32x2" clips in the paper's stem).

    Attributes:
        depth: 50 or 101, the paper's; 26 has two blocks a stage.
        inflation: `None` for C2D; `"3x1x1"` or `"3x3x3"` for I3D: which kernel
            of every inflated block has extent 3 in time.
        inflated: Which blocks that is. `"alternate"`: all of res2, every
            second of res3 and res4 from the first, every second of res5 from
            the second (the released code); `"all"` (mmaction2's "heavy");
            `"late"`: all of res4 and res5, and conv1 is not inflated
            ("SlowOnly").
        num_nonlocal: Number of non-local blocks: 0, 1, 5 or 10 (table 2c); 0,
            1 or 2 at depth 26.
        nonlocal_stage: Where a single block stands (table 2b).
        nonlocal_places: The (stage, block) pairs that the non-local blocks
            follow, for placements that are not the paper's. Default: the
            paper's for `num_nonlocal`.
        mode: Pairwise function (table 2a).
        attention_axes: `"spacetime"`, `"space"` or `"time"` (table 2d).
        sub_sample: As `NonLocal`.
        use_scale: As `NonLocal`.
        nonlocal_norm: `norm` of `NonLocal`.
        nonlocal_bias: `out_bias` of `NonLocal`.
        res3_group: Frames that see each other in the blocks of res3: 4 in the
            paper's frozen models for long clips. `None`: all.
        stem: Strides in time before res2. `"stride4"`: conv1 and pool1 halve
            the frames (the paper, 32x2 and 128x1). `"stride1"`: neither does
            (8x8 and 32x4 models). `"stride4_skip"`: as `"stride4"`, but pool1
            drops every other frame unseen (mmaction2, gluon-cv).
        pool1_padding: Spatial zero padding of pool1: 0 (the code) or 1 (all
            later code bases).
        pool2: Whether a pooling after res2 halves the frames.
        stride_in_1x1: Whether the first convolution of a stage has its spatial
            stride (networks inflated from the original ResNets, as those of
            `keras.applications`) or the 3x3 one.
        res5_stride: Spatial stride of res5: 2, or 1 (long-term feature banks).
        norm: `"batch"`, `"sync_batch"` or `"affine"`, for the whole trunk.
        head: What is averaged over positions and time for the scores of a
            clip: `"probability"` (the code, SlowFast), `"logit"`
            (pytorchvideo) or `"feature"` (mmaction2, gluon-cv).
        dropout_rate: Before the classifier.
        width: Channels of conv1; all others follow.
        mean: Subtracted from RGB in 0..255.
        std: RGB is divided by it.
        num_frames: Clip length the network is trained on.
        sampling_rate: Step between the frames of a clip.
        crop_size: Height and width of the training clips. Larger clips give
            scores at several positions, which `head` averages.
    """

    depth: int = 50
    inflation: str | None = None
    inflated: str = "alternate"
    num_nonlocal: int = 0
    nonlocal_stage: str = "res4"
    nonlocal_places: tuple[tuple[str, int], ...] | None = None
    mode: str = "embedded_gaussian"
    attention_axes: str = "spacetime"
    sub_sample: str | None = "input"
    use_scale: bool = True
    nonlocal_norm: str | None = "batch"
    nonlocal_bias: bool = True
    res3_group: int | None = None
    stem: str = "stride4"
    pool1_padding: int = 0
    pool2: bool = True
    stride_in_1x1: bool = False
    res5_stride: int = 2
    norm: str = "batch"
    head: str = "probability"
    dropout_rate: float = 0.5
    width: int = 64
    mean: float | tuple[float, float, float] = 114.75
    std: float | tuple[float, float, float] = 57.375
    num_frames: int = 32
    sampling_rate: int = 2
    crop_size: int = 224

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            # Frozen, and made equal however its values were written.
            object.__setattr__(
                self, field.name, _plain(getattr(self, field.name))
            )
        allowed: dict[str, tuple] = {
            "depth": tuple(BLOCKS),
            "inflation": INFLATIONS,
            "inflated": INFLATED,
            "nonlocal_stage": STAGES,
            "mode": MODES,
            "attention_axes": AXES,
            "sub_sample": SUB_SAMPLES,
            "nonlocal_norm": (*NORMS, None),
            "stem": tuple(STEMS),
            "pool1_padding": (0, 1),
            "pool2": (True, False),
            "stride_in_1x1": (False, True),
            "res5_stride": (1, 2),
            "norm": NORMS,
            "head": HEADS,
        }
        for name in ("width", "num_frames", "sampling_rate", "crop_size"):
            _check_natural(name, getattr(self, name))
        _check_numbers("dropout_rate", self.dropout_rate, (1,), 0, 0.999)
        _check_numbers("mean", self.mean, (1, 3), -1e6, 1e6)
        _check_numbers("std", self.std, (1, 3), 1e-6, 1e6)
        if self.res3_group is not None:
            _check_natural("res3_group", self.res3_group)
        if self.nonlocal_places is None:
            known = (n for depth, n in _PLACES if depth == self.depth)
            allowed["num_nonlocal"] = (0, 1, *known)
        else:
            self._check_places(self.nonlocal_places)
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"Variant: `{name}` must be one of {values}. "
                    f"Received: {getattr(self, name)!r}"
                )

    def _check_places(self, places: tuple[tuple[str, int], ...]) -> None:
        known = {(s, b) for s, n in self.blocks.items() for b in range(n)}
        is_known = all(place in known for place in places)
        number = len(set(places)) if is_known else -1
        if not len(places) == number == self.num_nonlocal:
            raise ValueError(
                "Variant: `nonlocal_places` must be `num_nonlocal` different "
                "(stage, block) pairs of the network. Received: "
                f"num_nonlocal={self.num_nonlocal}, nonlocal_places={places}"
            )

    @property
    def blocks(self) -> dict[str, int]:
        """Number of residual blocks of each stage."""
        return dict(zip(STAGES, BLOCKS[self.depth], strict=True))

    def is_inflated(self, stage: str, block: int) -> bool:
        """Whether a block's kernel has extent 3 in time."""
        if self.inflation is None:
            return False
        if self.inflated == "late":
            return stage in ("res4", "res5")
        if self.inflated == "all" or stage == "res2":
            return True
        return block % 2 == (1 if stage == "res5" else 0)

    @property
    def conv1_frames(self) -> int:
        """Extent of conv1's kernel in time."""
        return 1 if self.inflation is None or self.inflated == "late" else 5

    def nonlocal_blocks(self) -> tuple[tuple[str, int], ...]:
        """The (stage, block) pairs that a non-local block follows.

        Example:

        >>> VARIANTS["nl_i3d_r50"].nonlocal_blocks()
        (('res3', 1), ('res3', 3), ('res4', 1), ('res4', 3), ('res4', 5))
        """
        if self.nonlocal_places is not None:
            return self.nonlocal_places
        if self.num_nonlocal == 0:
            return ()
        if self.num_nonlocal == 1:
            stage = self.nonlocal_stage
            return ((stage, self.blocks[stage] - 2),)
        places = _PLACES[self.depth, self.num_nonlocal]
        return tuple(
            (stage, block)
            for stage, blocks in zip(("res3", "res4"), places, strict=True)
            for block in blocks
        )

    def stage_sizes(self, frames: int, side: int) -> dict[str, tuple[int, int]]:
        """Frames and side of a square clip after each part of the network.

        Returns:
            `{"conv1": (frames, side), "pool1": ..., "res2": ..., "pool2": ...,
            "res3": ..., "res4": ..., "res5": ...}`, all rounded down; numbers
            below 1 mean that the clip is too small.
        """
        conv1_stride, pool1_kernel, pool1_stride = STEMS[self.stem]
        sizes = {}
        frames, side = (frames - 1) // conv1_stride + 1, (side - 1) // 2 + 1
        sizes["conv1"] = frames, side
        frames = (frames - pool1_kernel) // pool1_stride + 1
        side = (side + 2 * self.pool1_padding - 3) // 2 + 1
        sizes["pool1"] = sizes["res2"] = frames, side
        frames //= 2 if self.pool2 else 1
        sizes["pool2"] = frames, side
        for stage in STAGES[1:]:
            stride = self.res5_stride if stage == "res5" else 2
            side = (side - 1) // stride + 1
            sizes[stage] = frames, side
        return sizes

    def minimum_size(self) -> tuple[int, int]:
        """Fewest frames and smallest side that the network accepts."""
        pools = self.sub_sample is not None and self.attention_axes != "time"
        needed = {stage for stage, _ in self.nonlocal_blocks() if pools}

        def fits(frames: int, side: int) -> bool:
            sizes = self.stage_sizes(frames, side)
            sides = [sizes[s][1] // (2 if s in needed else 1) for s in STAGES]
            return sizes["res5"][0] >= 1 and min(sides) >= 1

        frames = next(n for n in range(1, 1000) if fits(n, 1000))
        side = next(n for n in range(1, 1000) if fits(1000, n))
        return frames, side


def _plain(value: Any) -> Any:
    """Numbers of Python for numpy's, tuples for lists and arrays."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value


def _check_numbers(
    name: str,
    value: Any,
    sizes: tuple[int, ...],
    smallest: float,
    largest: float,
) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    if len(numbers) not in sizes or not all(
        isinstance(number, (int, float)) and smallest <= number <= largest
        for number in numbers
    ):
        raise ValueError(
            f"Variant: `{name}` must be a number"
            f"{' or three' * (3 in sizes)}, from {smallest} to {largest}. "
            f"Received: {value!r}"
        )


def _check_natural(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(
            f"Variant: `{name}` must be a positive integer. Received: {value!r}"
        )


def _variants() -> dict[str, Variant]:
    replace = dataclasses.replace
    table: dict[str, Variant] = {}
    for depth in (50, 101):
        c2d = Variant(depth=depth)
        i3d = Variant(depth=depth, inflation="3x1x1")
        table[f"c2d_r{depth}"] = c2d
        table[f"i3d_r{depth}"] = i3d
        table[f"i3d_3x3x3_r{depth}"] = replace(i3d, inflation="3x3x3")
        for name, base in (("c2d", c2d), ("i3d", i3d)):
            # Tables 2c, 2e, 2f; five blocks are the default.
            for number, prefix in ((1, "nl1"), (5, "nl"), (10, "nl10")):
                key = f"{prefix}_{name}_r{depth}"
                table[key] = replace(base, num_nonlocal=number)
        for axes in ("space", "time"):  # Table 2d.
            table[f"nl_c2d_r{depth}_{axes}"] = replace(
                table[f"nl_c2d_r{depth}"], attention_axes=axes
            )
    one = table["nl1_c2d_r50"]
    for mode in ("gaussian", "dot_product", "concatenation"):  # Table 2a.
        table[f"nl1_c2d_r50_{mode}"] = replace(one, mode=mode)
    for stage in ("res2", "res3", "res5"):  # Table 2b.
        table[f"nl1_c2d_r50_{stage}"] = replace(one, nonlocal_stage=stage)
    # Not of the paper: small enough to train on a CPU in a minute.
    small = replace(
        table["c2d_r50"],
        depth=26,
        width=16,
        num_frames=8,
        sampling_rate=8,
        stem="stride1",
    )
    table["small_c2d"] = small
    table["small_nl_c2d"] = replace(small, num_nonlocal=2)
    # The released models for other clips; the longer ones (table 2g) are
    # trained with frozen batch norm.
    frozen = {"norm": "affine", "nonlocal_norm": None, "res3_group": 4}
    for depth in (50, 101):
        for name in ("c2d", "i3d", "nl_c2d", "nl_i3d"):
            key = f"{name}_r{depth}"
            short = {"num_frames": 8, "sampling_rate": 8, "stem": "stride1"}
            table[f"{key}_8x8"] = replace(table[key], **short)
            table[f"{key}_32x4"] = replace(
                table[key], sampling_rate=4, stem="stride1", **frozen
            )
            table[f"{key}_128x1"] = replace(
                table[key], num_frames=128, sampling_rate=1, **frozen
            )
    return table


VARIANTS: dict[str, Variant] = _variants()
