"""Downloads that are whole, checked and made only once.

Beside a file that is being fetched stand, named after it, `.part` with what
has come so far, `.part.json` with what tells whether the server's file is
still the same, and `.lock`, which one process at a time holds. Only the
empty `.lock` stays: to delete it would let two processes in.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import time
import urllib.parse
from collections.abc import Iterator

import filelock
import keras
import requests
import urllib3
from absl import logging

_CHUNK = 2**16
# In seconds; however long a server asks for.
_LONGEST_PAUSE = 60.0


class DownloadError(OSError):
    """A file that could not be fetched; the message says what can be done."""


def cache_dir() -> str:
    """Folder for files that are fetched: `keras_nonlocal` in Keras's own.

    Keras's folder is the environment variable `KERAS_HOME`, or `~/.keras`.
    The folder is made if missing. It need not be writable as long as it holds
    every file that is asked for.

    Raises:
        DownloadError: If the folder cannot be made.
    """
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    path = os.path.join(home, "keras_nonlocal")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"Could not make the folder {path}: {error.strerror}. Set the "
            "environment variable KERAS_HOME to a folder that can be written."
        ) from error
    return path


def fetch(
    url: str,
    path: str | os.PathLike[str],
    digest: str | None = None,
    *,
    timeout: float = 30.0,
    retries: int = 4,
    backoff: float = 0.5,
    lock_timeout: float = 3600.0,
    max_bytes: int = 2**32,
    time_limit: float = math.inf,
    refused: tuple[str, ...] = (),
    progress: bool = True,
) -> str:
    """Downloads a file, unless it is there already.

    Nothing is at `path` before all of the file has come and been verified.
    What a broken-off call leaves behind, the next one continues, if the
    server can and its file has not changed. Proxies are taken from the
    environment variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.

    Args:
        url: Of the file, http or https. Redirects are followed, but not to
            other schemes and not from https to http.
        path: Where to save it; folders are made if missing.
        digest: `"sha256:"`, `"sha1:"` or `"md5:"` and the file's hash in
            hexadecimal, or its first 8 digits or more (of md5, 6); `None`
            verifies nothing.
        timeout: Longest wait for the connection and between two pieces of
            the answer, in seconds.
        retries: How many further tries there are without one that gets
            further than all before: after connection errors, time-outs,
            broken-off answers and the statuses 408, 429 and 5xx.
        backoff: Pause before the first of them, in seconds; every further one
            waits twice as long or, up to a minute, what the server asks for.
        lock_timeout: Longest wait for another process that is fetching the
            same file, in seconds; -1 waits without end. A process that died
            is not waited for.
        max_bytes: Files larger than this are refused.
        time_limit: Longest time of the whole, in seconds, but for headers that
            come slowly. By default it may take any time.
        refused: How the `Content-Type` of answers begins that are not the file.
        progress: Whether to show a progress bar, in MiB.

    Returns:
        `path` as a string.

    Raises:
        DownloadError: If the file could not be fetched or written, or if it
            has another hash. A file that was at `path` before is left as it
            is.
        ValueError: If `url` or `digest` is not of the form above.
    """
    path = os.fspath(path)
    _check_arguments(url, digest)
    download = _Download(
        url,
        path,
        digest,
        timeout,
        max_bytes,
        progress,
        refused,
        time_limit,
        time.monotonic() + time_limit,
    )
    if not os.path.exists(path):
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with _lock(path, lock_timeout):
                # Another process may have fetched it meanwhile.
                if not os.path.exists(path):
                    download.run(retries, backoff)
                    return path
        except DownloadError:
            raise
        except OSError as error:
            raise DownloadError(
                f"Could not fetch {url} to {path}: {error}"
            ) from error
    _check_existing(url, path, digest)
    return path


def _check_arguments(url: str, digest: str | None) -> None:
    if not _has_scheme(url, "http", "https"):
        raise ValueError(
            f"`url` must begin with http:// or https://. Received: {url!r}"
        )
    pattern = "((sha256|sha1):[0-9a-fA-F]{8,64}|md5:[0-9a-fA-F]{6,32})"
    if digest is not None and not re.fullmatch(pattern, digest):
        raise ValueError(
            '`digest` must be None or "sha256:" or "sha1:" and 8 to 64 or '
            f'"md5:" and 6 to 32 hexadecimal digits. Received: {digest!r}'
        )


def _has_scheme(url: str, *schemes: str) -> bool:
    return urllib.parse.urlsplit(url).scheme in schemes


def _check_existing(url: str, path: str, digest: str | None) -> None:
    try:
        found = _wrong_digest(path, digest)
    except OSError as error:
        raise DownloadError(f"Could not read {path}: {error}") from error
    if found:
        raise DownloadError(
            f"{path} is not the file expected: its hash must begin with "
            f"{digest}. Received: {found}. Delete it to have it fetched from "
            f"{url}."
        )


def file_digest(path: str | os.PathLike[str], algorithm: str) -> str:
    """The hash of a file, in hexadecimal."""
    # Hashes tell files apart; some systems refuse md5 for anything else.
    make = functools.partial(hashlib.new, algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, make).hexdigest()


def _wrong_digest(path: str, digest: str | None) -> str:
    """The file's digest, or nothing if it is as it should be."""
    if digest is None:
        return ""
    algorithm, _, start = digest.partition(":")
    found = file_digest(path, algorithm)
    is_right = found.startswith(start.lower())
    return "" if is_right else f"{algorithm}:{found}"


