"""Writing JSON files that are complete or not there."""

import json
import os
import pathlib
from collections.abc import Mapping


def write_json(path: str | os.PathLike[str], values: Mapping) -> None:
    """Writes JSON to a temporary file that then takes its place."""
    target = pathlib.Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    # Names of files may hold bytes that are no text.
    text = json.dumps(values, indent=1)
    part.write_text(text + "\n")
    os.replace(part, target)
