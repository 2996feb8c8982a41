r"""I3D ResNet-50, 8x8 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/i3d_r50_8x8.py \
        --data TRAIN --validation VAL --out runs/i3d_r50_8x8
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/i3d_r50_8x8.py \
        --data VAL --model runs/i3d_r50_8x8/saved_model

From an ImageNet network, 400k steps of 64 clips: 8 on each of 8 GPUs. Fewer
GPUs take a smaller batch, for which rate and steps are scaled.

From the published code; no figure in the paper.
Released: i3d_baseline_8x8_IN_pretrain_400k.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "i3d_r50_8x8",
        "i3d_r50_8x8",
        protocol="caffe2",
        source="the published code",
        released="i3d_baseline_8x8_IN_pretrain_400k",
    )
    return recipe.smoke() if smoke else recipe