@contextlib.contextmanager
def _lock(path: str, timeout: float) -> Iterator[None]:
    lock = filelock.FileLock(f"{path}.lock")
    try:
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            logging.warning("Waiting for another process to fetch %s", path)
            held = lock.acquire(timeout=timeout)
    except filelock.Timeout as error:
        raise DownloadError(
            f"Another process is fetching {path} and has not ended within "
            f"`lock_timeout`, {timeout:g} s. It holds {path}.lock."
        ) from error
    with held:
        yield


class _BrokenOff(Exception):
    """What may go better on another try, `pause` seconds later at least."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


class _Session(requests.Session):
    """Refuses redirects that leave http and https, or https for http."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        try:
            target = super().get_redirect_target(resp)
            if target is not None:
                _check_redirect(resp.url, target)
        except ValueError:
            resp.close()
            raise
        return target


def _check_redirect(url: str, target: str) -> None:
    schemes = ("https",) if _has_scheme(url, "https") else ("http", "https")
    target = urllib.parse.urljoin(url, target)
    if not _has_scheme(target, *schemes):
        raise requests.exceptions.InvalidSchema(
            f"{url} redirects to {target}, which is not {' or '.join(schemes)}"
        )


@dataclasses.dataclass(frozen=True)
class _Download:
    url: str
    path: str
    digest: str | None
    timeout: float
    max_bytes: int
    progress: bool
    refused: tuple[str, ...]
    time_limit: float
    deadline: float

    @property
    def part(self) -> str:
        return f"{self.path}.part"

    @property
    def notes(self) -> str:
        return f"{self.path}.part.json"

    def run(self, retries: int, backoff: float) -> None:
        """Leaves the whole, verified file at `path`."""
        furthest = self._size()
        failures = 0
        while True:
            self._check_time()
            try:
                self._try()
                break
            except _BrokenOff as error:
                size = self._size()
                if size > furthest:
                    furthest, failures = size, 0
                if failures >= retries:
                    raise self._error(str(error)) from error
                pause = max(backoff * 2**failures, error.pause)
                pause = min(pause, _LONGEST_PAUSE)
                logging.warning(
                    "Fetching %s: %s. Next try in %.1f s",
                    self.url,
                    error,
                    pause,
                )
            time.sleep(pause)
            failures += 1
        self._place()

    def _try(self) -> None:
        """Gets what is missing of the file, in one request."""
        start, validator = self._resumable()
        # Lengths and ranges count the bytes that are sent: no compression.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        try:
            with (
                _Session() as session,
                session.get(
                    self.url, headers=headers, stream=True, timeout=self.timeout
                ) as response,
            ):
                self._receive(response, start, validator)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            urllib3.exceptions.HTTPError,
        ) as error:
            raise _BrokenOff(_reason(error)) from error
        # The latter for URLs and numbers in the answer that are none.
        except (requests.RequestException, ValueError) as error:
            raise self._error(_reason(error)) from error

    def _receive(
        self, response: requests.Response, start: int, validator: str
    ) -> None:
        status = response.status_code
        if status == 416 and start:
            if _content_range(response) == (None, start):
                return
            self._discard()
            raise _BrokenOff(f"{self.part} is longer than the file")
        if status in (408, 429) or status >= 500:
            why = f"the answer is {status} {response.reason}"
            raise _BrokenOff(why, _retry_after(response))
        if status == 206 and start:
            first, total = _content_range(response)
            same = _validator(response) in ("", validator)
            # Some servers know Range but not If-Range.
            if first != start or not same:
                self._discard()
                raise _BrokenOff("the file has changed")
        elif status == 200:
            kind = response.headers.get("Content-Type", "").lower()
            if kind.startswith(self.refused):
                raise self._error(f"the answer is of the type {kind}")
            start, total = 0, response.raw.length_remaining
            self._discard()
            self._remember(_validator(response))
        else:
            raise self._error(f"the answer is {status} {response.reason}")
        self._check_size(total or 0)
        size = self._save(response, start, total)
        self._check_size(size)
        if total not in (None, size):
            raise _BrokenOff(f"{size} of {total} bytes came")

    def _save(
        self, response: requests.Response, size: int, total: int | None
    ) -> int:
        """Appends to the part, of `size` bytes so far; returns the new size.

        Stops at the first bytes beyond `max_bytes`, which it does not write.
        """
        bar = keras.utils.Progbar(
            None if total is None else _in_mib(total),
            verbose=int(self.progress),
            # Where the output is not a terminal every update is a line.
            interval=1.0,
            unit_name="MiB",
        )
        with open(self.part, "ab") as file:
            try:
                # Not `stream`, which waits until so many bytes are there.
                while chunk := response.raw.read1(_CHUNK, decode_content=False):
                    self._check_time()
                    size += len(chunk)
                    if size > self.max_bytes:
                        break
                    file.write(chunk)
                    bar.update(_in_mib(size), finalize=False)
            finally:
                bar.update(_in_mib(size), finalize=True)
            file.flush()
            os.fsync(file.fileno())
        return size

    def _place(self) -> None:
        found = _wrong_digest(self.part, self.digest)
        if found:
            self._discard()
            raise self._error(
                f"the hash must begin with {self.digest}, but that of what "
                f"came is {found}"
            )
        os.replace(self.part, self.path)
        self._discard()

    def _resumable(self) -> tuple[int, str]:
        """How much of the file is there, and of which version it is."""
        try:
            with open(self.notes) as file:
                notes = json.load(file)
            url, validator = notes["url"], str(notes["validator"])
        # Damaged notes are none: ValueError covers what is not JSON or text.
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return 0, ""
        return (self._size(), validator) if url == self.url else (0, "")

    def _remember(self, validator: str) -> None:
        if validator:
            with open(self.notes, "w") as file:
                json.dump({"url": self.url, "validator": validator}, file)

    def _size(self) -> int:
        try:
            return os.path.getsize(self.part)
        except FileNotFoundError:
            return 0

    def _discard(self) -> None:
        for path in (self.part, self.notes):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            self._discard()
            raise self._error(
                f"it is larger than `max_bytes`, {self.max_bytes} bytes"
            )

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise self._error(
                f"it takes longer than `time_limit`, {self.time_limit:g} s"
            )

    def _error(self, why: str) -> DownloadError:
        return DownloadError(
            f"Could not fetch {self.url}: {why}. The file can also be "
            f"downloaded elsewhere and saved as {self.path}."
        )


def _in_mib(size: int) -> int:
    return -(-size // 2**20)


def _validator(response: requests.Response) -> str:
    """What `If-Range` may be given for this answer; empty without."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "")


def _content_range(
    response: requests.Response,
) -> tuple[int | None, int | None]:
    """First byte and size of the whole file, as far as the answer tells."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", text)
    if not match:
        return None, None
    first, total = match.groups()
    return (int(first) if first else None), int(total)


def _retry_after(response: requests.Response) -> float:
    try:
        return urllib3.Retry().get_retry_after(response.raw) or 0.0
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _reason(error: BaseException) -> str:
    """The message of the innermost of the errors that wrap each other."""
    for inner in (getattr(error, "reason", None), *error.args):
        if isinstance(inner, Exception):
            return _reason(inner)
    return str(error).rstrip(".")
