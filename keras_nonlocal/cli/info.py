"""Prints parameters and multiply-adds of every network of the paper.

python -m keras_nonlocal.cli.info [--variants nl_i3d_r50,c2d_r50] [--side 224]
"""

import keras
import numpy as np
from absl import app
from absl import flags

from keras_nonlocal.models.macs import count_macs
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS

FLAGS = flags.FLAGS
flags.DEFINE_list("variants", [], "Names of networks; by default all.")
flags.DEFINE_integer("side", 224, "Height and width of the clips, in pixels.")

_ROW = "{:<26} {:>6} {:>12} {:>12} {:>6} {:>9} {:>6}"


def describe(name: str, side: int) -> dict:
    """Counts of one network at its own clip length.

    Returns:
        `kernels` (weights of convolutions and the classifier), `trainable`
        (all trainable parameters) and `macs` of a clip.
    """
    model = ResNet3D(name)
    shape = (VARIANTS[name].num_frames, side, side, 3)
    kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
    return {
        "kernels": _size(kernels),
        "trainable": _size(model.trainable_weights),
        "macs": count_macs(model, shape),
    }


def baseline(name: str) -> str:
    """The C2D of the same depth and clips, to which ratios are taken."""
    if name.startswith("small"):
        return "small_c2d"
    variant = VARIANTS[name]
    clip = next((c for c in ("8x8", "32x4", "128x1") if name.endswith(c)), "")
    return f"c2d_r{variant.depth}" + (f"_{clip}" if clip else "")


def _size(weights: list) -> int:
    return int(sum(np.prod(weight.shape) for weight in weights))


def main(_: list[str]) -> None:
    unknown = sorted(set(FLAGS.variants) - set(VARIANTS))
    if unknown:
        raise app.UsageError(
            f"--variants must be among {', '.join(VARIANTS)}. "
            f"Received: {', '.join(unknown)}"
        )
    header = ("network", "clip", "kernels", "trainable", "ratio", "GMACs")
    print(_ROW.format(*header, "ratio"))
    known: dict[str, dict] = {}
    for name in FLAGS.variants or VARIANTS:
        for needed in (name, baseline(name)):
            if needed not in known:
                known[needed] = describe(needed, FLAGS.side)
                keras.utils.clear_session(free_memory=True)
        ours, base = known[name], known[baseline(name)]
        variant = VARIANTS[name]
        print(
            _ROW.format(
                name,
                f"{variant.num_frames}x{variant.sampling_rate}",
                f"{ours['kernels']:,}",
                f"{ours['trainable']:,}",
                f"{ours['kernels'] / base['kernels']:.3f}",
                f"{ours['macs'] / 1e9:.3f}",
                f"{ours['macs'] / base['macs']:.3f}",
            ),
            flush=True,
        )
    print(f"ratio: to the C2D of the same depth and clips, {FLAGS.side} pixels")


if __name__ == "__main__":
    app.run(main)
