r"""NL I3D ResNet-50, 5 blocks, 8x8 clips, a folder of one's own.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/folder/folder_nl_i3d_r50_8x8.py \
        --data TRAIN --validation VAL --out runs/folder_nl_i3d_r50_8x8
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/folder/folder_nl_i3d_r50_8x8.py \
        --data VAL --model runs/folder_nl_i3d_r50_8x8/saved_model

Starts from slowfast_I3D_NLN_8x8_R50, licensed Apache-2.0, with frozen batch
norms: right for some hundred to some ten thousand videos. TRAIN and VAL are
folders with a folder of videos for each class, or lists; without --validation a
share of TRAIN is held out.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import finetune


def get_config(smoke: bool = False) -> Recipe:
    recipe = finetune(
        "folder_nl_i3d_r50_8x8",
        "folder",
        None,
        "slowfast_I3D_NLN_8x8_R50",
    )
    return recipe.smoke() if smoke else recipe
