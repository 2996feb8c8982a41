r"""I3D ResNet-50, 8x8 clips, 300k steps on 4 GPUs, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/i3d_r50_8x8_300k_4gpu.py \
        --data TRAIN --validation VAL --out runs/i3d_r50_8x8_300k_4gpu
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/i3d_r50_8x8_300k_4gpu.py \
        --data VAL --model runs/i3d_r50_8x8_300k_4gpu/saved_model

From an ImageNet network, 300k steps of 32 clips: 8 on each of 4 GPUs. Half the
passes over the videos: no dropout, one scale.

From the published code; no figure in the paper.
Released: i3d_baseline_8x8_IN_pretrain_300k_4gpu.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400(
        "i3d_r50_8x8_300k_4gpu",
        "i3d_r50_8x8",
        "300k_4gpu",
        dropout_rate=0.0,
        short_side=(256, 256),
        protocol="caffe2",
        source="the published code",
        released="i3d_baseline_8x8_IN_pretrain_300k_4gpu",
    )
    return recipe.smoke() if smoke else recipe
