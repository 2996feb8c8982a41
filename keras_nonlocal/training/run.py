"""A whole run: train networks, test, export, predict and report."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from keras_nonlocal.data.clips import ClipRequest
from keras_nonlocal.data.clips import read_clip
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.pipeline import TIME_LIMIT
from keras_nonlocal.data.videos import VideoList
from keras_nonlocal.evaluation.views import score_video
from keras_nonlocal.export.clips import export_saved_model
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.training.config import TrainConfig
from keras_nonlocal.training.distribution import find_devices
from keras_nonlocal.training.environment import environment
from keras_nonlocal.training.fit import train
from keras_nonlocal.training.result import TrainResult
from keras_nonlocal.visualization import figures
from keras_nonlocal.visualization import report

_NUM_SAMPLES = 8
_EXPORTED = "saved_model"


def run(
    networks: Mapping[str, Variant],
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
    out: str | os.PathLike[str],
    title: str,
    notes: Sequence[str] = (),
    opening: Sequence[str] = (),
    staged: bool = False,
    resume: bool = True,
) -> dict:
    """Trains networks on the same clips and leaves a folder about them.

    Writes `index.html` (the report), `results.json` (its numbers) and for each
    network `NAME/model.keras`, `NAME/saved_model` and what `train` writes. An
    exported model is loaded from its folder to predict one test video.

    Args:
        networks: The networks by name.
        config: Settings of all of them.
        train_videos: Videos to train on.
        test_videos: Videos held out.
        out: Folder to write to.
        title: Of the report.
        notes: Paragraphs that introduce the report.
        opening: Sections before them, as `visualization.report` makes them.
        staged: Whether each network but the first starts from the one before
            it, as a network with non-local blocks from its baseline.
        resume: Whether to go on with a run that was broken off in `out`; if
            not, it is overwritten.

    Returns:
        What `results.json` holds; nothing in other processes than the first.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: As `train` and `export_saved_model`.
    """
    figures.require_matplotlib()
    out = pathlib.Path(out)
    results: list[TrainResult] = []
    settings = config
    for name, variant in networks.items():
        logging.info("training %s", name)
        if staged and results:
            before = results[-1].name
            settings = _next_stage(
                config, out / before, networks[before], variant
            )
        result = train(
            name,
            variant,
            settings,
            train_videos,
            test_videos,
            out / name,
            resume=resume,
        )
        results.append(result)
    devices = find_devices()
    if not devices.is_first:
        return {}
    with devices.alone():
        return _report(
            results,
            config,
            train_videos,
            test_videos,
            out,
            title,
            notes,
            opening,
        )


def _report(
    results: Sequence[TrainResult],
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
    out: pathlib.Path,
    title: str,
    notes: Sequence[str],
    opening: Sequence[str],
) -> dict:
    """Exports the networks and writes what was found."""
    for result in results:
        export(result, config, test_videos, out / result.name)
    numbers = _numbers(title, results, config, train_videos, test_videos)
    _write(numbers, out)
    numbers["predicted_video"] = _predict(results, config, test_videos, out)
    _write(numbers, out)
    sections = _sections(notes, results, config, test_videos, numbers)
    page = report.page(title, [*opening, *sections])
    (out / "index.html").write_text(page, encoding="utf-8")
    return numbers


def _next_stage(
    config: TrainConfig, folder: pathlib.Path, before: Variant, network: Variant
) -> TrainConfig:
    """The settings of a network that starts from one that was trained."""
    return dataclasses.replace(
        config,
        weights=os.fspath(folder / "model.keras"),
        from_baseline=bool(network.num_nonlocal and not before.num_nonlocal),
    )


def _write(numbers: dict, out: pathlib.Path) -> None:
    (out / "results.json").write_text(json.dumps(numbers, indent=1) + "\n")


def export(
    result: TrainResult,
    config: TrainConfig,
    videos: VideoList,
    out: str | os.PathLike[str],
) -> None:
    """Writes the SavedModel of a trained network, with what it is to be fed.

    Args:
        result: What `train` returned.
        config: Settings of the training.
        videos: A list with the names of the classes.
        out: Folder to write `saved_model` to; one that is there is replaced.

    Raises:
        ValueError: As `export_saved_model`.
    """
    about = {
        "class_names": list(videos.class_names),
        "clip": dataclasses.asdict(config.clip),
        "crop_size": config.crop_size,
        "short_side": config.short_side[0],
    }
    folder = pathlib.Path(out) / _EXPORTED
    export_saved_model(result.model, folder, about, overwrite=True)


def _predict(
    results: Sequence[TrainResult],
    config: TrainConfig,
    videos: VideoList,
    out: pathlib.Path,
) -> dict | None:
    """Scores of a test video by the exported models, as loaded from disk.

    Of the first of which ten clips can be read: what was tested is one clip.
    """
    models = {
        result.name: tf.saved_model.load(
            os.fspath(out / result.name / _EXPORTED)
        )
        for result in results
    }
    for number in results[0].tested_videos:
        try:
            scores = {
                name: score_video(
                    model.serve,
                    videos.paths[number],
                    config.clip,
                    crop_size=config.crop_size,
                    short_side=config.short_side[0],
                    segment=videos.segment(number),
                    fps=videos.fps,
                    seconds=TIME_LIMIT,
                ).tolist()
                for name, model in models.items()
            }
        except VideoError as error:
            logging.warning("Another video is predicted. %s", error)
            continue
        return {
            "path": videos.paths[number],
            "class_name": ", ".join(_classes(videos, number)),
            "scores": scores,
        }
    return None


def _classes(videos: VideoList, number: int) -> list[str]:
    """The name of a video's class, or those of all of its classes."""
    label = videos.labels[number]
    numbers = np.flatnonzero(label) if videos.multi_label else [label]
    return [videos.class_names[n] for n in numbers]


