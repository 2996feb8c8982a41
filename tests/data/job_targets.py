"""What the tests of audits and preparation do in worker processes."""

import os
import time

from keras_nonlocal.data.auditing.video import VideoFacts


def inspect(argument):
    """Notes that it was called, and does as the file's name says."""
    path, _ = argument
    with open(os.path.join(os.path.dirname(path), "log"), "a") as log:
        log.write(f"{path}\n")
    name = os.path.basename(path)
    if name.startswith("hang"):
        time.sleep(600)
    if name.startswith("crash"):
        os.abort()
    if name.startswith("disk"):
        raise OSError(5, "Input/output error", path)
    if name.startswith("odd"):
        raise KeyError(name)
    time.sleep(0.05)
    return VideoFacts(1, name, "mp4", "h264", 99, 32, 32, 0, 25.0, 4.0, True)


def transcode(request):
    """Hangs when it has written something."""
    with open(request.part, "w") as file:
        file.write("half")
    time.sleep(600)


def thumbnail(path):
    raise ValueError(f"{path}: there is none")
