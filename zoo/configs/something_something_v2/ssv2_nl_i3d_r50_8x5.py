r"""NL I3D ResNet-50, 5 blocks, 8x5 clips, Something-Something v2.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/something_something_v2/ssv2_nl_i3d_r50_8x5.py \
        --data TRAIN --validation VAL --out runs/ssv2_nl_i3d_r50_8x5
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/something_something_v2/ssv2_nl_i3d_r50_8x5.py \
        --data VAL --model runs/ssv2_nl_i3d_r50_8x5/saved_model

Starts from i3d_nonlocal_8x8_IN_pretrain_400k. Enough videos to train batch
norms: 22 epochs of 64 clips a step. A mirrored clip has the class of the other
side. TRAIN and VAL are train.json and validation.json beside labels.json; add
--root with the folder of the videos.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import something_something


def get_config(smoke: bool = False) -> Recipe:
    recipe = something_something(
        "ssv2_nl_i3d_r50_8x5",
        "i3d_nonlocal_8x8_IN_pretrain_400k",
    )
    return recipe.smoke() if smoke else recipe
