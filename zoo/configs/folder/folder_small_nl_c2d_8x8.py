r"""A small NL C2D from scratch, 8x8 clips, a folder of one's own.

    python -m keras_nonlocal.cli.train \
        --config zoo/configs/folder/folder_small_nl_c2d_8x8.py \
        --data TRAIN --validation VAL --out runs/folder_small_nl_c2d_8x8
    python -m keras_nonlocal.cli.evaluate \
        --config zoo/configs/folder/folder_small_nl_c2d_8x8.py \
        --data VAL --model runs/folder_small_nl_c2d_8x8/saved_model

Small enough for a CPU, from random weights: to try out a data set, not to get
the most out of it. TRAIN and VAL are folders with a folder of videos for each
class, or lists; without --validation a share of TRAIN is held out.

Not in the paper.
Released: nothing.
Measured: nothing.
"""

import dataclasses

from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.recipes import Recipe


def get_config(smoke: bool = False) -> Recipe:
    side = 112
    network = dataclasses.replace(VARIANTS["small_nl_c2d"], crop_size=side)
    config = TrainConfig(
        ClipSpec(8, 8),
        batch_size=16,
        reference_batch=16,
        epochs=30,
        learning_rate=0.05,
        crop_size=side,
        short_side=(128, 160),
    )
    recipe = Recipe(
        "folder_small_nl_c2d_8x8",
        network,
        config,
        "folder",
        None,
        source="not in the paper",
    )
    return recipe.smoke() if smoke else recipe
