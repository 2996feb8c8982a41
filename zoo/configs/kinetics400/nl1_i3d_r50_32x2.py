r"""NL I3D ResNet-50, 1 block, 32x2 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/nl1_i3d_r50_32x2.py \
        --data TRAIN --validation VAL --out runs/nl1_i3d_r50_32x2
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/nl1_i3d_r50_32x2.py \
        --data VAL --model runs/nl1_i3d_r50_32x2/saved_model

From an ImageNet network, 400k steps of 64 clips: 8 on each of 8 GPUs. Fewer
GPUs take a smaller batch, for which rate and steps are scaled.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "nl1_i3d_r50_32x2",
        "nl1_i3d_r50",
        source="not in the paper",
    )
    return recipe.smoke() if smoke else recipe
