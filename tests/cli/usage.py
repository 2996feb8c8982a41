"""Many uses of one command in one process: importing takes seconds."""

import json
import os
import re
import subprocess
import sys

_SCRIPT = """
import importlib, json, sys
from absl import app
from absl import flags
from absl.testing import flagsaver

name = sys.argv[1]
command = importlib.import_module(name)
exec(sys.argv[2])
for arguments in json.load(sys.stdin):
    status = 0
    with flagsaver.flagsaver():
        try:
            app.run(command.main, [name, *arguments])
        except SystemExit as error:
            status = error.code
    print("status", status, flush=True)
"""


def run(command, uses, prepare=""):
    """What a command says for each of its uses, in one process.

    Args:
        command: Its name.
        uses: The arguments of each use.
        prepare: Code to run before.

    Returns:
        For each the status, 0 or more, and the output.
    """
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            _SCRIPT,
            f"keras_nonlocal.cli.{command}",
            prepare,
        ],
        input=json.dumps(list(uses)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
        timeout=300,
    )
    assert "Traceback" not in result.stdout, result.stdout
    pattern = r"^status (\d+|None)\n"
    parts = re.split(pattern, result.stdout, flags=re.MULTILINE)
    outputs, statuses = parts[:-1:2], parts[1::2]
    assert len(statuses) == len(uses), result.stdout
    # A function that returns nothing ends with status 0.
    return [
        (0 if status == "None" else int(status), output)
        for status, output in zip(statuses, outputs, strict=True)
    ]


def check_refused(command, uses):
    """Checks that a command says what is wrong with each of its uses.

    Args:
        command: Its name.
        uses: By the arguments of each use, a part of what it says.
    """
    check_said(uses, run(command, uses))


def check_said(uses, said):
    """The same of uses that were run already, by what `run` returned."""
    for (arguments, message), (status, output) in zip(
        uses.items(), said, strict=True
    ):
        assert status == 1 and message in output, (arguments, output)
