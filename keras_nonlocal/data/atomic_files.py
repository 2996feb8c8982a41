"""Writing files that are complete or not there."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from typing import IO


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
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A temporary file that takes the place of `path` if all goes well.

    Its name is that of the file, the number of the process and `.part`.

    Args:
        path: The file; replaced if it is there.

    Raises:
        OSError: If it cannot be written; what was there stays.
    """
    target = pathlib.Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            # Or the name may be on the disk before the content is.
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
