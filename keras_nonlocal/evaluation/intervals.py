"""How sure an accuracy is."""

import math
import statistics
from collections.abc import Sequence


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


# Student's t beyond which 2.5 % lie, for 1, 2, ... degrees of freedom.
_T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060),
    *(2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199),
    *(2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639),
    *(2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent measurements and its 95 % interval.

    Student's t interval: right for a few values that scatter normally, such as
    the accuracies of one network trained from several seeds. For two networks
    trained from the same seeds, take the differences.

    Args:
        values: At least 2 finite numbers.

    Returns:
        Mean, lower and upper end.

    Raises:
        ValueError: If there are fewer than 2 values or one is not finite.

    Example:

    >>> [round(x, 2) for x in mean_interval([0.7, 0.8, 0.9])]
    [0.8, 0.55, 1.05]
    """
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        raise ValueError(
            "An interval of a mean needs at least 2 finite values. "
            f"Received: {list(values)}"
        )
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = _student_t(len(values) - 1) * error
    return mean, mean - half, mean + half


def _student_t(freedom: int) -> float:
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    # Cornish and Fisher's expansion, here right to four places.
    z = 1.959964
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
