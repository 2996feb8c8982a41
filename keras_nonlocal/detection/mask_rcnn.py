"""Mask R-CNN with a feature pyramid and, in the paper, a non-local block."""

import contextlib
import dataclasses
import functools
import typing

import keras
from keras import ops

from keras_nonlocal.detection import replicas
from keras_nonlocal.detection.anchors import make_anchors
from keras_nonlocal.detection.boxes import clip
from keras_nonlocal.detection.detections import detect
from keras_nonlocal.detection.detections import select_masks
from keras_nonlocal.detection.fpn import MULTIPLE
from keras_nonlocal.detection.fpn import make_trunk
from keras_nonlocal.detection.heads import make_box_head
from keras_nonlocal.detection.heads import make_mask_head
from keras_nonlocal.detection.heads import make_rpn_head
from keras_nonlocal.detection.losses import box_losses
from keras_nonlocal.detection.losses import mask_loss
from keras_nonlocal.detection.losses import rpn_losses
from keras_nonlocal.detection.masks import mask_targets
from keras_nonlocal.detection.proposals import propose
from keras_nonlocal.detection.roi_align import assign_levels
from keras_nonlocal.detection.roi_align import roi_align
from keras_nonlocal.detection.targets import mask_slots
from keras_nonlocal.detection.targets import region_targets
from keras_nonlocal.detection.targets import rpn_targets
from keras_nonlocal.layers.network_record import NetworkRecord
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models import applications
from keras_nonlocal.models import pretrained
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import PRESETS
from keras_nonlocal.models.detector_variants import STRIDES
from keras_nonlocal.models.detector_variants import TRAINING_FIELDS
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.models.detector_variants import describe_detector
from keras_nonlocal.models.detector_variants import detector_name
from keras_nonlocal.models.detector_variants import restore_detector
from keras_nonlocal.weights import convert

TARGETS = ("boxes", "classes", "masks")
LOSSES = (
    "rpn_class_loss",
    "rpn_box_loss",
    "class_loss",
    "box_loss",
    "mask_loss",
)
_SHAPES: dict[str, tuple] = {
    "images": ("batch", "height", "width", 3),
    "sizes": ("batch", 2),
    "original_sizes": ("batch", 2),
    "boxes": ("batch", "objects", 4),
    "classes": ("batch", "objects"),
    "masks": ("batch", "objects", "side", "side"),
}
# RoIAlign reads P2 to P5.
_LOWEST, _POOLED = 2, 4


class _LossMeans:
    """The running means of the five losses.

    They are no attributes of the model itself, whose files would hold them.
    """

    def __init__(self):
        self.metrics = [keras.metrics.Mean(name=name) for name in LOSSES]

    def update(self, losses):
        for metric, loss in zip(self.metrics, losses, strict=True):
            metric.update_state(loss)


