"""The public names and signatures; the golden file is their review.

After a wanted change: `python tests/test_public_api.py` writes it anew.
"""

import dataclasses
import importlib.util
import inspect
import pathlib
import subprocess
import sys

import pytest

import keras_nonlocal

GOLDEN = pathlib.Path(__file__).parent / "golden" / "public_api.txt"


def describe():
    lines = []
    for name in sorted(keras_nonlocal.__all__):
        value = getattr(keras_nonlocal, name)
        if not callable(value):
            lines.append(f"{name}: {type(value).__name__}")
            continue
        signature = inspect.signature(value)
        parameters = [str(p) for p in signature.parameters.values()]
        body = "".join(f"\n    {parameter}," for parameter in parameters)
        lines.append(f"{name}({body}\n)")
    return "\n".join(lines) + "\n"


def test_signatures_are_the_golden_ones():
    assert describe() == GOLDEN.read_text()


def test_everything_public_has_a_docstring_with_its_arguments():
    for name in keras_nonlocal.__all__:
        value = getattr(keras_nonlocal, name)
        if not callable(value):
            continue
        doc = inspect.getdoc(value)
        assert doc, name
        if dataclasses.is_dataclass(value):
            # Fields of a base are described there.
            doc += "".join(base.__doc__ for base in value.__mro__[1:-1])
        for parameter in inspect.signature(value).parameters:
            if parameter not in ("kwargs", "args"):
                assert f"{parameter}:" in doc, f"{name}: {parameter}"


def test_networks_do_not_import_tensorflow_on_another_backend():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("the package without TensorFlow needs JAX here")
    code = (
        "import os, sys; os.environ['KERAS_BACKEND'] = 'jax'\n"
        "from keras_nonlocal import C2D50, ClipSpec\n"
        "sys.exit('tensorflow' in sys.modules or 'av' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    GOLDEN.write_text(describe())
