"""Names of classes from the files in which data sets give them."""

import collections
import json
import os
import re
from collections.abc import Sequence
from typing import Any

from keras_nonlocal.data.readers.annotations import Path
from keras_nonlocal.data.readers.annotations import RowError
from keras_nonlocal.data.readers.annotations import lines
from keras_nonlocal.data.readers.annotations import read_text

ClassNames = Sequence[str] | Path
# Numbers from a file decide how much memory the labels take.
MAX_CLASSES = 100_000
_NUMBERED = re.compile(r"c?(\d+)[\s,]+(\S.*)")


def parse_class_names(text: str, source: str = "class names") -> list[str]:
    r"""The names of classes, in the order of their numbers.

    Args:
        text: One name a line; or a number and a name a line, as in UCF101's
            `classInd.txt` (from 1) and Charades' class file (from `c000`); or
            JSON, either a list of names or an object from names to numbers,
            as in the `classids.json` of Kinetics and the labels of
            Something-Something. A name that carries quotation marks loses them.
        source: Name of the file, for messages.

    Returns:
        The names.

    Raises:
        ValueError: If there are no names, or if names or numbers are missing
            or there twice.

    >>> parse_class_names("1 ApplyEyeMakeup\n2 ApplyLipstick")
    ['ApplyEyeMakeup', 'ApplyLipstick']
    >>> parse_class_names('{"zumba": 1, "\\"air drumming\\"": 0}')
    ['air drumming', 'zumba']
    """
    if text.lstrip().startswith(("{", "[")):
        names = _from_json(load_json(text, source), source)
    else:
        names = _from_lines([line for _, line in lines(text, source)], source)
    return checked_names([_unquoted(name) for name in names], source)


def resolved_names(class_names: ClassNames | None) -> list[str] | None:
    """The names themselves, or those of the file that is given for them.

    Args:
        class_names: Names, the path of a file as `parse_class_names` takes it,
            or `None`.

    Returns:
        The names, or `None` for `None`.

    Raises:
        ValueError: If the names or the file are not as described.
    """
    if class_names is None:
        return None
    if isinstance(class_names, Sequence) and not isinstance(class_names, str):
        return checked_names(list(class_names), "`class_names`")
    return parse_class_names(read_text(class_names), str(class_names))


def names_beside(path: Path, files: Sequence[str]) -> list[str]:
    """The names in the first of some files that is in the folder of `path`."""
    folder = os.path.dirname(path)
    for file in files:
        if os.path.isfile(os.path.join(folder, file)):
            full = os.path.join(folder, file)
            return parse_class_names(read_text(full), file)
    raise ValueError(
        "`class_names` must be the names of the classes, or a file of them, "
        f"where {path} has no {' or '.join(files)} beside it. "
        "Received: class_names=None"
    )


def checked_names(names: list[str], source: str) -> list[str]:
    """The names, if there are some, none is empty and none there twice."""
    counts = collections.Counter(names)
    wrong = [
        name
        for name, count in counts.items()
        if not isinstance(name, str) or not name or count > 1
    ]
    if wrong or not 0 < len(names) <= MAX_CLASSES:
        raise ValueError(
            f"{source} must have 1 to {MAX_CLASSES} different names of classes."
            f" Received {len(names)}, among them, wrong: {wrong[:3]}"
        )
    return names


def label_of_name(name: str, numbers: dict[str, int]) -> int:
    """The number of a class; raises `RowError` if there is no such class."""
    name = _unquoted(name)
    if name not in numbers:
        raise RowError("unknown label", repr(name))
    return numbers[name]


def label_of_number(text: str, num_classes: int | None) -> int:
    """A class number from its digits; raises `RowError` if it is not one.

    Args:
        text: The digits.
        num_classes: How many classes there are, `None` if that is not known.

    Returns:
        The number.
    """
    limit = MAX_CLASSES if num_classes is None else num_classes
    # More digits than the limit has would be too large in any case.
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) >= limit:
        raise RowError("unknown label", f"not a number below {limit}: {text}")
    return int(text)


def numbered(names: Sequence[str]) -> dict[str, int]:
    """Class numbers by name; `ValueError` if a name is there twice."""
    names = checked_names(list(names), "`class_names`")
    return {name: number for number, name in enumerate(names)}


def names_of_numbers(labels: Sequence[int]) -> list[str]:
    """Numbers as names, for labels that have no others.

    >>> names_of_numbers([2, 0])
    ['0', '1', '2']
    """
    return [str(number) for number in range(max(labels, default=0) + 1)]


def load_json(text: str, source: str) -> Any:
    """JSON that may come from anyone: `ValueError` whatever is wrong."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} must be JSON. Received: {error}") from error


def _from_lines(names: list[str], source: str) -> list[str]:
    matches = [_NUMBERED.fullmatch(name) for name in names]
    pairs = [(match[2], match[1]) for match in matches if match]
    return _in_order(pairs, source) if len(pairs) == len(names) else names


def _from_json(value: Any, source: str) -> list[str]:
    if isinstance(value, dict):
        return _in_order(list(value.items()), source)
    return [str(name) for name in value]


def _in_order(pairs: list[tuple[str, Any]], source: str) -> list[str]:
    """Names by number; the numbers go up by one from 0 or from 1."""
    by_number = {_integer(number): name for name, number in pairs}
    first = min((n for n in by_number if n is not None), default=0)
    expected = range(first, first + len(pairs))
    if first not in (0, 1) or not all(n in by_number for n in expected):
        raise ValueError(
            f"{source} must number its {len(pairs)} classes from 0 or from 1, "
            f"each once. Received: {[number for _, number in pairs][:10]}..."
        )
    return [by_number[number] for number in expected]


def _integer(value: Any) -> int | None:
    """An integer or its digits (Something-Something writes `"12"`)."""
    digits = re.fullmatch(r"\d{1,9}", str(value), re.ASCII)
    return int(str(value)) if digits else None


def _unquoted(name: str) -> str:
    name = name.strip()
    quoted = len(name) > 2 and name[0] == name[-1] == '"'
    return name[1:-1] if quoted else name
