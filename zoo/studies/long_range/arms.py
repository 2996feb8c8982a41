"""The networks that the study compares."""

import dataclasses

# Layers that one, three and five blocks follow. One stands before the last
# residual block of its stage, as in the paper; res4 would have 3 x 3 positions.
PLACES = {
    1: ("res3_0",),
    3: ("res3_0", "res3_1", "res4_0"),
    5: ("res3_0", "res3_1", "res4_0", "res4_1", "res5_0"),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One network.

    Attributes:
        title: For tables.
        blocks: Number of blocks added to the trunk: 0, 1, 3 or 5.
        is_control: Whether the blocks are controls instead of non-local.
        inflation: Of the trunk, as in `Variant`.
        mode: Of non-local blocks.
        attention_axes: Of non-local blocks.
        control: Name of the arm with as many parameters and no attention.
    """

    title: str
    blocks: int = 0
    is_control: bool = False
    inflation: str | None = None
    mode: str = "embedded_gaussian"
    attention_axes: str = "spacetime"
    control: str | None = None

    @property
    def is_nonlocal(self) -> bool:
        """Whether it has non-local blocks."""
        return self.blocks > 0 and not self.is_control


ARMS = {
    "c2d": Arm("C2D"),
    "control": Arm("C2D + 1 control", 1, is_control=True),
    "i3d": Arm("I3D (3x1x1)", inflation="3x1x1"),
    "nl1": Arm("+ 1 block, embedded Gaussian", 1, control="control"),
    "nl1_gaussian": Arm(
        "+ 1 block, Gaussian", 1, mode="gaussian", control="control"
    ),
    "nl1_dot_product": Arm(
        "+ 1 block, dot product", 1, mode="dot_product", control="control"
    ),
    "nl1_concatenation": Arm(
        "+ 1 block, concatenation", 1, mode="concatenation", control="control"
    ),
    "nl3": Arm("+ 3 blocks", 3),
    "nl5": Arm("+ 5 blocks", 5, control="control_5"),
    "nl1_space": Arm(
        "+ 1 block, space only", 1, attention_axes="space", control="control"
    ),
    "nl1_time": Arm(
        "+ 1 block, time only", 1, attention_axes="time", control="control"
    ),
    "control_5": Arm("C2D + 5 controls", 5, is_control=True),
}
