"""What comes out of training and testing once."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out of one arm, fold and seed.

    Attributes:
        predictions: The class number that each tested video was given, by the
            video's number.
        parameters: Of the network that was trained.
        losses: Of the epochs.
        skipped: Reason for each video that could not be read.
    """

    predictions: dict[int, int]
    parameters: int
    losses: list[float]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
