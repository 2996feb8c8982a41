r"""NL I3D ResNet-101, 5 blocks, 32x4 clips, Charades.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/charades/charades_nl_i3d_r101_32x4.py \
        --data TRAIN --validation VAL --out runs/charades_nl_i3d_r101_32x4
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/charades/charades_nl_i3d_r101_32x4.py \
        --data VAL --model runs/charades_nl_i3d_r101_32x4/saved_model

Starts from lfb_r101_k400_pretrained. 24k steps of 16 clips at 24 frames a
second, 2 on each of 8 GPUs, with frozen batch norms and a finer res5. Without
the feature bank.

From the code of long-term feature banks; no figure in the paper.
Released: lfb_r101_charades.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import charades_feature_bank


def get_config(smoke: bool = False) -> Recipe:
    recipe = charades_feature_bank(
        "charades_nl_i3d_r101_32x4",
        "lfb_r101_charades",
        "lfb_r101_k400_pretrained",
        source="the code of long-term feature banks",
    )
    return recipe.smoke() if smoke else recipe
