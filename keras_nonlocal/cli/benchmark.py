"""Tells whether videos can be read as fast as a network trains on them.

    python -m keras_nonlocal.cli.benchmark input --data videos \
        --variant nl_i3d_r50 --batch_size 8

Reads clips as training would, then trains on one batch again and again, and
compares. `--variant ''` leaves out the training. Without `--clip` the clips are
those of the network.
"""

import tensorflow as tf
from absl import app
from absl import flags

from keras_nonlocal.cli import clip_flags
from keras_nonlocal.cli import data_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.distribution import find_devices
from keras_nonlocal.training.fit import clips
from keras_nonlocal.training.fit import compile_model
from keras_nonlocal.training.throughput import measure_input
from keras_nonlocal.training.throughput import measure_training
from keras_nonlocal.training.throughput import verdict

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(data_flags)
clip_flags.define(clip=None, batch_size=8, crop_size=224, short_side=(256, 320))
flags.adopt_module_key_flags(clip_flags)
flags.DEFINE_string("variant", "nl_i3d_r50", "Network to train, by name.")
flags.DEFINE_float(
    "seconds", 20.0, "Time of each measurement.", lower_bound=0.1
)


def main(argv: list[str]) -> None:
    show_own_notes_only()
    if argv[1:] != ["input"]:
        raise app.UsageError(
            f"name what to measure: input. Received: {' '.join(argv[1:])}"
        )
    if FLAGS.variant and FLAGS.variant not in VARIANTS:
        raise app.UsageError(
            f"--variant must be among {', '.join(VARIANTS)} or empty. "
            f"Received: {FLAGS.variant}"
        )
    variant = VARIANTS.get(FLAGS.variant)
    config = _config(variant)
    videos, skips = data_flags.videos(), SkipLog()
    try:  # What `train` reads, without an end.
        dataset = clips(
            videos, config, True, skips, batch_size=config.batch_size
        )
    except ValueError as error:
        raise app.UsageError(f"--data: {error}") from error
    supply = measure_input(dataset, FLAGS.seconds)
    print(
        f"Input: {supply.clips_per_second:.1f} clips of {config.clip} a second"
    )
    if not FLAGS.num_workers:
        print(f"  {supply.cpu_milliseconds:.0f} ms of processor time each")
    if skips.count:
        print(f"  skipped={skips.count} slow={skips.slow}")
    if variant is not None:
        demand = _demand(variant, config, videos, next(iter(dataset)))
        print(f"Training {FLAGS.variant}: {demand:.1f} clips a second")
        print(verdict(supply.clips_per_second, demand))


def _config(variant: Variant | None) -> TrainConfig:
    if FLAGS.clip:
        return clip_flags.config(FLAGS.clip)
    if variant is None:
        raise app.UsageError("give --clip where --variant is empty")
    return clip_flags.config(f"{variant.num_frames}x{variant.sampling_rate}")


def _demand(
    variant: Variant,
    config: TrainConfig,
    videos: VideoList,
    batch: tuple[tf.Tensor, tf.Tensor],
) -> float:
    devices = find_devices()
    with devices.scope():
        model = ResNet3D(
            variant,
            classes=len(videos.class_names),
            classifier_activation=None,
        )
        compile_model(model, config, 1000, devices, videos)
    return measure_training(model, *batch, FLAGS.seconds)


if __name__ == "__main__":
    app.run(main)
