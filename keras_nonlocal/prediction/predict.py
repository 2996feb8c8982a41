"""Predicting a video of any length, window by window."""

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_nonlocal.data.frame_stream import TIME_LIMIT
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation import scoring
from keras_nonlocal.evaluation.models import ClipInput
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import as_opened
from keras_nonlocal.evaluation.models import clip_input
from keras_nonlocal.models import graph
from keras_nonlocal.models.labels import decode_predictions
from keras_nonlocal.prediction.timeline import Timeline
from keras_nonlocal.prediction.timeline import Top
from keras_nonlocal.prediction.windows import OpenedVideo
from keras_nonlocal.prediction.windows import Window
from keras_nonlocal.prediction.windows import batches
from keras_nonlocal.prediction.windows import open_windows

# Thumbnails of a video: so many to twice as many, of about so many pixels.
_THUMBNAILS, _THUMBNAIL_SIDE = 12, 64
# By which probabilities of one clip may sum up to something else.
_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class WindowScores:
    """What `on_window` is called with.

    Attributes:
        start: Seconds from the video's first frame to the window's.
        end: Seconds to the end of its last frame.
        scores: Probabilities, float32 `(classes,)`.
        top: Index, name and score of the best classes.
        frames: What the network saw, uint8 `(T, H, W, 3)`.
    """

    start: float
    end: float
    scores: np.ndarray
    top: Top
    frames: np.ndarray


def predict_video(
    model: Any,
    video: Any,
    window: ClipSpec | None = None,
    stride: float | None = None,
    top: int = 5,
    *,
    batch_size: int = 4,
    crop_size: int | None = None,
    short_side: int | None = None,
    class_names: Sequence[str] | None = None,
    outputs: str | None = None,
    threshold: float = 0.5,
    fps: float = 0.0,
    time_limit: float = TIME_LIMIT,
    progress: bool = True,
    on_window: Callable[[WindowScores], Any] | None = None,
) -> Timeline:
    """Scores a video window by window, while it is decoded.

    The video is read once, from its start to its end. Frames of as many windows
    as are scored at a time are in memory, however long it is; only scores stay.
    Every window is rescaled and cropped in the centre, and is what
    `score_video` would score as a clip that begins with the same frame. What
    is short of the end, and videos shorter than a window: as
    `sliding_windows` says.

    Of a damaged video everything that can be read is scored;
    `Timeline.problems` says what could not be.

    Args:
        model: A `keras.Model` that takes RGB in 0..255; an `OpenedModel`; a
            function from uint8 clips `(batch, T, H, W, 3)` to scores, as the
            `serve` of an exported model; or a path or name that `open_model`
            takes.
        video: The path of a file or of a folder of numbered pictures; an http
            or https URL, which is downloaded first; a uint8 array
            `(T, H, W, 3)` of RGB; or any iterable of frames, or of pairs of a
            time in seconds and a frame, that may go on for ever.
        window: Frames of a window. Default: the model's clips. With
            `ClipSpec(fps=...)` the video is brought to that rate.
        stride: Seconds from the start of one window to that of the next: they
            begin with the first frame at or after each multiple of it.
            Default: windows follow each other, each frame of the video in
            the span of one.
        top: Classes of a window that files and `on_window` get.
        batch_size: Windows of a forward pass; 1 for what is live. It does not
            change scores.
        crop_size: Height and width of the crop, in pixels. Default: the
            model's.
        short_side: Short side of the rescaled video, in pixels. Default: the
            model's, or 256/224 of the crop.
        class_names: Of the scores. Default: the model's, or else "class 0" and
            so on.
        outputs: What the model gives, `"softmax"`, `"sigmoid"` or `"logit"`;
            logits get a softmax. Default: what its last activation says. Of
            functions and of models without a graph of layers: `"softmax"` if
            the scores of the first window sum up to 1, and else `"sigmoid"`;
            for logits it must be given.
        threshold: For sigmoids, the smallest score that counts as predicted.
        fps: Frames per second where the video does not say; needed for folders
            and arrays.
        time_limit: Seconds that may pass until the next frame of a file.
        progress: Whether to show a progress bar, in seconds of the video.
        on_window: Called with the `WindowScores` of each window as soon as
            they are there, in order, which is when the frame after its last
            one was read; if it returns `False`, no more is read.

    Returns:
        The `Timeline`.

    Raises:
        VideoError: If no frame can be read, or the video is too short and the
            windows' `short` is `"error"`.
        ValueError: If an argument is not as described, or the model gives
            something else than scores.

    >>> frames = np.zeros((8, 32, 40, 3), "uint8")
    >>> def brightness(clips):
    ...     share = clips.mean(axis=(1, 2, 3, 4)) / 255
    ...     return np.stack([1 - share, share], axis=1)
    >>> timeline = predict_video(
    ...     brightness, frames, ClipSpec(4), fps=2, crop_size=32,
    ...     class_names=("dark", "bright"), progress=False)
    >>> timeline.seconds.tolist(), timeline.mean_top(1)
    ([[0.0, 2.0], [2.0, 4.0]], [(0, 'dark', 1.0)])
    """
    opened = as_opened(model)
    settings = clip_input(opened, window, crop_size, short_side)
    _check_arguments(top, threshold)
    scorer = WindowScorer(opened, class_names, outputs)
    collected = _Collected(scorer, top, on_window)
    with open_windows(
        video,
        settings,
        stride,
        fps=fps,
        time_limit=time_limit,
        progress=progress,
    ) as source:
        for batch in with_progress(source, batch_size, progress):
            if not collected.add(batch):
                break
        return collected.timeline(
            source, threshold, describe_input(opened, source, settings)
        )


