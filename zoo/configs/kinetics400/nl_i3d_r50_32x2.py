r"""NL I3D ResNet-50, 5 blocks, 32x2 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/nl_i3d_r50_32x2.py \
        --data TRAIN --validation VAL --out runs/nl_i3d_r50_32x2
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/nl_i3d_r50_32x2.py \
        --data VAL --model runs/nl_i3d_r50_32x2/saved_model

From an ImageNet network, 400k steps of 64 clips: 8 on each of 8 GPUs. Fewer
GPUs take a smaller batch, for which rate and steps are scaled.

Paper, table 2f: top1 74.9, top5 91.6.
Released: i3d_nonlocal_32x2_IN_pretrain_400k.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "nl_i3d_r50_32x2",
        "nl_i3d_r50",
        published={"top1": 74.9, "top5": 91.6},
        source="table 2f",
        released="i3d_nonlocal_32x2_IN_pretrain_400k",
    )
    return recipe.smoke() if smoke else recipe
