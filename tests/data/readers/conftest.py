"""Empty files that stand for videos."""

import pytest


@pytest.fixture
def touch(tmp_path):
    """Makes empty files in `tmp_path`, with their folders."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


@pytest.fixture
def official(shared):
    """Reads an excerpt of an official annotation file."""
    return lambda name: (shared / "data" / "annotations" / name).read_text(
        "utf-8"
    )
