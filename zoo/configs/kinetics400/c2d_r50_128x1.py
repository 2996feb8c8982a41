r"""C2D ResNet-50, 128x1 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/c2d_r50_128x1.py \
        --data TRAIN --validation VAL --out runs/c2d_r50_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/c2d_r50_128x1.py \
        --data VAL --model runs/c2d_r50_128x1/saved_model

Starts from the C2D of 32x2 clips, c2d_baseline_32x2_IN_pretrain_400k. 400k
steps of 16 clips, 2 on each of 8 GPUs, with batch norms folded into frozen
scales and shifts.

Paper, table 2g: top1 73.8, top5 91.2.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400_long


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400_long(
        "c2d_r50_128x1",
        VARIANTS["c2d_r50_128x1"],
        "c2d_baseline_32x2_IN_pretrain_400k",
        published={"top1": 73.8, "top5": 91.2},
        source="table 2g",
    )
    return recipe.smoke() if smoke else recipe
