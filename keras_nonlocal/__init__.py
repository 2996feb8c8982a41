"""Non-local neural networks for video, in Keras 3."""

import importlib

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.batch_norm import BatchNormalization
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models.folding import fold_batch_norm
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.inflation import inflate
from keras_nonlocal.models.insertion import insert_nonlocal
from keras_nonlocal.models.insertion import nonlocal_layers
from keras_nonlocal.models.labels import class_names
from keras_nonlocal.models.labels import decode_predictions
from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.memory import MemoryPlan
from keras_nonlocal.models.memory import memory_plan
from keras_nonlocal.models.rematerialization import rematerialize
from keras_nonlocal.models.resnet2d import IMAGE_VARIANTS
from keras_nonlocal.models.resnet2d import ImageVariant
from keras_nonlocal.models.resnet2d import ResNet2D
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
from keras_nonlocal.weights.catalogue import list_weights

# These need TensorFlow or a video decoder, which networks on the other
# backends do not: imported when first used.
_ON_USE = {
    "TrainConfig": "training.config",
    "clip_dataset": "data.pipeline",
    "export_saved_model": "export",
    "make_relation_dataset": "data.synthetic",
    "read_folder": "data.readers.folder",
    "score_video": "evaluation.views",
    "train": "training.fit",
    "video_dataset_from_directory": "data.pipeline",
}

__all__ = [
    "C2D101",
    "C2D50",
    "I3D101",
    "I3D50",
    "IMAGE_VARIANTS",
    "NLC2D101",
    "NLC2D50",
    "NLI3D101",
    "NLI3D50",
    "VARIANTS",
    "Affine",
    "BatchNormalization",
    "ClipNormalization",
    "ClipSpec",
    "Conv3D",
    "ImageVariant",
    "InceptionI3D",
    "MemoryPlan",
    "NonLocal",
    "ResNet2D",
    "ResNet3D",
    "TrainConfig",
    "Variant",
    "VideoList",
    "__version__",
    "class_names",
    "clip_dataset",
    "count_macs",
    "decode_predictions",
    "export_saved_model",
    "fold_batch_norm",
    "inflate",
    "insert_nonlocal",
    "list_weights",
    "make_relation_dataset",
    "memory_plan",
    "nonlocal_layers",
    "read_folder",
    "rematerialize",
    "score_video",
    "train",
    "video_dataset_from_directory",
]


def __getattr__(name):
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ON_USE[name]}"), name)


def __dir__():
    return __all__
