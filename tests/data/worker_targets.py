"""What the tests do in worker processes."""

import ctypes
import os
import pathlib
import signal
import sys
import time

import numpy as np


class Picky(Exception):
    """Cannot be made again from its `args`."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")


class Wordy(Exception):
    """Made again from its `args`, it says something else."""

    def __init__(self, path):
        super().__init__(f"{path}: cannot be read")


def run(action):
    """Calls the function of this module that `action` names."""
    name, *arguments = action
    return globals()[name](*arguments)


def same(value):
    return value


def zeros(num_bytes):
    return np.zeros(num_bytes, "uint8")


def function():
    return lambda: None


def process_id():
    return os.getpid()


def modules():
    return sorted(sys.modules)


def surroundings():
    return {
        "input": os.read(0, 1),
        "interrupt": signal.getsignal(signal.SIGINT),
        # Its own number is that of the listing.
        "files": len(os.listdir("/proc/self/fd")) - 1,
        "memory": pathlib.Path("/proc/self/oom_score_adj").read_text(),
        "threads": os.environ["OMP_NUM_THREADS"],
    }


def resident_bytes():
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def say(text):
    print(text)
    os.system(f"echo {text}")
    return text


def sleep(seconds, result=None):
    time.sleep(seconds)
    return result


def hold_lock(seconds):
    """Sleeps and lets no other thread of the interpreter run."""
    ctypes.PyDLL(None).sleep(int(seconds))


def send_signal(number):
    os.kill(os.getpid(), number)


def leave(code):
    os._exit(code)


def raise_error(error):
    raise error


def raise_picky():
    raise Picky("a.mp4", "no frames")


def raise_wordy():
    raise Wordy("a.mp4")