@keras.saving.register_keras_serializable(package="keras_nonlocal")
class MaskRCNN(keras.Model):
    """Mask R-CNN: boxes, classes and masks of the objects of an image.

    A residual network with a feature pyramid; a region proposal network; RoI
    Align; a box head and a mask head. With `num_nonlocal=1` in its trunk it is
    the paper's detector (section 6): "We modify the Mask R-CNN backbone by
    adding one non-local block (right before the last residual block of res4)".

    `compile` takes an optimizer and no loss; `fit` and `evaluate` show the
    five losses by name, and their sum as `loss`; they take no weights of
    samples or classes. `predict` gives detections, whether its data have
    targets or not.

    Args:
        variant: A `DetectorVariant`, or the name of one in
            `DETECTOR_VARIANTS`.
        weights: `None` (random weights), a name of `list_weights()` or the
            path of a file: detectron2's, Detectron's, torchvision's or our
            own. A file without the non-local block leaves it as it is: the
            identity.
        backbone_weights: Weights of an image network, for the trunk alone: a
            name or the path of a file.
        name: Of the model. Default: the variant's name.
        dtype: Policy of all layers. Default: Keras' global one.

    Input:
        Images `(B, H, W, 3)`, RGB in 0..255, of any dtype, or a dict; sizes
        may be unknown:

        - `"images"`: as above. Smaller ones stand in the upper left corner.
        - `"sizes"`: `(B, 2)`, int32: height and width of each image in it;
          what stands beyond is ignored. Default: all of it.
        - `"original_sizes"`: `(B, 2)`, int32: those of the image before it was
          resized. Detections are in its pixels. Default: `sizes`.
        - `"boxes"` `(B, G, 4)`, float32, in pixels of `images`; `"classes"`
          `(B, G)`, int32, -1 in slots without an object, with one that is
          not below `variant.classes` losses are not a number; `"masks"`
          `(B, G, S, S)`, uint8, 0 or 1, each of them over its box: the
          targets, in training and evaluation.

        Other keys are ignored.

    Output:
        Without targets a dict of `"boxes"` `(B, D, 4)` float32: x1, y1, x2, y2;
        `"scores"` `(B, D)` float32, falling; `"classes"` `(B, D)` int32, -1 in
        slots without an object; `"masks"` `(B, D, M, M)` float32:
        probabilities over the box; `"num_detections"` `(B,)` int32. D is
        `variant.max_detections`, M is `2 * variant.mask_size`. With targets
        what `compute_loss` needs.

    Attributes:
        variant: The `DetectorVariant`.
        trunk: A functional model from normalised images to P2, ..., P6.
        rpn_head: A functional model, see `make_rpn_head`.
        box_head: A functional model, see `make_box_head`.
        mask_head: A functional model, see `make_mask_head`.

    Raises:
        ValueError: If an argument is not as described, or if a file does not
            fit.

    Source: "Mask R-CNN" (He et al., ICCV 2017), "Non-local Neural Networks"
    (Wang et al., CVPR 2018), section 6 and table 5.

    Example:

    >>> import dataclasses
    >>> base = DETECTOR_VARIANTS["nl_mask_rcnn_r50"]
    >>> small = dataclasses.replace(
    ...     base,
    ...     trunk=dataclasses.replace(base.trunk, depth=26, width=8),
    ...     pyramid_channels=16, box_units=16, mask_channels=8, classes=3,
    ...     post_nms=(20, 20), max_detections=5,
    ... )
    >>> model = MaskRCNN(small)
    >>> objects = model.predict(np.zeros((1, 64, 96, 3), "uint8"), verbose=0)
    >>> objects["boxes"].shape, objects["masks"].shape
    ((1, 5, 4), (1, 5, 28, 28))
    """

    def __init__(
        self,
        variant,
        weights=None,
        backbone_weights=None,
        name=None,
        dtype=None,
        **kwargs,
    ):
        if isinstance(variant, dict):
            variant = restore_detector(variant)
        variant = applications.look_up(variant, DETECTOR_VARIANTS)
        if weights is not None and backbone_weights is not None:
            raise ValueError(
                "`weights` are those of the backbone too; pass one of the two. "
                f"Received: weights={weights!r}, "
                f"backbone_weights={backbone_weights!r}"
            )
        checkpoint, variant = applications.find_weights(
            weights, variant, DetectorVariant
        )
        backbone = pretrained.find_backbone(backbone_weights, variant)
        super().__init__(
            name=name or _name(variant), dtype=dtype, autocast=False, **kwargs
        )
        if keras.backend.backend() == "tensorflow":
            # Until `compile` says otherwise: on a GPU Keras takes XLA, which
            # compiles anew for each size of images.
            self.jit_compile = False
        self.variant = variant
        with _global_policy(self.dtype_policy):
            self.normalize = ClipNormalization(
                variant.trunk.mean, variant.trunk.std, name="normalize"
            )
            self.trunk = make_trunk(variant)
            self.rpn_head = make_rpn_head(variant)
            self.box_head = make_box_head(variant)
            self.mask_head = make_mask_head(variant)
        self.seed_generator = keras.random.SeedGenerator()
        self._loss_means = _LossMeans()
        self.normalize.build((None, None, None, 3))
        self.built = True
        for found in (checkpoint, backbone):
            if found is not None:
                found.fill(self, variant)

    def call(self, inputs, training=None):
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        _check_shapes(inputs)
        images, sizes = inputs["images"], _sizes(inputs)
        has_targets = _has_targets(inputs)
        levels = self.trunk(self._prepare(images, sizes), training=training)
        logits, deltas = self._rpn(levels)
        anchors = self._anchors(levels)
        # An evaluation has the losses of the regions of training, too.
        proposals = propose(
            logits, deltas, anchors, sizes, self.variant, training=has_targets
        )
        if not has_targets:
            ends = inputs.get("original_sizes")
            return self._detections(levels, proposals, sizes, ends)
        truth = _truth(inputs, self.variant)
        targets = rpn_targets(
            ops.concatenate(anchors, axis=0),
            truth.boxes,
            truth.classes >= 0,
            sizes,
            self.variant,
            self.seed_generator,
        )
        of_rpn = rpn_losses(
            ops.concatenate(logits, axis=1),
            ops.concatenate(deltas, axis=1),
            targets,
            self.variant,
        )
        losses = (*of_rpn, *self._head_losses(levels, proposals, truth))
        # A graph cannot say that there are too few classes.
        fits = ops.all(inputs["classes"] < self.variant.classes)
        return {
            name: ops.where(fits, loss, float("nan"))
            for name, loss in zip(LOSSES, losses, strict=True)
        }

    @functools.wraps(keras.Model.compile)
    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **kwargs,
    ):
        _refuse(
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
        )
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config):
        # Keras leaves it out where `compile` is not its own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, class_weight=None, sample_weight=None, **kwargs):
        _refuse(class_weight=class_weight, sample_weight=sample_weight)
        return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, sample_weight=None, **kwargs):
        _refuse(sample_weight=sample_weight)
        return super().evaluate(*args, **kwargs)

    def compute_loss(
        self,
        x=None,
        y=None,
        y_pred=None,
        sample_weight=None,
        training=True,
    ):
        """The sum of the five losses, whose means `metrics` track.

        Args:
            x: Not used.
            y: Not used: targets are part of the input.
            y_pred: The losses, as the model gives them with targets.
            sample_weight: Must be `None`.
            training: Not used.

        Raises:
            ValueError: If the input had no targets, or if there are weights.
        """
        del x, y, training
        _refuse(sample_weight=sample_weight)
        if not set(LOSSES) <= set(y_pred):
            raise ValueError(
                "fit and evaluate need the targets "
                f"{', '.join(map(repr, TARGETS))} in the dict of inputs."
            )
        losses = [y_pred[name] for name in LOSSES]
        self._loss_means.update(losses)
        return replicas.share(sum(losses))

    def predict_step(self, *args):
        """Detections of a batch: targets in it are ignored.

        Args:
            *args: As of `keras.Model.predict_step` on each backend.
        """
        *state, data = args
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if isinstance(x, dict):
            x = {key: x[key] for key in x if key not in TARGETS}
        return super().predict_step(*state, (x,))

    def save_own_variables(self, store):
        self._record().save_own_variables(store)

    def load_own_variables(self, store):
        self._record().load_own_variables(store)

    def _record(self):
        """What files of weights say of their network.

        It is no layer of the model: Keras reaches layers by two ways, and
        forgives what failed on the first.
        """
        fields = describe_detector(self.variant)
        training = {key: fields.pop(key) for key in TRAINING_FIELDS}
        return NetworkRecord(fields, training, name="network")

    @property
    def metrics(self):
        return [*super().metrics, *self._loss_means.metrics]

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "variant": describe_detector(self.variant),
            "frozen": [x.name for x in self._parts() if not x.trainable],
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        frozen = config.pop("frozen", None)
        model = cls(**config)
        if frozen is not None:
            for part in model._parts():
                part.trainable = part.name not in frozen
        return model

    def _parts(self):
        """The functional models, and then their layers."""
        models = [self.trunk, self.rpn_head, self.box_head, self.mask_head]
        return models + [layer for model in models for layer in model.layers]

    def _prepare(self, images, sizes):
        """Normalised images, zero beyond `sizes`, of sizes the trunk takes."""
        x = self.normalize(images)
        _, height, width, _ = ops.shape(x)
        sizes = ops.cast(sizes, "int32")
        is_row = ops.arange(height, dtype="int32") < sizes[:, :1]
        is_column = ops.arange(width, dtype="int32") < sizes[:, 1:]
        is_inside = ops.logical_and(is_row[:, :, None], is_column[:, None])
        # Not a product: what stands there may be not a number.
        x = ops.where(is_inside[..., None], x, ops.zeros((), x.dtype))
        pads = [(0, -side % MULTIPLE) for side in (height, width)]
        return ops.pad(x, [(0, 0), *pads, (0, 0)])

    def _rpn(self, levels):
        """Logits `(B, A_l)` and deltas `(B, A_l, 4)` of each level."""
        logits, deltas = [], []
        for level in levels:
            batch, height, width, _ = ops.shape(level)
            anchors = height * width * self.variant.num_anchors
            for_objects, for_boxes = self.rpn_head(level)
            logits.append(ops.reshape(for_objects, (batch, anchors)))
            deltas.append(ops.reshape(for_boxes, (batch, anchors, 4)))
        return logits, deltas

    def _anchors(self, levels):
        """Anchors `(A_l, 4)` of each level."""
        v = self.variant
        grids = [ops.shape(level)[1:3] for level in levels]
        strides: list = list(STRIDES)
        if v.anchor_style == "rounded":
            # torchvision stretches P6 over the image, odd sizes or not.
            strides[-1] = tuple(
                STRIDES[0] * first // last
                for first, last in zip(grids[0], grids[-1], strict=True)
            )
        return [
            make_anchors(
                height, width, stride, size, v.anchor_ratios, v.anchor_style
            )
            for (height, width), stride, size in zip(
                grids, strides, v.anchor_sizes, strict=True
            )
        ]

    def _pool(self, levels, boxes, size):
        """The regions of boxes `(B, N, 4)`: `(B, N, size, size, C)`."""
        v = self.variant
        numbers = assign_levels(
            boxes,
            epsilon=v.level_epsilon,
            rule=v.level_rule,
            offset=v.box_offset,
        )
        return roi_align(
            levels[:_POOLED],
            STRIDES[:_POOLED],
            boxes,
            size,
            v.sampling_ratio,
            v.aligned,
            levels=numbers - _LOWEST,
        )

    def _box_outputs(self, levels, boxes):
        """Logits `(B, N, K + 1)` and deltas `(B, N, 4 * K)` of boxes."""
        regions = self._pool(levels, boxes, self.variant.box_size)
        return [
            _unfold(output, regions) for output in self.box_head(_fold(regions))
        ]

    def _mask_outputs(self, levels, boxes):
        """Logits of masks, `(B, N, M, M, K)`."""
        regions = self._pool(levels, boxes, self.variant.mask_size)
        return _unfold(self.mask_head(_fold(regions)), regions)

    def _head_losses(self, levels, proposals, truth):
        """Losses of classes, boxes and masks."""
        v = self.variant
        regions = region_targets(
            proposals, truth.boxes, truth.classes, v, self.seed_generator
        )
        logits, deltas = self._box_outputs(levels, regions.boxes)
        of_boxes = box_losses(logits, deltas, regions, v)
        # Positive regions stand in the first slots.
        slots = mask_slots(v)
        boxes, classes, matched, is_positive = (
            values[:, :slots]
            for values in (
                regions.boxes,
                regions.classes,
                regions.matched,
                regions.is_positive,
            )
        )
        # Detectron reads its boxes without the offset here.
        targets = mask_targets(
            truth.masks, truth.mask_boxes, boxes, matched, 2 * v.mask_size
        )
        logits = self._mask_outputs(levels, boxes)
        return *of_boxes, mask_loss(logits, targets, classes, is_positive)

    def _detections(self, levels, proposals, sizes, original_sizes):
        """What the model gives without targets."""
        v = self.variant
        logits, deltas = self._box_outputs(levels, proposals.boxes)
        found = detect(logits, deltas, proposals, sizes, v)
        masks = self._mask_outputs(levels, found["boxes"])
        masks = select_masks(masks, found["classes"])
        # What is inclusive inside is not so outside.
        boxes = _end_earlier(found["boxes"], -v.box_offset)
        boxes = ops.where(found["classes"][..., None] >= 0, boxes, 0.0)
        if original_sizes is not None:
            scale = ops.cast(original_sizes, "float32")
            scale = scale / ops.cast(sizes, "float32")
            boxes = boxes * ops.tile(ops.flip(scale, axis=1), (1, 2))[:, None]
            boxes = clip(boxes, original_sizes)
        return {**found, "boxes": boxes, "masks": masks}


