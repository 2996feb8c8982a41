"""Writes the tables of networks and of published weights.

python -m zoo.models [--count]

They are made of `VARIANTS`, the catalogue of weights and the counts in
`zoo/results/model_counts.json`, which `--count` counts anew, in minutes: after
a change of a network or of the catalogue. A record of each network that was
counted tells which counts are out of date.
"""

import hashlib
import json
import math
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import STRIDES
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.inception_i3d import INCEPTION_VARIANTS
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.inception_i3d import InceptionVariant
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.resnet2d import IMAGE_VARIANTS
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.resnet2d import ResNet2D
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.weights import lookup
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.catalogue import WeightsEntry

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTS = ROOT / "zoo" / "results" / "model_counts.json"
README = ROOT / "README.md"
NETWORKS_PAGE = ROOT / "docs" / "models.md"
WEIGHTS_PAGE = ROOT / "docs" / "weights.md"

# The constructors, and the networks that they build without weights.
CONSTRUCTORS = {
    f"{'NL' * blocks}{kind}{depth}": f"{'nl_' * blocks}{kind.lower()}_r{depth}"
    for depth in (50, 101)
    for kind in ("C2D", "I3D")
    for blocks in (0, 1)
}
# What an Inception I3D and an image network are counted on.
_INCEPTION_CLIP, _SIDE = 64, 224
# And a detector: the largest that images of COCO become, padded.
_IMAGE = (800, 1344, 3)
_CLASSES = {
    "kinetics400": 400,
    "imagenet": 1000,
    "imagenet5k": 5000,
    "charades": 157,
    "coco": 80,
}


def all_networks() -> dict[str, Any]:
    """Every network to count, by its own name and by those of its weights."""
    published = {
        name: entry.network
        for name, entry in CATALOGUE.items()
        if entry.network is not None
    }
    tables: list[Mapping[str, Any]] = [
        VARIANTS,
        IMAGE_VARIANTS,
        INCEPTION_VARIANTS,
        DETECTOR_VARIANTS,
        published,
    ]
    return {
        name: network for table in tables for name, network in table.items()
    }


def classes_of(name: str) -> int:
    """Classes that a network is counted with."""
    entry = CATALOGUE.get(name)
    if entry is not None:
        return entry.classes or _CLASSES[entry.dataset]
    if name in DETECTOR_VARIANTS:
        return DETECTOR_VARIANTS[name].classes
    return 1000 if name in IMAGE_VARIANTS else 400


def count(network: Any, classes: int) -> dict[str, int]:
    """Trainable parameters, and multiply-adds of a training clip or image."""
    if isinstance(network, DetectorVariant):
        return _count_detector(network)
    model, shape = _build(network, classes)
    return {"parameters": _parameters(model), "macs": count_macs(model, shape)}


def _parameters(model: keras.Model) -> int:
    return int(sum(np.prod(w.shape) for w in model.trainable_weights))


