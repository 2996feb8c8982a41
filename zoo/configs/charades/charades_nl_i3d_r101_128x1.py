r"""NL I3D ResNet-101, 5 blocks, 128x1 clips, Charades.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/charades/charades_nl_i3d_r101_128x1.py \
        --data TRAIN --validation VAL --out runs/charades_nl_i3d_r101_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/charades/charades_nl_i3d_r101_128x1.py \
        --data VAL --model runs/charades_nl_i3d_r101_128x1/saved_model

Starts from the NL I3D of 128x1 clips on Kinetics that the recipe
nl_i3d_r101_128x1 leaves: run that one first. 200k steps of 8 clips of 288
pixels, one on each of 8 GPUs, with frozen batch norms. The second figure is of
training on train and validation videos, tested on the test videos. How the
paper joins the scores of clips it does not say.

Paper, table 4: mAP 37.5, mAP_trainval 39.5.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import charades
from keras_nonlocal.training.recipes import inflated
from keras_nonlocal.training.recipes import trained


def get_config(smoke: bool = False) -> Recipe:
    recipe = charades(
        "charades_nl_i3d_r101_128x1",
        inflated("nl_i3d_r101_128x1"),
        trained("nl_i3d_r101_128x1"),
        published={"mAP": 37.5, "mAP_trainval": 39.5},
        source="table 4",
    )
    return recipe.smoke() if smoke else recipe
