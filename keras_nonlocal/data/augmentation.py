"""Augmentation of clips in the graph, on top of crop and flip.

Everything here is a function of its arguments and of a seed: an integer tensor
of shape `(2,)`, as of TensorFlow's stateless random numbers. It gives the same
eagerly, in `tf.data` and at any parallelism.

An augmentation of one clip is `augment(clip, seed)`. It draws once, for all the
frames: equal frames stay equal. `MixUp` and `CutMix` are
`mix(clips, labels, seed)` on a batch. Clips are RGB in 0 to 255, uint8 or
float; what is computed in float32 is rounded to get back to uint8.
"""

import abc
import dataclasses
import functools
import math
import re
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_nonlocal.data import keras_cv_layers
from keras_nonlocal.data.labels import checked_pairs
from keras_nonlocal.data.labels import partners

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Operations that draw from a state, or run Python: what they give is not a
# function of the seed.
_STATEFUL = re.compile(
    "Random|Multinomial|ParameterizedTruncated|TruncatedNormal|Rng"
    "|SampleDistorted|Stateful(?!PartitionedCall)|(Eager)?PyFunc|Assign"
)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue of a clip.

    The factors mean what they mean in torchvision. Brightness multiplies;
    contrast goes away from the mean grey of each frame, saturation from the
    grey of each pixel: 0 ends there, 1 changes nothing, 2 doubles the distance.
    Each factor is drawn from `[max(0, 1 - x), 1 + x]`. The hue turns by a part
    of the colour circle in `[-hue, hue]`. The order is drawn, too.

    Args:
        brightness: Range of the brightness, around 1.
        contrast: Range of the contrast, around 1.
        saturation: Range of the saturation, around 1.
        hue: Range of the hue, around 0; at most 0.5.

    Raises:
        ValueError: If a range is negative or not finite, or that of the hue
            more than 0.5.

    >>> clip = tf.fill([2, 1, 1, 3], tf.constant(100, tf.uint8))
    >>> ColorJitter(brightness=0.4)(clip, seed=[1, 2])[:, 0, 0].numpy()
    array([[87, 87, 87],
           [87, 87, 87]], dtype=uint8)
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            most = 0.5 if name == "hue" else math.inf
            if not (0 <= value <= most and math.isfinite(value)):
                raise ValueError(
                    f"`{name}` must be finite and in [0, {most}]. "
                    f"Received: {name}={value}"
                )

    def __call__(self, clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Changes the colours of all frames alike.

        Args:
            clip: uint8 or float of shape `(frames, height, width, 3)`, in 0 to
                255.
            seed: Integers of shape `(2,)`.

        Returns:
            The clip, of the same shape and dtype.

        Raises:
            ValueError: If an argument is not as described.
        """
        clip, seed = _checked_clip(clip), _checked_seed(seed)
        steps = [step for step in self._steps() if step[1] < step[2]]
        if not steps:
            return clip
        order_seed, unit_seed = tf.unstack(tf.random.split(seed))
        units = tf.random.stateless_uniform([len(steps)], unit_seed)
        adjustments = [
            functools.partial(adjust, low + unit * (high - low))
            for (adjust, low, high), unit in zip(
                steps, tf.unstack(units), strict=True
            )
        ]
        order = tf.argsort(
            tf.random.stateless_uniform([len(steps)], order_seed)
        )
        outputs = tf.cast(clip, tf.float32)
        for place in tf.unstack(order):
            outputs = tf.switch_case(
                place, [functools.partial(x, outputs) for x in adjustments]
            )
            outputs = tf.clip_by_value(outputs, 0.0, 255.0)
        return _cast(outputs, clip.dtype)

    def _steps(self) -> list[tuple[Callable[..., tf.Tensor], float, float]]:
        """What is adjusted, and from what to what."""
        return [
            (_adjust_brightness, *_around_one(self.brightness)),
            (_adjust_contrast, *_around_one(self.contrast)),
            (_adjust_saturation, *_around_one(self.saturation)),
            (_adjust_hue, -self.hue, self.hue),
        ]


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors half of the clips at random, left to right, and their labels.

    `clip_dataset` mirrors by itself; this is for other pipelines.

    Args:
        label_pairs: Numbers of the classes that become each other in a mirror,
            see `keras_nonlocal.data.labels.class_pairs`.

    Raises:
        ValueError: If a class is in more than one pair.

    >>> flip = RandomFlip(label_pairs=[(1, 2)])
    >>> clip, label = flip([[[[1], [2], [3]]]], 2, seed=[0, 1])
    >>> clip[0, 0, :, 0].numpy(), int(label)
    (array([3, 2, 1], dtype=int32), 1)
    """

    label_pairs: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        pairs = checked_pairs(self.label_pairs)
        # The one way to set a field of a frozen dataclass.
        object.__setattr__(self, "label_pairs", pairs)

    def __call__(
        self, clip: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mirrors the clip with probability 0.5.

        Args:
            clip: Of shape `(frames, height, width, channels)`.
            labels: Number of its class, or for each class whether it has it, of
                shape `(num_classes,)`.
            seed: Integers of shape `(2,)`.

        Returns:
            The clip and the labels, of the same shapes and dtypes.

        Raises:
            ValueError: If an argument is not as described.
        """
        clip, seed = _checked_clip(clip, channels=None), _checked_seed(seed)
        labels = tf.convert_to_tensor(labels)
        mirrored = _mirrored_labels(labels, self.label_pairs)
        flipped = tf.random.stateless_uniform([], seed) < 0.5
        return tf.cond(
            flipped,
            lambda: (tf.reverse(clip, [2]), mirrored),
            lambda: (clip, labels),
        )


class KerasAugmentation:
    """Makes any random image layer of Keras treat all frames of a clip alike.

    Keras's layers draw anew for every image. Here every frame passes the layer
    with random numbers that begin anew from the clip's seed, whatever the
    layer's own seed. So frames are treated alike however the layer draws.
    Layers of keras-cv will do, too, if their random numbers come from their
    generator or from a uniform or normal factor sampler.

    Args:
        layer: A layer from images `(batch, height, width, 3)` of 0 to 255 to
            images of any size, such as `keras.layers.RandomRotation`, or
            several in a `keras.layers.Pipeline`. It is tried once, on noise.

    Raises:
        ValueError: If the layer mixes images of a batch, has a state other
            than seeds or draws random numbers that do not come from seeds of
            Keras, as `keras.layers.AugMix`.

    >>> rotate = KerasAugmentation(keras.layers.RandomRotation(0.1))
    >>> clip = tf.ones([4, 8, 8, 3], tf.uint8)
    >>> rotate(clip, seed=[1, 2]).shape
    TensorShape([4, 8, 8, 3])
    """

    def __init__(self, layer: keras.Layer) -> None:
        if not isinstance(layer, keras.Layer):
            raise ValueError(
                "`layer` must be a Keras layer. "
                f"Received: {layer!r} of type {type(layer).__name__}"
            )
        if isinstance(layer, keras.layers.MixUp | keras.layers.CutMix):
            raise ValueError(
                "`layer` must work on one image at a time; to mix clips use "
                f"keras_nonlocal.data.augmentation.{type(layer).__name__}. "
                f"Received: {layer!r}"
            )
        if keras_cv_layers.is_keras_cv(layer):
            layer = keras_cv_layers.seeded_copy(layer)
        self.layer = layer
        # A graph even when called eagerly: the same numbers as in `tf.data`,
        # and TensorFlow whatever Keras's backend.
        self._frames = tf.function(functools.partial(_each_frame, layer))
        _try_out(layer)

    def __call__(self, clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Passes all frames through the layer alike.

        Args:
            clip: uint8 or float of shape `(frames, height, width, 3)`, in 0 to
                255.
            seed: Integers of shape `(2,)`.

        Returns:
            The clip, of the same dtype.

        Raises:
            ValueError: If an argument is not as described.
        """
        return self._frames(_checked_clip(clip), _checked_seed(seed))


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies some random ones of the 14 operations of RandAugment.

    Each is as likely: the identity, shear and translation along x and along y,
    rotation, brightness, colour, contrast, sharpness, posterization,
    solarization, auto-contrast and equalization. Their strengths are drawn, up
    to `magnitude` times torchvision's largest (shear 0.3, translation 0.45,
    rotation 30 degrees, colours 0.9).

    The operations are Keras's where it has them, but only those drawn are
    computed: for 32 frames of 224x224 pixels that takes twice as long as to
    decode them. `keras.layers.RandAugment` computes all of its own for every
    image and takes 12 times as long as this.

    Args:
        num_ops: Operations for each clip, one after the other.
        magnitude: Largest strength, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.

    >>> RandAugment(num_ops=1, magnitude=0.5)
    RandAugment(num_ops=1, magnitude=0.5)
    """

    num_ops: int = 2
    magnitude: float = 0.3

    def __post_init__(self) -> None:
        if self.num_ops < 1 or not 0 <= self.magnitude <= 1:
            raise ValueError(
                "`num_ops` must be positive and `magnitude` in [0, 1]. "
                f"Received: num_ops={self.num_ops}, magnitude={self.magnitude}"
            )

    def __call__(self, clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Applies the operations to all frames alike.

        Args:
            clip: uint8 or float of shape `(frames, height, width, 3)`, in 0 to
                255.
            seed: Integers of shape `(2,)`.

        Returns:
            The clip, of the same shape and dtype.

        Raises:
            ValueError: If an argument is not as described.
        """
        clip, seed = _checked_clip(clip), _checked_seed(seed)
        for step_seed in tf.unstack(tf.random.split(seed, self.num_ops)):
            clip = tf.ensure_shape(self._step(clip, step_seed), clip.shape)
        return clip

    @functools.cached_property
    def _step(self) -> Augmentation:
        """One operation, drawn; traced once for all steps."""
        with tf.init_scope():
            operations = _rand_augment_operations(self.magnitude)

        def step(clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            choice_seed, seed = tf.unstack(tf.random.split(seed))
            choice = tf.random.stateless_uniform(
                [], choice_seed, 0, len(operations), tf.int32
            )
            return tf.switch_case(
                choice, [functools.partial(x, clip, seed) for x in operations]
            )

        return tf.function(step, autograph=False)


@dataclasses.dataclass(frozen=True)
class Compose:
    """Applies several augmentations, each with random numbers of its own.

    Args:
        steps: The augmentations, in their order.

    >>> augment = Compose([ColorJitter(), ColorJitter(hue=0.1)])
    >>> augment(tf.zeros([2, 8, 8, 3]), seed=[1, 2]).shape
    TensorShape([2, 8, 8, 3])
    """

    steps: Sequence[Augmentation]

    def __call__(self, clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Applies them to a clip, with seeds that follow from `seed`."""
        for number, step in enumerate(self.steps):
            clip = step(clip, tf.random.fold_in(_checked_seed(seed), number))
        return clip


@dataclasses.dataclass(frozen=True)
class _Mix(abc.ABC):
    """What `MixUp` and `CutMix` share."""

    alpha: float
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(
                "`alpha` must be positive and finite. "
                f"Received: alpha={self.alpha}"
            )

    def __call__(
        self, clips: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes every clip with the one before it, the first with the last.

        Args:
            clips: uint8 or float of shape
                `(batch, frames, height, width, channels)`.
            labels: Class numbers of shape `(batch,)`, or for each class whether
                the clip has it, of shape `(batch, num_classes)`.
            seed: Integers of shape `(2,)`.

        Returns:
            The clips, of the same shape and dtype, and their labels, float32 of
            shape `(batch, num_classes)`.

        Raises:
            ValueError: If an argument is not as described.
            tf.errors.InvalidArgumentError: If a class number is not in
                `[0, num_classes)`.
        """
        clips = _checked_clip(clips, rank=5, channels=None)
        targets = _targets(labels, self.num_classes)
        tf.debugging.assert_equal(
            tf.shape(targets)[0],
            tf.shape(clips)[0],
            "`labels` must be as many as `clips`.",
        )
        share_seed, seed = tf.unstack(tf.random.split(_checked_seed(seed)))
        shares = _beta(self.alpha, tf.shape(clips)[0], share_seed)
        clips, shares = self._mix(clips, tf.roll(clips, 1, 0), shares, seed)
        return clips, _blend(targets, tf.roll(targets, 1, 0), shares[:, None])

    @abc.abstractmethod
    def _mix(
        self,
        clips: tf.Tensor,
        others: tf.Tensor,
        shares: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes clips with others.

        Args:
            clips: The clips.
            others: What to mix into each.
            shares: How much of each to keep, float32 of shape `(batch,)`.
            seed: Seed of what else is drawn.

        Returns:
            The mixed clips and how much of each was really kept.
        """


class MixUp(_Mix):
    """Blends every clip of a batch with another, and so their labels.

    A clip's own share is drawn from the beta distribution of (alpha, alpha),
    for each clip anew.

    Args:
        alpha: Parameter of the distribution; the larger, the nearer to one
            half.
        num_classes: Number of classes; needed for labels that are class
            numbers.

    Raises:
        ValueError: If `alpha` is not positive.

    >>> clips = tf.reshape([0.0, 100.0], [2, 1, 1, 1, 1])
    >>> mixed, labels = MixUp(0.8, num_classes=2)(clips, [0, 1], seed=[1, 1])
    >>> mixed[:, 0, 0, 0, 0].numpy().round()
    array([76., 69.], dtype=float32)
    >>> labels.numpy().round(2)
    array([[0.24, 0.76],
           [0.31, 0.69]], dtype=float32)
    """

    def _mix(
        self,
        clips: tf.Tensor,
        others: tf.Tensor,
        shares: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def blend(pair: tuple[tf.Tensor, ...]) -> tf.Tensor:
            clip, other, share = pair
            return _cast(_blend(clip, other, share), clip.dtype)

        # One after the other: a batch of floats would need a lot of memory.
        mixed = tf.map_fn(
            blend,
            (clips, others, shares),
            parallel_iterations=1,
            fn_output_signature=clips.dtype,
        )
        return mixed, shares


class CutMix(_Mix):
    """Replaces a box of every clip by that of another, in all frames.

    The size of the box, as a part of the area, is drawn from the beta
    distribution of (alpha, alpha), and its centre from all pixels, for each
    clip anew. What hangs over the edge is cut off; the labels are mixed by the
    exact area that is kept.

    Args:
        alpha: Parameter of the distribution; 1 for all sizes alike.
        num_classes: Number of classes; needed for labels that are class
            numbers.

    Raises:
        ValueError: If `alpha` is not positive.

    >>> clips = tf.reshape(tf.repeat([0, 9], 12), [2, 1, 3, 4, 1])
    >>> mixed, labels = CutMix(1.0, num_classes=2)(clips, [0, 1], seed=[3, 1])
    >>> mixed[1, 0, :, :, 0].numpy()
    array([[0, 0, 0, 9],
           [0, 0, 0, 9],
           [9, 9, 9, 9]], dtype=int32)
    >>> labels[1].numpy()
    array([0.5, 0.5], dtype=float32)
    """

    def _mix(
        self,
        clips: tf.Tensor,
        others: tf.Tensor,
        shares: tf.Tensor,
        seed: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        side = tf.sqrt(1 - shares)
        row_seed, column_seed = tf.unstack(tf.random.split(seed))
        rows = _interval(side, tf.shape(clips)[2], row_seed)
        columns = _interval(side, tf.shape(clips)[3], column_seed)
        box = rows[:, None, :, None, None] & columns[:, None, None, :, None]
        replaced = tf.reduce_mean(tf.cast(box, tf.float32), [1, 2, 3, 4])
        return tf.where(box, others, clips), 1 - replaced


class _SeedScope(keras.StatelessScope):
    """Keras's seed generators begin anew from a seed, and forget it after.

    Args:
        seed: The seed.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        super().__init__()
        self._seed = seed

    def get_current_value(self, variable: keras.Variable) -> Any:
        known = id(variable) in self.state_mapping
        if not known and variable.name == "seed_generator_state":
            seed = tf.random.fold_in(self._seed, len(self.state_mapping))
            self.state_mapping[id(variable)] = tf.cast(seed, variable.dtype)
        return super().get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        variable, _ = update
        if id(variable) not in self.state_mapping:
            raise ValueError(
                "An augmentation must have no state other than the seeds of "
                f"Keras. Received: a layer that changes {variable.path}"
            )
        super().add_update(update)


def _each_frame(
    layer: keras.Layer, clip: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Passes every frame through `layer` with the same random numbers."""

    def augment(frame: tf.Tensor) -> tf.Tensor:
        images = tf.cast(frame[None], tf.float32)
        with _SeedScope(seed), keras_cv_layers.drawing_from(seed):
            outputs = layer(images, training=True)
        return _cast(outputs[0], clip.dtype)

    return tf.map_fn(augment, clip)


def _try_out(layer: keras.Layer) -> None:
    """Raises a `ValueError` if `_each_frame` is no function of the seed."""
    seed = tf.constant([1, 2])
    noise = tf.random.stateless_uniform([1, 32, 32, 3], seed, 0.0, 255.0)
    clip = tf.repeat(noise, 2, axis=0)

    def build(images: tf.Tensor) -> tf.Tensor:
        with keras_cv_layers.drawing_from(seed):
            return layer(images, training=True)

    # In the scope of a seed it could not make its variables.
    tf.function(build).get_concrete_function(noise)
    outputs = []
    for _ in range(2):
        traced = tf.function(
            functools.partial(_each_frame, layer)
        ).get_concrete_function(clip, seed)
        stateful = sorted(filter(_STATEFUL.match, _operations(traced)))
        if stateful:
            raise ValueError(_not_of_the_seed(layer, f"uses {stateful}"))
        outputs += tf.unstack(traced(clip, seed))
    if any(tf.reduce_any(x != outputs[0]) for x in outputs):
        raise ValueError(
            _not_of_the_seed(layer, "gave two results for one seed")
        )


def _operations(traced: Any) -> set[str]:
    """The kinds of operations in a traced function and all that it calls."""
    graph = traced.graph.as_graph_def()
    nodes = [graph.node, *(x.node_def for x in graph.library.function)]
    return {node.op for part in nodes for node in part}


def _not_of_the_seed(layer: keras.Layer, reason: str) -> str:
    return (
        "`layer` must draw all of its random numbers with seeds of Keras. "
        f"Received: {layer!r}, which {reason}"
    )


def _rand_augment_operations(magnitude: float) -> list[Augmentation]:
    color, half = 0.9 * magnitude, 0.45 * magnitude
    bits = 8 - round(4 * magnitude)
    layers = (
        keras.layers.RandomShear(x_factor=0.3 * magnitude, dtype="float32"),
        keras.layers.RandomShear(y_factor=0.3 * magnitude, dtype="float32"),
        keras.layers.RandomTranslation(half, 0.0, dtype="float32"),
        keras.layers.RandomTranslation(0.0, half, dtype="float32"),
        keras.layers.RandomRotation(magnitude * 30 / 360, dtype="float32"),
        # Of this factor, 0.5 is the identity.
        keras.layers.RandomSharpness((0.5 - half, 0.5 + half), dtype="float32"),
        keras.layers.RandomPosterization((bits, bits), dtype="float32"),
        keras.layers.AutoContrast(dtype="float32"),
        keras.layers.Equalization(dtype="float32"),
    )
    return [
        _identity,
        ColorJitter(color, 0.0, 0.0),
        ColorJitter(0.0, color, 0.0),
        ColorJitter(0.0, 0.0, color),
        functools.partial(_solarize, magnitude),
        *(functools.partial(_each_frame, layer) for layer in layers),
    ]


def _identity(clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return clip


def _solarize(magnitude: float, clip: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    threshold = 256 - 256 * magnitude * tf.random.stateless_uniform([], seed)
    values = tf.cast(clip, tf.float32)
    return _cast(tf.where(values < threshold, values, 255 - values), clip.dtype)


def _around_one(width: float) -> tuple[float, float]:
    return max(0.0, 1 - width), 1 + width


def _adjust_brightness(factor: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    return factor * frames


def _adjust_contrast(factor: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    gray = tf.image.rgb_to_grayscale(frames)
    return _blend(frames, tf.reduce_mean(gray, [1, 2, 3], True), factor)


def _adjust_saturation(factor: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    return _blend(frames, tf.image.rgb_to_grayscale(frames), factor)


def _adjust_hue(turn: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    return tf.image.adjust_hue(frames, turn)


def _mirrored_labels(
    labels: tf.Tensor, pairs: Sequence[tuple[int, int]]
) -> tf.Tensor:
    """As `swap_labels`, in the graph."""
    if labels.shape.rank == 1 and labels.shape[0] is not None:
        return tf.gather(labels, partners(pairs, labels.shape[0]))
    if labels.shape.rank != 0:
        raise ValueError(
            "`labels` must be those of one clip, a class number or shape "
            f"(num_classes,). Received: shape {labels.shape}"
        )
    mirrored = labels
    for left, right in (*pairs, *(pair[::-1] for pair in pairs)):
        number = tf.cast(right, labels.dtype)
        mirrored = tf.where(labels == left, number, mirrored)
    return mirrored


def _targets(labels: tf.Tensor, num_classes: int | None) -> tf.Tensor:
    """Labels as float32 of shape `(batch, num_classes)`."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and num_classes in (None, labels.shape[1]):
        return tf.cast(labels, tf.float32)
    if labels.shape.rank != 1 or not labels.dtype.is_integer or not num_classes:
        raise ValueError(
            "`labels` must be of shape (batch, num_classes), or with "
            "`num_classes` given, integers of shape (batch,). "
            f"Received: {labels.dtype.name} of shape {labels.shape} with "
            f"num_classes={num_classes}"
        )
    message = f"`labels` must be in [0, {num_classes})."
    tf.debugging.assert_non_negative(labels, message)
    tf.debugging.assert_less(
        labels, tf.cast(num_classes, labels.dtype), message
    )
    return tf.one_hot(labels, num_classes)


def _beta(alpha: float, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Numbers of the beta distribution of (alpha, alpha), float32."""
    # In float64, as those of a small `alpha` come near to 0.
    gamma = tf.random.stateless_gamma([2, count], seed, alpha, dtype="float64")
    return tf.cast(
        tf.math.divide_no_nan(gamma[0], gamma[0] + gamma[1]), tf.float32
    )


def _interval(sides: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Where among `size` pixels a random interval is, for each of a batch.

    Args:
        sides: Lengths, as parts of `size`, of shape `(batch,)`.
        size: Number of pixels.
        seed: Seed of the centres.

    Returns:
        bool of shape `(batch, size)`.
    """
    centers = tf.random.stateless_uniform(
        tf.shape(sides), seed, 0, size, tf.int32
    )
    widths = tf.cast(tf.round(sides * tf.cast(size, tf.float32)), tf.int32)
    pixels = tf.range(size) - (centers - widths // 2)[:, None]
    return (pixels >= 0) & (pixels < widths[:, None])


def _blend(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """`share` of the first, the rest of the second, in float32."""
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return share * first + (1 - share) * second


def _cast(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Casts to `dtype`, rounding for an integer one."""
    if dtype.is_integer:
        values = tf.round(values)
    return tf.saturate_cast(values, dtype)


def _checked_clip(
    clip: tf.Tensor, rank: int = 4, channels: int | None = 3
) -> tf.Tensor:
    clip = tf.convert_to_tensor(clip)
    if clip.shape.rank != rank or channels not in (None, clip.shape[-1]):
        raise ValueError(
            f"Clips must have rank {rank} and {channels or 'any'} channels. "
            f"Received: shape {clip.shape}"
        )
    return clip


def _checked_seed(seed: tf.Tensor) -> tf.Tensor:
    seed = tf.convert_to_tensor(seed)
    if seed.shape != (2,) or seed.dtype not in (tf.int32, tf.int64):
        raise ValueError(
            "`seed` must be int32 or int64 of shape (2,). "
            f"Received: {seed.dtype.name} of shape {seed.shape}"
        )
    # The same number gives the same whatever its type.
    return tf.cast(seed, tf.int64)
