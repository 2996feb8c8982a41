r"""NL Mask R-CNN ResNeXt-152 32x8d-FPN, 1 non-local block, COCO, 3x.

    python -m keras_nonlocal.cli.detect train \
        --recipe zoo/configs/coco/nl_mask_rcnn_x152_3x.py \
        --annotations TRAIN.json --images TRAIN \
        --test_annotations VAL.json --test_images VAL \
        --out runs/nl_mask_rcnn_x152_3x
    python -m keras_nonlocal.cli.detect evaluate \
        --model runs/nl_mask_rcnn_x152_3x/model.keras \
        --annotations VAL.json --images VAL

From an IN5k network, 540k steps of 8 images, one on each of 8 GPUs. With fewer
GPUs, rate and steps follow the batch. The paper does not give its schedule;
training.detector_recipes says what is known and what is a guess.

Paper, table 5: box AP 45.0, box AP50 67.8, box AP75 48.9, mask AP 40.3, mask
AP50 64.4, mask AP75 42.8.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.detector_recipes import coco


def get_config(smoke: bool = False) -> DetectorRecipe:
    recipe = coco(
        "nl_mask_rcnn_x152_3x",
        "x152",
        "3x",
        nonlocal_blocks=1,
    )
    return recipe.smoke() if smoke else recipe
