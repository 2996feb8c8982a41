"""The folder of a SavedModel, written whole or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

# TensorFlow Serving leaves files of this folder alone.
_ABOUT = "assets.extra/model.json"


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], about: dict | None, overwrite: bool
) -> Iterator[pathlib.Path]:
    """A folder to write to, moved to its place when all has gone well.

    Args:
        path: Its place.
        about: What to write beside the graph, JSON.
        overwrite: Whether an existing folder may be replaced.

    Yields:
        Where to write the SavedModel, on the file system of `path`.

    Raises:
        FileExistsError: If the folder exists and `overwrite` is not set.
    """
    path = pathlib.Path(path)
    if path.is_file():
        raise FileExistsError(f"{path} is a file; name a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = pathlib.Path(folder) / "saved_model"
        yield written
        about_file = written / _ABOUT
        about_file.parent.mkdir(exist_ok=True)
        about_file.write_text(json.dumps(about or {}, indent=1))
        if path.exists():
            shutil.rmtree(path)
        os.replace(written, path)


def read_about(path: str | os.PathLike[str]) -> dict:
    """What `export_saved_model` or `export_detector` was given as `about`.

    Raises:
        ValueError: If the folder is not such an export.
    """
    file = pathlib.Path(path) / _ABOUT
    if not file.is_file():
        raise ValueError(
            f"{os.fspath(path)!r} is not a folder that export_saved_model or "
            f"export_detector wrote: it has no {_ABOUT}."
        )
    return json.loads(file.read_text())
