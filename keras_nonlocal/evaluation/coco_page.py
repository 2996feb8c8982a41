"""A test of a detector as one HTML page that needs nothing else."""

import base64
import collections
import dataclasses
import functools
import html
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.coco_annotations import CocoImage
from keras_nonlocal.data.coco_masks import Segmentation
from keras_nonlocal.data.coco_masks import decode_masks
from keras_nonlocal.data.images import read_image
from keras_nonlocal.data.images import resize_image
from keras_nonlocal.data.images import resized
from keras_nonlocal.evaluation.coco import DetectorResult
from keras_nonlocal.evaluation.coco import ImageMatches
from keras_nonlocal.visualization import report
from keras_nonlocal.visualization.detection_figures import draw_objects

# Bounds that keep the page small; the files beside it have all.
_MAX_WORST, _MAX_BEST = 12, 6
_MAX_ROWS = 400
_MAX_OBJECTS = 40
# Longer side of pictures, in pixels.
_PICTURE_SIDE = 640
_STYLE = """<style>
.long { max-height: 28rem; overflow-y: auto; width: fit-content;
        max-width: 100%; }
figcaption { margin-top: .4rem; }
.pair { display: flex; flex-wrap: wrap; gap: .8rem; }
.pair div { flex: 1 1 18rem; min-width: 0; }
.pair p { margin: 0 0 .3rem; }
.pair img { width: auto; max-height: 34rem; }
select { font: inherit; max-width: 100%; }
[hidden] { display: none; }
</style>"""
_SCRIPT = """<script>
"use strict";
{
  const choice = document.getElementById("choice");
  const none = document.getElementById("none");
  const show = () => {
    let shown = 0;
    for (const figure of document.querySelectorAll("figure[data-classes]")) {
      const classes = JSON.parse(figure.dataset.classes);
      const fits = choice.value === "" || classes.includes(+choice.value);
      figure.hidden = !fits;
      shown += fits;
    }
    none.hidden = shown > 0;
  };
  choice.addEventListener("change", show);
  show();
}
</script>"""


def write_page(result: DetectorResult, path: str | os.PathLike[str]) -> None:
    """Writes a report, complete or not at all.

    It has the figures of boxes and masks, every class with the worst first,
    the images with the most mistakes and the best ones beside the truth, and
    the images that could not be read. Images are read again for the pictures.

    Args:
        result: What to report on.
        path: The HTML file.

    Raises:
        ImportError: If matplotlib is missing.
        OSError: If the file cannot be written.
    """
    source = pathlib.PurePath(result.annotations.path).name
    sections = [
        _STYLE,
        *_summary(result),
        report.heading("Classes"),
        _classes(result),
        *_pictures(result),
        report.heading("Images that could not be read"),
        _skipped(result),
        report.heading("How this was measured"),
        report.code(json.dumps(result.about, indent=1)),
        _SCRIPT,
    ]
    title = f"{result.name} on {source}"
    write_text(pathlib.Path(path), report.page(title, sections))


def _summary(result: DetectorResult) -> list[str]:
    counts = result.summary()
    text = (
        f"Tested: {counts['images']:,} images with {counts['objects']:,} "
        f"objects of {len(result.annotations.class_names):,} classes; "
        f"{counts['detections']:,} detections."
    )
    if result.skipped:
        text += (
            f" Could not be read: {len(result.skipped):,} of the images, whose "
            "objects count as missed."
        )
    problems = counts["problems"]
    if problems:
        text += " Left out or mended in the annotations: "
        text += ", ".join(f"{kind} ({x:,})" for kind, x in problems.items())
        text += "."
    measures = [("box", result.box), ("mask", result.mask)]
    rows = [(name, *map(_points, x.values())) for name, x in measures]
    return [
        report.paragraph(text),
        report.table(("average precision", *result.box), rows),
        report.paragraph(
            "Of 100, as COCO's own code measures them. AP: the mean over IoUs "
            "of 0.5 to 0.95 and over classes. AP50, AP75: at one IoU. APs, "
            "APm, APl: of objects below 32 x 32 pixels, up to 96 x 96, and "
            "larger ones. -: nothing to measure.",
            note=True,
        ),
    ]


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _classes(result: DetectorResult) -> str:
    objects = result.objects_per_class
    box, mask = result.box_per_class, result.mask_per_class

    def key(name: str) -> tuple[bool, float]:
        found = box[name] if box[name] is not None else mask[name]
        return found is None, found or 0.0

    rows = [
        (name, f"{objects[name]:,}", _points(box[name]), _points(mask[name]))
        for name in sorted(objects, key=key)[:_MAX_ROWS]
    ]
    table = report.table(("worst first", "objects", "box AP", "mask AP"), rows)
    # What scrolls must take the focus, for those without a mouse.
    return f'<div class="long" tabindex="0">{table}</div>'


