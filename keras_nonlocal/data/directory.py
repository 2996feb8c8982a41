"""The counterpart for videos of `keras.utils.image_dataset_from_directory`."""

import os
from typing import Any

import tensorflow as tf

from keras_nonlocal.data.pipeline import clip_dataset
from keras_nonlocal.data.readers.folder import read_folder
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList


def video_dataset_from_directory(
    directory: str | os.PathLike[str],
    *,
    num_frames: int = 32,
    sampling_rate: int = 2,
    rule: str = "paper",
    short: str | None = None,
    fps: float | None = None,
    batch_size: int = 8,
    crop_size: int = 224,
    short_side: tuple[int, int] = (256, 320),
    validation_split: float | None = None,
    subset: str | None = None,
    shuffle: bool = True,
    seed: int = 0,
    max_skipped: float = 1.0,
    **options: Any,
) -> tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]:
    """Makes clips from `directory/CLASS/*.mp4`.

    The counterpart for videos of `keras.utils.image_dataset_from_directory`:

    ```python
    train, validation = video_dataset_from_directory(
        "videos", validation_split=0.2, subset="both"
    )
    # Keras is not to shuffle: the data set does.
    model.fit(train, validation_data=validation, shuffle=False)
    ```

    Args:
        directory: Folder with one folder of videos per class.
        num_frames: Frames of a clip.
        sampling_rate: Step between them, in frames of the video.
        rule: Whose code decides where clips are, as `ClipSpec` says.
        short: What follows the end of a shorter video, as `ClipSpec` says.
        fps: Frames per second that videos are brought to first; `None` takes
            their own frames.
        batch_size: Clips of a batch.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side of the rescaled video.
        validation_split: Share of every class to keep for validation.
        subset: With `validation_split`, one of "training", "validation" and
            "both".
        shuffle: Whether to shuffle and augment, as in training. The
            validation subset never is.
        seed: Seed of the split and of everything random.
        max_skipped: Share of clips that cannot be read above which reading
            ends with an error: `max_share` of `SkipLog`.
        **options: Further arguments of `clip_dataset`: `flip`, `augment`,
            `num_workers` and others, but not `skips`, which is made here.

    Returns:
        A data set as of `clip_dataset`, or for "both" two of them. Each has
        the attributes `class_names`, in the order of the labels, and `skips`,
        a `SkipLog`.

    Raises:
        TypeError: If `clip_dataset` has no such option.
        ValueError: If an argument is out of range, or the folder is not as
            expected.
    """
    _check_subset(validation_split, subset)
    videos = read_folder(directory)
    clip = ClipSpec(num_frames, sampling_rate, rule, short, fps)

    def make(part: VideoList, training: bool) -> tf.data.Dataset:
        skips = SkipLog(max_skipped)
        dataset = clip_dataset(
            part,
            clip,
            batch_size=batch_size,
            training=training,
            crop_size=crop_size,
            short_side=short_side,
            seed=seed,
            skips=skips,
            **options,
        )
        dataset.class_names = list(videos.class_names)
        dataset.skips = skips
        return dataset

    if validation_split is None:
        return make(videos, shuffle)
    train, validation = videos.split(validation_split, seed)
    if subset == "training":
        return make(train, shuffle)
    if subset == "validation":
        return make(validation, False)
    return make(train, shuffle), make(validation, False)


def _check_subset(validation_split: float | None, subset: str | None) -> None:
    subsets = ("training", "validation", "both")
    if validation_split is None and subset is not None:
        raise ValueError(
            "`subset` needs `validation_split`. "
            f"Received: subset={subset!r}, validation_split=None"
        )
    if validation_split is not None and subset not in subsets:
        raise ValueError(
            f"`subset` must be one of {subsets} with `validation_split`. "
            f"Received: subset={subset!r}"
        )
