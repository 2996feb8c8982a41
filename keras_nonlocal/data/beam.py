"""Shards written by an Apache Beam pipeline, on many machines for example."""

import functools
import os
from typing import Any

from keras_nonlocal.data.shard_index import ShardIndex
from keras_nonlocal.data.shard_index import ShardSettings
from keras_nonlocal.data.shard_writer import TIME_LIMIT
from keras_nonlocal.data.shard_writer import check_reading
from keras_nonlocal.data.shard_writer import claimed
from keras_nonlocal.data.shard_writer import finish
from keras_nonlocal.data.shard_writer import write_shard
from keras_nonlocal.data.videos import VideoList


def shard_pipeline(
    videos: VideoList,
    out: str | os.PathLike[str],
    *,
    num_shards: int | None = None,
    short_side: int | None = 256,
    quality: int = 90,
    fps: float | None = None,
    decoder: str = "auto",
    time_limit: float = TIME_LIMIT,
    overwrite: bool = False,
    options: Any = None,
) -> ShardIndex:
    """Writes the shards of `write_shards`, the same files, with Apache Beam.

    A shard is the unit of work. All workers must see the videos and `out`
    under the same paths, and have this package. What is interrupted goes on
    where it was, with `write_shards` too.

    Args:
        videos: The videos.
        out: Folder to write to; made if missing. One pipeline at a time.
        num_shards: Number of files; by default one for 32 videos.
        short_side: As in `write_shards`.
        quality: As in `write_shards`.
        fps: As in `write_shards`.
        decoder: As in `write_shards`.
        time_limit: Seconds that reading one video may take. A file that stops
            inside one call of the decoder cannot be abandoned.
        overwrite: As in `write_shards`.
        options: The `PipelineOptions`, which say where it runs; `None` for
            this machine.

    Returns:
        The index, as of `write_shards`.

    Raises:
        ImportError: If Apache Beam is not installed.
        ValueError: As `write_shards` does.
    """
    try:
        import apache_beam as beam
    except ImportError as error:
        raise ImportError(
            "`shard_pipeline` needs Apache Beam: "
            "pip install 'keras-nonlocal[beam]'"
        ) from error

    settings = ShardSettings(short_side, quality, fps)
    check_reading(decoder, time_limit)
    write = functools.partial(write_shard, decoder=decoder, seconds=time_limit)
    with claimed(
        videos, out, settings, decoder, num_shards, overwrite
    ) as tasks:
        with beam.Pipeline(options=options) as pipeline:
            # Without the shuffle a runner may give all of it to one worker.
            _ = (
                pipeline
                | beam.Create(tasks)
                | beam.Reshuffle()
                | beam.Map(write)
            )
        return finish(videos, out, settings, tasks)
