"""Constructors of the paper's networks, in the form of `keras.applications`.

The networks differ only in their row of `VARIANTS`; whatever else the paper
ablates is built by `ResNet3D` from a `Variant`.

>>> model = NLI3D50(classes=5)
>>> model.output_shape, model.get_layer("nonlocal_res4_3").mode
((None, 5), 'embedded_gaussian')
"""

from keras_nonlocal.models import pretrained
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS

_DOCSTRING = """{summary}

    Without weights it has the paper's stem, for 32 frames sampled at every
    2nd; `ResNet3D` takes "{variant}_8x8" and all other variants.

    Args:
        include_top: Whether to end with the classifier.
        weights: `None` (random weights); `"kinetics400"`, the first entry of
            `list_weights()` for this architecture; the name of any entry for
            it; or the path of a file: our own, or one of another code base
            that the catalogue knows by its hash. An entry, or a file that was
            converted by this package, decides on strides, paddings and all
            else that this constructor leaves open; for other files say it to
            `ResNet3D`. With `include_top=False` the file's classifier is left
            out.
        input_tensor: Optional Keras tensor to take as the input.
        input_shape: `(frames, height, width, 3)`. Any size but the channels
            may be `None`; by default all are.
        pooling: Without top: `None` gives the maps of res5, `"avg"` and
            `"max"` one vector a clip.
        classes: Number of classes.
        classifier_activation: Of the scores; `None` gives logits.
        name: Of the model. Default: "{variant}".
        include_preprocessing: Whether the model takes RGB in 0..255 (uint8 or
            float). If not, it takes what `ClipNormalization` would give.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If an argument is not as described, if the clip is smaller
            than the network can take, or if the file does not fit.

    Example:

    ```python
    model = {name}(classes=5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(clips)  # uint8 RGB (batch, T, H, W, 3), and labels
    ```
    """


def _constructor(name, variant, summary):
    def constructor(
        include_top=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=400,
        classifier_activation="softmax",
        name=None,
        include_preprocessing=True,
    ):
        network, weights = pretrained.pin(VARIANTS[variant], weights)
        return ResNet3D(
            network,
            include_top=include_top,
            weights=weights,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name or variant,
            include_preprocessing=include_preprocessing,
        )

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = _DOCSTRING.format(
        name=name, variant=variant, summary=summary
    )
    return constructor


C2D50 = _constructor(
    "C2D50", "c2d_r50", "C2D ResNet-50, 2-D kernels only (table 1)."
)
C2D101 = _constructor(
    "C2D101", "c2d_r101", "C2D ResNet-101, 2-D kernels only (table 1)."
)
I3D50 = _constructor(
    "I3D50", "i3d_r50", "I3D ResNet-50, inflated 3x1x1 (section 4.1)."
)
I3D101 = _constructor(
    "I3D101", "i3d_r101", "I3D ResNet-101, inflated 3x1x1 (section 4.1)."
)
NLC2D50 = _constructor(
    "NLC2D50", "nl_c2d_r50", "C2D ResNet-50 with 5 non-local blocks."
)
NLC2D101 = _constructor(
    "NLC2D101", "nl_c2d_r101", "C2D ResNet-101 with 5 non-local blocks."
)
NLI3D50 = _constructor(
    "NLI3D50", "nl_i3d_r50", "I3D ResNet-50 with 5 non-local blocks."
)
NLI3D101 = _constructor(
    "NLI3D101", "nl_i3d_r101", "I3D ResNet-101 with 5 non-local blocks."
)
