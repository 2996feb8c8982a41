r"""Trains, tests and uses detectors: Mask R-CNN, with a non-local block or not.

    python -m keras_nonlocal.cli.detect train --annotations train.json \
        --images train --test_annotations val.json --test_images val \
        --backbone_weights imagenet --out runs/mine
    python -m keras_nonlocal.cli.detect evaluate --model runs/mine \
        --annotations val.json --images val
    python -m keras_nonlocal.cli.detect predict --model runs/mine street.jpg

Annotations are in COCO's format, of any classes. train leaves `model.keras` and
a page (`index.html`); --recipe follows a file of `zoo/configs/coco`, of which
other flags that are given change settings; a run that was broken off goes on.
Without a GPU take `--model small_nl_mask_rcnn --short_side 192 --max_side 256`,
which needs no weights to start from.
evaluate writes average precision, the detections in COCO's format of results
and a page of pictures beside the truth. predict writes a picture for each image
with what was found drawn in, and `objects.json`; images that cannot be read are
named, and the status is then 1.

Needs `pip install 'keras-nonlocal[coco,plot]'`.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app
from absl import flags

from keras_nonlocal.cli import setting_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.atomic_files import replacing
from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.data.coco_annotations import CocoAnnotations
from keras_nonlocal.data.coco_annotations import read_coco
from keras_nonlocal.data.coco_masks import encode_masks
from keras_nonlocal.data.images import read_image
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.evaluation.coco import require_pycocotools
from keras_nonlocal.evaluation.detector import evaluate_detector
from keras_nonlocal.evaluation.detector_models import OpenedDetector
from keras_nonlocal.evaluation.detector_models import open_detector
from keras_nonlocal.models.detector_variants import DETECTOR_VARIANTS
from keras_nonlocal.models.detector_variants import DetectorVariant
from keras_nonlocal.prediction.objects import Detections
from keras_nonlocal.prediction.objects import iterate_objects
from keras_nonlocal.training.detector_config import DetectorConfig
from keras_nonlocal.training.detector_fit import train_detector
from keras_nonlocal.training.detector_recipes import DetectorRecipe
from keras_nonlocal.training.recipes import load_recipe
from keras_nonlocal.visualization import figures
from keras_nonlocal.visualization.detection_figures import draw_objects
from keras_nonlocal.weights.lookup import find

FLAGS = flags.FLAGS
flags.DEFINE_string("annotations", None, "A json file in COCO's format.")
flags.DEFINE_string("images", None, "The folder of its images.")
flags.DEFINE_string(
    "out",
    None,
    "Folder to write to; default: runs/detect of train, runs/objects of "
    "predict, of evaluate `evaluation` beside the model.",
)
flags.DEFINE_string(
    "model",
    None,
    "Of train the detector, by its name in DETECTOR_VARIANTS; by default that "
    "of --weights, or nl_mask_rcnn_r50. Else the folder of a run, a .keras "
    "file, or a published one that keras_nonlocal.cli.convert --list shows.",
)
flags.DEFINE_integer("batch_size", 2, "Images of a step.", lower_bound=1)
flags.DEFINE_list(
    "short_side",
    None,
    "What the short side of images is scaled to, in pixels; of several, train "
    "draws one for each image. Default: that of the recipe or of the model.",
)
flags.DEFINE_integer(
    "max_side", None, "The long side is at most this.", lower_bound=1
)
flags.DEFINE_string("test_annotations", None, "Train: what to test on.")
flags.DEFINE_string(
    "test_images", None, "Train: the folder of its images; default: --images."
)
flags.DEFINE_float(
    "held_out",
    0.2,
    "Train: share of the images to test on without --test_annotations.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_string(
    "recipe", None, "Train: a file of zoo/configs/coco, or one like these."
)
flags.DEFINE_boolean(
    "smoke", False, "Train: only try the recipe: a tiny network, a few steps."
)
flags.DEFINE_string(
    "weights",
    None,
    "Train: a whole detector to start from: a name that "
    "keras_nonlocal.cli.convert --list shows, or a file. Layers that depend "
    "on the classes start anew where their number is another.",
)
flags.DEFINE_string(
    "backbone_weights",
    None,
    "Train: ImageNet weights for the trunk: a name, `imagenet` or a file.",
)
flags.DEFINE_integer(
    "epochs", 12, "Train: passes over the images.", lower_bound=1
)
flags.DEFINE_float(
    "learning_rate",
    0.02,
    "Train: peak rate for the recipe's batch, by default 16 images, from which "
    "it follows --batch_size.",
)
flags.DEFINE_boolean("flip", True, "Train: mirror half of the images.")
flags.DEFINE_integer(
    "seed", 0, "Train: of weights, split, order and flips.", lower_bound=0
)
flags.adopt_module_key_flags(setting_flags)
flags.DEFINE_boolean(
    "resume", True, "Train: go on with a run that was broken off in --out."
)
flags.DEFINE_integer(
    "limit", None, "Evaluate: test the first images only.", lower_bound=1
)
flags.DEFINE_float(
    "threshold",
    0.5,
    "Predict: the least score of an object that is kept.",
    lower_bound=0,
    upper_bound=1,
)

_OWN = (
    "epochs",
    "batch_size",
    "learning_rate",
    "max_side",
    "flip",
    "seed",
    "weights",
    "backbone_weights",
)
_INSTEAD = {
    "epochs": "steps",
    "weights": "backbone_weights",
    "backbone_weights": "weights",
}
_DEFAULT = "nl_mask_rcnn_r50"
_OF_IMAGES = ("batch_size", "short_side", "max_side", "out", "model")
_OF_FILES = ("annotations", "images")
_OF_TRAIN = (
    *(name for name in _OWN if name not in _OF_IMAGES),
    "test_annotations",
    "test_images",
    "held_out",
    "recipe",
    "smoke",
    "set",
    "resume",
)
# Flags of each command.
_FLAGS = {
    "train": (*_OF_IMAGES, *_OF_FILES, *_OF_TRAIN),
    "evaluate": (*_OF_IMAGES, *_OF_FILES, "limit"),
    "predict": (*_OF_IMAGES, "threshold"),
}


def _check_flags(command: str) -> None:
    """Refuses flags of another command, which would do nothing."""
    every = dict.fromkeys(name for names in _FLAGS.values() for name in names)
    for name in every:
        if FLAGS[name].present and name not in _FLAGS[command]:
            users = [x for x, names in _FLAGS.items() if name in names]
            raise ValueError(
                f"--{name} is of {' and '.join(users)}, {command} has none"
            )


def _sides() -> tuple[int, ...] | None:
    if FLAGS.short_side is None:
        return None
    try:
        sides = tuple(int(text) for text in FLAGS.short_side)
    except ValueError:
        sides = ()
    if not sides or min(sides) < 1:
        raise ValueError(
            "--short_side must be pixels, as 800 or 640,800. "
            f"Received: {','.join(FLAGS.short_side)}"
        )
    return sides


def _read(which: str, images: str | None) -> CocoAnnotations:
    """Annotations, by the flag that names their file."""
    path = FLAGS[which].value
    if path is None or images is None:
        raise ValueError(
            f"--{which} must name a json file and --images the folder of its "
            f"images. Received: {path} and {images}"
        )
    try:
        return read_coco(path, images)
    except (OSError, ValueError) as error:
        raise ValueError(f"--{which}: {error}") from error


def _parts() -> tuple[CocoAnnotations, CocoAnnotations]:
    """Images to train and to test on."""
    annotations = _read("annotations", FLAGS.images)
    if FLAGS.test_annotations is not None:
        if FLAGS["held_out"].present:
            raise ValueError("give either --held_out or --test_annotations")
        folder = FLAGS.test_images or FLAGS.images
        return annotations, _read("test_annotations", folder)
    if FLAGS.test_images is not None:
        raise ValueError("--test_images are of --test_annotations: give both")
    count = len(annotations)
    order = np.random.default_rng(FLAGS.seed).permutation(count)
    tested = np.sort(order[: round(FLAGS.held_out * count)])
    if not 0 < len(tested) < count:
        raise ValueError(
            "--held_out must leave images to train and to test on. Received: "
            f"{FLAGS.held_out} of {count} images"
        )
    trained = np.setdiff1d(np.arange(count), tested)
    return annotations.subset(trained), annotations.subset(tested)


def _recipe() -> DetectorRecipe | None:
    if FLAGS.recipe is None:
        if FLAGS.smoke:
            raise ValueError("--smoke tries a recipe: give --recipe")
        return None
    if FLAGS.model is not None:
        raise ValueError("--recipe names its detector: omit --model")
    try:
        return load_recipe(FLAGS.recipe, FLAGS.smoke, DetectorRecipe)
    except ValueError as error:
        raise ValueError(f"--recipe: {error}") from error


def _variant() -> tuple[str, DetectorVariant]:
    """The detector that the flags name, or that of the weights."""
    if FLAGS.model not in (None, *DETECTOR_VARIANTS):
        raise ValueError(
            f"--model must be one of {', '.join(DETECTOR_VARIANTS)}. "
            f"Received: {FLAGS.model}"
        )
    if FLAGS.model is not None or FLAGS.weights is None:
        name = FLAGS.model or _DEFAULT
        return name, DETECTOR_VARIANTS[name]
    try:
        network = find(FLAGS.weights).network
    except ValueError as error:
        raise ValueError(f"--weights, without --model: {error}") from error
    if not isinstance(network, DetectorVariant):
        raise ValueError(
            f"--weights={FLAGS.weights} does not say which detector it is of: "
            "give --model"
        )
    return pathlib.PurePath(FLAGS.weights).stem, network


def _config(recipe: DetectorRecipe | None) -> DetectorConfig:
    """The settings: the recipe's or the defaults, changed by flags."""
    config = DetectorConfig() if recipe is None else recipe.config
    changes: dict[str, Any] = {
        name: FLAGS[name].value for name in _OWN if FLAGS[name].present
    }
    sides = _sides()
    if sides is not None:
        changes |= {"short_side": sides, "test_short_side": max(sides)}
    # What takes the place of a recipe's setting.
    for name, other in _INSTEAD.items():
        if name in changes:
            changes.setdefault(other, None)
    found = setting_flags.parse(DetectorConfig, {})
    if "steps" in found and FLAGS["epochs"].present:
        raise ValueError("give either --epochs or --set=steps")
    changes |= found
    try:
        return dataclasses.replace(config, **changes)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from error


