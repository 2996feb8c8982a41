"""A made-up data set whose label no local network can read.

Every video shows a coloured ball in one corner, then nothing for a quarter of
the video, then a second ball in the opposite corner; the class says whether
the two have the same colour.

A network that scores each frame, or each stretch of frames too short to see
both balls, and averages the scores is additive: its score is
`s(first colour) + r(second colour)`, and a threshold makes it a decision. If
two pairs of equal colours, `(a, a)` and `(b, b)`, are above the threshold, then
so is `(a, b)` or `(b, a)`, because both couples have the same sum. With `k` of
the 4 equal pairs above, at least `k (k - 1) / 2` of the 12 unequal ones are
too. An equal pair is 1/8 of the videos and an unequal one 1/24, so that
at most `k / 8 + (12 - k (k - 1) / 2) / 24 <= 75 %` of the labels come out
right, and likewise with "below" for "above", whatever is learnt from however
many videos. A network that relates positions far apart in space and time, such
as one with non-local blocks, can get all of them right.
"""

import concurrent.futures
import itertools
import json
import os
import pathlib
from collections.abc import Callable

import av
import keras
import numpy as np

from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.videos import VideoList

CLASS_NAMES = ("different_colour", "same_colour")
COLOURS = np.array(
    [[220, 40, 40], [40, 200, 40], [50, 70, 230], [225, 215, 40]], "float32"
)
FPS = 25
GOP = 12


def make_relation_dataset(
    root: str | os.PathLike[str],
    num_train: int,
    num_test: int,
    seed: int = 0,
    num_frames: int = 64,
    size: int = 96,
    progress: bool = True,
) -> tuple[VideoList, VideoList]:
    """Writes H.264 videos to `root/train/CLASS` and `root/test/CLASS`.

    The classes, `different_colour` and `same_colour`, take turns, and inside
    a class the pairs of colours do, so that both are balanced. Files that an
    earlier call with the same arguments wrote are kept.

    Args:
        root: Folder of the data set; made if missing.
        num_train: Videos for training.
        num_test: Videos for testing, drawn independently of the others.
        seed: Same seed, same videos.
        num_frames: Frames of every video, at least 8; 3/8 show the first
            ball, 3/8 the second.
        size: Height and width in pixels, even and at least 32.
        progress: Whether to show a progress bar.

    Returns:
        The training and the test videos, labels 0 and 1.

    Raises:
        ValueError: If an argument is out of range or `root` has a data set
            made with other arguments.
    """
    if min(num_train, num_test) < 2:
        raise ValueError(
            "`num_train` and `num_test` must be at least 2, one for each "
            f"class. Received: num_train={num_train}, num_test={num_test}"
        )
    if num_frames < 8 or size < 32 or size % 2:
        raise ValueError(
            "`num_frames` must be at least 8 and `size` even and at least "
            f"32. Received: num_frames={num_frames}, size={size}"
        )
    root = pathlib.Path(root)
    arguments = {
        "num_train": num_train,
        "num_test": num_test,
        "seed": seed,
        "num_frames": num_frames,
        "size": size,
    }
    _claim(root, arguments)
    missing = []
    for split, count in enumerate((num_train, num_test)):
        for number in range(count):
            path = _path(root, split, number)
            if not path.exists():
                missing.append((path, split, number))

    def make(path: pathlib.Path, split: int, number: int) -> None:
        rng = np.random.default_rng([seed, split, number])
        colours = COLOURS[list(_colours(number))]
        write_video(path, relation_frames(colours, num_frames, size, rng))

    _in_threads(make, missing, progress)
    return read_folder(root / "train"), read_folder(root / "test")