def _count_detector(variant: DetectorVariant) -> dict[str, int]:
    """Of the whole detector as it tests an image: all regions, all masks."""
    model = MaskRCNN(variant)
    height, width, _ = _IMAGE
    channels, mask_size = variant.pyramid_channels, variant.mask_size
    levels = [(-(-height // s), -(-width // s), channels) for s in STRIDES]
    region = (variant.box_size, variant.box_size, channels)
    # Of the mask head what is before its deconvolution, and after it.
    deconv = model.mask_head.get_layer("mask_deconv")
    logits = model.mask_head.get_layer("mask_logits")
    convs = keras.Model(model.mask_head.inputs, deconv.input)
    a_mask = count_macs(
        convs, (mask_size, mask_size, channels)
    ) + mask_size**2 * (
        math.prod(deconv.kernel.shape) + 4 * math.prod(logits.kernel.shape)
    )
    macs = (
        count_macs(model.trunk, _IMAGE)
        + sum(count_macs(model.rpn_head, level) for level in levels)
        + variant.post_nms[1] * count_macs(model.box_head, region)
        + variant.max_detections * a_mask
    )
    return {"parameters": _parameters(model), "macs": int(macs)}


def _build(network: Any, classes: int) -> tuple[keras.Model, tuple[int, ...]]:
    if isinstance(network, Variant):
        side = network.crop_size
        shape = (network.num_frames, side, side, 3)
        return ResNet3D(network, classes=classes), shape
    if isinstance(network, ImageVariant):
        return ResNet2D(network, classes=classes), (_SIDE, _SIDE, 3)
    modality = network.modality
    channels = 3 if modality == "rgb" else 2
    shape = (_INCEPTION_CLIP, _SIDE, _SIDE, channels)
    return InceptionI3D(classes=classes, modality=modality), shape


def record(network: Any) -> str:
    """What changes when the network does."""
    return hashlib.sha256(repr(network).encode()).hexdigest()[:12]


def read_counts() -> dict[str, dict[str, Any]]:
    """What was counted, by name of network or weights."""
    return json.loads(COUNTS.read_text(encoding="utf-8"))


def write_counts() -> None:
    """Counts all networks."""
    known: dict[tuple[Any, int], dict[str, int]] = {}
    counts = {}
    for name, network in all_networks().items():
        key = network, classes_of(name)
        if key not in known:
            known[key] = count(*key)
            keras.utils.clear_session(free_memory=True)
        counts[name] = {**known[key], "network": record(network)}
    rows = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in counts.items())
    COUNTS.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def constructors_table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """What each constructor builds with `weights="kinetics400"`."""
    header = (
        "network",
        "clip",
        "parameters",
        "GMACs",
        "published top-1 / top-5",
        "weights, licence",
    )
    rows = [
        _constructor_row(constructor, name, counts)
        for constructor, name in CONSTRUCTORS.items()
    ]
    name = "inception_i3d_rgb_kinetics400"
    rows.append(_published_row("InceptionI3D", CATALOGUE[name], counts))
    return _table(header, rows)


def _constructor_row(
    constructor: str, name: str, counts: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    entry = published(name)
    if entry is not None:
        return _published_row(constructor, entry, counts)
    network = VARIANTS[name]
    size = _size(counts[name])
    return f"`{constructor}`", _clip(network), *size, "-", "none are published"


def published(name: str) -> WeightsEntry | None:
    """The entry that `weights="kinetics400"` means for a network, if any."""
    try:
        return lookup.default_of_architecture(VARIANTS[name], "kinetics400")
    except ValueError:
        return None


def _published_row(
    constructor: str,
    entry: WeightsEntry,
    counts: Mapping[str, Mapping[str, Any]],
) -> tuple[str, ...]:
    scores = " / ".join(str(entry.scores.get(k, "-")) for k in ("top1", "top5"))
    return (
        f"`{constructor}`",
        _clip(entry.network),
        *_size(counts[entry.name]),
        scores,
        f"`{entry.name}`, {entry.licence}",
    )


def networks_table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Every row of `VARIANTS`."""
    header = ("`ResNet3D(...)`", "network", "clip", "parameters", "GMACs")
    rows = [
        (f'`"{name}"`', _words(v), _clip(v), *_size(counts[name]))
        for name, v in VARIANTS.items()
    ]
    return _table(header, rows)


def weights_table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Every entry of the catalogue."""
    header = (
        "name",
        "network",
        "data",
        "clip",
        "parameters",
        "GMACs",
        "published scores",
        "licence",
        "note",
    )
    rows = []
    for name, entry in CATALOGUE.items():
        size = ("-", "-") if entry.network is None else _size(counts[name])
        scores = ", ".join(
            f"{key} {value}" for key, value in entry.scores.items()
        )
        if entry.views > 1 and scores:
            scores += f" ({entry.views} views)"
        rows.append(
            (
                f"`{name}`",
                _words(entry.network),
                entry.dataset,
                _clip(entry.network),
                *size,
                scores or "-",
                entry.licence,
                # The pages speak to those in a checkout.
                entry.note.replace(
                    "keras-nonlocal[pretrained]", "'.[pretrained]'"
                ),
            )
        )
    return _table(header, rows)


def _size(counted: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"{counted['parameters'] / 1e6:.1f} M",
        f"{counted['macs'] / 1e9:.1f}",
    )


def _clip(network: Any) -> str:
    if isinstance(network, Variant):
        return f"{network.num_frames}x{network.sampling_rate}"
    return (
        f"{_INCEPTION_CLIP}x1" if isinstance(network, InceptionVariant) else "-"
    )


def _words(network: Any) -> str:
    """A network in a few words."""
    if network is None:
        return "-"
    if isinstance(network, DetectorVariant):
        block = ", 1 block in res4" if network.nonlocal_blocks else ""
        return f"Mask R-CNN, {_words(network.trunk)}{block}"
    if isinstance(network, ImageVariant):
        kind = "ResNet" if network.groups == 1 else "ResNeXt"
        return f"{kind}-{network.depth}"
    if isinstance(network, InceptionVariant):
        return f"Inception I3D, {network.modality}"
    kinds = {None: "C2D", "3x1x1": "I3D", "3x3x3": "I3D 3x3x3"}
    words = f"{kinds[network.inflation]} R{network.depth}"
    if network.num_nonlocal:
        blocks = "block" if network.num_nonlocal == 1 else "blocks"
        mode = network.mode.replace("_", " ")
        words += f", {network.num_nonlocal} {blocks} ({mode}"
        if network.attention_axes != "spacetime":
            words += f", over {network.attention_axes}"
        words += ")"
        if network.num_nonlocal == 1:
            words += f" in {network.nonlocal_stage}"
    return words


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# By page and name of the place in it, what makes the table.
TABLES = {
    (README, "models"): constructors_table,
    (NETWORKS_PAGE, "networks"): networks_table,
    (WEIGHTS_PAGE, "weights"): weights_table,
}


def put(text: str, name: str, table: str) -> str:
    """The text of a page with a table between its two comments."""
    pattern = rf"(<!-- {name}[^\n]*-->\n\n).*?(<!-- end of {name} -->)"
    changed, found = re.subn(
        pattern, lambda m: m[1] + table + m[2], text, flags=re.S
    )
    if found != 1:
        raise ValueError(
            f"A page must have one pair of comments <!-- {name} ... --> and "
            f"<!-- end of {name} -->. Found: {found}"
        )
    return changed


def current(page: pathlib.Path) -> str:
    """What a page should be."""
    counts = read_counts()
    text = page.read_text(encoding="utf-8")
    for (place, name), table in TABLES.items():
        if place == page:
            text = put(text, name, table(counts))
    return text


if __name__ == "__main__":
    if "--count" in sys.argv[1:]:
        write_counts()
    for file in sorted({page for page, _ in TABLES}):
        file.write_text(current(file), encoding="utf-8")
