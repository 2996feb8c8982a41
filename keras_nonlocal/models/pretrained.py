"""The constructors' door to trained weights.

Files and the catalogue are known to a higher package, `weights`, which
registers itself here when `keras_nonlocal` is imported; the constructors see
of it only what `Checkpoint` says.
"""

from collections.abc import Callable
from typing import Any
from typing import Protocol

import keras


class Checkpoint(Protocol):
    """Trained weights.

    Attributes:
        network: The network they belong to, a `Variant` or its like, as far
            as file or catalogue tell; `None` if they do not.
        activation: What their logits were trained with, where it is not the
            constructors' default.
    """

    network: Any
    activation: str | None

    def fill(self, model: keras.Model, network: Any) -> Any:
        """Loads all weights into a model of a network, or raises."""


def _unregistered(*_: Any) -> Any:
    raise RuntimeError("`keras_nonlocal.weights` has not been imported")


_find: Callable[[Any, Any], Checkpoint] = _unregistered
_pin: Callable[[Any, Any], Any] = _unregistered


def register(
    find: Callable[[Any, Any], Checkpoint], pin: Callable[[Any, Any], Any]
) -> None:
    """Sets what the two functions below ask."""
    global _find, _pin
    _find, _pin = find, pin


def find(weights: Any, network: Any) -> Checkpoint | None:
    """The checkpoint that the `weights` argument of a constructor means.

    Args:
        weights: `None`, a name or a path.
        network: The network asked for; `None` if the checkpoint decides.
    """
    return None if weights is None else _find(weights, network)


def pin(network: Any, weights: Any) -> tuple[Any, Checkpoint | None]:
    """The network to build where a constructor leaves the details open.

    Args:
        network: The constructor's own choice.
        weights: Its `weights` argument.

    Returns:
        The network, and the checkpoint to pass on as `weights`.
    """
    return (network, None) if weights is None else _pin(network, weights)
