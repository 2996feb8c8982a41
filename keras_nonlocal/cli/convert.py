r"""Converts a checkpoint of another code base.

python -m keras_nonlocal.cli.convert SRC DST.weights.h5 \
        --network nl_i3d_r50_8x8 --set pool1_padding=1

SRC is a file of any family that the package reads, or the name of an entry of
the catalogue (`--list` prints them). What names and shapes do not show of the
network has to be said: by an entry (`--entry`), which pins everything, or by a
network and the fields in which it differs.
"""

import ast
import dataclasses
import json
import os
from typing import Any

from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.models.applications import describe
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.inception_i3d import INCEPTION_VARIANTS
from keras_nonlocal.models.resnet2d import IMAGE_VARIANTS
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.weights import catalogue
from keras_nonlocal.weights import lookup
from keras_nonlocal.weights.content import CheckpointFile
from keras_nonlocal.weights.convert import convert
from keras_nonlocal.weights.flags import shown
from keras_nonlocal.weights.load import LoadReport

FLAGS = flags.FLAGS
flags.DEFINE_string("entry", None, "Entry of the catalogue that SRC is.")
flags.DEFINE_string("network", None, "Name of the network that SRC is of.")
flags.DEFINE_multi_string(
    "set", [], "field=value of the network that differ; may be repeated."
)
flags.DEFINE_float(
    "epsilon",
    None,
    "What the network of SRC adds to the variance in batch norm, where that is "
    "not 1e-5.",
)
flags.DEFINE_bool(
    "bgr",
    None,
    "Whether the network of SRC takes blue, green, red, where SRC does not "
    "tell.",
)
flags.DEFINE_string("report", None, "JSON file to write the report to.")
flags.DEFINE_bool("list", False, "Print the catalogue.")

NETWORKS: dict[str, Any] = {
    **VARIANTS,
    **IMAGE_VARIANTS,
    **INCEPTION_VARIANTS,
    **DETECTOR_VARIANTS,
}


def main(argv: list[str]) -> None:
    show_own_notes_only()
    if FLAGS.list:
        catalogue.list_weights()
        return
    if len(argv) != 3:
        raise app.UsageError("name a source and a destination")
    _, source, destination = argv
    entry = _entry(source)
    if entry is not None and entry.network is None:
        raise app.UsageError(f"{entry.name}: {entry.note}")
    if entry is not None and not os.path.exists(source):
        source = lookup.published_file(entry)
    about: dict[str, Any] = {}
    if entry is not None:
        about = {"entry": entry.name, "licence": entry.licence}
    try:
        checkpoint = _told(lookup.open_published(source, entry))
        network = _network(checkpoint, entry)
        report = convert(checkpoint, destination, network, about)
    except (OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    _print(report, destination)
    if FLAGS.report:
        with open(FLAGS.report, "w") as file:
            content = {
                **dataclasses.asdict(report),
                **about,
                "network": describe(network),
            }
            json.dump(content, file, indent=1)


def _entry(source: str) -> catalogue.WeightsEntry | None:
    """What the catalogue knows of the source."""
    name = FLAGS.entry or (None if os.path.exists(source) else source)
    if name is None:
        return catalogue.identify(source) if os.path.isfile(source) else None
    if name not in catalogue.CATALOGUE:
        raise app.UsageError(
            f"{name!r} is neither a file nor an entry of the catalogue, which "
            "--list prints"
        )
    return catalogue.CATALOGUE[name]


def _told(checkpoint: CheckpointFile) -> CheckpointFile:
    """A file, with what the flags say of it."""
    told = {"epsilon": FLAGS.epsilon, "is_bgr": FLAGS.bgr}
    return dataclasses.replace(
        checkpoint, **{k: v for k, v in told.items() if v is not None}
    )


def _network(
    checkpoint: CheckpointFile, entry: catalogue.WeightsEntry | None
) -> Any:
    if entry is not None:
        if FLAGS.network or FLAGS.set:
            raise app.UsageError(
                f"the entry {entry.name!r} says which network it is: leave "
                "--network and --set out"
            )
        return entry.network
    if FLAGS.network not in NETWORKS:
        raise app.UsageError(
            "Which network is it of? Give --entry, or --network with --set. "
            f"Networks: {', '.join(NETWORKS)}.\n"
            f"The file is of the family {checkpoint.family} and shows:\n"
            + "\n".join(
                f"  {name}: {' or '.join(map(repr, values))}"
                for name, values in shown(checkpoint).items()
            )
        )
    changes = dict(_parse(text) for text in FLAGS.set)
    try:
        return _changed(NETWORKS[FLAGS.network], changes)
    except (AttributeError, TypeError, ValueError) as error:
        raise app.UsageError(f"--set: {error}") from error


def _changed(network: Any, changes: dict[str, Any]) -> Any:
    """A network with other fields; `trunk.width` is one of its trunk."""
    inner = {
        name.removeprefix("trunk."): changes.pop(name)
        for name in list(changes)
        if name.startswith("trunk.")
    }
    if inner:
        changes["trunk"] = dataclasses.replace(network.trunk, **inner)
    return dataclasses.replace(network, **changes)


def _parse(text: str) -> tuple[str, Any]:
    """`field=value`; a value that is no Python literal is a string."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _print(report: LoadReport, destination: str) -> None:
    print(f"{report.path} ({report.family}) -> {destination}")
    print(f"  {report.filled} variables filled, none left over")
    for title, names in (
        ("no weights, ignored", report.ignored),
        ("held twice, equal", report.duplicates),
        ("2-D kernels inflated", report.inflated),
        ("batch norms folded", report.folded),
    ):
        if names:
            print(f"  {len(names)} {title}: {', '.join(names[:3])} ...")


if __name__ == "__main__":
    app.run(main)
