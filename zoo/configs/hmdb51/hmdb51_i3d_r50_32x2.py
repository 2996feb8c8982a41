r"""I3D ResNet-50, 32x2 clips, HMDB51.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/hmdb51/hmdb51_i3d_r50_32x2.py \
        --data TRAIN --validation VAL --out runs/hmdb51_i3d_r50_32x2
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/hmdb51/hmdb51_i3d_r50_32x2.py \
        --data VAL --model runs/hmdb51_i3d_r50_32x2/saved_model

Starts from i3d_baseline_32x2_IN_pretrain_400k, with frozen batch norms: 30
epochs on a cosine. TRAIN and VAL are folders with a folder of videos for each
class, or lists of one of the three splits.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import finetune


def get_config(smoke: bool = False) -> Recipe:
    recipe = finetune(
        "hmdb51_i3d_r50_32x2",
        "hmdb51",
        51,
        "i3d_baseline_32x2_IN_pretrain_400k",
    )
    return recipe.smoke() if smoke else recipe
