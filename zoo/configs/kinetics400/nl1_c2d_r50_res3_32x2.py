r"""NL C2D ResNet-50, 1 block in res3, 32x2 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/nl1_c2d_r50_res3_32x2.py \
        --data TRAIN --validation VAL --out runs/nl1_c2d_r50_res3_32x2
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/nl1_c2d_r50_res3_32x2.py \
        --data VAL --model runs/nl1_c2d_r50_res3_32x2/saved_model

From an ImageNet network, 400k steps of 64 clips: 8 on each of 8 GPUs. Fewer
GPUs take a smaller batch, for which rate and steps are scaled.

Paper, table 2b: top1 72.9, top5 90.4.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "nl1_c2d_r50_res3_32x2",
        "nl1_c2d_r50_res3",
        published={"top1": 72.9, "top5": 90.4},
        source="table 2b",
    )
    return recipe.smoke() if smoke else recipe
