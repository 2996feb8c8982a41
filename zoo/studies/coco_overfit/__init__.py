"""Whether a detector can learn eight images by heart, on a processor.

    python -m zoo.studies.coco_overfit --annotations instances.json \
        --images images --out runs/coco_overfit --publish

A narrow Mask R-CNN with a non-local block starts from random weights and is
trained and tested on the same eight images of a folder in COCO's format: the
first ones whose objects are all at least a sixteenth of the picture wide and
high. That says nothing of how well it detects in other images; it says that
boxes, masks, losses and gradients fit together, from the file of annotations to
COCO's own average precision. The aim is 0.8 at an IoU of 0.5, of boxes and of
masks, in less than 20 minutes on two cores.

Leaves what every training leaves; `test/index.html` has the pictures. With
`--publish` the figures go to `zoo/results/coco_overfit.json`.
"""

import dataclasses
import json
import pathlib

import numpy as np

from keras_nonlocal.data.coco_annotations import CocoAnnotations
from keras_nonlocal.data.coco_annotations import CocoImage
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import describe_detector
from keras_nonlocal.training.detector_config import DetectorConfig
from keras_nonlocal.training.detector_fit import DetectorTrainResult
from keras_nonlocal.training.environment import environment

RESULTS = pathlib.Path(__file__).parents[2] / "results" / "coco_overfit.json"
NAME = "coco_overfit"
GOAL = 0.8
_COUNT = 8
# Shortest side of a box, as a share of the longer side of its image.
_LEAST = 1 / 16

NETWORK = DETECTOR_VARIANTS["small_nl_mask_rcnn"]
CONFIG = DetectorConfig(
    batch_size=4,
    reference_batch=4,
    steps=900,
    steps_per_epoch=100,
    learning_rate=0.02,
    schedule="cosine",
    drops=(),
    warmup=0.1,
    clip_norm=10.0,
    flip=False,
    short_side=(192,),
    test_short_side=192,
    max_side=256,
)


def choose(annotations: CocoAnnotations) -> CocoAnnotations:
    """The images to learn.

    Raises:
        ValueError: If there are too few.
    """
    numbers = [
        number
        for number in annotations.trainable
        if _is_clear(annotations.images[number])
    ]
    if len(numbers) < _COUNT:
        raise ValueError(
            f"--annotations must have {_COUNT} images whose objects are all at "
            "least a sixteenth of the picture wide and high. "
            f"Received: {len(numbers)}"
        )
    return annotations.subset(numbers[:_COUNT])


def _is_clear(image: CocoImage) -> bool:
    sides = image.boxes[:, 2:] - image.boxes[:, :2]
    least = _LEAST * max(image.height, image.width)
    return bool(np.all(sides >= least)) and not np.any(image.is_crowd)


def settings() -> dict:
    """What is trained and how, as JSON holds it."""
    described = {
        "config": dataclasses.asdict(CONFIG),
        "network": describe_detector(NETWORK),
    }
    return json.loads(json.dumps(described))


def outcome(result: DetectorTrainResult, images: CocoAnnotations) -> dict:
    """All figures of the study, as JSON holds them."""
    reached = {"box": result.test.box["AP50"], "mask": result.test.mask["AP50"]}
    return {
        **environment(),
        "seconds": round(result.seconds, 1),
        "goal": {"AP50": GOAL, "seconds": 1200},
        "is_reached": min(x or 0.0 for x in reached.values()) > GOAL
        and result.seconds < 1200,
        "box": result.test.box,
        "mask": result.test.mask,
        "images": [image.image_id for image in images.images],
        "objects": sum(len(image.boxes) for image in images.images),
        "parameters": result.parameters,
        "history": result.history,
        **settings(),
    }
