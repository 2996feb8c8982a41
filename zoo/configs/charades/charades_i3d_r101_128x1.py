r"""I3D ResNet-101, 128x1 clips, Charades.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/charades/charades_i3d_r101_128x1.py \
        --data TRAIN --validation VAL --out runs/charades_i3d_r101_128x1
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/charades/charades_i3d_r101_128x1.py \
        --data VAL --model runs/charades_i3d_r101_128x1/saved_model

Starts from the I3D of 128x1 clips on Kinetics that the recipe i3d_r101_128x1
leaves: run that one first. 200k steps of 8 clips of 288 pixels, one on each of
8 GPUs, with frozen batch norms. The second figure is of training on train and
validation videos, tested on the test videos. How the paper joins the scores of
clips it does not say.

Paper, table 4: mAP 35.5, mAP_trainval 37.2.
Released: nothing.
Measured: nothing.
"""

from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import charades
from keras_nonlocal.training.recipes import inflated
from keras_nonlocal.training.recipes import trained


def get_config(smoke: bool = False) -> Recipe:
    recipe = charades(
        "charades_i3d_r101_128x1",
        inflated("i3d_r101_128x1"),
        trained("i3d_r101_128x1"),
        published={"mAP": 35.5, "mAP_trainval": 37.2},
        source="table 4",
    )
    return recipe.smoke() if smoke else recipe