def _train() -> None:
    recipe = _recipe()
    config = _config(recipe)
    if recipe is None:
        name, variant = _variant()
    else:
        name, variant = recipe.name, recipe.network
    train, test = _parts()
    classes = len(train.class_names)
    if recipe is not None and recipe.classes not in (None, classes):
        raise ValueError(
            f"--annotations must have the recipe's {recipe.classes} classes. "
            f"Received: {classes}"
        )
    out = pathlib.Path(FLAGS.out or "runs/detect")
    print(
        f"{name}: {len(train.trainable):,} images with objects of {classes} "
        f"classes to train on, {len(test):,} to test on",
        flush=True,
    )
    result = train_detector(
        name, variant, config, train, test, out, resume=FLAGS.resume
    )
    _print_figures(result.test)
    print(f"The report: {out / 'index.html'}")


def _opened() -> OpenedDetector:
    """The detector to use, with sizes as the flags say."""
    if FLAGS.model is None:
        raise ValueError(
            "--model must be the folder of a run, a .keras file or a name. "
            "Received: none"
        )
    sides = _sides()
    if sides is not None and len(sides) > 1:
        raise ValueError(
            "--short_side must be one number where nothing is trained. "
            f"Received: {sides}"
        )
    opened = open_detector(FLAGS.model)
    return dataclasses.replace(
        opened,
        short_side=sides[0] if sides else opened.short_side,
        max_side=FLAGS.max_side or opened.max_side,
    )


