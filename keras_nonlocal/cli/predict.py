r"""Classifies videos: files, folders of frames, or URLs.

    python -m keras_nonlocal.cli.predict \
        --model runs/demo/small_nl_c2d video.mp4
    python -m keras_nonlocal.cli.predict \
        --model inception_i3d_rgb_kinetics400 --stride 1 \
        --out timeline.json --out strip.png --out subtitles.srt video.mp4

By default the scores of 10 clips spread over each video are averaged, as the
paper tests. With `--stride` or `--out` a window slides over it instead, and the
result is a timeline: what is printed is the mean over the windows, and from
when to when each class is the best. In names of files for several videos
`{name}` stands for the name of the video without its ending.

Videos that cannot be read are named, and the status is then 1.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import app
from absl import flags

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.cli import window_flags
from keras_nonlocal.data.auditing.page import printable
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.evaluation.scoring import OUTPUTS
from keras_nonlocal.evaluation.views import score_video
from keras_nonlocal.models.labels import decode_predictions
from keras_nonlocal.prediction import timeline
from keras_nonlocal.prediction.predict import WindowScorer
from keras_nonlocal.prediction.predict import predict_video
from keras_nonlocal.prediction.windows import local_video
from keras_nonlocal.visualization import figures

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(window_flags)
flags.DEFINE_integer(
    "clips", 10, "Clips to average over, without a timeline.", lower_bound=1
)
flags.DEFINE_integer("top", 5, "Classes to give.", lower_bound=1)
flags.DEFINE_multi_string(
    "out",
    [],
    "File of the timeline, by its ending .json, .csv, .srt or .png; repeat it "
    "for several.",
)
flags.DEFINE_enum(
    "outputs",
    None,
    list(OUTPUTS),
    "What the model gives, where it does not say.",
)
flags.DEFINE_float(
    "threshold", 0.5, "Smallest score that counts, of sigmoids.", 0, 1
)


def _check(videos: Sequence[str]) -> None:
    if not videos:
        raise ValueError("name one or more videos after the flags")
    for path in FLAGS.out:
        if timeline.check_ending(path) == ".png":
            figures.require_matplotlib()
    if (FLAGS.out or FLAGS.stride is not None) and FLAGS["clips"].present:
        raise ValueError(
            "--clips must not be given with --stride or --out, which score "
            "all of a video"
        )
    window_flags.check_outs(FLAGS.out, videos)


def _print(best: timeline.Top) -> None:
    for _, name, score in best:
        print(f"  {score:6.1%}  {printable(name)}")


def _predict_clips(opened: OpenedModel, video: str) -> None:
    """Prints the mean over clips spread evenly."""
    settings = window_flags.settings(opened)
    scorer = WindowScorer(opened, outputs=FLAGS.outputs)
    with local_video(video, progress=True) as path:
        scores = score_video(
            scorer,
            path,
            settings.clip,
            num_clips=FLAGS.clips,
            crop_size=settings.crop_size,
            short_side=settings.short_side,
            fps=FLAGS.fps,
            seconds=FLAGS.time_limit,
        )
    (best,) = decode_predictions(
        scores[np.newaxis], FLAGS.top, scorer.class_names
    )
    _print(best)


def _predict_windows(opened: OpenedModel, video: str) -> None:
    """Prints and writes a timeline."""
    result = predict_video(
        opened,
        video,
        top=FLAGS.top,
        outputs=FLAGS.outputs,
        threshold=FLAGS.threshold,
        **window_flags.arguments(opened),
    )
    _print(result.mean_top())
    for problem in result.problems:
        print(f"  problem: {printable(problem)}")
    for segment in result.segments():
        start = figures.clock_time(segment.start)
        end = figures.clock_time(segment.end)
        names = ", ".join(
            f"{printable(name)} {score:.1%}"
            for _, name, score in segment.classes
        )
        print(f"  {start:>9} to {end:>9}  {names}")
    for path in window_flags.outs(FLAGS.out, video):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        result.write(path)
        print(f"  {printable(path)}")


def main(argv: list[str]) -> None:
    show_own_notes_only()
    videos = argv[1:]
    try:
        _check(videos)
        opened = open_model(FLAGS.model)
        # What is wrong with all videos is said before the first one.
        window_flags.settings(opened)
    except (ImportError, OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    over_time = FLAGS.out or FLAGS.stride is not None
    predict = _predict_windows if over_time else _predict_clips
    window_flags.for_each(videos, lambda video: predict(opened, video))


if __name__ == "__main__":
    app.run(main)
