"""A detector that is small and quick."""

import dataclasses

from keras_nonlocal.detection.mask_rcnn import MaskRCNN
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS


def tiny_variant(classes=3, name="nl_mask_rcnn_r50", **fields):
    """A variant of the same form, but narrow."""
    variant = DETECTOR_VARIANTS[name]
    return dataclasses.replace(
        variant,
        **{
            "trunk": dataclasses.replace(variant.trunk, depth=26, width=8),
            "classes": classes,
            "pyramid_channels": 16,
            "box_units": 16,
            "mask_channels": 8,
            "anchor_sizes": (8, 16, 32, 64, 128),
            "pre_nms": (60, 40),
            "post_nms": (30, 20),
            "region_samples": 16,
            "rpn_samples": 32,
            "max_detections": 8,
            "sampling_ratio": 2,
            **fields,
        },
    )


def tiny_detector(classes=3, **fields):
    """Its network, with the weights that a new one has."""
    return MaskRCNN(tiny_variant(classes, **fields))
