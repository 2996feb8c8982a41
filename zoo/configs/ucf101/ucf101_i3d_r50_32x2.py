r"""I3D ResNet-50, 32x2 clips, UCF101.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/ucf101/ucf101_i3d_r50_32x2.py \
        --data TRAIN --validation VAL --out runs/ucf101_i3d_r50_32x2
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/ucf101/ucf101_i3d_r50_32x2.py \
        --data VAL --model runs/ucf101_i3d_r50_32x2/saved_model

Starts from i3d_baseline_32x2_IN_pretrain_400k, with frozen batch norms: 30
epochs on a cosine. TRAIN and VAL are trainlist01.txt and testlist01.txt, or the
lists of another split; add --format ucf101 --root with the folder of the
videos.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import finetune


def get_config(smoke: bool = False) -> Recipe:
    recipe = finetune(
        "ucf101_i3d_r50_32x2",
        "ucf101",
        101,
        "i3d_baseline_32x2_IN_pretrain_400k",
    )
    return recipe.smoke() if smoke else recipe
