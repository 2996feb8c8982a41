r"""I3D ResNet-50, 128x1 clips, Charades.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/charades/charades_i3d_r50_128x1.py \
        --data TRAIN --validation VAL --out runs/charades_i3d_r50_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/charades/charades_i3d_r50_128x1.py \
        --data VAL --model runs/charades_i3d_r50_128x1/saved_model

Starts from the I3D of 128x1 clips on Kinetics,
i3d_baseline_128x1_I3D_pretrain_400k. 200k steps of 8 clips of 288 pixels, one
on each of 8 GPUs, with frozen batch norms. The paper has this for ResNet-101.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import charades


def get_config(smoke: bool = False) -> Recipe:
    recipe = charades(
        "charades_i3d_r50_128x1",
        VARIANTS["i3d_r50_128x1"],
        "i3d_baseline_128x1_I3D_pretrain_400k",
        source="not in the paper",
    )
    return recipe.smoke() if smoke else recipe
