"""Non-local neural networks for video, in Keras 3."""

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.batch_norm import BatchNormalization
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.models.video import C2D50
from keras_nonlocal.models.video import C2D101
from keras_nonlocal.models.video import I3D50
from keras_nonlocal.models.video import I3D101
from keras_nonlocal.models.video import NLC2D50
from keras_nonlocal.models.video import NLC2D101
from keras_nonlocal.models.video import NLI3D50
from keras_nonlocal.models.video import NLI3D101
from keras_nonlocal.version import __version__

__all__ = [
    "Affine",
    "BatchNormalization",
    "C2D101",
    "C2D50",
    "ClipNormalization",
    "ClipSpec",
    "I3D101",
    "I3D50",
    "NLC2D101",
    "NLC2D50",
    "NLI3D101",
    "NLI3D50",
    "NonLocal",
    "ResNet3D",
    "VARIANTS",
    "Variant",
    "VideoList",
    "__version__",
    "count_macs",
]
