r"""NL C2D ResNet-101, 5 blocks, 32x2 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/nl_c2d_r101_32x2.py \
        --data TRAIN --validation VAL --out runs/nl_c2d_r101_32x2
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/nl_c2d_r101_32x2.py \
        --data VAL --model runs/nl_c2d_r101_32x2/saved_model

From an ImageNet network, 400k steps of 64 clips: 8 on each of 8 GPUs. Fewer
GPUs take a smaller batch, for which rate and steps are scaled.

Paper, tables 2c, 2d and 2e: top1 75.1, top5 91.7.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "nl_c2d_r101_32x2",
        "nl_c2d_r101",
        published={"top1": 75.1, "top5": 91.7},
        source="tables 2c, 2d and 2e",
    )
    return recipe.smoke() if smoke else recipe
