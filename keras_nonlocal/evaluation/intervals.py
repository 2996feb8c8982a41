"""How sure an accuracy is."""

import math


def wilson_interval(
    correct: int, total: int, z: float = 1.96
) -> tuple[float, float]:
    """Wilson's score interval for a share of `total` trials.

    Args:
        correct: Successes.
        total: Trials, at least 1.
        z: Normal quantile; 1.96 gives 95 %.

    Returns:
        Lower and upper end, in 0..1.

    Example:

    >>> [round(end, 3) for end in wilson_interval(150, 200)]
    [0.686, 0.805]
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(
            "An interval needs 0 <= correct <= total and total >= 1. "
            f"Received: correct={correct}, total={total}"
        )
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(
        share * (1 - share) / total + z * z / (4 * total * total)
    )
    scale = 1 + z * z / total
    return (centre - spread) / scale, (centre + spread) / scale
