"""Where and with what something was measured or trained."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import keras
import tensorflow as tf

_PACKAGES = ("keras-nonlocal", "keras", "tensorflow", "numpy", "av")
_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
_GIT_SECONDS = 10.0


def environment() -> dict[str, Any]:
    """Where something runs and with what, as JSON has it.

    Returns:
        `date`, `machine`, `python`, `versions` of packages, `devices`, names of
        `gpus`, and `git`: the revision of this package's checkout and whether
        files of it have been changed since, or `None` if it is not in one.

    >>> sorted(environment())
    ['date', 'devices', 'git', 'gpus', 'machine', 'python', 'versions']
    """
    packages = list(_PACKAGES)
    if keras.backend.backend() != "tensorflow":
        packages.append(keras.backend.backend())
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name) for name in packages
        },
        "devices": _devices(),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name")
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "git": git_revision(_CHECKOUT),
    }


def _devices() -> list[str]:
    # Keras lists none of PyTorch.
    if keras.backend.backend() == "torch":
        return []
    return keras.distribution.list_devices()


def git_revision(folder: pathlib.Path) -> dict[str, Any] | None:
    """The revision of a checkout; `None` if the folder is not the root of one.

    Args:
        folder: The root.

    Returns:
        `revision`, 40 digits, and `changed`, whether files have been changed
        since that it knows of.
    """
    try:
        # A package in a folder inside somebody else's checkout is not of it.
        root = _git(folder, "rev-parse", "--show-toplevel")
        if pathlib.Path(root).resolve() != folder.resolve():
            return None
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
        revision = _git(folder, "rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"revision": revision, "changed": bool(changes)}


def _git(folder: pathlib.Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", os.fspath(folder), *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=_GIT_SECONDS,
    )
    return result.stdout.strip()
