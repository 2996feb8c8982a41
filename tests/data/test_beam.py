import pathlib
import sys

import pytest

from keras_nonlocal.data.beam import shard_pipeline
from keras_nonlocal.data.shard_writer import write_shards

SETTINGS = {"num_shards": 3, "short_side": 24, "quality": 80}


def content(folder):
    return {
        path.name: path.read_bytes()
        for path in pathlib.Path(folder).iterdir()
        if path.name != ".lock"
    }


def test_pipeline_writes_the_same_files(relation, tmp_path):
    pytest.importorskip(
        "apache_beam",
        reason="Apache Beam is not installed; `make test-beam` runs this",
    )
    videos = relation[0]
    index = shard_pipeline(videos, tmp_path / "beam", **SETTINGS)
    assert index.videos().paths == videos.paths
    write_shards(videos, tmp_path / "ours", progress=False, **SETTINGS)
    assert content(tmp_path / "beam") == content(tmp_path / "ours")
    # Again there is nothing to do but to check and to mend.
    damaged = tmp_path / "beam" / "shard-00001-of-00003.tfrecord"
    damaged.write_bytes(b"damaged")
    shard_pipeline(videos, tmp_path / "beam", **SETTINGS)
    assert content(tmp_path / "beam") == content(tmp_path / "ours")


def test_without_beam_it_says_what_to_install(relation, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"keras-nonlocal\[beam\]"):
        shard_pipeline(relation[0], tmp_path, **SETTINGS)
