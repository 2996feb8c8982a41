r"""NL I3D ResNet-50, 5 blocks, 128x1 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/nl_i3d_r50_128x1.py \
        --data TRAIN --validation VAL --out runs/nl_i3d_r50_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/nl_i3d_r50_128x1.py \
        --data VAL --model runs/nl_i3d_r50_128x1/saved_model

Starts from the I3D of 32x2 clips, i3d_baseline_32x2_IN_pretrain_400k. Its
non-local blocks are fresh, as in the published code; the text of the paper
starts from the non-local network, as the recipe of the same name with _from_nl
does. 400k steps of 16 clips, 2 on each of 8 GPUs, with batch norms folded into
frozen scales and shifts.

Paper, table 2g: top1 76.5, top5 92.6.
Released: i3d_nonlocal_128x1_I3D_pretrain_400k.
Measured: nothing.
"""

from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import kinetics400_long


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400_long(
        "nl_i3d_r50_128x1",
        VARIANTS["nl_i3d_r50_128x1"],
        "i3d_baseline_32x2_IN_pretrain_400k",
        published={"top1": 76.5, "top5": 92.6},
        source="table 2g",
        released="i3d_nonlocal_128x1_I3D_pretrain_400k",
    )
    return recipe.smoke() if smoke else recipe
