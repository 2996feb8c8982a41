r"""C2D ResNet-101, 8x8 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/c2d_r101_8x8.py \
        --data TRAIN --validation VAL --out runs/c2d_r101_8x8
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/c2d_r101_8x8.py \
        --data VAL --model runs/c2d_r101_8x8/saved_model

From an ImageNet network, 400k steps of 64 clips: 8 on each of 8 GPUs. Fewer
GPUs take a smaller batch, for which rate and steps are scaled.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "c2d_r101_8x8",
        "c2d_r101_8x8",
        protocol="caffe2",
        source="not in the paper",
    )
    return recipe.smoke() if smoke else recipe
