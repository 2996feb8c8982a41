"""The flag `--set`, which changes any setting of a training run."""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import app
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "set",
    [],
    "Any other setting of the training, by its name in the code, as "
    "--set=ema=0.999; may be repeated.",
)


def parse(config: type, elsewhere: Mapping[str, str]) -> dict[str, Any]:
    """What the flag sets, by name.

    Args:
        config: The dataclass of settings.
        elsewhere: Settings that have flags of their own and no simple values.

    Raises:
        app.UsageError: If there is no such setting.
    """
    return dict(_setting(text, config, elsewhere) for text in FLAGS.set)


def _setting(
    text: str, config: type, elsewhere: Mapping[str, str]
) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    names = [field.name for field in dataclasses.fields(config)]
    if not equals or name not in names:
        raise app.UsageError(
            f"--set must be NAME=VALUE with one of {', '.join(names)}. "
            f"Received: {text}"
        )
    if name in elsewhere:
        raise app.UsageError(
            f"--set takes all but the {name}: give {elsewhere[name]}"
        )
    if value in ("true", "false"):
        return name, value == "true"
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):  # A word needs no quotes.
        return name, value