def _pictures(result: DetectorResult) -> list[str]:
    threshold, f1 = result.best_threshold()
    worst, best = _chosen(result, threshold)
    text = (
        f"Detections with a score of at least {threshold:.2f}. With that score "
        "the harmonic mean of the shares of detections that are right and of "
        f"objects that are found is at its highest, {f1:.0%}. Dashed: objects "
        "that are missed, detections that are wrong (no object of that class "
        "that is still free has a box with an IoU of 0.5). Crowds are not "
        "shown, and detections in them are neither right nor wrong."
    )
    sections = [
        report.heading("Pictures"),
        report.paragraph(text, note=True),
        _choice(result, [*worst, *best]),
    ]
    for title, scenes in (("Most mistakes", worst), ("Fewest mistakes", best)):
        sections.append(report.heading(title))
        sections += [_figure(scene) for scene in scenes]
        if not scenes:
            sections.append(report.paragraph("None."))
    return sections


@dataclasses.dataclass(frozen=True, eq=False)
class _Scene:
    """An image with the detections that its picture has."""

    result: DetectorResult
    image: CocoImage
    match: ImageMatches
    threshold: float

    @property
    def name(self) -> str:
        return pathlib.PurePath(self.image.path).name

    @property
    def class_names(self) -> Sequence[str]:
        return self.result.annotations.class_names

    @functools.cached_property
    def counts(self) -> tuple[int, int, int]:
        """Right and wrong detections, and objects that are missed."""
        return self.match.counts(self.threshold)

    @property
    def mistakes(self) -> int:
        return sum(self.counts[1:])

    @functools.cached_property
    def shown(self) -> np.ndarray:
        """Places of the detections in `match`, the surest first."""
        return np.flatnonzero(self.match.scores >= self.threshold)

    @functools.cached_property
    def found(self) -> list[dict]:
        """These, as results."""
        numbers = self.match.results[self.shown].tolist()
        return [self.result.results[number] for number in numbers]

    @functools.cached_property
    def found_classes(self) -> np.ndarray:
        """Their classes."""
        ids = self.result.annotations.category_ids
        numbers = [ids.index(found["category_id"]) for found in self.found]
        return np.array(numbers, int)

    @property
    def is_wrong(self) -> np.ndarray:
        return ~(self.match.is_right | self.match.is_ignored)[self.shown]

    @property
    def is_missed(self) -> np.ndarray:
        return self.match.found_at < self.threshold

    @property
    def true_classes(self) -> np.ndarray:
        return self.image.classes[self.match.objects]

    @property
    def all_classes(self) -> set[int]:
        return {*self.true_classes.tolist(), *self.found_classes.tolist()}


def _chosen(
    result: DetectorResult, threshold: float
) -> tuple[list[_Scene], list[_Scene]]:
    """Images with many mistakes, and others with few for what they show."""
    images = {x.image_id: x for x in result.annotations.images}
    scenes = [
        _Scene(result, images[match.image_id], match, threshold)
        for match in result.matches
        if images[match.image_id].path not in result.skipped
    ]
    worst = sorted(scenes, key=lambda x: x.mistakes, reverse=True)
    worst = [scene for scene in worst if scene.mistakes][:_MAX_WORST]
    others = [x for x in scenes if x.counts[0] and x not in worst]
    best = sorted(
        others, key=lambda x: (x.mistakes / x.counts[0], -x.counts[0])
    )
    return worst, best[:_MAX_BEST]


def _choice(result: DetectorResult, scenes: Sequence[_Scene]) -> str:
    """A list of the classes in the pictures, to see only those with one."""
    names = result.annotations.class_names
    used: set[int] = set().union(*(scene.all_classes for scene in scenes))
    options = "".join(
        f'<option value="{number}">{html.escape(names[number])}</option>'
        for number in sorted(used, key=lambda number: names[number])
    )
    return (
        '<p><label>Show images with <select id="choice">'
        f'<option value="">any class</option>{options}</select></label></p>'
        '<p id="none" hidden>No picture has that class.</p>'
    )