def _numbers(
    title: str,
    results: Sequence[TrainResult],
    config: TrainConfig,
    train_videos: VideoList,
    test_videos: VideoList,
) -> dict:
    skipped: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for result in results:
        skipped.update(result.skipped)
        damaged.update(result.damaged)
    return {
        "title": title,
        **environment(),
        "config": {
            **dataclasses.asdict(config),
            "clip": str(config.clip),
        },
        "train_videos": len(train_videos),
        "test_videos": len(test_videos),
        "class_names": list(test_videos.class_names),
        "skipped": skipped,
        "damaged": damaged,
        "networks": [
            {
                "name": result.name,
                **result.figures(),
                "parameters": result.parameters,
                "macs": result.macs,
                "seconds": round(result.seconds, 1),
                "history": result.history,
            }
            for result in results
        ],
        "predicted_video": None,
    }


def _sections(
    notes: Sequence[str],
    results: Sequence[TrainResult],
    config: TrainConfig,
    videos: VideoList,
    numbers: dict,
) -> list[str]:
    curves = figures.training_curves(
        {result.name: result.history for result in results}
    )
    names = [result.name for result in results]
    return [
        *(report.paragraph(note) for note in notes),
        report.heading("Held-out videos"),
        _table(results),
        report.paragraph(
            "Of one clip of each held-out video: accuracy with its 95 % Wilson "
            "interval over the videos, or the mean over classes of average "
            "precision (mAP) where videos may have several; one seed. "
            "Multiply-adds are of one clip. Training time includes a test "
            "after each epoch.",
            note=True,
        ),
        report.heading("Training"),
        report.picture(
            curves, f"Loss and accuracy over epochs of {', '.join(names)}"
        ),
        report.heading("Clips and predictions"),
        *_samples(results, config, videos),
        report.heading("The exported model on a file"),
        *_predicted(numbers["predicted_video"], videos.class_names),
        report.heading("Files that could not be read"),
        *_unread(numbers["skipped"], numbers["damaged"]),
        report.heading("How this was made"),
        report.code(_settings(numbers)),
    ]


def _table(results: Sequence[TrainResult]) -> str:
    measured = ["mAP"]
    if not results[0].multi_label:
        measured = ["accuracy", "95 % interval", "right"]
    header = (
        "network",
        *measured,
        "trainable parameters",
        "GMACs",
        "training time",
    )
    rows = [
        (
            result.name,
            *_measured(result),
            f"{result.parameters:,}",
            f"{result.macs / 1e9:.3f}",
            f"{result.seconds:.0f} s",
        )
        for result in results
    ]
    return report.table(header, rows)


def _measured(result: TrainResult) -> tuple[str, ...]:
    if result.multi_label:
        return (f"{result.mean_average_precision:.1%}",)
    low, high = result.interval
    return (
        f"{result.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{result.correct} of {result.tested}",
    )


def _samples(
    results: Sequence[TrainResult], config: TrainConfig, videos: VideoList
) -> list[str]:
    """Videos spread over the test list, so over the classes."""
    tested = results[0].tested_videos
    spread = np.linspace(0, len(tested) - 1, min(_NUM_SAMPLES, len(tested)))
    samples = []
    for position in spread.round().astype(int).tolist():
        number = tested[position]
        path = videos.paths[number]
        samples.append(
            report.prediction(
                figures.film_strip(_middle_clip(videos, number, config)),
                pathlib.Path(path).name,
                _classes(videos, number),
                videos.class_names,
                {result.name: result.scores[position] for result in results},
            )
        )
    return samples


def _middle_clip(
    videos: VideoList, number: int, config: TrainConfig
) -> np.ndarray:
    """At most 8 frames of the clip that was scored."""
    request = ClipRequest(
        videos.paths[number],
        config.clip,
        config.crop_size,
        config.short_side,
        segment=videos.segment(number),
        fps=videos.fps,
        seconds=TIME_LIMIT,
    )
    frames = read_clip(request).frames
    return frames[:: -(-len(frames) // 8)]


def _predicted(predicted: dict | None, class_names: Sequence[str]) -> list[str]:
    if predicted is None:
        return [report.paragraph("No test video could be read in ten places.")]
    rows = [
        (name, *(f"{score:.1%}" for score in scores))
        for name, scores in predicted["scores"].items()
    ]
    return [
        report.paragraph(
            f"{predicted['path']} (its class is {predicted['class_name']}), "
            "mean over 10 clips, by the SavedModel of each network as loaded "
            "from disk:"
        ),
        report.table(("network", *class_names), rows),
    ]


def _unread(
    skipped: Mapping[str, str], damaged: Mapping[str, str]
) -> list[str]:
    if not skipped and not damaged:
        return [report.paragraph("None: every video could be read.")]
    rows = [
        (path, kind, reason)
        for kind, files in (("no clip", skipped), ("some clips", damaged))
        for path, reason in files.items()
    ]
    return [report.table(("file", "what was read", "reason"), rows)]


def _settings(numbers: dict) -> str:
    measured = (
        "title",
        "networks",
        "skipped",
        "damaged",
        "predicted_video",
    )
    settings = {k: v for k, v in numbers.items() if k not in measured}
    return json.dumps(settings, indent=1)
