"""From a video's number to a clip and its label, whatever the file is like."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_nonlocal.data.clips import Clip
from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.decode import TimeLimitError
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.labels import swap_labels
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.data.worker import WorkerDied
from keras_nonlocal.data.worker import WorkerPool
from keras_nonlocal.data.worker import WorkerTimeout

# A worker ends itself when time is up; it is killed where it does not.
_GRACE = 5.0
# So many videos one after the other that cannot be read are no accident.
_MAX_IN_A_ROW = 100


@dataclasses.dataclass(frozen=True, eq=False)
class ClipReader:
    """Reads clips of a list in the calling thread or in worker processes.

    Attributes:
        videos: The videos.
        clip: Frames of a clip.
        crop_size: Height and width of the clips, in pixels.
        short_side: Smallest and largest short side, in pixels.
        flip: Whether half of the random clips are mirrored.
        flip_pairs: Pairs of class numbers that a mirrored clip swaps.
        decoder: A name of `DECODERS`, or "auto".
        seconds: Time limit for a clip.
        skips: Where to count what cannot be read.
        pool: Worker processes; `None` reads in the calling thread.
        jitter: How the short side is drawn, as in `random_transform`.
    """

    videos: VideoList
    clip: ClipSpec
    crop_size: int
    short_side: tuple[int, int]
    flip: bool
    flip_pairs: Sequence[tuple[int, int]]
    decoder: str
    seconds: float
    skips: SkipLog
    pool: WorkerPool | None = None
    jitter: str = "uniform"

    def training(
        self, number: int | np.integer, units: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random clip of video `number`, or of the next that can be read."""
        choice = tuple(units.astype("float64").tolist())
        for step in range(min(len(self.videos), _MAX_IN_A_ROW)):
            current = (number + step) % len(self.videos)
            clip = self._read(current, choice)
            if clip is not None:
                return clip.frames, self._label(current, clip)
        self.skips.fail(self._nothing_readable())

    def evaluation(self, number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        """The middle clip of video `number`, or none, with its label."""
        clip = self._read(number, None)
        labels = self.videos.labels[number][None]
        if clip is None:
            return np.empty((0, *self.shape), "uint8"), labels[:0]
        return clip.frames[None], labels

    def count(
        self, is_last: np.bool_, num_read: np.int64, total: np.int64
    ) -> np.int64:
        """Adds to the `total` read so far; at the end there must be some."""
        total = np.int64(total + num_read)
        if is_last and not total:
            self.skips.fail(self._nothing_readable())
        return total

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a clip."""
        size = self.crop_size
        return self.clip.num_frames, size, size, 3

    def _read(
        self, number: int | np.integer, units: tuple[float, ...] | None
    ) -> Clip | None:
        path = self.videos.paths[number]
        error = self.skips.given_up(path)
        if error is None:
            try:
                clip = self._call(self._request(number, units))
                self._check_times(path, clip)
            except VideoError as failure:
                error = failure
        # Not where it was caught: that it ends the run is the news.
        if error is not None:
            self.skips.add(path, error)
            return None
        self.skips.add_read(path, clip.damage)
        return clip

    def _check_times(self, path: str, clip: Clip) -> None:
        if self.videos.actions is not None and np.isnan(clip.first):
            raise VideoError(
                f"{path}: its frame rate must be known, as `VideoList(fps=...)`"
                ", to say what happens in a clip. Received: a video without"
            )

    def _request(
        self, number: int | np.integer, units: tuple[float, ...] | None
    ) -> ClipRequest:
        return ClipRequest(
            self.videos.paths[number],
            self.clip,
            self.crop_size,
            self.short_side,
            self.flip,
            units,
            self.videos.segment(number),
            self.decoder,
            self.videos.fps,
            self.seconds,
            self.jitter,
        )

    def _call(self, request: ClipRequest) -> Clip:
        if self.pool is None:
            return read_clip(request)
        try:
            return self.pool.call(request)
        except WorkerTimeout as error:
            raise TimeLimitError(f"{request.path}: {error}") from error
        except WorkerDied as error:
            raise VideoError(f"{request.path}: {error}") from error

    def _label(self, number: int | np.integer, clip: Clip) -> np.ndarray:
        """What happens in the clip, as far as the list says when."""
        label = self.videos.labels[number]
        if self.videos.actions is not None:
            classes, start, end = self.videos.actions[number].T
            during = (start <= clip.last) & (end >= clip.first)
            label = np.zeros_like(label)
            label[classes[during].astype(int)] = 1
        return swap_labels(label, clip.flipped, self.flip_pairs)

    def _nothing_readable(self) -> str:
        reason = next(iter(self.skips.reasons.values()))
        count = min(len(self.videos), _MAX_IN_A_ROW)
        return (
            f"At least one of {count} videos must be readable. "
            f"Received none, for example {reason}"
        )


def make_pool(num_workers: int, seconds: float) -> WorkerPool | None:
    """Worker processes that read clips; `None` for none."""
    if not num_workers:
        return None
    return WorkerPool(
        "keras_nonlocal.data.clips:read_clip", num_workers, seconds + _GRACE
    )