def _check_arguments(top: int, threshold: float) -> None:
    if type(top) is not int or top < 1:
        raise ValueError(
            f"`top` must be a positive integer. Received: top={top!r}"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"`threshold` must be from 0 to 1. Received: threshold={threshold}"
        )


class WindowScorer:
    """Calls a model on clips and gives probabilities of named classes.

    Args:
        opened: The model.
        class_names: Of its scores. Default: the model's, or numbers.
        outputs: As of `predict_video`.

    Attributes:
        class_names: Of the scores; empty until a clip was scored if nothing
            tells how many there are.
        is_multi_label: Whether scores are those of sigmoids; `None` until a
            clip was scored if nothing tells.

    Raises:
        ValueError: If the model has no scores, or others than are named.
    """

    def __init__(
        self,
        opened: OpenedModel,
        class_names: Sequence[str] | None = None,
        outputs: str | None = None,
    ) -> None:
        self._opened = opened
        self._outputs = outputs
        self._guess: str | None = None
        self._scorer: scoring.Scorer | None = None
        names = opened.class_names if class_names is None else class_names
        self.class_names = () if names is None else tuple(map(str, names))
        self.is_multi_label: bool | None = None
        if _has_graph(opened.model):
            classes = _num_classes(opened.model)
            found = outputs or scoring.outputs_of(opened.model)
            self._scorer = self._make(classes, found)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Probabilities of uint8 clips `(batch, T, H, W, 3)`, float64.

        Raises:
            ValueError: If the model gives something else.
        """
        if self._scorer is None:
            first = keras.ops.convert_to_numpy(self._opened.model(clips[:1]))
            if first.ndim != 2:
                raise ValueError(
                    "`model` must give scores (batch, classes). Received: "
                    f"shape {first.shape}"
                )
            self._guess = None if self._outputs else _kind(first)
            outputs = self._outputs or self._guess
            self._scorer = self._make(first.shape[1], outputs)
        try:
            return self._scorer(clips)
        except ValueError as error:
            if self._guess is None:
                raise
            raise ValueError(
                f"{error}. As `outputs` was not given, it was taken for "
                f"{self._guess!r} by the scores of the first window"
            ) from error

    def _make(self, num_classes: int, outputs: str | None) -> scoring.Scorer:
        names = self.class_names or tuple(
            f"class {number}" for number in range(num_classes)
        )
        if len(names) != num_classes:
            raise ValueError(
                f"`class_names` must be those of the model's {num_classes} "
                f"classes. Received: {len(names)} names"
            )
        self.class_names, self.is_multi_label = names, outputs == "sigmoid"
        return scoring.Scorer(
            self._opened.model,
            "probability",
            num_classes,
            self.is_multi_label,
            outputs,
        )


def _has_graph(model: Any) -> bool:
    """Whether a model says what it gives before it is called."""
    return graph.functional_graph(model) is not None


def _num_classes(model: keras.Model) -> int:
    shape = model.output_shape
    is_shape = isinstance(shape, tuple) and len(shape) == 2
    if not is_shape or not isinstance(shape[1], int):
        raise ValueError(
            "`model` must give scores (batch, classes). Received: the model "
            f"{model.name!r} with an output of shape {shape}"
        )
    return shape[1]


def _kind(scores: np.ndarray) -> str | None:
    """What scores of a clip are, if they can be probabilities at all."""
    if scores.min() < -_TOLERANCE or scores.max() > 1 + _TOLERANCE:
        return None
    is_whole = abs(scores.sum() - 1) < _TOLERANCE
    return "softmax" if is_whole else "sigmoid"


class _Collected:
    """Scores so far."""

    def __init__(
        self,
        scorer: WindowScorer,
        top: int,
        on_window: Callable[[WindowScores], Any] | None,
    ) -> None:
        self._scorer = scorer
        self._top = top
        self._on_window = on_window
        self._seconds: list[tuple[float, float]] = []
        self._scores: list[np.ndarray] = []
        self._thumbnails = _Thumbnails()

    def add(self, windows: list[Window]) -> bool:
        """Scores windows; whether to go on."""
        clips = np.stack([window.frames for window in windows])
        for window, scores in zip(windows, self._scorer(clips), strict=True):
            scores = scores.astype("float32")
            self._seconds.append((window.start, window.end))
            self._scores.append(scores)
            self._thumbnails.add(window)
            if self._on_window is not None:
                (best,) = decode_predictions(
                    scores[np.newaxis], self._top, self._scorer.class_names
                )
                told = WindowScores(
                    window.start, window.end, scores, best, window.frames
                )
                if self._on_window(told) is False:
                    return False
        return True

    def timeline(
        self, source: OpenedVideo, threshold: float, about: dict[str, Any]
    ) -> Timeline:
        return Timeline(
            np.array(self._seconds, "float64"),
            np.stack(self._scores),
            self._scorer.class_names,
            bool(self._scorer.is_multi_label),
            source.stream.problems,
            self._top,
            threshold,
            about,
            tuple(self._thumbnails.kept),
        )


class _Thumbnails:
    """Small frames spread over all windows, however many there will be."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, np.ndarray]] = []
        self._every = 1
        self._seen = 0

    def add(self, window: Window) -> None:
        if self._seen % self._every == 0:
            frame = window.frames[len(window.frames) // 2]
            step = -(-frame.shape[0] // _THUMBNAIL_SIDE)
            small = frame[step // 2 :: step, step // 2 :: step].copy()
            self.kept.append(((window.start + window.end) / 2, small))
            if len(self.kept) == 2 * _THUMBNAILS:
                self.kept = self.kept[::2]
                self._every *= 2
        self._seen += 1


def with_progress(
    source: OpenedVideo, batch_size: int, progress: bool
) -> Iterator[list[Window]]:
    """Windows of a video in batches, with a bar of the seconds done.

    Raises:
        ValueError: If `batch_size` is not a positive integer.
    """
    duration = source.stream.duration
    total = None if duration is None else max(round(duration), 1)
    bar = keras.utils.Progbar(total, verbose=int(progress), unit_name="second")
    done = 0
    try:
        for batch in batches(source.windows, batch_size):
            yield batch
            done = int(batch[-1].end)
            # A file may be longer than it says.
            if total is None or done < total:
                bar.update(done, finalize=False)
        done = total or done
    finally:  # Ends the line, also where no more is asked for.
        bar.update(done, finalize=True)


def describe_input(
    opened: OpenedModel, source: OpenedVideo, settings: ClipInput
) -> dict[str, Any]:
    """Video, model, clip, stride and sizes, as JSON has them."""
    return {
        "video": os.fspath(source.name),
        "model": opened.name,
        "clip": dataclasses.asdict(settings.clip),
        "crop_size": settings.crop_size,
        "short_side": settings.short_side,
        "stride": source.stride,
        "fps": source.stream.fps or None,
        "begins": source.stream.begins,
    }
