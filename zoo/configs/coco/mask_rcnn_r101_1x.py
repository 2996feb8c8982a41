r"""Mask R-CNN ResNet-101-FPN, COCO, 1x.

    python -m keras_nonlocal.cli.detect train \
        --recipe zoo/configs/coco/mask_rcnn_r101_1x.py \
        --annotations TRAIN.json --images TRAIN \
        --test_annotations VAL.json --test_images VAL \
        --out runs/mask_rcnn_r101_1x
    python -m keras_nonlocal.cli.detect evaluate \
        --model runs/mask_rcnn_r101_1x/model.keras \
        --annotations VAL.json --images VAL

From an ImageNet network, 90k steps of 16 images: 2 on each of 8 GPUs. With
fewer GPUs, rate and steps follow the batch. The paper does not give its
schedule; training.detector_recipes says what is known and what is a guess.

Paper, table 5: box AP 39.5, box AP50 61.4, box AP75 42.9, mask AP 36.0, mask
AP50 58.1, mask AP75 38.3.
Released: detectron_mask_rcnn_R-101-FPN_1x.
Measured: nothing.
"""

from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.detector_recipes import coco


def get_config(smoke: bool = False) -> DetectorRecipe:
    recipe = coco(
        "mask_rcnn_r101_1x",
        "r101",
        "1x",
        nonlocal_blocks=0,
        released="detectron_mask_rcnn_R-101-FPN_1x",
    )
    return recipe.smoke() if smoke else recipe
