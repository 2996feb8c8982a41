r"""NL Mask R-CNN ResNet-101-FPN, 1 non-local block, COCO, 1x.

    python -m keras_nonlocal.cli.detect train \
        --recipe zoo/configs/coco/nl_mask_rcnn_r101_1x.py \
        --annotations TRAIN.json --images TRAIN \
        --test_annotations VAL.json --test_images VAL \
        --out runs/nl_mask_rcnn_r101_1x
    python -m keras_nonlocal.cli.detect evaluate \
        --model runs/nl_mask_rcnn_r101_1x/model.keras \
        --annotations VAL.json --images VAL

From an ImageNet network, 90k steps of 16 images: 2 on each of 8 GPUs. With
fewer GPUs, rate and steps follow the batch. The paper does not give its
schedule; training.detector_recipes says what is known and what is a guess.

Paper, table 5: box AP 40.8, box AP50 63.1, box AP75 44.5, mask AP 37.1, mask
AP50 59.9, mask AP75 39.2.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.detector_recipes import coco


def get_config(smoke: bool = False) -> DetectorRecipe:
    recipe = coco(
        "nl_mask_rcnn_r101_1x",
        "r101",
        "1x",
        nonlocal_blocks=1,
    )
    return recipe.smoke() if smoke else recipe
