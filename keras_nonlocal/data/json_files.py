"""Writing files of text that are complete or not there."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping


def write_json(path: str | os.PathLike[str], values: Mapping) -> None:
    """Writes JSON to a temporary file that then takes its place."""
    # In ASCII: names of files may hold bytes that are no text.
    write_text(path, json.dumps(values, indent=1) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 to a temporary file that then takes its place.

    Args:
        path: The file; replaced if it is there.
        text: All of it.

    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    target = pathlib.Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # Or the name may be on the disk before the content is.
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
