"""Non-local neural networks for video, in Keras 3."""

import importlib

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.detection.mask_rcnn import MaskRCNN50
from keras_nonlocal.detection.mask_rcnn import MaskRCNN101
from keras_nonlocal.detection.mask_rcnn import MaskRCNN152
from keras_nonlocal.layers.batch_norm import Affine
from keras_nonlocal.layers.batch_norm import BatchNormalization
from keras_nonlocal.layers.convolution import Conv3D
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.layers.preprocessing import ClipNormalization
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import DetectorVariant
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
    "AttentionMaps": "visualization.attention",
    "AttentionStatistics": "visualization.attention_statistics",
    "BinnedMeanAveragePrecision": "metrics.binned_average_precision",
    "ClipAttention": "visualization.attention",
    "CocoAnnotations": "data.coco_annotations",
    "CocoImage": "data.coco_annotations",
    "CocoMetrics": "evaluation.coco",
    "ColorJitter": "data.augmentation",
    "Compose": "data.augmentation",
    "CutMix": "data.augmentation",
    "Detections": "prediction.objects",
    "DetectorConfig": "training.detector_config",
    "DetectorRecipe": "training.detector_recipes",
    "DetectorResult": "evaluation.coco",
    "Features": "prediction.features",
    "KerasAugmentation": "data.augmentation",
    "MixUp": "data.augmentation",
    "PROTOCOLS": "evaluation.protocols",
    "PreciseBatchNorm": "training.precise_bn",
    "Protocol": "evaluation.protocols",
    "RandAugment": "data.augmentation",
    "ReceptiveField": "visualization.receptive_field",
    "Recipe": "training.recipes",
    "RunConfig": "training.config",
    "SkipLog": "data.skips",
    "SkipReport": "training.callbacks",
    "Timeline": "prediction.timeline",
    "TrainConfig": "training.config",
    "VideoClip": "visualization.video_clip",
    "attend": "visualization.attention",
    "attention_arrows": "visualization.attention_figures",
    "attention_maps": "visualization.attention",
    "attention_overlay": "visualization.attention_figures",
    "attention_page": "visualization.attention_report",
    "attention_plots": "visualization.attention_figures",
    "attention_report": "visualization.attention_report",
    "attention_statistics": "visualization.attention_statistics",
    "audit": "data.audit",
    "average_precision": "metrics.average_precision",
    "camera": "data.frame_stream",
    "clip_dataset": "data.pipeline",
    "coco_dataset": "data.coco_dataset",
    "coco_metrics": "evaluation.coco",
    "coco_steps": "data.coco_dataset",
    "detect_objects": "prediction.objects",
    "draw_objects": "visualization.detection_figures",
    "evaluate": "evaluation.evaluate",
    "evaluate_detector": "evaluation.detector",
    "export_detector": "export.detector",
    "export_saved_model": "export.clips",
    "extract_features": "prediction.features",
    "grad_cam": "visualization.grad_cam",
    "grad_cam_strip": "visualization.attention_figures",
    "grad_cams": "visualization.grad_cam",
    "grouped_folds": "data.folds",
    "heat_overlay": "visualization.attention_figures",
    "iterate_objects": "prediction.objects",
    "load_recipe": "training.recipes",
    "make_relation_dataset": "data.synthetic",
    "mean_average_precision": "metrics.average_precision",
    "open_detector": "evaluation.detector_models",
    "open_model": "evaluation.models",
    "precise_batch_norm": "training.precise_bn",
    "predict_video": "prediction.predict",
    "prepare": "data.preparation",
    "published_clip": "evaluation.views",
    "read_ava_frames": "data.readers.ava",
    "read_charades": "data.readers.charades",
    "read_coco": "data.coco_annotations",
    "read_folder": "data.readers.folder",
    "read_hmdb51": "data.readers.hmdb51",
    "read_hmdb51_list": "data.readers.hmdb51",
    "read_kinetics": "data.readers.kinetics",
    "read_kinetics_list": "data.readers.lists",
    "read_shards": "data.shards",
    "read_something": "data.readers.something",
    "read_table": "data.readers.table",
    "read_ucf101": "data.readers.ucf101",
    "read_video_clip": "visualization.video_clip",
    "read_videos": "data.readers.recognize",
    "receptive_field": "visualization.receptive_field",
    "score_video": "evaluation.views",
    "train": "training.fit",
    "train_detector": "training.detector_fit",
    "video_dataset_from_directory": "data.directory",
    "write_features": "prediction.features",
    "write_gif": "visualization.media",
    "write_mp4": "visualization.media",
    "write_shards": "data.shard_writer",
}

