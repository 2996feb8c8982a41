"""How a video is tested: which clips and crops, and what becomes of scores.

Runs in worker processes as well: no TensorFlow here.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_nonlocal.data import sampling
from keras_nonlocal.data.sampling import RULES
from keras_nonlocal.data.sampling import ClipSpec

CROPS = ("center", "three", "full")
AVERAGES = ("probability", "logit")


class Window(NamedTuple):
    """A part of the rescaled frames, in pixels, mirrored if `flip`."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False


class View(NamedTuple):
    """A clip and the part of its frames that a network sees.

    Clip 0 is the middle one, 1 and up are those of the protocol.
    """

    clip: int
    window: Window


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to test on whole videos.

    The longer side of a rescaled video is truncated, as in the paper's code
    and in SlowFast; mmaction2 rounds it.

    Attributes:
        name: What it is called in results.
        num_clips: Clips of a video; one is the middle one.
        starts: Where clips begin: `"rule"`, by the formula of the rule for
            even clips; `"segments"`, so that their middles are those of as
            many equal parts of the video, whose first and last frame are
            repeated where a clip reaches beyond them (long-term feature
            banks).
        rule: The sampling rule, a name of `keras_nonlocal.data.sampling.RULES`;
            `None` for that of the clips.
        crops: `"center"`, `"three"` along the longer side, or `"full"`, the
            whole frame, whose positions the network averages.
        crop_size: Height and width of the crops, in pixels.
        short_side: Short side of the rescaled video, in pixels.
        rounding: Where crops lie if the longer side does not divide: the
            middle one rounded down and the last twice as far
            (`"down"`: the paper's code, mmaction2), or the middle one
            rounded up and the last at the end (`"up"`: SlowFast).
        flips: Whether every crop is seen mirrored as well.
        average: What scores are: probabilities or logits.
        over_clips: `"mean"` or `"max"`, for each class, over all views.
        training_crop: Side of the crops that the networks are trained on for
            which the sizes are meant.

    Raises:
        ValueError: If a value is none of these.

    >>> dataclasses.replace(PROTOCOLS["caffe2"], flips=True).setting_names
    ('1 clip', '10 clips', '10x6 views')
    """

    name: str
    num_clips: int = 10
    starts: str = "rule"
    rule: str | None = None
    crops: str = "center"
    crop_size: int = 256
    short_side: int = 256
    rounding: str = "down"
    flips: bool = False
    average: str = "probability"
    over_clips: str = "mean"
    training_crop: int = 224

    def __post_init__(self) -> None:
        allowed: dict[str, tuple] = {
            "starts": ("rule", "segments"),
            "rule": (None, *RULES),
            "crops": CROPS,
            "rounding": ("down", "up"),
            "average": AVERAGES,
            "over_clips": ("mean", "max"),
        }
        for name, values in allowed.items():
            self._check(name, f"one of {values}", getattr(self, name) in values)
        for name in ("num_clips", "crop_size", "short_side", "training_crop"):
            value = getattr(self, name)
            is_natural = type(value) is int and value > 0
            self._check(name, "a positive integer", is_natural)
        self._check(
            "crop_size",
            f"at most the short side, {self.short_side}",
            self.crop_size <= self.short_side,
        )
        self._check(
            "rule",
            'that of the paper with starts="segments"',
            self.starts == "rule" or self.rule == "paper",
        )

    def _check(self, name: str, expected: str, is_fine: bool) -> None:
        if not is_fine:
            raise ValueError(
                f"Protocol: `{name}` must be {expected}. "
                f"Received: {name}={getattr(self, name)!r}"
            )

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Names of what is measured side by side, that of all views last."""
        names = ["1 clip"]
        if self.num_clips > 1:
            names.append(f"{self.num_clips} clips")
        count = len(_offsets(self.crops, self.rounding, 0))
        count *= 2 if self.flips else 1
        if self.crops == "full":
            whole = "whole frame" if self.num_clips == 1 else "whole frames"
            names.append(f"{self.num_clips}{'x2' * self.flips} {whole}")
        elif count > 1:
            names.append(f"{self.num_clips}x{count} views")
        return tuple(names)

    def scaled(self, training_crop: int) -> "Protocol":
        """This protocol for a network trained on other crops.

        Args:
            training_crop: Height and width of the training clips, in pixels.

        Returns:
            A protocol whose sizes are to that as these are to the crops that
            they are meant for.

        >>> PROTOCOLS["paper"].scaled(56).short_side
        64
        """
        crop_size, short_side = (
            max(round(size * training_crop / self.training_crop), 1)
            for size in (self.crop_size, self.short_side)
        )
        return dataclasses.replace(
            self,
            crop_size=crop_size,
            short_side=short_side,
            training_crop=training_crop,
        )

    def clip(self, clip: ClipSpec) -> ClipSpec:
        """The clips that this protocol takes in place of others.

        Raises:
            ValueError: If `clip` wants short videos treated otherwise.
        """
        clip = dataclasses.replace(clip, rule=self.rule or clip.rule)
        if self.starts == "rule":
            return clip
        if clip.short not in (None, "clamp"):
            raise ValueError(
                f"The protocol {self.name!r} repeats the first and the last "
                "frame of a video: `clip.short` must be None or 'clamp'. "
                f"Received: {clip.short!r}"
            )
        return dataclasses.replace(clip, short="clamp")

    def places(self, clip: ClipSpec, total: int, fps: float) -> np.ndarray:
        """Places on the timeline of the frames of every clip.

        Args:
            clip: As `clip` gives it.
            total: Places of the timeline.
            fps: Frames per second of the timeline, 0.0 if unknown.

        Returns:
            int64 array of shape `(1 + num_clips, num_frames)`, the middle clip
            first; with one clip that is all, `(1, num_frames)`.
        """
        starts = [sampling.middle_start(clip, total, fps)]
        if self.num_clips > 1:
            starts += self._starts(clip, total, fps).tolist()
        clips = [
            sampling.frame_indices(start, clip, total, fps) for start in starts
        ]
        # Clips around the middle of a segment may begin before the video.
        return np.maximum(clips, 0)

    def _starts(self, clip: ClipSpec, total: int, fps: float) -> np.ndarray:
        if self.starts == "rule":
            return sampling.uniform_starts(self.num_clips, clip, total, fps)
        middles = (np.arange(self.num_clips) + 0.5) * total / self.num_clips
        half = clip.num_frames * clip.sampling_rate // 2
        return np.round(middles).astype("int64") - half

    def views(self, height: int, width: int) -> dict[str, list[View]]:
        """What each setting consists of.

        Args:
            height: Height of the rescaled video, in pixels.
            width: Its width.

        Returns:
            For each of `setting_names` the views of a video.
        """
        center = self._windows("center", height, width, (False,))
        flips = (False, True) if self.flips else (False,)
        crops = self._windows(self.crops, height, width, flips)
        # With one clip, it is the middle one.
        first = 1 if self.num_clips > 1 else 0
        clips = range(first, first + self.num_clips)
        views = [View(0, window) for window in center]
        settings = {"1 clip": views}
        for name in self.setting_names[1:]:
            windows = center if name.endswith(" clips") else crops
            settings[name] = [
                View(clip, window) for clip in clips for window in windows
            ]
        return settings

    def _windows(
        self, crops: str, height: int, width: int, flips: tuple[bool, ...]
    ) -> list[Window]:
        size = self.crop_size
        if crops == "full":
            places = [(0, 0, height, width)]
        else:
            rows, columns = (
                _offsets(
                    crops if side == max(height, width) else "center",
                    self.rounding,
                    side - size,
                )
                for side in (height, width)
            )
            if len(rows) == len(columns) > 1:
                # Of a square, three crops beside each other.
                rows = _offsets("center", self.rounding, height - size)
            places = [
                (top, left, size, size) for top in rows for left in columns
            ]
        return [Window(*place, flip) for place in places for flip in flips]


def _offsets(crops: str, rounding: str, extra: int) -> tuple[int, ...]:
    """Where crops begin along a side that is longer by `extra` pixels."""
    middle = extra // 2 if rounding == "down" else -(-extra // 2)
    if crops != "three":
        return (middle,)
    return (0, middle, 2 * middle if rounding == "down" else extra)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # Section 4.1.
        Protocol("paper", rule="paper", crops="full"),
        # The released code.
        Protocol("caffe2", rule="paper", crops="three"),
        Protocol("slowfast", rule="slowfast", crops="three", rounding="up"),
        Protocol("mmaction2", rule="mmaction2", crops="three"),
        # For its C2D networks.
        Protocol(
            "mmaction2_c2d",
            rule="mmaction2",
            crops="three",
            crop_size=224,
            short_side=224,
        ),
        # The code of "Long-Term Feature Banks for Detailed Video
        # Understanding".
        Protocol(
            "charades",
            starts="segments",
            rule="paper",
            crops="three",
            rounding="up",
            over_clips="max",
        ),
        # Section 4.2: one scale. How clips are combined is not in the paper.
        Protocol(
            "charades_paper",
            rule="paper",
            crops="full",
            short_side=320,
            training_crop=288,
            over_clips="max",
        ),
        # As `clip_dataset` gives it in evaluation.
        Protocol("clip", num_clips=1, crop_size=224),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol, by its name if it is not one already.

    Raises:
        ValueError: If there is none of that name.

    >>> get_protocol("clip").num_clips
    1
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"`protocol` must be a Protocol or one of {tuple(PROTOCOLS)}. "
            f"Received: {protocol!r}"
        )
    return PROTOCOLS[protocol]
