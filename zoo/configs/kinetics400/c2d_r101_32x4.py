r"""C2D ResNet-101, 32x4 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/c2d_r101_32x4.py \
        --data TRAIN --validation VAL --out runs/c2d_r101_32x4
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/c2d_r101_32x4.py \
        --data VAL --model runs/c2d_r101_32x4/saved_model

Starts from the C2D of 8x8 clips that the recipe c2d_r101_8x8 leaves: run that
one first. 400k steps of 16 clips, 2 on each of 8 GPUs, with batch norms folded
into frozen scales and shifts.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import inflated
from keras_nonlocal.training.recipes import kinetics400_long
from keras_nonlocal.training.recipes import trained


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400_long(
        "c2d_r101_32x4",
        inflated("c2d_r101_32x4"),
        trained("c2d_r101_8x8"),
        protocol="caffe2",
        source="not in the paper",
    )
    return recipe.smoke() if smoke else recipe
