r"""Mask R-CNN ResNet-50-FPN, COCO, 3x.

    python -m keras_nonlocal.cli.detect train \
        --recipe zoo/configs/coco/mask_rcnn_r50_3x.py \
        --annotations TRAIN.json --images TRAIN \
        --test_annotations VAL.json --test_images VAL \
        --out runs/mask_rcnn_r50_3x
    python -m keras_nonlocal.cli.detect evaluate \
        --model runs/mask_rcnn_r50_3x/model.keras \
        --annotations VAL.json --images VAL

From an ImageNet network, 270k steps of 16 images: 2 on each of 8 GPUs. With
fewer GPUs, rate and steps follow the batch. The paper does not give its
schedule; training.detector_recipes says what is known and what is a guess.

Paper, table 5: box AP 38.0, box AP50 59.6, box AP75 41.0, mask AP 34.6, mask
AP50 56.4, mask AP75 36.5.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.detector_recipes import coco


def get_config(smoke: bool = False) -> DetectorRecipe:
    recipe = coco(
        "mask_rcnn_r50_3x",
        "r50",
        "3x",
        nonlocal_blocks=0,
    )
    return recipe.smoke() if smoke else recipe
