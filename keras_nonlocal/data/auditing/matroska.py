"""How long a Matroska or WebM file should be, by what it says itself.

Encoders write that last: a file that is shorter has been cut off.
"""

import os
from typing import IO

_HEADER, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Of sane files it has less than a hundred bytes.
_MAX_HEADER = 2**16


def promised_size(path: str) -> int:
    """Bytes up to the end of the segment, which holds all but the header.

    Args:
        path: A regular file.

    Returns:
        The bytes; 0 for files of other formats and those that do not say.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(4) != _HEADER:
            return 0
        header = _read_size(file)
        if header is None or header > _MAX_HEADER:
            return 0
        file.seek(header, os.SEEK_CUR)
        if file.read(4) != _SEGMENT:
            return 0
        segment = _read_size(file)
        return 0 if segment is None else file.tell() + segment


def _read_size(file: IO[bytes]) -> int | None:
    """A number whose first byte has as many zeros first as others follow."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    most = (1 << 7 * length) - 1
    number = int.from_bytes(first + rest, "big") & most
    # All ones: a stream whose end was not known.
    return None if number == most else number
