r"""Tests a network on whole videos, in several ways side by side.

    python -m keras_nonlocal.cli.evaluate --data videos/test \
        --model runs/mine/small_nl_c2d/saved_model
    python -m keras_nonlocal.cli.evaluate --data lists/val.csv --root videos \
        --weights i3d_nonlocal_32x2_IN_pretrain_400k --protocol caffe2
    python -m keras_nonlocal.cli.evaluate \
        --ensemble runs/rgb/scores.npz,runs/flow/scores.npz --match stem

Leaves `evaluation.json` (the figures), `scores.npz` (the scores of every video,
from which an evaluation that was interrupted goes on) and `index.html`. Sizes
of a protocol are for networks trained on crops of 224 pixels; for others, of
which model or record tells the size, they are scaled in proportion.
"""

import dataclasses
import pathlib

from absl import app
from absl import flags

from keras_nonlocal.cli import list_flags
from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.data.skips import SkipLog
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation import score_files
from keras_nonlocal.evaluation.ensemble import MATCHES
from keras_nonlocal.evaluation.ensemble import combine
from keras_nonlocal.evaluation.evaluate import evaluate
from keras_nonlocal.evaluation.evaluation import Evaluation
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import describe
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.evaluation.page import write_page
from keras_nonlocal.evaluation.protocols import AVERAGES
from keras_nonlocal.evaluation.protocols import PROTOCOLS
from keras_nonlocal.evaluation.protocols import Protocol
from keras_nonlocal.evaluation.scoring import OUTPUTS
from keras_nonlocal.evaluation.views import published_clip
from keras_nonlocal.models.inception_i3d import InceptionI3D
from keras_nonlocal.models.inception_i3d import InceptionVariant
from keras_nonlocal.models.resnet3d import ResNet3D
from keras_nonlocal.models.variants import VARIANTS
from keras_nonlocal.training.recipes import Recipe
from keras_nonlocal.training.recipes import load_recipe
from keras_nonlocal.visualization import figures
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.lookup import find

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data",
    None,
    "Folder with a folder of videos for each class, or a list of videos.",
)
flags.adopt_module_key_flags(list_flags)
flags.DEFINE_string(
    "model", None, "A .keras file, or the folder of an exported model."
)
flags.DEFINE_string(
    "weights",
    None,
    "In place of a model: an entry that keras_nonlocal.cli.convert --list "
    "shows, or a file of weights.",
)
flags.DEFINE_string(
    "variant",
    None,
    "Network of the weights, where they do not say; keras_nonlocal.cli.info "
    "lists them.",
)
flags.DEFINE_string(
    "config",
    None,
    "The recipe that the model was trained by: gives protocol, clip, name and "
    "data set, where they are not given.",
)
flags.DEFINE_enum(
    "protocol", None, list(PROTOCOLS), "How to test; default: paper."
)
flags.DEFINE_string(
    "clip", None, "Frames x step between them, as 32x2; default: the model's."
)
flags.DEFINE_float(
    "fps",
    None,
    "Frames per second that videos are brought to first.",
    lower_bound=0,
)
flags.DEFINE_integer("short_side", None, "Of the videos, in pixels.")
flags.DEFINE_integer("crop_size", None, "Side of the crops, in pixels.")
flags.DEFINE_enum(
    "outputs",
    None,
    list(OUTPUTS),
    "What the model gives, where it does not say.",
)
flags.DEFINE_integer("batch_size", 8, "Clips of a forward pass.", lower_bound=1)
flags.DEFINE_integer(
    "num_workers", 0, "Processes that read; 0 for threads.", lower_bound=0
)
flags.DEFINE_enum(
    "average", None, list(AVERAGES), "In place of what the protocol averages."
)
flags.DEFINE_enum(
    "over_clips",
    None,
    ["mean", "max"],
    "In place of how the protocol combines the views of a video.",
)
flags.DEFINE_string(
    "results",
    None,
    "File for the figures, beside that in --out: zoo/results/NAME.json.",
)
flags.DEFINE_string("decoder", "auto", "What reads the videos.")
flags.DEFINE_float(
    "max_skipped", 0.5, "Share of unreadable videos that ends it.", 0, 1
)
flags.DEFINE_string(
    "out",
    None,
    "Folder to write to; default: test, beside the model, or runs/evaluate.",
)
flags.DEFINE_boolean("resume", True, "Go on where an earlier run has ended.")
flags.DEFINE_string("name", None, "Of the model, in the results.")
flags.DEFINE_string("dataset", None, "Of the videos, in the results.")
flags.DEFINE_list(
    "ensemble",
    [],
    "Files of scores to average, in place of data and a model.",
)
flags.DEFINE_list("ensemble_weights", [], "A weight for each of them.")
flags.DEFINE_enum(
    "match",
    "path",
    list(MATCHES),
    "What videos of several files of scores are matched by.",
)