def _detector(
    trunk, nonlocal_blocks, weights, backbone_weights, classes, preset, name
):
    if preset not in (None, *PRESETS):
        raise ValueError(
            f"`preset` must be one of {tuple(PRESETS)} or None. "
            f"Received: {preset!r}"
        )
    if nonlocal_blocks not in (0, 1):
        raise ValueError(
            f"`nonlocal_blocks` must be 0 or 1. Received: {nonlocal_blocks!r}"
        )
    key = detector_name(trunk, preset or "detectron2", nonlocal_blocks)
    variant = DETECTOR_VARIANTS[key]
    if preset is None:
        variant, weights = pretrained.pin(variant, weights)
        variant, backbone_weights = pretrained.pin_backbone(
            variant, backbone_weights
        )
        variant = variant.with_nonlocal(nonlocal_blocks)
    if classes is not None:
        variant = dataclasses.replace(variant, classes=classes)
        weights = pretrained.find_for_classes(weights, variant)
    return MaskRCNN(variant, weights, backbone_weights, name)


_DOCSTRING = """{summary}

    Args:
        nonlocal_blocks: 1 for the paper's detector, 0 for its baseline.
        weights: As of `MaskRCNN`. Weights of the baseline may be loaded into
            the detector with a block, which leaves their outputs as they are.
        backbone_weights: As of `MaskRCNN`.
        classes: Number of classes, without the background. If `weights` are
            of another number, the layers that depend on it (`box_classes`,
            `box_deltas`, `mask_logits`) are left random. Default: that of the
            weights, or 80.
        preset: A key of `PRESETS`: whose settings and image statistics hold.
            Default: those that `weights` were trained with, or
            `"detectron2"`.
        name: Of the model.

    Returns:
        A `MaskRCNN`.

    Raises:
        ValueError: If an argument is not as described.

    Example:

    ```python
    model = {name}(classes=3)
    model.compile("sgd")
    model.fit(batches)  # Of coco_dataset(..., training=True).
    ```
    """


