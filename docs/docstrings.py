"""What the reference needs beside docstrings as they are in the source.

Examples become code, as Markdown takes `>>>` for a quotation; functions that
another function makes are described as they are once they are made.
"""

import importlib
import re
from typing import Any

import griffe

# A paragraph that begins with a prompt.
_EXAMPLE = re.compile(r"^( *)>>> .*?(?=\n *\n|\Z)", re.M | re.S)


class Examples(griffe.Extension):
    """Puts the examples of all docstrings into blocks of code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object that was read."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


class Made(griffe.Extension):
    """Looks at the constructors of video networks at run time."""

    def on_package(
        self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any
    ) -> None:
        """Called once the package was read."""
        module = pkg["models.video"]
        importlib.import_module(module.path)  # griffe has paths of its own.
        made = griffe.inspect(
            module.name,
            filepath=module.filepath,
            parent=module.parent,
            extensions=loader.extensions,
        )
        for name, constructor in made.functions.items():
            if name in module.attributes:
                module.set_member(name, constructor)


def _fenced(match: re.Match[str]) -> str:
    indent = match[1]
    return f"{indent}```pycon\n{match[0]}\n{indent}```"
