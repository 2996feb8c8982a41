"""Prints the flags of all commands as JSON, by command.

python -m docs.command_flags

They are asked of absl, which prints them for `--help`. A process of its own:
commands have flags of the same names, so that each is forgotten before the
next is imported.
"""

import importlib
import json
import pathlib
import sys

from absl import flags

import keras_nonlocal.cli as cli


def commands() -> list[str]:
    """The names of all commands."""
    folder = pathlib.Path(cli.__file__).parent
    return sorted(
        file.stem
        for file in folder.glob("*.py")
        if "\ndef main(" in file.read_text(encoding="utf-8")
    )


def flags_of(command: str) -> list[dict[str, str]]:
    """Name, default, values and help of every flag, a command's own first."""
    module = importlib.import_module(f"{cli.__name__}.{command}")
    found = flags.FLAGS.get_key_flags_for_module(module)
    described = [_described(flag) for flag in found]
    _forget()
    return described


def _described(flag: flags.Flag) -> dict[str, str]:
    values = getattr(flag.parser, "enum_values", None) or []
    # absl puts them before the help.
    prefix = f"<{'|'.join(values)}>: "
    return {
        "name": flag.name,
        "default": _shown(flag.default),
        "values": ", ".join(values),
        "help": " ".join((flag.help or "").removeprefix(prefix).split()),
    }


def _shown(default: object) -> str:
    """A default as one would write it after the flag."""
    if default is None:
        return ""
    if isinstance(default, (list, tuple)):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def _forget() -> None:
    """Forgets the command with its flags and the modules that define them."""
    own = [name for name in sys.modules if name.startswith(f"{cli.__name__}.")]
    by_module = flags.FLAGS.flags_by_module_dict()
    for name in own:
        for flag in list(by_module.get(name, [])):
            delattr(flags.FLAGS, flag.name)
        del sys.modules[name]
        delattr(cli, name.rpartition(".")[2])


if __name__ == "__main__":
    print(json.dumps({command: flags_of(command) for command in commands()}))