def _constructor(name, trunk, summary):
    def constructor(
        nonlocal_blocks=1,
        weights=None,
        backbone_weights=None,
        classes=None,
        preset=None,
        name=None,
    ):
        return _detector(
            trunk,
            nonlocal_blocks,
            weights,
            backbone_weights,
            classes,
            preset,
            name,
        )

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = _DOCSTRING.format(name=name, summary=summary)
    return constructor


MaskRCNN50 = _constructor(
    "MaskRCNN50", "r50", "Mask R-CNN with ResNet-50 (section 6)."
)
MaskRCNN101 = _constructor(
    "MaskRCNN101", "r101", "Mask R-CNN with ResNet-101 (section 6)."
)
MaskRCNN152 = _constructor(
    "MaskRCNN152", "x152", "Mask R-CNN with ResNeXt-152 32x8d (section 6)."
)


class _Truth(typing.NamedTuple):
    """Objects of a batch; `boxes` with the variant's offset."""

    boxes: keras.KerasTensor
    classes: keras.KerasTensor
    masks: keras.KerasTensor
    mask_boxes: keras.KerasTensor


def _truth(inputs, variant):
    boxes = ops.cast(inputs["boxes"], "float32")
    classes = ops.cast(inputs["classes"], "int32")
    return _Truth(
        _end_earlier(boxes, variant.box_offset),
        ops.where(classes < variant.classes, classes, -1),
        inputs["masks"],
        boxes,
    )


