"""One training, in a process of its own.

python -m zoo.studies.long_range.training ARM SEED OUT SETTINGS_AS_JSON
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from zoo.studies.long_range import arms
from zoo.studies.long_range import files
from zoo.studies.long_range import networks
from zoo.studies.long_range import task
from zoo.studies.long_range.settings import Settings

# Parts of a seed: no two draw the same clips. Validation and test clips are the
# same for all seeds.
_TRAIN, _TRUNK, _VAL, _TEST = range(4)
_COMMON = 2**32
VAL_SEED = (_COMMON, _VAL)
TEST_SEED = (_COMMON, _TEST)


def train_seed(seed: int) -> tuple[int, int]:
    """Of the training clips."""
    return (seed, _TRAIN)


def pretrain(seed: int, settings: Settings, path: pathlib.Path) -> float:
    """Trains a trunk to tell the colour of the ring in a frame.

    Returns:
        Its accuracy on other frames.
    """
    keras.utils.set_random_seed(seed)
    model = networks.trunk_model(settings, len(task.COLOURS))
    frames, colours = task.make_frames(
        settings.trunk_frames, (seed, _TRUNK), settings.size
    )
    steps = settings.trunk_epochs * -(-len(frames) // 64)
    rate = schedule(0.2, steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        frames, colours, batch_size=64, epochs=settings.trunk_epochs, verbose=0
    )
    frames, colours = task.make_frames(400, (_COMMON, _TRUNK), settings.size)
    accuracy = model.evaluate(frames, colours, verbose=0)[1]
    unfinished = path.with_name(f".{os.getpid()}.weights.h5")
    model.save_weights(unfinished)
    os.replace(unfinished, path)
    return float(accuracy)


def train(
    name: str, seed: int, settings: Settings, trunk: pathlib.Path
) -> dict[str, Any]:
    """Trains an arm from a pretrained trunk and tests it.

    Returns:
        What JSON can hold: error curves and the answers in each cell.
    """
    keras.utils.set_random_seed(seed)
    model = networks.build(arms.ARMS[name], settings, str(trunk))
    sizes = {"num_frames": settings.num_frames, "size": settings.size}
    clips = task.make_clips(settings.train_clips, train_seed(seed), **sizes)
    held_out = task.make_clips(settings.val_clips, VAL_SEED, **sizes)
    steps = settings.epochs * -(-settings.train_clips // settings.batch_size)
    optimizer = keras.optimizers.Adam(schedule(settings.learning_rate, steps))
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    # Sets the order of the clips, which layers with other draws would move.
    keras.utils.set_random_seed(seed)
    history = model.fit(
        clips.frames,
        clips.labels,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=(held_out.frames, held_out.labels),
        callbacks=[keras.callbacks.TerminateOnNaN()],
        verbose=0,
    ).history
    if not np.isfinite(history["loss"]).all():
        raise ValueError(f"{name}, seed {seed}: the loss is not finite")
    tested = task.make_clips(settings.test_clips, TEST_SEED, **sizes)
    scores = model.predict(tested.frames, batch_size=100, verbose=0)
    is_right = scores.argmax(axis=1) == tested.labels
    return {
        "parameters": model.count_params(),
        "macs": networks.count(model, settings),
        "history": {k: [float(x) for x in v] for k, v in history.items()},
        "correct": np.bincount(
            tested.cells[is_right], minlength=len(task.CELLS)
        ).tolist(),
        "tested": np.bincount(tested.cells).tolist(),
    }


def schedule(highest: float, steps: int) -> Any:
    """A tenth of the steps up to the highest rate, then a cosine to 0."""
    warmup = steps // 10
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=highest, warmup_steps=warmup
    )


def main(arguments: list[str]) -> None:
    name, seed, out, settings = arguments
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    job = files.Job(name, int(seed))
    folder = pathlib.Path(out)
    started = time.monotonic()
    sizes = Settings(**json.loads(settings))
    trunk = files.trunk_path(folder, job.seed)
    if job.arm == files.TRUNK:
        result = {"accuracy": pretrain(job.seed, sizes, trunk)}
    else:
        result = train(job.arm, job.seed, sizes, trunk)
    result["seconds"] = round(time.monotonic() - started, 1)
    files.write_result(folder, job, sizes, result)


if __name__ == "__main__":
    main(sys.argv[1:])
