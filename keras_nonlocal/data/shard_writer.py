"""Writes videos as TFRecord files of JPEG frames."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed

import filelock
import keras
import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decoders import check_decoder
from keras_nonlocal.data.shard_index import FOOTER_BYTES
from keras_nonlocal.data.shard_index import HEADER_BYTES
from keras_nonlocal.data.shard_index import INDEX_NAME
from keras_nonlocal.data.shard_index import SHARD_NAME
from keras_nonlocal.data.shard_index import VERSION
from keras_nonlocal.data.shard_index import Shard
from keras_nonlocal.data.shard_index import ShardIndex
from keras_nonlocal.data.shard_index import ShardSettings
from keras_nonlocal.data.shard_index import ShardVideo
from keras_nonlocal.data.shard_index import file_sha256
from keras_nonlocal.data.shard_index import is_intact
from keras_nonlocal.data.shard_index import read_shard
from keras_nonlocal.data.shard_video import Part
from keras_nonlocal.data.shard_video import PartRequest
from keras_nonlocal.data.shard_video import read_part
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.data.worker import WorkerDied
from keras_nonlocal.data.worker import WorkerPool
from keras_nonlocal.data.worker import WorkerTimeout

# Seconds that a video may take.
TIME_LIMIT = 600.0
# Of ten seconds each, they make a file of a few hundred megabytes.
_VIDEOS_PER_SHARD = 32
# A worker ends itself when time is up; it is killed where it does not.
_GRACE = 5.0
# A record is read as a whole, and protocol buffers end at twice this.
_MAX_RECORD_BYTES = 2**30
_MANIFEST_NAME = "settings.json"
_RESULTS = re.compile(rf"{SHARD_NAME}\.(tfrecord|json)|{INDEX_NAME}")
# The second is what `write_json` has not finished.
_UNFINISHED = re.compile(
    rf"{SHARD_NAME}\.part|({SHARD_NAME}|index|settings)\.json\.\d+\.part"
)


def write_shards(
    videos: VideoList,
    out: str | os.PathLike[str],
    *,
    num_shards: int | None = None,
    short_side: int | None = 256,
    quality: int = 90,
    fps: float | None = None,
    decoder: str = "auto",
    num_workers: int = 0,
    time_limit: float = TIME_LIMIT,
    overwrite: bool = False,
    progress: bool = True,
) -> ShardIndex:
    """Writes videos as TFRecord files, for `read_shards`.

    A record is a `tf.train.Example` of one video, or of its segment, with the
    features that `make_example` lists. Frames are upright, in RGB and JPEG:
    quick to read, on any machine that has TensorFlow, and at `quality` 90
    five to ten times the size of the videos.

    It can be interrupted at any time, by `kill -9` too: called again, it keeps
    the shards that are finished and whole, and ends with the files that it
    would have written undisturbed. Shards with videos that were missing, took
    too long or ended the process that read them are written anew; for other
    videos that could not be read `overwrite` does it.

    Args:
        videos: The videos. Their files must stay as they are meanwhile.
        out: Folder to write to; made if missing. One process at a time.
        num_shards: Number of files; by default one for 32 videos.
        short_side: Shorter side that larger videos are rescaled to, in pixels;
            `None` keeps their size.
        quality: Of the JPEG compression, 1 to 100. 100 also keeps the colours
            in full resolution.
        fps: Frames per second that the videos are brought to, by their times;
            `None` keeps their own frames.
        decoder: What reads the videos: a name of
            `keras_nonlocal.data.decoders.DECODERS`, or `"auto"`.
        num_workers: Processes that read. 0 reads in threads, which is faster;
            there a file that stops inside one call of the decoder cannot be
            abandoned. A process is killed when time is up.
        time_limit: Seconds that reading one video may take.
        overwrite: Whether to delete the shards that `out` has and to start
            anew.
        progress: Whether to show a progress bar.

    Returns:
        The index, which is in `out` as `index.json` as well. Videos that cannot
        be read are left out and among the `problems` of its `videos()`.

    Raises:
        ValueError: If an argument is out of range, `out` has shards of another
            list or of other settings or files that are not of `write_shards`,
            another process is writing there, or no video can be read.
    """
    settings = ShardSettings(short_side, quality, fps)
    check_reading(decoder, time_limit)
    if num_workers < 0:
        raise ValueError(
            "`num_workers` must be 0 or more. "
            f"Received: num_workers={num_workers}"
        )
    with (
        claimed(videos, out, settings, decoder, num_shards, overwrite) as tasks,
        _reader(num_workers, time_limit) as read,
    ):
        work = functools.partial(
            write_shard, read=read, decoder=decoder, seconds=time_limit
        )
        bar = keras.utils.Progbar(
            len(videos), verbose=int(progress), unit_name="video"
        )
        with ThreadPoolExecutor(num_workers or os.cpu_count()) as threads:
            running = {threads.submit(work, task): task for task in tasks}
            try:
                for done in as_completed(running):
                    done.result()
                    bar.add(len(running[done].videos))
            except BaseException:
                # Or else a Ctrl-C would wait for all the shards.
                read.stop()
                threads.shutdown(cancel_futures=True)
                raise
        return finish(videos, out, settings, tasks)


def check_reading(decoder: str, time_limit: float) -> None:
    """Raises `ValueError` for a decoder or a limit that there cannot be."""
    check_decoder(decoder)
    if not time_limit > 0:
        raise ValueError(
            f"`time_limit` must be positive. Received: time_limit={time_limit}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ShardTask:
    """One shard to write.

    Attributes:
        path: The file.
        videos: What goes into it.
        settings: What the frames are to be like.
    """

    path: pathlib.Path
    videos: VideoList
    settings: ShardSettings

    @property
    def note(self) -> pathlib.Path:
        """The file that says what is in the shard, once it is finished."""
        return self.path.with_suffix(".json")


@contextlib.contextmanager
def claimed(
    videos: VideoList,
    out: str | os.PathLike[str],
    settings: ShardSettings,
    decoder: str,
    num_shards: int | None,
    overwrite: bool,
) -> Iterator[list[ShardTask]]:
    """Takes a folder for one list and settings, and for this process.

    Args:
        videos: The videos.
        out: The folder; made if missing.
        settings: What the frames are to be like.
        decoder: A name of `DECODERS`, or "auto".
        num_shards: Number of files; `None` for one for 32 videos.
        overwrite: Whether to delete the shards in the folder.

    Yields:
        What there is to do.

    Raises:
        ValueError: If `num_shards` is out of range, or the folder is taken or
            has files of others.
    """
    if num_shards is None:
        num_shards = -(-len(videos) // _VIDEOS_PER_SHARD)
    if not 1 <= num_shards <= len(videos):
        raise ValueError(
            f"`num_shards` must be from 1 to the {len(videos)} videos. "
            f"Received: num_shards={num_shards}"
        )
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        held = lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            "`out` must be a folder that no other process writes shards to. "
            f"Received: out={folder}"
        ) from error
    with held:
        manifest = _manifest(videos, settings, decoder, num_shards)
        _claim(folder, manifest, overwrite)
        yield [
            ShardTask(
                folder / f"shard-{number:05}-of-{num_shards:05}.tfrecord",
                videos.subset(part),
                settings,
            )
            for number, part in enumerate(
                np.array_split(np.arange(len(videos)), num_shards)
            )
        ]


def write_shard(
    task: ShardTask,
    read: Callable[[PartRequest], Part] = read_part,
    decoder: str = "auto",
    seconds: float = TIME_LIMIT,
) -> None:
    """Writes a shard and the note beside it, unless they are there.

    Args:
        task: The shard.
        read: What reads parts of videos.
        decoder: A name of `DECODERS`, or "auto".
        seconds: Time limit for one video.
    """
    if _is_finished(task):
        return
    task.note.unlink(missing_ok=True)
    part = task.path.with_suffix(".part")
    try:
        shard = _write_records(part, task, read, decoder, seconds)
        os.replace(part, task.path)
    except BaseException:
        # What a full disk has room for is of no use.
        part.unlink(missing_ok=True)
        raise
    write_json(task.note, dataclasses.asdict(shard))
    _sync(task.path.parent)


def _is_finished(task: ShardTask) -> bool:
    note = read_shard(task.note)
    if note is None or any(row.retry for row in note.videos):
        return False
    return is_intact(task.path.parent, note, checksum=True)


def _write_records(
    part: pathlib.Path,
    task: ShardTask,
    read: Callable[[PartRequest], Part],
    decoder: str,
    seconds: float,
) -> Shard:
    """Writes what is to be a shard to the file `part`."""
    rows, offset = [], 0
    with tf.io.TFRecordWriter(os.fspath(part)) as writer:
        for number in range(len(task.videos)):
            request = PartRequest(
                task.videos.paths[number],
                task.settings,
                task.videos.segment(number),
                decoder=decoder,
                fps=task.videos.fps,
                timed=task.videos.actions is not None,
            )
            row, record = make_record(
                task.videos, number, request, read, seconds
            )
            if record is not None:
                writer.write(record)
                row = dataclasses.replace(
                    row, offset=offset, length=len(record)
                )
                offset += HEADER_BYTES + len(record) + FOOTER_BYTES
            rows.append(row)
    shard = Shard(task.path.name, offset, file_sha256(part), tuple(rows))
    if part.stat().st_size != offset:
        raise OSError(f"{part} was changed while it was written")
    _sync(part)
    return shard


def make_record(
    videos: VideoList,
    number: int,
    request: PartRequest,
    read: Callable[[PartRequest], Part],
    seconds: float,
) -> tuple[ShardVideo, bytes | None]:
    """Reads and encodes one video.

    Args:
        videos: The list.
        number: Number of the video in it.
        request: How to read the video.
        read: What reads parts of it.
        seconds: Time limit.

    Returns:
        What the index says of it, and a serialized `tf.train.Example`; `None`
        for the latter if it cannot be read.
    """
    row = ShardVideo(
        videos.paths[number],
        tuple(_classes(videos, number)),
        _json_segment(videos.segment(number)),
        None
        if videos.actions is None
        else tuple(tuple(row) for row in videos.actions[number].tolist()),
    )
    try:
        part, frames = _read_all(request, read, seconds)
    except VideoError as error:
        logging.warning("Left out a video. %s", error)
        retry = isinstance(error, _MAY_PASS) or not os.path.exists(row.path)
        row = dataclasses.replace(row, problem=str(error), retry=retry)
        return row, None
    row = dataclasses.replace(
        row,
        num_frames=len(part.timeline),
        fps=part.fps,
        height=part.height,
        width=part.width,
    )
    example = make_example(row, part, frames)
    return row, example.SerializeToString(deterministic=True)


def make_example(
    row: ShardVideo, part: Part, frames: Sequence[bytes]
) -> tf.train.Example:
    """A record.

    Its features are:

    - `frames`: JPEG files, in order;
    - `timeline`: for each place of the video's timeline, the number of the
      frame that is there;
    - `times`: seconds in the file of each frame, little-endian float64, NaN
      if unknown;
    - `path`, `fps` (0.0 if unknown), and `height` and `width` of the video
      itself;
    - `labels`: the numbers of its classes;
    - `actions`: little-endian float64, class number, start and end in seconds
      of one after the other;
    - `segment`: start and end in seconds, if the video is a part of a file.

    Args:
        row: What the index says of the video.
        part: Times and timeline of the video.
        frames: The JPEG files.
    """
    actions = np.array(row.actions or (), "<f8")
    segment = np.array(row.segment or (), "float32")
    features = {
        "frames": _bytes(*frames),
        "timeline": _integers(part.timeline),
        "times": _bytes(part.times.astype("<f8").tobytes()),
        "path": _bytes(os.fsencode(row.path)),
        "fps": _floats([row.fps]),
        "height": _integers([row.height]),
        "width": _integers([row.width]),
        "labels": _integers(row.labels),
        "actions": _bytes(actions.tobytes()),
        "segment": _floats(segment),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def finish(
    videos: VideoList,
    out: str | os.PathLike[str],
    settings: ShardSettings,
    tasks: Sequence[ShardTask],
) -> ShardIndex:
    """Writes the index of shards that are all written.

    Raises:
        ValueError: If no video could be read, or a shard is not there.
    """
    notes = [read_shard(task.note) for task in tasks]
    shards = tuple(note for note in notes if note is not None)
    if len(shards) < len(tasks):
        raise ValueError(
            f"`out` must have {len(tasks)} shards. "
            f"Received: {len(shards)} in {os.fspath(out)}"
        )
    index = ShardIndex(
        os.fspath(out),
        settings,
        videos.class_names,
        videos.multi_label,
        shards,
        videos.fps,
    )
    rows = list(index.rows())
    if all(row.problem is not None for row in rows):
        for task in tasks:
            task.note.unlink()
        raise ValueError(
            f"At least one of the {len(rows)} videos must be readable. "
            f"Received none, for example {rows[0].problem}"
        )
    write_json(pathlib.Path(out, INDEX_NAME), index.to_json())
    return index


class _CrashError(VideoError):
    """A video whose reading has ended the process, or run out of memory."""


# Another time, with more of what was scarce, such videos may be readable.
_MAY_PASS = (TimeLimitError, _CrashError)


class _Reader:
    """Reads parts of videos until it is stopped."""

    def __init__(self, function: Callable[[PartRequest], Part]) -> None:
        self._function = function
        self._stopped = threading.Event()

    def __call__(self, request: PartRequest) -> Part:
        if self._stopped.is_set():
            raise RuntimeError("Interrupted.")
        try:
            return self._function(request)
        except WorkerTimeout as error:
            raise TimeLimitError(f"{request.path}: {error}") from error
        except WorkerDied as error:
            raise _CrashError(f"{request.path}: {error}") from error

    def stop(self) -> None:
        self._stopped.set()


@contextlib.contextmanager
def _reader(num_workers: int, seconds: float) -> Iterator[_Reader]:
    if not num_workers:
        yield _Reader(read_part)
        return
    target = "keras_nonlocal.data.shard_video:read_part"
    with WorkerPool(target, num_workers, seconds + _GRACE) as pool:
        yield _Reader(pool.call)


def _read_all(
    request: PartRequest, read: Callable[[PartRequest], Part], seconds: float
) -> tuple[Part, list[bytes]]:
    """The last part, and the frames of all as JPEG."""
    deadline = time.monotonic() + seconds
    frames: list[bytes] = []
    num_bytes = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeLimitError(
                f"{request.path}: not read within the limit of {seconds:g} s"
            )
        part = _read_one(
            dataclasses.replace(request, first=len(frames), seconds=left), read
        )
        for frame in part.frames:
            frames.append(_jpeg(frame, request.settings.quality))
            num_bytes += len(frames[-1])
        if num_bytes > _MAX_RECORD_BYTES:
            raise VideoError(
                f"{request.path}: more than {_MAX_RECORD_BYTES} bytes of "
                "frames; give the list `segments`"
            )
        if len(frames) == len(part.times):
            return part, frames


def _read_one(
    request: PartRequest, read: Callable[[PartRequest], Part]
) -> Part:
    """A part; whatever is wrong with the video is a `VideoError`."""
    try:
        return read(request)
    except VideoError:
        raise
    except ValueError as error:
        raise VideoError(f"{request.path}: {error}") from error
    except MemoryError as error:
        raise _CrashError(f"{request.path}: out of memory") from error


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    with tf.device("CPU:0"):
        return tf.io.encode_jpeg(
            frame,
            format="rgb",
            quality=quality,
            chroma_downsampling=quality < 100,
        ).numpy()


def _claim(folder: pathlib.Path, manifest: dict, overwrite: bool) -> None:
    """Notes whose shards a folder has, first of all, and checks it after."""
    path = folder / _MANIFEST_NAME
    found = _read_manifest(path)
    if found is None:
        _check_unused(folder)
    elif found != manifest and not overwrite:
        changes = [key for key in manifest if found.get(key) != manifest[key]]
        raise ValueError(
            "`out` must be a new folder or one begun with the same list and "
            f"settings, or `overwrite` be true. Received: {folder}, begun with "
            f"other {', '.join(changes)}: {found}"
        )
    _delete(folder, _UNFINISHED)
    if overwrite:
        _delete(folder, _RESULTS)
    if found != manifest:
        write_json(path, manifest)


def _read_manifest(path: pathlib.Path) -> dict | None:
    """What `write_shards` has noted of a folder, `None` if it was not here."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"num_shards", "videos"} <= {*found}:
        raise ValueError(
            "`out` must be a new folder or one of `write_shards`, whose "
            f"{_MANIFEST_NAME} says what it has. Received: {path}, another or "
            "a damaged file"
        )
    return found


