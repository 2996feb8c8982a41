"""An example of videos with groups: forwards or backwards?

    python -m zoo.studies.own_videos.arrow_of_time --clips clips \
        --out runs/arrow
    python -m zoo.studies.own_videos --data runs/arrow/videos.csv \
        --groups source --folds 6 --out runs/arrow/study

Cuts short segments from each video of a folder and writes each of them twice,
as it is and with its frames in reverse. The class says which; the group is the
video that a segment is from. Single frames say nothing of the class.
"""

import csv
import io
import os
import pathlib
import re

import numpy as np
from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data import decode
from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.readers.folder import EXTENSIONS
from keras_nonlocal.data.synthetic import write_video

FLAGS = flags.FLAGS
CLASS_NAMES = ("backwards", "forwards")
COLUMNS = ("path", "label", "source")


def make_arrow_dataset(
    clips: str | os.PathLike[str],
    out: str | os.PathLike[str],
    num_segments: int = 6,
    num_frames: int = 32,
    short_side: int = 128,
) -> pathlib.Path:
    """Writes segments to `out/videos` and their list to `out/videos.csv`.

    Args:
        clips: Folder of videos.
        out: Folder to write to.
        num_segments: Segments of a video, spread evenly; fewer of one that is
            too short for so many side by side.
        num_frames: Frames of a segment.
        short_side: Of the segments, in pixels.

    Returns:
        Path of the list, a table of the columns `path`, `label` and `source`.

    Raises:
        ValueError: If there are less than two videos that can be read and are
            long enough.
    """
    out = pathlib.Path(out)
    rows = []
    for path in sorted(pathlib.Path(clips).iterdir()):
        if path.suffix.lower() in EXTENSIONS:
            try:
                rows += _cut(path, out, num_segments, num_frames, short_side)
            except VideoError as error:
                print(f"Left out. {error}", flush=True)
    sources = {source for *_, source in rows}
    if len(sources) < 2:
        raise ValueError(
            f"--clips must have two or more videos of {num_frames} frames. "
            f"Received: {clips} with {sorted(sources)}"
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_text(out / "videos.csv", text.getvalue())
    return out / "videos.csv"


def segment_starts(total: int, count: int, length: int) -> list[int]:
    """First frames of segments side by side, spread over a video.

    >>> segment_starts(100, 3, 20), segment_starts(50, 3, 20)
    ([0, 40, 80], [0, 30])
    """
    count = min(count, total // length)
    return np.linspace(0, total - length, count).astype(int).tolist()


def _cut(
    path: pathlib.Path,
    out: pathlib.Path,
    num_segments: int,
    num_frames: int,
    short_side: int,
) -> list[tuple[str, str, str]]:
    """Writes the segments of a video; their rows of the list."""
    # The file's name may have what a list must not.
    source = re.sub(r"\W+", "_", path.stem)
    total = decode.scan(os.fspath(path)).num_frames
    rows = []
    starts = segment_starts(total, num_segments, num_frames)
    for number, start in enumerate(starts):
        frames = decode.read_frames(
            os.fspath(path), start + np.arange(num_frames), short_side
        )
        # H.264 takes even sizes.
        height, width = (size // 2 * 2 for size in frames.shape[1:3])
        frames = frames[:, :height, :width]
        for label, step in zip(CLASS_NAMES, (-1, 1), strict=True):
            name = f"videos/{source}_{number}_{label}.mp4"
            write_video(out / name, frames[::step])
            rows.append((name, label, source))
    return rows


def main(_: list[str]) -> None:
    show_own_notes_only()
    try:
        path = make_arrow_dataset(FLAGS.clips, FLAGS.out)
    except (ValueError, OSError) as error:
        raise app.UsageError(str(error)) from error
    print(f"The list: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("clips", None, "Folder of videos to cut.")
    flags.mark_flag_as_required("clips")
    flags.DEFINE_string("out", "runs/arrow", "Folder to write to.")
    app.run(main)
