"""What there is to train on."""

import pathlib

import tensorflow as tf

_MEMINFO = pathlib.Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that could be had now, or `None` where that is not known.

    What Linux says is available. Of a GPU, TensorFlow does not tell how large
    its memory is.
    """
    if tf.config.list_logical_devices("GPU"):
        return None
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    if "MemAvailable" not in sizes:
        return None
    return int(sizes["MemAvailable"].split()[0]) * 1024
