"""The constructors' door to trained weights.

Files and the catalogue are known to a higher package, `weights`, which
registers itself here when `keras_nonlocal` is imported; the constructors see
of it only what `Checkpoint` says.
"""

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


class Lookup(Protocol):
    """What `weights` knows."""

    def find(self, weights: Any, network: Any) -> Checkpoint:
        """The checkpoint of a `weights` argument."""

    def pinned_network(
        self, network: Any, weights: Any
    ) -> tuple[Any, Checkpoint]:
        """The network that the details come from, and the checkpoint."""

    def find_for_classes(self, weights: Any, network: Any) -> Checkpoint:
        """The checkpoint, for a detector of other classes."""

    def find_backbone(self, weights: Any, network: Any) -> Checkpoint:
        """The checkpoint of a `backbone_weights` argument."""

    def pinned_backbone(
        self, network: Any, weights: Any
    ) -> tuple[Any, Checkpoint]:
        """The detector with the trunk's details, and the checkpoint."""


_lookup: Lookup | None = None


def register(lookup: Lookup) -> None:
    """Sets what the functions below ask."""
    global _lookup
    _lookup = lookup


def _asked() -> Lookup:
    if _lookup is None:
        raise RuntimeError("`keras_nonlocal.weights` has not been imported")
    return _lookup


def find(weights: Any, network: Any) -> Checkpoint | None:
    """The checkpoint that the `weights` argument of a constructor means.

    Args:
        weights: `None`, a name or a path.
        network: The network asked for; `None` if the checkpoint decides.
    """
    return None if weights is None else _asked().find(weights, network)


def pin(network: Any, weights: Any) -> tuple[Any, Checkpoint | None]:
    """The network to build where a constructor leaves the details open.

    Args:
        network: The constructor's own choice.
        weights: Its `weights` argument.

    Returns:
        The network, and the checkpoint to pass on as `weights`.
    """
    if weights is None:
        return network, None
    return _asked().pinned_network(network, weights)


def find_for_classes(weights: Any, network: Any) -> Checkpoint | None:
    """The checkpoint of a `weights` argument, whatever classes it is of.

    Args:
        weights: `None`, a name, a path, or the checkpoint that `pin` gave.
        network: The detector, a `DetectorVariant`.

    Returns:
        A checkpoint to pass on as `weights`, whose `fill` leaves the layers
        that depend on the classes as they are if their number is another.
    """
    if weights is None:
        return None
    return _asked().find_for_classes(weights, network)


def find_backbone(weights: Any, network: Any) -> Checkpoint | None:
    """The checkpoint that `backbone_weights` of a detector means.

    Args:
        weights: `None`, a name or a path, of an image network.
        network: The detector, a `DetectorVariant`.

    Returns:
        A checkpoint whose `fill` takes the detector and fills its trunk.
    """
    return None if weights is None else _asked().find_backbone(weights, network)


def pin_backbone(network: Any, weights: Any) -> tuple[Any, Checkpoint | None]:
    """The detector to build where a constructor leaves its trunk open.

    Args:
        network: The constructor's own choice, a `DetectorVariant`.
        weights: Its `backbone_weights` argument.

    Returns:
        The detector with the image network's strides and normalisation, and
        the checkpoint to pass on as `backbone_weights`.
    """
    if weights is None:
        return network, None
    return _asked().pinned_backbone(network, weights)