def _model(videos: VideoList) -> OpenedModel:
    if (FLAGS.model is None) == (FLAGS.weights is None):
        raise ValueError(
            "give either --model or --weights. Received: "
            f"--model={FLAGS.model}, --weights={FLAGS.weights}"
        )
    if FLAGS.model is not None:
        return open_model(FLAGS.model)
    if FLAGS.variant not in (None, *VARIANTS):
        raise ValueError(
            f"--variant must be one of {', '.join(VARIANTS)}. "
            f"Received: {FLAGS.variant}"
        )
    network = find(FLAGS.weights, VARIANTS.get(FLAGS.variant)).network
    arguments = {
        "weights": FLAGS.weights,
        "classes": len(videos.class_names),
        "classifier_activation": "sigmoid" if videos.multi_label else "softmax",
    }
    if isinstance(network, InceptionVariant):
        return describe(InceptionI3D(**arguments))
    opened = describe(ResNet3D(FLAGS.variant, **arguments))
    if FLAGS.weights in CATALOGUE:
        clip = published_clip(FLAGS.weights)
        return dataclasses.replace(opened, clip=clip)
    return opened


def _by_recipe(model: OpenedModel, recipe: Recipe) -> OpenedModel:
    """The model with the clips of its recipe, which may say more of them."""
    clip, own = recipe.config.clip, model.clip
    if own is not None:
        # Flags of the training may have changed them.
        clip = dataclasses.replace(
            clip, num_frames=own.num_frames, sampling_rate=own.sampling_rate
        )
    return dataclasses.replace(model, clip=clip)


def _clip(parsed: ClipSpec | None, model: OpenedModel) -> ClipSpec:
    """What `--clip` and `--fps` say, and else the model."""
    clip = model.clip or parsed
    if clip is None:
        raise ValueError(
            "--clip must say which clips the model takes, which it does not "
            "say. Received: none"
        )
    if parsed is not None:
        clip = dataclasses.replace(
            clip,
            num_frames=parsed.num_frames,
            sampling_rate=parsed.sampling_rate,
        )
    fps = clip.fps if FLAGS.fps is None else FLAGS.fps
    return dataclasses.replace(clip, fps=fps)


def _protocol(model: OpenedModel, recipe: Recipe | None) -> Protocol:
    default = "paper" if recipe is None else recipe.protocol
    protocol = PROTOCOLS[FLAGS.protocol or default]
    if model.crop_size is not None:
        protocol = protocol.scaled(model.crop_size)
    short_side = FLAGS.short_side or protocol.short_side
    crop_size = FLAGS.crop_size or min(protocol.crop_size, short_side)
    return dataclasses.replace(
        protocol,
        short_side=short_side,
        crop_size=crop_size,
        average=FLAGS.average or protocol.average,
        over_clips=FLAGS.over_clips or protocol.over_clips,
    )


