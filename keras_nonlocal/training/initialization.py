"""The network that a training run starts from."""

import dataclasses
from typing import Any

import keras
from absl import logging

from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models.applications import same_network
from keras_nonlocal.models.inflation import inflate
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.resnet2d import ResNet2D
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import SMALL_SET
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.lookup import FoundWeights
from keras_nonlocal.weights.lookup import find

_BATCH_NORMS = ("batch", "sync_batch")
_CLASSIFIER = "logits"
# Fields that mean nothing in a network without non-local blocks.
_OF_BLOCKS = (
    "nonlocal_stage",
    "mode",
    "attention_axes",
    "sub_sample",
    "use_scale",
    "nonlocal_norm",
    "nonlocal_bias",
    "res3_group",
)


def initial_network(
    variant: Variant,
    config: TrainConfig,
    classes: int,
    num_videos: int,
    activation: str | None = None,
) -> tuple[keras.Model, Variant]:
    """Builds a network and fills it as the configuration says.

    The classifier is always fresh. What else is depends on `config.weights`:

    - `None`: everything.
    - Those of the network: nothing.
    - With `config.from_baseline`, those of the network without its non-local
      blocks: the blocks, which change nothing before they are trained.
    - With `config.weights_differ_in`, those of a network with other values
      there: nothing.
    - Those of an image network (section 4.1): the blocks; all other kernels
      are inflated. `"imagenet"` stands for those published for its depth.

    Pixels are normalized as the weights are used to: `mean` and `std` of the
    result are those of `config.weights`, as far as it tells them. Batch norms
    are treated as `config.batch_norm` says, but none of a fresh non-local block
    is frozen: its scale of 0 would make the block the identity for good.

    Args:
        variant: The network. Clip length and crop size may be others than
            those of the weights.
        config: Settings.
        classes: Number of classes.
        num_videos: Videos to train on, for `batch_norm="auto"`.
        activation: Of the scores; `None` gives logits.

    Returns:
        The model, not compiled, and the network it is: `variant`, but perhaps
        for `mean`, `std`, `norm` and `nonlocal_norm`.

    Raises:
        ValueError: If the weights are of another network, or if batch norms
            are to be frozen or folded without weights.
    """
    batch_norm = _batch_norm(config, num_videos)
    if config.weights is None:
        _check_fresh(variant, batch_norm)
        return ResNet3D(
            variant, classes=classes, classifier_activation=activation
        ), variant
    found = _find(config, variant)
    is_image = isinstance(found.network, ImageVariant)
    has_fresh_blocks = is_image or config.from_baseline
    variant = _as_weights(variant, found)
    if batch_norm == "affine":
        variant = _folded(variant, has_fresh_blocks)
    top = {"classes": classes, "classifier_activation": activation}
    if is_image:
        model = _inflated(found, variant, top)
    else:
        model = ResNet3D(variant, **top)
        if config.from_baseline or config.weights_differ_in:
            source = _wanted(config, variant, found.network)
            _fill_from(model, found, source)
        else:
            trunk = keras.Model(model.input, model.get_layer("pool5").output)
            found.fill(trunk, variant)
    if batch_norm == "freeze":
        _freeze(model, has_fresh_blocks)
    return model, variant


def with_activation(
    model: keras.Model, variant: Variant, activation: str | None
) -> keras.Model:
    """A copy of a network with other scores.

    Args:
        model: What `initial_network` gave, trained or not.
        variant: The network that it gave with it.
        activation: Of the scores of the copy.

    Returns:
        A model of the same weights, all of them trainable that can be.

    Example:

    >>> from keras_nonlocal import VARIANTS
    >>> model = ResNet3D(VARIANTS["small_c2d"], classes=5)
    >>> copy = with_activation(model, VARIANTS["small_c2d"], "sigmoid")
    >>> copy.get_layer("predictions").get_config()["activation"]
    'sigmoid'
    """
    copy = ResNet3D(
        variant,
        classes=model.get_layer(_CLASSIFIER).units,
        classifier_activation=activation,
        name=model.name,
    )
    _copy_weights(model, copy)
    return copy


def _batch_norm(config: TrainConfig, num_videos: int) -> str:
    if config.batch_norm != "auto":
        return config.batch_norm
    is_small = num_videos < SMALL_SET
    return "freeze" if config.weights is not None and is_small else "train"


def _check_fresh(variant: Variant, batch_norm: str) -> None:
    if batch_norm != "train":
        raise ValueError(
            f"batch_norm={batch_norm!r} needs `weights` with trained "
            "statistics. Received: weights=None"
        )
    if variant.norm == "affine":
        logging.warning(
            'norm="affine" normalizes nothing: it is for folded batch norms '
            "of trained weights, and none are given."
        )