def relation_frames(
    colours: np.ndarray,
    num_frames: int,
    size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws one video: a ball, a gap, a ball in the opposite corner.

    Args:
        colours: RGB of the first and the second ball, shape `(2, 3)`, 0..255.
        num_frames: Frames of the video.
        size: Height and width in pixels.
        rng: Source of background, corners, sizes and paths.

    Returns:
        uint8 array of shape `(num_frames, size, size, 3)`.

    >>> rng = np.random.default_rng(0)
    >>> relation_frames(COLOURS[:2], 8, 32, rng).shape
    (8, 32, 32, 3)
    """
    shown = num_frames * 3 // 8
    background = _background(size, rng)
    frames = np.repeat(background[np.newaxis], num_frames, axis=0)
    corner = rng.integers(2, size=2)
    _draw_ball(frames[:shown], colours[0], corner, rng)
    _draw_ball(frames[num_frames - shown :], colours[1], 1 - corner, rng)
    return np.rint(frames).astype("uint8")


def write_video(path: str | os.PathLike[str], frames: np.ndarray) -> None:
    """Writes an H.264 file in mp4, complete or not at all.

    Args:
        path: The file.
        frames: uint8 RGB of shape `(num_frames, height, width, 3)`, height
            and width even.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _encode(unfinished, frames)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(path: pathlib.Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        # Without mbtree=0 some files come out a few grey levels different each
        # time the same frames are encoded.
        options = {
            "crf": "18",
            "preset": "veryfast",
            "x264-params": "mbtree=0",
        }
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = GOP
        # With more threads the result depends on how many there are.
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _claim(root: pathlib.Path, arguments: dict[str, int]) -> None:
    """Notes whose data set `root` is, first of all, and checks it after."""
    root.mkdir(parents=True, exist_ok=True)
    manifest = root / "relation.json"
    if manifest.exists():
        found = json.loads(manifest.read_text())
        if found != arguments:
            raise ValueError(
                "`root` must be a new folder or one made with the same "
                f"arguments, {arguments}. Received: {root}, made with {found}"
            )
    unfinished = root / f".relation.{os.getpid()}"
    unfinished.write_text(json.dumps(arguments, indent=2))
    os.replace(unfinished, manifest)


def _path(root: pathlib.Path, split: int, number: int) -> pathlib.Path:
    name = CLASS_NAMES[number % 2]
    return root / ("train", "test")[split] / name / f"{number:06}.mp4"


def _colours(number: int) -> tuple[int, int]:
    """Colours of the balls in video `number`, whose class is `number % 2`."""
    if number % 2:
        colour = number // 2 % len(COLOURS)
        return colour, colour
    pairs = list(itertools.permutations(range(len(COLOURS)), 2))
    return pairs[number // 2 % len(pairs)]


def _in_threads(
    make: Callable[[pathlib.Path, int, int], None],
    missing: list[tuple[pathlib.Path, int, int]],
    progress: bool,
) -> None:
    verbose = int(progress and bool(missing))
    bar = keras.utils.Progbar(len(missing), verbose=verbose, unit_name="video")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in [pool.submit(make, *task) for task in missing]:
            future.result()
            bar.add(1)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A dark smooth picture under faint noise: float32 `(size, size, 3)`."""
    coarse = rng.uniform(10, 80, (5, 5, 3))
    # Linear interpolation from 5 to `size` points, as a matrix.
    points = np.linspace(0, 4, size)[:, np.newaxis]
    weights = np.maximum(1 - np.abs(points - np.arange(5)), 0)
    smooth = np.einsum("yi,xj,ijc->yxc", weights, weights, coarse)
    noise = rng.normal(0, 4, (size, size, 3))
    return np.clip(smooth + noise, 0, 255).astype("float32")


def _draw_ball(
    frames: np.ndarray,
    colour: np.ndarray,
    corner: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Paints a moving ball into float `frames`, in the given quadrant."""
    num_frames, size = frames.shape[:2]
    radius = size / 10 * rng.uniform(0.85, 1.15)
    times = np.arange(num_frames)[:, np.newaxis]
    # Two sines keep to the quadrant, at up to 3 % of the size per frame.
    reach = size / 4 - radius
    speed = rng.uniform(0.1, 0.2, 2)
    path = np.sin(times * speed + rng.uniform(0, 2 * np.pi, 2))
    centers = size / 4 + corner * size / 2 + reach * path
    pixels = np.arange(size) + 0.5
    rows = (pixels - centers[:, :1]) ** 2
    columns = (pixels - centers[:, 1:]) ** 2
    distance = np.sqrt(rows[:, :, np.newaxis] + columns[:, np.newaxis])
    cover = np.clip(radius - distance + 0.5, 0, 1)[..., np.newaxis]
    frames += cover.astype("float32") * (colour - frames)