def _evaluate() -> None:
    annotations = _read("annotations", FLAGS.images)
    opened = _opened()
    if opened.class_names not in (None, annotations.class_names):
        raise ValueError(
            f"--annotations must have the model's classes, "
            f"{opened.class_names}, in that order. "
            f"Received: {annotations.class_names}"
        )
    out = pathlib.Path(FLAGS.out or _beside_the_model())
    result = evaluate_detector(
        opened.model,
        annotations,
        out=out,
        short_side=opened.short_side,
        max_side=opened.max_side,
        batch_size=FLAGS.batch_size,
        limit=FLAGS.limit,
        name=opened.name,
    )
    _print_figures(result)
    print(f"The report: {out / 'index.html'}")


def _beside_the_model() -> pathlib.Path:
    """Not `test`, where training leaves its own, of images held out."""
    path = pathlib.Path(FLAGS.model)
    if not path.exists():
        path = pathlib.Path("runs")
    return (path if path.is_dir() else path.parent) / "evaluation"


def _print_figures(result: Any) -> None:
    for kind, measures in (("boxes", result.box), ("masks", result.mask)):
        found = "  ".join(
            f"{name} {'-' if value is None else f'{value:.1%}'}"
            for name, value in measures.items()
        )
        print(f"  {kind}  {found}")
    if result.skipped:
        print(f"Could not be read: {len(result.skipped):,} images")


