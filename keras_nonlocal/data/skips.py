"""Counting what could not be read, and saying why."""

import os
import threading
from typing import NoReturn

from absl import logging

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError

# Below this number of clips a share of them says little.
_ENOUGH_CLIPS = 100
# A file that took too long so often is not tried again.
_CHANCES = 2
# What files are called, by what is read of them.
_FILES = {"clip": "a video", "image": "an image"}
_ADVICE = {
    "clip": ". `python -m keras_nonlocal.cli.audit` lists what is wrong with "
    "a data set"
}


class TooManySkipsError(ValueError):
    """So many clips cannot be read that something else is wrong."""


class SkipLog:
    """Counts the clips that could not be read, and says why.

    Safe to use from several threads. The first failure of each file is also
    logged as a warning.

    Args:
        max_share: Share of skipped clips, in (0, 1], above which `add` raises
            `TooManySkipsError`, from 100 clips on.
        unit: What is counted, for messages and `summary`: `"clip"`, or
            `"image"` where everything here that speaks of clips means images.

    >>> skips = SkipLog()
    >>> skips.add("broken.mp4", ValueError("broken.mp4: no video stream"))
    >>> skips.count, skips.reasons
    (1, {'broken.mp4': 'broken.mp4: no video stream'})
    """

    def __init__(self, max_share: float = 1.0, unit: str = "clip") -> None:
        if not 0 < max_share <= 1:
            raise ValueError(
                "`max_share` must be above 0 and at most 1. "
                f"Received: max_share={max_share!r}"
            )
        if unit not in _FILES:
            raise ValueError(
                f"`unit` must be one of {tuple(_FILES)}. "
                f"Received: unit={unit!r}"
            )
        self.max_share = max_share
        self.unit = unit
        self._lock = threading.Lock()
        self._read = 0
        self._skipped = 0
        self._slow: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._damaged: dict[str, str] = {}
        self._failure: str | None = None

    def add(self, path: str, error: Exception) -> None:
        """Notes that a clip of `path` could not be read because of `error`.

        Raises:
            TooManySkipsError: If too large a share of the clips is skipped.
        """
        with self._lock:
            self._skipped += 1
            if isinstance(error, TimeLimitError):
                self._slow[path] = self._slow.get(path, 0) + 1
            is_new = path not in self._reasons
            self._reasons[path] = str(error)
            total = self._skipped + self._read
            share = self._skipped / total
        if is_new:
            logging.warning("Skipped %s. %s", _FILES[self.unit], error)
        if total >= _ENOUGH_CLIPS and share > self.max_share:
            self.fail(
                f"At most {self.max_share:.0%} of the {self.unit}s may be "
                f"skipped. Received: {self._skipped} of {total} could not be "
                f"read, of {len(self._reasons)} files, the last because of: "
                f"{error}{_ADVICE.get(self.unit, '')}"
            )

    def fail(self, message: str) -> NoReturn:
        """Ends reading, for a reason that `failure` will give.

        Raises:
            TooManySkipsError: Always.
        """
        self._failure = message
        raise TooManySkipsError(message)

    def add_read(self, path: str, damage: str | None = None) -> None:
        """Notes that a clip was read, if `damage` only in an earlier place."""
        with self._lock:
            self._read += 1
            is_new = damage is not None and path not in self._damaged
            if damage is not None:
                self._damaged[path] = damage
        if is_new:
            logging.warning("Read an earlier clip of a video. %s", damage)

    def given_up(self, path: str) -> VideoError | None:
        """Why a file is not tried again: it took too long; `None` if it is."""
        with self._lock:
            if self._slow.get(path, 0) < _CHANCES:
                return None
            return VideoError(self._reasons[path])

    @property
    def count(self) -> int:
        """Clips that could not be read, over all epochs."""
        with self._lock:
            return self._skipped

    @property
    def slow(self) -> int:
        """How many of them took too long."""
        with self._lock:
            return sum(self._slow.values())

    @property
    def reasons(self) -> dict[str, str]:
        """The last message for every file that failed."""
        with self._lock:
            return dict(self._reasons)

    @property
    def damaged(self) -> dict[str, str]:
        """The last message for every file that could be read in part."""
        with self._lock:
            return dict(self._damaged)

    @property
    def failure(self) -> str | None:
        """What `TooManySkipsError` has said, `None` if it was not raised."""
        return self._failure

    def summary(self) -> dict:
        """All of it, for a file.

        >>> SkipLog().summary()["clips_read"]
        0
        """
        with self._lock:
            return {
                f"{self.unit}s_read": self._read,
                f"{self.unit}s_skipped": self._skipped,
                f"{self.unit}s_slow": sum(self._slow.values()),
                "skipped": dict(self._reasons),
                "damaged": dict(self._damaged),
            }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `summary()` as JSON; a reader never sees half of it."""
        write_json(path, self.summary())
