"""Sides that read clips of videos: the middle clip, scaled, centre crop."""

import concurrent.futures
import functools
import pathlib

import av
import numpy as np

CROP, SHORT_SIDE = 224, 256


def write_videos(folder, number, frames, size):
    """Writes H.264 files."""
    from keras_nonlocal.data import synthetic

    for index in range(number):
        rng = np.random.default_rng(index)
        synthetic.write_video(
            pathlib.Path(folder) / "all" / f"{index:03}.mp4",
            synthetic.relation_frames(synthetic.COLOURS[:2], frames, size, rng),
        )


def ours(folder, frames, step, threads):
    """`read_frames` of this package."""
    from keras_nonlocal.data import decode
    from keras_nonlocal.data import sampling
    from keras_nonlocal.data import transforms

    clip = sampling.ClipSpec(frames, step)

    def read(path):
        index = decode.scan(path)
        transform = transforms.center_transform(
            index.height, index.width, CROP, SHORT_SIDE
        )
        start = sampling.middle_start(clip, index.num_frames)
        return decode.read_frames(
            path,
            sampling.frame_indices(start, clip, index.num_frames),
            transform.short_side,
            transform,
        )

    return _over(folder, threads, read)


def our_pipeline(folder, frames, step, threads):
    """`clip_dataset` of this package, as evaluation uses it."""
    from keras_nonlocal.data.pipeline import clip_dataset
    from keras_nonlocal.data.readers.folder import read_folder
    from keras_nonlocal.data.sampling import ClipSpec

    dataset = clip_dataset(
        read_folder(folder),
        ClipSpec(frames, step),
        batch_size=4,
        training=False,
        crop_size=CROP,
        short_side=(SHORT_SIDE, SHORT_SIDE),
    )
    return lambda: sum(len(clips) for clips, _ in dataset)


def pyav(folder, frames, step, threads):
    """A plain loop over the frames of PyAV."""

    def read(path):
        with av.open(path) as container:
            stream = container.streams.video[0]
            total = stream.frames
            wanted = _wanted(total, frames, step)
            found = {}
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    height, width = _scaled(frame.height, frame.width)
                    scaled = frame.reformat(width, height, "rgb24")
                    found[number] = _crop(scaled.to_ndarray())
                if number == wanted[-1]:
                    break
        return np.stack([found[number] for number in wanted])

    return _over(folder, threads, read)


def opencv(folder, frames, step, threads):
    """OpenCV's reader, without decoding colours of frames left out."""
    import cv2

    cv2.setNumThreads(1)

    def read(path):
        video = cv2.VideoCapture(path)
        total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = _wanted(total, frames, step)
        found = []
        for number in range(wanted[-1] + 1):
            video.grab()
            if number in wanted:
                _, picture = video.retrieve()
                height, width = _scaled(*picture.shape[:2])
                picture = cv2.resize(picture, (width, height))
                found.append(cv2.cvtColor(_crop(picture), cv2.COLOR_BGR2RGB))
        video.release()
        return np.stack(found)

    return _over(folder, threads, read)


def decord(folder, frames, step, threads):
    """Decord, which scales while it decodes."""
    from decord import VideoReader

    def read(path):
        height, width = _scaled(*_size(path))
        video = VideoReader(path, width=width, height=height, num_threads=1)
        wanted = _wanted(len(video), frames, step)
        batch = video.get_batch(wanted).asnumpy()
        return np.stack([_crop(picture) for picture in batch])

    return _over(folder, threads, read)


@functools.cache
def _size(path):
    with av.open(path) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


def _over(folder, threads, read):
    paths = [str(path) for path in sorted(pathlib.Path(folder).rglob("*.mp4"))]
    if threads == 1:
        return lambda: sum(len(read(path)) > 0 for path in paths)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    return lambda: sum(len(clip) > 0 for clip in pool.map(read, paths))


def _wanted(total, frames, step):
    start = max((total - (frames - 1) * step - 1) // 2, 0)
    return [min(start + step * n, total - 1) for n in range(frames)]


def _scaled(height, width):
    factor = SHORT_SIDE / min(height, width)
    return round(height * factor), round(width * factor)


def _crop(picture):
    top = (picture.shape[0] - CROP) // 2
    left = (picture.shape[1] - CROP) // 2
    return picture[top : top + CROP, left : left + CROP]
