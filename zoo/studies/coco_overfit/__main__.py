"""Eight images learnt by heart: what `zoo.studies.coco_overfit` describes."""

import pathlib

from absl import app
from absl import flags

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.training.detector_fit import train_detector
from zoo.studies import coco_overfit

FLAGS = flags.FLAGS
flags.DEFINE_string("annotations", None, "A json file in COCO's format.")
flags.DEFINE_string("images", None, "The folder of its images.")
flags.DEFINE_string("out", "runs/coco_overfit", "Folder to write to.")
flags.DEFINE_boolean("publish", False, "Write the figures to zoo/results too.")
flags.mark_flags_as_required(["annotations", "images"])


def main(_: list[str]) -> None:
    try:
        images = coco_overfit.choose(read_coco(FLAGS.annotations, FLAGS.images))
    except (OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    out = pathlib.Path(FLAGS.out)
    result = train_detector(
        coco_overfit.NAME,
        coco_overfit.NETWORK,
        coco_overfit.CONFIG,
        images,
        images,
        out,
        resume=False,
    )
    found = coco_overfit.outcome(result, images)
    write_json(out / "results.json", found)
    if FLAGS.publish:
        write_json(coco_overfit.RESULTS, found)
    print(
        f"box AP50 {found['box']['AP50']:.3f}, mask AP50 "
        f"{found['mask']['AP50']:.3f}, {found['seconds']:.0f} s; the pictures: "
        f"{out / 'test' / 'index.html'}"
    )


if __name__ == "__main__":
    app.run(main)
