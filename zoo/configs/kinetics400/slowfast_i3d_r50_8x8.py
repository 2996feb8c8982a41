r"""I3D ResNet-50 from scratch, 8x8 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/slowfast_i3d_r50_8x8.py \
        --data TRAIN --validation VAL --out runs/slowfast_i3d_r50_8x8
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/slowfast_i3d_r50_8x8.py \
        --data VAL --model runs/slowfast_i3d_r50_8x8/saved_model

From random weights with SlowFast's settings: 196 epochs of 64 clips a step, 8
on each of 8 GPUs, on a cosine after a warm-up. Its clips are measured at 30
frames a second.

From SlowFast's code; no figure in the paper.
Released: slowfast_I3D_8x8_R50.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400_from_scratch


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400_from_scratch(
        "slowfast_i3d_r50_8x8",
        "slowfast_I3D_8x8_R50",
        source="SlowFast's code",
    )
    return recipe.smoke() if smoke else recipe