def _evaluate(out: pathlib.Path) -> Evaluation:
    if FLAGS.data is None:
        raise ValueError("--data must name a folder or list. Received: none")
    recipe = None if FLAGS.config is None else load_recipe(FLAGS.config)
    parsed = None if FLAGS.clip is None else ClipSpec.parse(FLAGS.clip)
    skips = SkipLog(FLAGS.max_skipped)
    videos = list_flags.read(FLAGS.data)
    if recipe is not None:
        videos = recipe.select(videos)
    model = _model(videos)
    if model.class_names not in (None, videos.class_names):
        raise ValueError(
            f"--data must have the model's classes, {model.class_names}, in "
            f"that order. Received: {videos.class_names}"
        )
    if recipe is not None:
        model = _by_recipe(model, recipe)
    clip, protocol = _clip(parsed, model), _protocol(model, recipe)
    print(
        f"{len(videos):,} videos, clips {clip}, short side "
        f"{protocol.short_side}, crops {protocol.crop_size}, protocol "
        f"{protocol.name}",
        flush=True,
    )
    scores = out / "scores.npz"
    if not FLAGS.resume:
        scores.unlink(missing_ok=True)
    return evaluate(
        model.model,
        videos,
        clip,
        protocol,
        batch_size=FLAGS.batch_size,
        num_workers=FLAGS.num_workers,
        decoder=FLAGS.decoder,
        outputs=FLAGS.outputs,
        scores=scores,
        model_id=model.digest,
        name=FLAGS.name or (recipe.name if recipe else model.name),
        dataset=FLAGS.dataset
        or (recipe.dataset if recipe else pathlib.Path(FLAGS.data).name),
        skips=skips,
    )


def _combine(out: pathlib.Path) -> Evaluation:
    if FLAGS.data or FLAGS.model or FLAGS.weights:
        raise ValueError(
            "--ensemble takes neither --data nor a model: the files of scores "
            "have all"
        )
    target = out / "scores.npz"
    if target.resolve() in [pathlib.Path(x).resolve() for x in FLAGS.ensemble]:
        raise ValueError(f"--out must be another folder than that of {target}")
    try:
        weights = [float(text) for text in FLAGS.ensemble_weights]
    except ValueError as error:
        raise ValueError(f"--ensemble_weights: {error}") from error
    evaluations = [score_files.load(path) for path in FLAGS.ensemble]
    result = combine(evaluations, weights or None, FLAGS.match)
    result = dataclasses.replace(result, name=FLAGS.name or result.name)
    score_files.save(result, target)
    return result


def _out() -> pathlib.Path:
    if FLAGS.out is not None:
        return pathlib.Path(FLAGS.out)
    if FLAGS.model is not None:
        return pathlib.Path(FLAGS.model).parent / "test"
    return pathlib.Path("runs/evaluate")


def _line(setting: str, found: dict) -> str:
    if "mAP" in found:
        value = "-" if found["mAP"] is None else f"{found['mAP']:.1%}"
        return f"  {setting:16}  mAP {value}"
    low, high = found["interval"]
    top5 = "" if found["top5"] is None else f"  top-5 {found['top5']:.1%}"
    return (
        f"  {setting:16}  top-1 {found['top1']:.1%} ({low:.1%} to {high:.1%})"
        f"{top5}"
    )


def main(argv: list[str]) -> None:
    show_own_notes_only()
    out = _out()
    try:
        if argv[1:]:
            raise ValueError(f"unknown arguments: {' '.join(argv[1:])}")
        figures.require_matplotlib()
        out.mkdir(parents=True, exist_ok=True)
        result = _combine(out) if FLAGS.ensemble else _evaluate(out)
    except (ImportError, OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    for path in (out / "evaluation.json", FLAGS.results):
        if path is not None:
            result.to_json(path)
    write_page(result, out / "index.html")
    print(f"{result.name}, {result.tested:,} videos tested:")
    for setting in result.scores:
        print(_line(setting, result.figures(setting)))
    if result.skipped:
        print(f"Could not be read: {len(result.skipped):,} videos")
    print(f"The report: {out / 'index.html'}")


if __name__ == "__main__":
    app.run(main)