def _figure(scene: _Scene) -> str:
    image = scene.image
    try:
        pixels = read_image(image.path, (image.height, image.width))
    except (OSError, ValueError) as error:
        return report.paragraph(f"{scene.name}: no picture. {error}")
    classes = json.dumps(sorted(scene.all_classes))
    return (
        f'<figure data-classes="{classes}"><div class="pair">'
        f"<div><p>truth</p>{_truth(scene, pixels)}</div>"
        f"<div><p>found</p>{_found(scene, pixels)}</div></div>"
        f"<figcaption>{_caption(scene)}</figcaption></figure>"
    )


def _truth(scene: _Scene, pixels: np.ndarray) -> str:
    numbers = scene.match.objects[:_MAX_OBJECTS]
    return _picture(
        pixels,
        scene.image.boxes[numbers],
        [scene.image.segmentations[number] for number in numbers],
        f"True objects of {scene.name}",
        classes=scene.true_classes[:_MAX_OBJECTS],
        class_names=scene.class_names,
        dashed=scene.is_missed[:_MAX_OBJECTS],
    )


def _found(scene: _Scene, pixels: np.ndarray) -> str:
    found = scene.found[:_MAX_OBJECTS]
    segmentations = [x.get("segmentation") for x in found]
    boxes = np.array([x["bbox"] for x in found], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return _picture(
        pixels,
        boxes,
        segmentations,
        f"Objects found in {scene.name}",
        classes=scene.found_classes[:_MAX_OBJECTS],
        scores=scene.match.scores[scene.shown][:_MAX_OBJECTS],
        class_names=scene.class_names,
        dashed=scene.is_wrong[:_MAX_OBJECTS],
    )


def _picture(
    pixels: np.ndarray,
    boxes: np.ndarray,
    segmentations: Sequence[Segmentation],
    description: str,
    **arguments: Any,
) -> str:
    """A picture of a size that suits a page."""
    height, width = pixels.shape[:2]
    masks = None
    if any(x is not None for x in segmentations):
        masks = decode_masks(segmentations, boxes, height, width)
    small = resized(height, width, _PICTURE_SIDE, _PICTURE_SIDE)
    if small < (height, width):
        pixels = resize_image(pixels, *small)
        boxes = boxes * np.tile([small[1] / width, small[0] / height], 2)
        if masks is not None:
            rows = np.arange(small[0]) * height // small[0]
            columns = np.arange(small[1]) * width // small[1]
            masks = masks[:, rows][:, :, columns]
    data = draw_objects(
        pixels, boxes, masks=masks, file_format="jpeg", **arguments
    )
    return (
        f'<img alt="{html.escape(description, quote=True)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
    )


def _caption(scene: _Scene) -> str:
    right, wrong, missed = scene.counts
    lines = [
        f"<b>{html.escape(scene.name)}</b>: {right:,} found, {missed:,} "
        f"missed, {wrong:,} wrong"
    ]
    for kind, numbers in (
        ("missed", scene.true_classes[scene.is_missed]),
        ("wrong", scene.found_classes[scene.is_wrong]),
    ):
        if len(numbers):
            names = [scene.class_names[number] for number in numbers.tolist()]
            lines.append(
                f'<span class="wrong">\N{MULTIPLICATION X} {kind}</span>: '
                f"{html.escape(_listed(names))}"
            )
    if max(len(scene.shown), len(scene.true_classes)) > _MAX_OBJECTS:
        lines.append(f"The pictures have the first {_MAX_OBJECTS} of each.")
    return "<br>".join(lines)


def _listed(names: Sequence[str]) -> str:
    """Names with how often they occur."""
    counts = collections.Counter(names).most_common()
    return ", ".join(
        name if count == 1 else f"{count} {name}" for name, count in counts
    )


def _skipped(result: DetectorResult) -> str:
    if not result.skipped:
        return report.paragraph("None: every image could be read.")
    rows = list(result.skipped.items())[:_MAX_ROWS]
    return report.table(("file", "reason"), rows)