def _find(config: TrainConfig, variant: Variant) -> FoundWeights:
    """The weights, which are of the variant, its baseline or an image network.

    Raises:
        ValueError: If they are of another network.
    """
    weights = config.weights
    datasets = {entry.dataset for entry in CATALOGUE.values()}
    if weights == "imagenet":
        image = ImageVariant(variant.depth, stride_in_1x1=variant.stride_in_1x1)
        return find(weights, image)
    # A data set has weights of many networks; all else tells its own, if any.
    if weights in datasets:
        return find(weights, _wanted(config, variant, None))
    found = find(weights)
    if isinstance(found.network, ImageVariant):
        return found
    wanted = _wanted(config, variant, found.network)
    if same_network(found.network, wanted):
        return found
    return find(weights, wanted)  # Or says in what they differ.


def _wanted(config: TrainConfig, variant: Variant, network: Any) -> Variant:
    """What weights have to be of.

    Args:
        config: Settings.
        variant: The network to fill.
        network: What the weights say that they are of, if they do.
    """
    if config.from_baseline:
        variant = _baseline(variant, network)
    if isinstance(network, Variant):
        variant = _with_pixels_of(variant, network)
        theirs = {
            name: getattr(network, name) for name in config.weights_differ_in
        }
        variant = dataclasses.replace(variant, **theirs)
    return variant


def _baseline(variant: Variant, network: Any) -> Variant:
    """A network without its non-local blocks.

    Args:
        variant: The network.
        network: The one to which the weights belong, if it is known: what it
            says of non-local blocks it does not mean.
    """
    like = network if isinstance(network, Variant) else Variant()
    return dataclasses.replace(
        variant,
        num_nonlocal=0,
        nonlocal_places=None,
        **{name: getattr(like, name) for name in _OF_BLOCKS},
    )


def _with_pixels_of(variant: Variant, network: Any) -> Variant:
    return dataclasses.replace(variant, mean=network.mean, std=network.std)


def _as_weights(variant: Variant, found: FoundWeights) -> Variant:
    """The variant with the normalization that the weights are used to."""
    if found.network is None:
        return variant
    changed = _with_pixels_of(variant, found.network)
    if changed != variant:
        logging.info(
            "Pixels are normalized as the weights are used to: mean %s, "
            "standard deviation %s.",
            changed.mean,
            changed.std,
        )
    return changed


def _folded(variant: Variant, has_fresh_blocks: bool) -> Variant:
    """The variant with frozen scales and shifts for filled batch norms."""
    changes: dict[str, Any] = {"norm": "affine"}
    if variant.nonlocal_norm in _BATCH_NORMS and not has_fresh_blocks:
        changes["nonlocal_norm"] = "affine"
    return dataclasses.replace(variant, **changes)


def _inflated(
    found: FoundWeights, variant: Variant, top: dict[str, Any]
) -> keras.Model:
    image = found.network
    wanted = {
        "depth": image.depth,
        "width": 64,
        "stride_in_1x1": image.stride_in_1x1,
        "res5_stride": 2,
    }
    wrong = [
        f"{name}: {value!r} there, {getattr(variant, name)!r} here"
        for name, value in wanted.items()
        if getattr(variant, name) != value
    ]
    if wrong:
        raise ValueError(
            "\n".join(
                ["`weights` are of an image network that does not fit.", *wrong]
            )
        )
    # Not `strict`: the paper inflates into networks that do not pad pool1.
    return inflate(
        ResNet2D(image, include_top=False, weights=found),
        variant,
        strict=False,
        **top,
    )


def _fill_from(
    model: keras.Model, found: FoundWeights, source: Variant
) -> None:
    """Fills what a network has in common with the one of the weights."""
    filled = ResNet3D(source, include_top=False, weights=found)
    _copy_weights(filled, model)


def _copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies layer by layer, by name; the target may have more layers."""
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())


def _freeze(model: keras.Model, has_fresh_blocks: bool) -> None:
    """Freezes the batch norms that weights have filled."""
    kind = keras.layers.BatchNormalization
    filled = [layer for layer in model.layers if isinstance(layer, kind)]
    in_blocks = [
        layer.out_norm
        for layer in model.layers
        if isinstance(layer, NonLocal)
        and isinstance(getattr(layer, "out_norm", None), kind)
    ]
    trained = in_blocks if has_fresh_blocks else []
    frozen = filled if has_fresh_blocks else filled + in_blocks
    for norm in frozen:
        norm.trainable = False
    logging.info(
        "%d batch norms are frozen; %d of fresh non-local blocks are trained.",
        len(frozen),
        len(trained),
    )
