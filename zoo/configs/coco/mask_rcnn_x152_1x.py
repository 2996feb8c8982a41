r"""Mask R-CNN ResNeXt-152 32x8d-FPN, COCO, 1x.

    python -m keras_nonlocal.cli.detect train \
        --recipe zoo/configs/coco/mask_rcnn_x152_1x.py \
        --annotations TRAIN.json --images TRAIN \
        --test_annotations VAL.json --test_images VAL \
        --out runs/mask_rcnn_x152_1x
    python -m keras_nonlocal.cli.detect evaluate \
        --model runs/mask_rcnn_x152_1x/model.keras \
        --annotations VAL.json --images VAL

From an IN5k network, 260k steps of 8 images, one on each of 8 GPUs:
Detectron's schedule for this network (s1x). With fewer GPUs, rate and steps
follow the batch. The paper does not give its schedule;
training.detector_recipes says what is known and what is a guess.

Paper, table 5: box AP 44.1, box AP50 66.4, box AP75 48.4, mask AP 39.7, mask
AP50 63.2, mask AP75 42.2.
Released: detectron_mask_rcnn_X-152-32x8d-FPN-IN5k_1.44x.
Measured: nothing.
"""

from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.detector_recipes import coco


def get_config(smoke: bool = False) -> DetectorRecipe:
    recipe = coco(
        "mask_rcnn_x152_1x",
        "x152",
        "1x",
        nonlocal_blocks=0,
        released="detectron_mask_rcnn_X-152-32x8d-FPN-IN5k_1.44x",
    )
    return recipe.smoke() if smoke else recipe
