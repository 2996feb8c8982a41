"""How large the study is and how its networks are trained."""

import dataclasses
from typing import Any

from zoo.studies.long_range import task


@dataclasses.dataclass(frozen=True)
class Settings:
    """The same for every network.

    Attributes:
        size: Height and width of the clips.
        num_frames: Frames of a clip.
        width: Channels of the networks' first convolution.
        trunk_frames: Single frames that a trunk is pretrained on.
        trunk_epochs: Passes over them.
        train_clips: Clips to train on, others for each seed.
        epochs: Passes over them.
        val_clips: Clips of the error curves, the same for all.
        test_clips: Clips of the results, the same for all.
        batch_size: Clips of a step.
        learning_rate: Adam's highest, after a tenth of the steps; it then
            falls to 0 as a cosine.
    """

    size: int = 48
    num_frames: int = 7
    width: int = 8
    trunk_frames: int = 8192
    trunk_epochs: int = 3
    train_clips: int = 4092
    epochs: int = 6
    val_clips: int = 480
    test_clips: int = 1200
    batch_size: int = 32
    learning_rate: float = 0.002

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


FULL = Settings()
SMOKE = Settings(
    size=32,
    width=8,
    trunk_frames=64,
    trunk_epochs=1,
    train_clips=2 * task.ROUND,
    epochs=2,
    val_clips=task.ROUND,
    test_clips=2 * task.ROUND,
)