__all__ = [
    "Affine",
    "AttentionMaps",
    "AttentionStatistics",
    "BatchNormalization",
    "BinnedMeanAveragePrecision",
    "C2D101",
    "C2D50",
    "ClipAttention",
    "ClipNormalization",
    "ClipSpec",
    "CocoAnnotations",
    "CocoImage",
    "CocoMetrics",
    "ColorJitter",
    "Compose",
    "Conv3D",
    "CutMix",
    "DETECTOR_VARIANTS",
    "Detections",
    "DetectorConfig",
    "DetectorRecipe",
    "DetectorResult",
    "DetectorVariant",
    "Features",
    "I3D101",
    "I3D50",
    "IMAGE_VARIANTS",
    "ImageVariant",
    "InceptionI3D",
    "KerasAugmentation",
    "MaskRCNN",
    "MaskRCNN101",
    "MaskRCNN152",
    "MaskRCNN50",
    "MemoryPlan",
    "MixUp",
    "NLC2D101",
    "NLC2D50",
    "NLI3D101",
    "NLI3D50",
    "NonLocal",
    "PROTOCOLS",
    "PreciseBatchNorm",
    "Protocol",
    "RandAugment",
    "ReceptiveField",
    "Recipe",
    "ResNet2D",
    "ResNet3D",
    "RunConfig",
    "SkipLog",
    "SkipReport",
    "Timeline",
    "TrainConfig",
    "VARIANTS",
    "Variant",
    "VideoClip",
    "VideoList",
    "__version__",
    "attend",
    "attention_arrows",
    "attention_maps",
    "attention_overlay",
    "attention_page",
    "attention_plots",
    "attention_report",
    "attention_statistics",
    "audit",
    "average_precision",
    "camera",
    "class_names",
    "clip_dataset",
    "coco_dataset",
    "coco_metrics",
    "coco_steps",
    "count_macs",
    "decode_predictions",
    "detect_objects",
    "draw_objects",
    "evaluate",
    "evaluate_detector",
    "export_detector",
    "export_saved_model",
    "extract_features",
    "fold_batch_norm",
    "grad_cam",
    "grad_cam_strip",
    "grad_cams",
    "grouped_folds",
    "heat_overlay",
    "inflate",
    "insert_nonlocal",
    "iterate_objects",
    "list_weights",
    "load_recipe",
    "make_relation_dataset",
    "mean_average_precision",
    "memory_plan",
    "nonlocal_layers",
    "open_detector",
    "open_model",
    "precise_batch_norm",
    "predict_video",
    "prepare",
    "published_clip",
    "read_ava_frames",
    "read_charades",
    "read_coco",
    "read_folder",
    "read_hmdb51",
    "read_hmdb51_list",
    "read_kinetics",
    "read_kinetics_list",
    "read_shards",
    "read_something",
    "read_table",
    "read_ucf101",
    "read_video_clip",
    "read_videos",
    "receptive_field",
    "rematerialize",
    "score_video",
    "train",
    "train_detector",
    "video_dataset_from_directory",
    "write_features",
    "write_gif",
    "write_mp4",
    "write_shards",
]


def __getattr__(name):
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ON_USE[name]}"), name)


def __dir__():
    return __all__