def _end_earlier(boxes, offset):
    """Boxes whose right and lower ends are `offset` less."""
    return boxes - ops.convert_to_tensor([0.0, 0.0, offset, offset], "float32")


def _refuse(**arguments):
    """Refuses what Keras would ignore without a word."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"A MaskRCNN has losses of its own; `{name}` must be None. "
                f"Received: {value!r}"
            )


def _check_shapes(inputs):
    if "images" not in inputs:
        raise ValueError(
            "The dict of inputs must have 'images'. "
            f"Received: {', '.join(map(repr, inputs))}"
        )
    for name in _SHAPES.keys() & inputs.keys():
        shape, expected = tuple(inputs[name].shape), _SHAPES[name]
        if len(shape) != len(expected) or any(
            isinstance(size, int) and found not in (size, None)
            for found, size in zip(shape, expected, strict=True)
        ):
            sizes = ", ".join(map(str, expected))
            raise ValueError(
                f"`{name}` must be of shape ({sizes}). Received: shape {shape}"
            )


def _sizes(inputs):
    """Heights and widths of the images of a batch, `(B, 2)`, int32."""
    images = inputs["images"]
    if "sizes" in inputs:
        return ops.cast(inputs["sizes"], "int32")
    batch, height, width, _ = ops.shape(images)
    sizes = ops.cast(ops.stack([height, width]), "int32")
    return ops.broadcast_to(sizes, (batch, 2))


def _has_targets(inputs):
    found = [key for key in TARGETS if key in inputs]
    if 0 < len(found) < len(TARGETS):
        raise ValueError(
            f"The targets are {TARGETS}, all of them or none. "
            f"Received: only {', '.join(found)}"
        )
    return bool(found)


def _fold(regions):
    """`(B, N, ...)` as `(B * N, ...)`."""
    return ops.reshape(regions, (-1, *regions.shape[2:]))


def _unfold(x, regions):
    return ops.reshape(x, (-1, regions.shape[1], *x.shape[1:]))


def _name(variant):
    known = (k for k, value in DETECTOR_VARIANTS.items() if value == variant)
    return next(known, "mask_rcnn")


@contextlib.contextmanager
def _global_policy(policy):
    """Lets the layers that are made have a dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


convert.register(DetectorVariant, lambda network, classes: MaskRCNN(network))
