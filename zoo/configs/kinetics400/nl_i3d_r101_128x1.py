r"""NL I3D ResNet-101, 5 blocks, 128x1 clips, Kinetics-400.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/kinetics400/nl_i3d_r101_128x1.py \
        --data TRAIN --validation VAL --out runs/nl_i3d_r101_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/kinetics400/nl_i3d_r101_128x1.py \
        --data VAL --model runs/nl_i3d_r101_128x1/saved_model

Starts from the I3D of 32x2 clips that the recipe i3d_r101_32x2 leaves: run that
one first. Its non-local blocks are fresh, as in the published code; the text of
the paper starts from the non-local network, as the recipe of the same name with
_from_nl does. 400k steps of 16 clips, 2 on each of 8 GPUs, with batch norms
folded into frozen scales and shifts.

Paper, table 2g: top1 77.7, top5 93.3.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import inflated
from keras_nonlocal.training.recipes import kinetics400_long
from keras_nonlocal.training.recipes import trained


def get_config(smoke: bool = False) -> Recipe:
    recipe = kinetics400_long(
        "nl_i3d_r101_128x1",
        inflated("nl_i3d_r101_128x1"),
        trained("i3d_r101_32x2"),
        published={"top1": 77.7, "top5": 93.3},
        source="table 2g",
    )
    return recipe.smoke() if smoke else recipe
