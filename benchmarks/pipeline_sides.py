"""Sides that read one clip of each video: scaled, centre crop.

Every side reads the same frames of the same files: of each video the clip that
begins at a random place of its own, or the middle one.
"""

import concurrent.futures
import functools
import pathlib

import av
import numpy as np

CROP, SHORT_SIDE = 224, 256


def write_videos(folder, number, frames, gop):
    """Writes H.264 files of 340x256 pixels: drifting waves and noise."""
    folder = pathlib.Path(folder) / "all"
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        with av.open(str(folder / f"{index:03}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height = 340, 256
            stream.pix_fmt = "yuv420p"
            stream.options = {"g": str(gop), "preset": "veryfast", "crf": "23"}
            for picture in _pictures(frames, index):
                frame = av.VideoFrame.from_ndarray(picture)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def _pictures(number, seed):
    rng = np.random.default_rng(seed)
    # Waves in squares of four pixels: making the videos is not what counts.
    rows, columns = np.mgrid[:64, :85].astype("float32")
    waves = rng.normal(0, 0.3, (6, 3)).astype("float32")
    colours = rng.normal(0, 20, (6, 3)).astype("float32")
    noise = rng.normal(0, 12, (256, 340, 1)).astype("float32")
    for time in range(number):
        phases = [a * rows + b * columns + c * time for a, b, c in waves]
        picture = 128 + np.sin(np.stack(phases, axis=-1)) @ colours
        picture = picture.repeat(4, axis=0).repeat(4, axis=1)
        picture += np.roll(noise, (time, 2 * time), (0, 1))
        yield np.clip(picture, 0, 255).astype("uint8")


def ours(folder, frames, step, threads, middle, rounds):
    """`read_clip` of this package."""
    from keras_nonlocal.data.clips import ClipRequest
    from keras_nonlocal.data.clips import read_clip
    from keras_nonlocal.data.sampling import ClipSpec

    clip, sides = ClipSpec(frames, step), (SHORT_SIDE, SHORT_SIDE)

    def read(path):
        # In the middle of the picture.
        units = None if middle else (_unit(path), 0.0, 0.5, 0.5, 1.0)
        return read_clip(
            ClipRequest(path, clip, CROP, sides, units=units)
        ).frames

    return _over(folder, threads, rounds, read)


def our_pipeline(folder, frames, step, threads, middle, rounds):
    """`clip_dataset` of this package."""
    from keras_nonlocal.data.pipeline import clip_dataset
    from keras_nonlocal.data.readers.folder import read_folder

    videos = read_folder(folder)
    return _batches(clip_dataset, videos, frames, step, threads, rounds)


def our_shards(folder, frames, step, threads, middle, rounds):
    """`read_shards` of this package."""
    from keras_nonlocal.data.shards import read_shards

    folder = f"{folder}-shards"
    return _batches(read_shards, folder, frames, step, threads, rounds)


def write_shards(folder):
    """Writes the videos of a folder as shards, beside it."""
    from keras_nonlocal.data.readers.folder import read_folder
    from keras_nonlocal.data.shard_writer import write_shards

    write_shards(read_folder(folder), f"{folder}-shards", num_shards=2)


def _batches(make, source, frames, step, threads, rounds):
    from keras_nonlocal.data.sampling import ClipSpec

    dataset = make(
        source,
        ClipSpec(frames, step),
        batch_size=4,
        training=False,
        crop_size=CROP,
        short_side=(SHORT_SIDE, SHORT_SIDE),
        # As an early clip holds up later ones, more at a time than cores.
        num_parallel_calls=2 * threads,
    ).repeat(rounds)
    return lambda: sum(len(clips) for clips, _ in dataset)


def pyav(folder, frames, step, threads, middle, rounds):
    """PyAV: from the keyframe before the clip on, by presentation times."""

    def read(path):
        with av.open(path) as container:
            stream = container.streams.video[0]
            wanted = _wanted(path, stream.frames, frames, step, middle)
            ticks = 1 / (stream.average_rate * stream.time_base)
            container.seek(int(wanted[0] * ticks), stream=stream)
            found = {}
            for frame in container.decode(stream):
                number = round(frame.pts / ticks)
                if number in wanted:
                    height, width = _scaled(frame.height, frame.width)
                    scaled = frame.reformat(width, height, "rgb24")
                    found[number] = _crop(scaled.to_ndarray())
                if number >= wanted[-1]:
                    break
        return np.stack([found[number] for number in wanted])

    return _over(folder, threads, rounds, read)


def opencv(folder, frames, step, threads, middle, rounds):
    """OpenCV's reader, without the colours of frames left out."""
    import cv2

    cv2.setNumThreads(1)

    def read(path):
        video = cv2.VideoCapture(
            path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]
        )
        total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = _wanted(path, total, frames, step, middle)
        video.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        found = []
        for number in range(wanted[0], wanted[-1] + 1):
            video.grab()
            if number in wanted:
                _, picture = video.retrieve()
                height, width = _scaled(*picture.shape[:2])
                picture = cv2.resize(picture, (width, height))
                found.append(cv2.cvtColor(_crop(picture), cv2.COLOR_BGR2RGB))
        video.release()
        return np.stack(found)

    return _over(folder, threads, rounds, read)


def decord(folder, frames, step, threads, middle, rounds):
    """Decord, which scales while it decodes."""
    from decord import VideoReader

    def read(path):
        height, width = _scaled(*_size(path))
        video = VideoReader(path, width=width, height=height, num_threads=1)
        wanted = _wanted(path, len(video), frames, step, middle)
        batch = video.get_batch(wanted).asnumpy()
        return np.stack([_crop(picture) for picture in batch])

    return _over(folder, threads, rounds, read)


def torchcodec(folder, frames, step, threads, middle, rounds):
    """Torchcodec, on one thread a video, scaled by OpenCV."""
    import cv2
    from torchcodec.decoders import VideoDecoder

    cv2.setNumThreads(1)

    def read(path):
        video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
        wanted = _wanted(path, len(video), frames, step, middle)
        batch = video.get_frames_at(wanted).data.numpy()
        height, width = _scaled(*batch.shape[1:3])
        return np.stack([_crop(cv2.resize(x, (width, height))) for x in batch])

    return _over(folder, threads, rounds, read)


@functools.cache
def _size(path):
    with av.open(path) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


def _over(folder, threads, rounds, read):
    paths = [str(path) for path in sorted(pathlib.Path(folder).rglob("*.mp4"))]
    paths *= rounds
    if threads == 1:
        return lambda: sum(len(read(path)) > 0 for path in paths)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    return lambda: sum(len(clip) > 0 for clip in pool.map(read, paths))


def _unit(path):
    """Where the clip of a video begins, as a share of what is possible."""
    return np.random.default_rng(int(pathlib.Path(path).stem)).random()


def _wanted(path, total, frames, step, middle):
    last = total - frames * step
    start = last // 2 if middle else int(_unit(path) * (last + 1))
    return [start + step * number for number in range(frames)]


def _scaled(height, width):
    factor = SHORT_SIDE / min(height, width)
    return round(height * factor), round(width * factor)


def _crop(picture):
    top = (picture.shape[0] - CROP) // 2
    left = (picture.shape[1] - CROP) // 2
    return picture[top : top + CROP, left : left + CROP]
