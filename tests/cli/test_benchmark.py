import re
import subprocess
import sys

import pytest

from keras_nonlocal.data import synthetic
from tests.cli import usage


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    synthetic.make_relation_dataset(
        folder, num_train=8, num_test=2, num_frames=16, size=32, progress=False
    )
    return folder / "train"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "keras_nonlocal.cli.benchmark", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )


def test_tells_whether_training_will_wait(videos):
    result = run(
        "input",
        f"--data={videos}",
        "--variant=small_c2d",
        "--clip=4x2",
        "--batch_size=6",
        "--crop_size=32",
        "--short_side=32,32",
        "--seconds=0.5",
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"Input: [\d.]+ clips of 4x2 a second", lines[0])
    assert re.fullmatch(r"  \d+ ms of processor time each", lines[1])
    assert re.fullmatch(r"Training small_c2d: [\d.]+ clips a second", lines[2])
    assert re.match(r"The input gives [\d.]+ times the clips", lines[3])


def test_says_what_is_wrong(videos):
    data = ("input", f"--data={videos}")
    uses = {
        ("output", "--data=x"): "name what to measure: input. Received: output",
        ("input", "--data=x", "--variant=y"): "--variant must be among",
        ("input", "--data=x"): "--data: `path`",
        (*data, "--variant="): "give --clip where --variant is empty",
        (*data, "--clip=foo"): "--clip: `text` must be frames and sampling",
        (*data, "--short_side=128"): "Received: 128",
        (*data, "--crop_size=300"): "crop_size=300",
        (*data, "--seconds=0"): "--seconds=0",
        (*data, "--batch_size=9"): "--data: `videos` must have at least 9",
    }
    usage.check_refused("benchmark", uses)
