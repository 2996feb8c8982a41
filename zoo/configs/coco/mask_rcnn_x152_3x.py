r"""Mask R-CNN ResNeXt-152 32x8d-FPN, COCO, 3x.

    python -m keras_nonlocal.cli.detect train \
        --recipe zoo/configs/coco/mask_rcnn_x152_3x.py \
        --annotations TRAIN.json --images TRAIN \
        --test_annotations VAL.json --test_images VAL \
        --out runs/mask_rcnn_x152_3x
    python -m keras_nonlocal.cli.detect evaluate \
        --model runs/mask_rcnn_x152_3x/model.keras \
        --annotations VAL.json --images VAL

From an IN5k network, 540k steps of 8 images, one on each of 8 GPUs. With fewer
GPUs, rate and steps follow the batch. The paper does not give its schedule;
training.detector_recipes says what is known and what is a guess.

Paper, table 5: box AP 44.1, box AP50 66.4, box AP75 48.4, mask AP 39.7, mask
AP50 63.2, mask AP75 42.2.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.detector_recipes import coco


def get_config(smoke: bool = False) -> DetectorRecipe:
    recipe = coco(
        "mask_rcnn_x152_3x",
        "x152",
        "3x",
        nonlocal_blocks=0,
    )
    return recipe.smoke() if smoke else recipe