def _predict(images: Sequence[str]) -> None:
    if not images:
        raise ValueError("name one or more images after the flags")
    opened = _opened()
    out = pathlib.Path(FLAGS.out or "runs/objects")
    out.mkdir(parents=True, exist_ok=True)
    names = opened.class_names or tuple(
        f"class {number}" for number in range(opened.model.variant.classes)
    )
    skips = SkipLog(unit="image")
    found = iterate_objects(
        opened.model,
        images,
        short_side=opened.short_side,
        max_side=opened.max_side,
        batch_size=FLAGS.batch_size,
        score_threshold=FLAGS.threshold,
        skips=skips,
    )
    written: list[dict] = []
    taken: set[str] = set()
    for objects in found:
        picture = _free_name(str(objects.path), taken)
        _draw(objects, names, out / picture)
        written.append(_described(objects, names, picture))
        _print(objects, names)
    write_json(out / "objects.json", {"images": written})
    print(f"The pictures: {out}")
    for path, reason in skips.reasons.items():
        print(f"{printable(path)}\n  cannot be read: {printable(reason)}")
    if skips.count:
        raise SystemExit(1)


def _free_name(path: str, taken: set[str]) -> str:
    """A name for the picture; images of two folders may be called alike."""
    stem, number = pathlib.PurePath(path).stem, 1
    name = f"{stem}.jpg"
    while name in taken:
        number += 1
        name = f"{stem}_{number}.jpg"
    taken.add(name)
    return name


def _draw(
    objects: Detections, names: Sequence[str], path: pathlib.Path
) -> None:
    picture = draw_objects(
        read_image(os.fspath(objects.path or "")),
        objects.boxes,
        objects.classes,
        objects.scores,
        objects.masks,
        names,
        file_format="jpeg",
    )
    with replacing(path) as file:
        file.write(picture)


def _described(
    objects: Detections, names: Sequence[str], picture: str
) -> dict[str, Any]:
    """What was found in an image, as JSON has it."""
    codes = [x for some in objects.mask_chunks() for x in encode_masks(some)]
    return {
        "image": objects.path,
        "picture": picture,
        "height": objects.height,
        "width": objects.width,
        "objects": [
            {
                "class": names[number],
                "score": round(score, 4),
                "box": [round(x, 2) for x in box],
                "segmentation": code,
            }
            for number, score, box, code in zip(
                objects.classes.tolist(),
                objects.scores.tolist(),
                objects.boxes.tolist(),
                codes,
                strict=True,
            )
        ],
    }


def _print(objects: Detections, names: Sequence[str]) -> None:
    print(printable(str(objects.path)))
    for number, score, box in zip(
        objects.classes.tolist(),
        objects.scores.tolist(),
        objects.boxes.tolist(),
        strict=True,
    ):
        place = ", ".join(f"{x:.0f}" for x in box)
        print(f"  {score:6.1%}  {printable(names[number])}  ({place})")
    if not len(objects):
        print(f"  nothing with a score of {FLAGS.threshold:g} or more")


def _command(argv: Sequence[str]) -> tuple[str, list[str]]:
    if not argv or argv[0] not in _FLAGS:
        raise ValueError(
            f"the first argument must be one of {', '.join(_FLAGS)}. "
            f"Received: {argv[0] if argv else 'none'}"
        )
    command, rest = argv[0], list(argv[1:])
    if rest and command != "predict":
        raise ValueError(f"unknown arguments: {' '.join(rest)}")
    return command, rest


def main(argv: list[str]) -> None:
    show_own_notes_only()
    try:
        command, images = _command(argv[1:])
        _check_flags(command)
        require_pycocotools()
        figures.require_matplotlib()
        commands: dict[str, Callable[[], None]] = {
            "train": _train,
            "evaluate": _evaluate,
            "predict": lambda: _predict(images),
        }
        commands[command]()
    except (ImportError, OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error


if __name__ == "__main__":
    app.run(main)
