"""Testing a network on whole videos, in several ways at once."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import Self

import keras
import numpy as np
from absl import logging

from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decoders import check_decoder
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation import score_files
from keras_nonlocal.evaluation import scoring
from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.evaluation.protocols import Protocol
from keras_nonlocal.evaluation.protocols import View
from keras_nonlocal.evaluation.protocols import get_protocol
from keras_nonlocal.evaluation.reading import VideoClips
from keras_nonlocal.evaluation.reading import read_videos
from keras_nonlocal.training.environment import environment

# Seconds that a video may take to read: a hundred times what it usually does.
TIME_LIMIT = 120.0
# Videos after which what is done is saved.
_SAVE_EVERY = 50
# Of the frames of videos some of whose views wait for a full batch.
_BYTES_WAITING = 2**30


def evaluate(
    model: keras.Model | Callable[[np.ndarray], Any],
    videos: VideoList,
    clip: ClipSpec,
    protocol: str | Protocol = "paper",
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    decoder: str = "auto",
    time_limit: float = TIME_LIMIT,
    outputs: str | None = None,
    scores: str | os.PathLike[str] | None = None,
    model_id: str | None = None,
    name: str | None = None,
    dataset: str = "",
    skips: SkipLog | None = None,
    progress: bool = True,
) -> Evaluation:
    """Tests a network on whole videos.

    One pass over the videos gives figures that are often confused side by
    side: those of one clip (the middle one, centre crop), of several clips
    (centre crops) and of all views of the protocol. Every frame is read and
    decoded once.

    Scores of the views are averaged, or their maximum is taken, as the
    protocol says. A Keras network whose last activation is another than that
    needs is used with the right one: where it averages over positions, which
    it does on frames larger than its training clips, they are of what the
    protocol averages. Other models that give logits get a softmax, or a
    sigmoid where videos may have several classes.

    A video that cannot be read, or not in time, is left out of all figures and
    counted in `Evaluation.skipped`.

    Args:
        model: A `keras.Model` that takes RGB in 0..255, or a function, as the
            `serve` of an exported one, from uint8 clips
            `(batch, num_frames, height, width, 3)` to scores
            `(batch, classes)`.
        videos: The videos, of the model's classes in its order.
        clip: Frames of a clip; the protocol decides where clips begin.
        protocol: A name of `PROTOCOLS`, or a `Protocol`.
        batch_size: Clips of a forward pass.
        num_workers: Processes that read; 0 reads in threads, which cannot give
            up a file that stops inside one call of the decoder.
        decoder: A name of `keras_nonlocal.data.decoders.DECODERS`, or "auto".
        time_limit: Seconds that reading a video may take.
        outputs: What the model gives, `"softmax"`, `"sigmoid"` or `"logit"`.
            Default: what the last activation of a Keras model says; functions
            must give probabilities, and it is an error if they do not.
        scores: File to keep scores in, `.npz`. With one that is there already
            the test goes on where it has ended, and tries again what could
            not be read.
        model_id: What tells the model from others, for `scores`. Default: a
            digest of a Keras model's weights; needed for functions.
        name: Of the model, in results. Default: that of a Keras model.
        dataset: Of the videos, in results.
        skips: Where to count what cannot be read; a new one if `None`.
        progress: Whether to show a progress bar.

    Returns:
        The `Evaluation`.

    Raises:
        ValueError: If an argument is out of range, the model does not give
            such scores, none of the videos can be read, or `scores` is of
            another test; `TooManySkipsError` if there are more than `skips`
            allows.
    """
    protocol = get_protocol(protocol)
    clip = protocol.clip(clip)
    check_decoder(decoder)
    _check_arguments(videos, batch_size, num_workers, time_limit)
    scorer = scoring.Scorer(
        model,
        protocol.average,
        len(videos.class_names),
        videos.multi_label,
        outputs,
    )
    skips = SkipLog() if skips is None else skips
    name = name or str(getattr(model, "name", "model"))
    test = _Test(videos, clip, protocol, name, dataset)
    if scores is not None:
        test.keep_in(
            scores, _fingerprint(test, model, model_id, [decoder, outputs])
        )
    todo = test.todo()
    bar = keras.utils.Progbar(
        len(todo), verbose=int(progress and bool(todo)), unit_name="video"
    )
    read = read_videos(
        videos,
        todo,
        clip,
        protocol,
        decoder=decoder,
        seconds=time_limit,
        num_workers=num_workers,
    )
    batches = _Batches(scorer, batch_size, protocol.over_clips)
    # Closed first, so that nothing is read any more when an error leaves here.
    with test, contextlib.closing(read):
        for video in _readable(read, test, skips, bar):
            for number, video_scores in batches.add(video):
                test.add(number, video_scores)
                bar.add(1)
        for number, video_scores in batches.finish():
            test.add(number, video_scores)
            bar.add(1)
    return test.result()


def _readable(
    read: Iterator[tuple[int, VideoClips | VideoError]],
    test: "_Test",
    skips: SkipLog,
    bar: keras.utils.Progbar,
) -> Iterator["_Video"]:
    """The videos that could be read; the others are noted."""
    for number, clips in read:
        path = test.videos.paths[number]
        if isinstance(clips, VideoClips):
            skips.add_read(path)
            yield _Video(number, path, clips)
        else:
            test.skip(number, clips)
            skips.add(path, clips)
            bar.add(1)


class _Test:
    """Scores so far, and the file that they are kept in."""

    def __init__(
        self,
        videos: VideoList,
        clip: ClipSpec,
        protocol: Protocol,
        name: str,
        dataset: str,
    ) -> None:
        self.videos = videos
        self.clip = clip
        self.protocol = protocol
        self._name = name
        self._dataset = dataset
        self._scores: dict[int, np.ndarray] = {}
        self._skipped: dict[int, str] = {}
        self._path: pathlib.Path | None = None
        self._fingerprint = ""
        self._environment = environment()
        self._start = time.monotonic()
        self._seconds_before = 0.0

    def keep_in(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Names the file, and goes on from it if it is there."""
        self._path = pathlib.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fingerprint = fingerprint
        if not self._path.exists():
            return
        earlier, found = score_files.read(path)
        if found != fingerprint:
            raise ValueError(
                "`scores` must be a new file or one of the same model, videos, "
                f"clips, protocol and decoder. Received: {path}, of another "
                f"test ({earlier.name}, protocol {earlier.protocol.name!r}, "
                f"{len(earlier.videos)} videos); remove it to begin anew"
            )
        by_video = np.stack(list(earlier.scores.values()), axis=1)
        self._scores = dict(
            zip(earlier.numbers.tolist(), by_video, strict=True)
        )
        self._seconds_before = float(earlier.about["seconds"])
        logging.info(
            "%s: %d of %d videos were scored before",
            path,
            len(self._scores),
            len(self.videos),
        )

    def todo(self) -> list[int]:
        """Numbers of the videos to score."""
        return [n for n in range(len(self.videos)) if n not in self._scores]

    def add(self, number: int, scores: np.ndarray) -> None:
        """Notes the scores of a video, `(settings, classes)`."""
        self._scores[number] = scores.astype("float32")
        if self._path is not None and len(self._scores) % _SAVE_EVERY == 0:
            self._save(self._path)

    def skip(self, number: int, error: VideoError) -> None:
        """Notes that a video cannot be read."""
        self._skipped[number] = str(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Saves what there is, whatever has happened."""
        if self._path is not None and self._scores:
            self._save(self._path)

    def result(self) -> Evaluation:
        """The scores of all videos, if any video was scored."""
        if not self._scores:
            reason = next(iter(self._skipped.values()))
            raise ValueError(
                f"At least one of {len(self.videos)} videos must be readable. "
                f"Received none, for example {reason}"
            )
        if self._skipped:
            logging.warning(
                "%d of %d videos could not be read; the figures are of the "
                "others",
                len(self._skipped),
                len(self.videos),
            )
        return self._evaluation()

    def _save(self, path: pathlib.Path) -> None:
        score_files.save(self._evaluation(), path, self._fingerprint)

    def _evaluation(self) -> Evaluation:
        numbers = sorted(self._scores)
        by_setting = np.stack([self._scores[n] for n in numbers], axis=1)
        seconds = self._seconds_before + time.monotonic() - self._start
        return Evaluation(
            name=self._name,
            dataset=self._dataset,
            videos=self.videos,
            clip=self.clip,
            protocol=self.protocol,
            numbers=np.array(numbers, "int64"),
            scores=dict(
                zip(self.protocol.setting_names, by_setting, strict=True)
            ),
            skipped=dict(sorted(self._skipped.items())),
            about={**self._environment, "seconds": round(seconds, 1)},
        )


class _Video:
    """A video whose views are being scored."""

    def __init__(self, number: int, path: str, clips: VideoClips) -> None:
        self.number = number
        self.path = path
        self.clips = clips
        views = itertools.chain(*clips.settings.values())
        # Settings share views, and the frame of a square video is its centre.
        self.views = list(dict.fromkeys(views))
        self.scores: dict[View, np.ndarray] = {}

    @property
    def is_complete(self) -> bool:
        return len(self.scores) == len(self.views)

    def combined(self, over_clips: str) -> np.ndarray:
        """Scores of each setting, `(settings, classes)`."""
        settings = []
        for views in self.clips.settings.values():
            scores = np.stack([self.scores[view] for view in views])
            settings.append(
                scores.max(axis=0) if over_clips == "max" else scores.mean(0)
            )
        return np.stack(settings)


class _Batches:
    """Scores views in batches of one size, across videos if they are few."""

    def __init__(
        self, scorer: scoring.Scorer, batch_size: int, over_clips: str
    ) -> None:
        self._scorer = scorer
        self._batch_size = batch_size
        self._over_clips = over_clips
        self._videos: dict[int, _Video] = {}
        # By height and width: whole frames differ.
        self._waiting: dict[tuple[int, int], list[tuple[_Video, View]]] = {}

    def add(self, video: _Video) -> Iterator[tuple[int, np.ndarray]]:
        """Takes a video; yields the scores of those that are complete."""
        self._videos[video.number] = video
        for view in video.views:
            size = view.window.height, view.window.width
            waiting = self._waiting.setdefault(size, [])
            waiting.append((video, view))
            if len(waiting) == self._batch_size:
                self._score(self._waiting.pop(size))
        yield from self._complete()
        waits = sum(x.clips.frames.nbytes for x in self._videos.values())
        if waits > _BYTES_WAITING:
            yield from self.finish()

    def finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Scores what is left, in smaller batches."""
        while self._waiting:
            _, views = self._waiting.popitem()
            self._score(views)
        yield from self._complete()

    def _score(self, views: list[tuple[_Video, View]]) -> None:
        clips = np.stack([video.clips.cut(view) for video, view in views])
        try:
            scores = self._scorer(clips)
        except ValueError as error:
            paths = dict.fromkeys(video.path for video, _ in views)
            raise ValueError(f"{', '.join(paths)}: {error}") from error
        for (video, view), row in zip(views, scores, strict=True):
            video.scores[view] = row

    def _complete(self) -> Iterator[tuple[int, np.ndarray]]:
        for number, video in list(self._videos.items()):
            if video.is_complete:
                del self._videos[number]
                yield number, video.combined(self._over_clips)


def _fingerprint(
    test: _Test, model: Any, model_id: str | None, others: list
) -> str:
    """What scores depend on, but for the contents of the files."""
    if model_id is None:
        if not isinstance(model, keras.Model):
            raise ValueError(
                "`model_id` must tell the model from others, to keep the "
                "scores of a function. Received: model_id=None"
            )
        model_id = scoring.digest(model)
    videos = test.videos
    segments = videos.segments
    facts = [
        model_id,
        videos.paths,
        videos.class_names,
        videos.labels.tolist(),
        None if segments is None else segments.tolist(),
        videos.fps,
        dataclasses.asdict(test.clip),
        dataclasses.asdict(test.protocol),
        *others,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _check_arguments(
    videos: VideoList, batch_size: int, num_workers: int, time_limit: float
) -> None:
    if not len(videos):
        raise ValueError("`videos` must have one video or more. Received: none")
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("num_workers", num_workers, 0),
    ):
        if value < least:
            raise ValueError(
                f"`{name}` must be at least {least}. Received: {name}={value}"
            )
    if not time_limit > 0:
        raise ValueError(
            f"`time_limit` must be positive. Received: time_limit={time_limit}"
        )
