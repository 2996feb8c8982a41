r"""C2D ResNet-101, 128x1 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/c2d_r101_128x1.py \
        --data TRAIN --validation VAL --out runs/c2d_r101_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/c2d_r101_128x1.py \
        --data VAL --model runs/c2d_r101_128x1/saved_model

Starts from the C2D of 32x2 clips that the recipe c2d_r101_32x2 leaves: run that
one first. 400k steps of 16 clips, 2 on each of 8 GPUs, with batch norms folded
into frozen scales and shifts.

Paper, table 2g: top1 75.3, top5 91.8.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import inflated
from keras_nonlocal.training.recipes import kinetics400_long
from keras_nonlocal.training.recipes import trained


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400_long(
        "c2d_r101_128x1",
        inflated("c2d_r101_128x1"),
        trained("c2d_r101_32x2"),
        published={"top1": 75.3, "top5": 91.8},
        source="table 2g",
    )
    return recipe.smoke() if smoke else recipe