def _check_unused(folder: pathlib.Path) -> None:
    """Raises `ValueError` for files of others that ours would replace."""
    others = [x.name for x in folder.iterdir() if _RESULTS.fullmatch(x.name)]
    if others:
        raise ValueError(
            f"`out` must be a new folder or one with the {_MANIFEST_NAME} of "
            f"`write_shards`. Received: {folder}, without it and with "
            f"{len(others)} other files, {min(others)} for example"
        )


def _delete(folder: pathlib.Path, names: re.Pattern) -> None:
    for file in folder.iterdir():
        if names.fullmatch(file.name):
            file.unlink()


def _manifest(
    videos: VideoList, settings: ShardSettings, decoder: str, num_shards: int
) -> dict:
    digest = hashlib.sha256()
    for number, path in enumerate(videos.paths):
        row = [
            path,
            _classes(videos, number),
            videos.segment(number),
            None if videos.actions is None else videos.actions[number].tolist(),
        ]
        digest.update(json.dumps(row).encode() + b"\n")
    return {
        "version": VERSION,
        "num_shards": num_shards,
        **dataclasses.asdict(settings),
        "decoder": decoder,
        "fps_of_videos": videos.fps,
        "class_names": list(videos.class_names),
        "videos": f"{len(videos)}, sha256 {digest.hexdigest()}",
    }


def _classes(videos: VideoList, number: int) -> list[int]:
    label = videos.labels[number]
    return np.flatnonzero(label).tolist() if label.ndim else [int(label)]


def _json_segment(
    segment: tuple[float, float] | None,
) -> tuple[float, float | None] | None:
    """JSON has no NaN, the end that is open."""
    if segment is None:
        return None
    start, end = segment
    return start, None if np.isnan(end) else end


def _bytes(*values: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integers(values: Sequence[int] | np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: Sequence[float] | np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _sync(path: pathlib.Path) -> None:
    """Brings a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
