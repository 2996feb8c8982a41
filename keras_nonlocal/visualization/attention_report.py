"""One HTML page on which a clip is asked what a network sees in it."""

import base64
import dataclasses
import hashlib
import html
import itertools
import json
import math
import os
import pathlib
import string
import zlib
from collections.abc import Iterator
from collections.abc import Sequence
from importlib import resources
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_nonlocal.data.atomic_files import write_text
from keras_nonlocal.data.sampling import ClipSpec
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import as_opened
from keras_nonlocal.evaluation.scoring import check_takes_pixels
from keras_nonlocal.evaluation.scoring import outputs_of
from keras_nonlocal.layers.non_local import NonLocal
from keras_nonlocal.models import labels
from keras_nonlocal.visualization import calls
from keras_nonlocal.visualization.attention import AttentionMaps
from keras_nonlocal.visualization.attention import ClipAttention
from keras_nonlocal.visualization.attention import attend
from keras_nonlocal.visualization.grad_cam import GradCam
from keras_nonlocal.visualization.grad_cam import grad_cams
from keras_nonlocal.visualization.receptive_field import ReceptiveField
from keras_nonlocal.visualization.receptive_field import layout
from keras_nonlocal.visualization.video_clip import VideoClip
from keras_nonlocal.visualization.video_clip import as_video_clip

# Codes of weights that are not 0 go from 1 to here.
_LAST_CODE = 255
_MAX_BYTES = 5_000_000
_TOP = 5
# Queries along an axis by which the size of others is told.
_SAMPLE = 3
# Frames take at most this share of a page, the rest is for weights.
_SHARE_OF_FRAMES = 0.5
_QUALITIES = (85, 70, 50)
_MIN_SIDE = 32
# What a browser holds of all blocks, and weights that are made at a time.
_MAX_CODES = 2**25
_MAX_PAIRS = 2**22
_ASSETS = resources.files("keras_nonlocal.visualization") / "assets"


def attention_report(
    model: keras.Model | OpenedModel | str | os.PathLike[str],
    video: str | os.PathLike[str] | np.ndarray | VideoClip,
    out: str | os.PathLike[str],
    **arguments: Any,
) -> pathlib.Path:
    """Writes a page that shows where a network's blocks look in a clip.

    One HTML file that needs nothing else, neither a server nor a network. It
    shows all frames of the clip; a click on a point of a frame, or the arrow
    keys, ask a block where it looks from there. Networks without non-local
    blocks get a page of the same kind that shows by Grad-CAM where they find
    each of their best classes.

    Args:
        model: A Keras model that takes RGB in 0..255, what `open_model`
            returns, or a path that it takes.
        video: A file, uint8 frames `(T, H, W, 3)` as the model takes them, or
            a `VideoClip`.
        out: The HTML file; replaced if it is there, complete or not at all.
        **arguments: Of `attention_page`, as `block`, `class_names` or `start`.

    Returns:
        The path of the file.

    Raises:
        ValueError: As of `attention_page`.
        VideoError: If the video cannot be read.
        OSError: If the file cannot be written.
    """
    path = pathlib.Path(out)
    write_text(path, attention_page(model, video, **arguments))
    return path


def attention_page(
    model: keras.Model | OpenedModel | str | os.PathLike[str],
    video: str | os.PathLike[str] | np.ndarray | VideoClip,
    *,
    block: str | Sequence[str] | None = None,
    class_names: str | Sequence[str] | None = None,
    start: float | None = None,
    clip: ClipSpec | None = None,
    crop_size: int | None = None,
    max_bytes: int = _MAX_BYTES,
    progress: bool = True,
) -> str:
    """The page that `attention_report` writes, as text.

    Weights are stored as 8-bit numbers. That moves none by more than 0.4 % of
    the difference between the query's least and greatest weight, see
    `quantize`; the numbers on the page that describe a query are exact. Places
    on the page are (t, y, x) of the clip, as `attention_maps` takes them.

    Args:
        model: As of `attention_report`.
        video: As of `attention_report`.
        block: Names of the blocks to show. Default: all.
        class_names: Of the scores, by class index, or `"kinetics400"`.
            Default: what an opened model says; classes of others are shown by
            their numbers.
        start: Second of the video at which the clip begins. Default: the
            middle clip.
        clip: Frames of a clip of the video. Default: what the model says.
        crop_size: Their height and width in pixels. Default: what the model
            says.
        max_bytes: Size of the page. Frames get at most half of it. The rest
            decides how many queries are stored: the same number along each
            axis (at most those that the block has), as many as fit. A click
            asks the nearest of them.
        progress: Whether to show a progress bar.

    Returns:
        HTML.

    Raises:
        ValueError: If an argument is not as described, if the network is one
            of this package without its preprocessing, if not even one query of
            each block fits into `max_bytes`, or if the network gives something
            else than finite numbers.
        VideoError: If the video cannot be read.
    """
    opened = as_opened(model)
    network = opened.model
    if not isinstance(network, keras.Model):
        raise ValueError(
            "`model` must have layers to look into: give the model.keras, not "
            f"the exported function. Received: {opened.name}"
        )
    check_takes_pixels(network)
    shown = as_video_clip(video, opened, start, clip=clip, crop_size=crop_size)
    entry = _entry(network, shown.frames)
    names = opened.class_names if class_names is None else class_names
    if _has_blocks(network):
        found = attend(network, entry)
        scores = _scores(network, found.outputs, names)
        page = _Page("attention", shown, scores, max_bytes)
        return _fill(page, found, _blocks(found, block), progress)
    if block is not None:
        raise ValueError(
            "`block` must be None for a model without NonLocal layers. "
            f"Received: block={block!r}"
        )
    cams = grad_cams(network, entry, _TOP)
    for cam in cams:
        _check_finite("scores", cam.score)
        _check_finite("features and gradients", cam.heat)
    names = _all_names(names, network.outputs[0].shape[-1])
    best = [(_text(names[cam.class_index]), cam) for cam in cams]
    scores = {
        "top": [(name, cam.score) for name, cam in best],
        "are_probabilities": _gives_probabilities(network),
    }
    views = [_class_view(name, cam) for name, cam in best]
    page = _Page("grad_cam", shown, scores, max_bytes)
    return page.checked(page.html(views))


def quantize(
    weights: np.ndarray, signed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weights as the 8-bit numbers that a page holds.

    Code 0 is the weight 0. The codes from 1 to 255 go from a query's least
    weight that is not 0 to its greatest one: in even steps where weights have
    signs, else by the root, which keeps small ones apart.

    Args:
        weights: float `(Q, keys)`.
        signed: Whether they may be negative.

    Returns:
        Codes, uint8 `(Q, keys)`, and the least and greatest weights, float32
        `(Q, 2)`.

    Raises:
        ValueError: If a weight is not a finite number.

    Example:

    >>> quantize(np.array([[0.0, 0.1, 0.9]]), signed=False)[0]
    array([[  0,   1, 255]], dtype=uint8)
    """
    weights = np.asarray(weights, "float32")
    _check_finite("attention weights", weights)
    used = weights != 0
    low = np.min(weights, axis=1, where=used, initial=np.inf)
    high = np.max(weights, axis=1, where=used, initial=-np.inf)
    ends = np.where(used.any(axis=1), [low, high], 0).T.astype("float32")
    spans = np.where(ends[:, 1] > ends[:, 0], ends[:, 1] - ends[:, 0], 1)
    shares = np.where(used, (weights - ends[:, :1]) / spans[:, None], 0)
    steps = shares if signed else np.sqrt(shares)
    codes = np.rint(1 + (_LAST_CODE - 1) * steps)
    return np.where(used, codes, 0).astype("uint8"), ends


def quantization_error(signed: bool) -> float:
    """What `quantize` may change a weight by, at most.

    As a share of the difference between the query's greatest and its least
    weight that is not 0.
    """
    step = 1 / (_LAST_CODE - 1)
    # Rounding moves by half a step; by the root, the greatest weights most.
    return step / 2 if signed else step + step**2 / 4


class _Page:
    """A page about a clip, but for its views.

    Args:
        kind: What it shows, "attention" or "grad_cam".
        clip: The clip.
        scores: Of the clip, as `_scores` has them.
        max_bytes: Of the page.
    """

    def __init__(
        self, kind: str, clip: VideoClip, scores: dict, max_bytes: int
    ) -> None:
        self.max_bytes = max_bytes
        self._name = _text(clip.name)
        self._data = {
            "kind": kind,
            "scores": scores,
            "notes": [*_NOTES[kind], *_clip_notes(clip)],
            "size": clip.frames.shape[:3],
            "seconds": [
                round(float(x), 4) if np.isfinite(x) else None
                for x in clip.seconds
            ],
            "frames": [
                _base64(jpeg)
                for jpeg in _jpegs(
                    clip.frames, int(max_bytes * _SHARE_OF_FRAMES)
                )
            ],
        }

    def html(self, views: Sequence[dict]) -> str:
        """The page with these views."""
        style, script = (
            (_ASSETS / name).read_text(encoding="utf-8")
            for name in ("attention.css", "attention.js")
        )
        template = (_ASSETS / "attention.html").read_text(encoding="utf-8")
        page = string.Template(template).substitute(
            title=html.escape(self._name),
            # Nothing but what is in the page runs, and nothing is fetched.
            policy="default-src 'none'; img-src data:; "
            f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
            style=style,
            script=script,
            data=_json({**self._data, "views": views}),
        )
        return page

    def checked(self, page: str) -> str:
        """The page, unless it is too large."""
        size = len(page.encode())
        if size > self.max_bytes:
            raise ValueError(
                "`max_bytes` must be enough for the frames of the clip and "
                f"what is shown of them, here at least {size}. "
                f"Received: max_bytes={self.max_bytes}"
            )
        return page


def _fill(
    page: _Page, found: ClipAttention, blocks: Sequence[str], progress: bool
) -> str:
    """The page with as many queries as fit."""
    room = page.max_bytes - len(page.html([]).encode())
    for count in _counts(found, blocks, room):
        total = sum(len(_queries(found, name, count)) for name in blocks)
        bar = keras.utils.Progbar(
            total, verbose=int(progress), unit_name="query"
        )
        views = [_block_view(found, name, count, bar) for name in blocks]
        text = page.html(views)
        if len(text.encode()) <= page.max_bytes:
            break
    return page.checked(text)


def _counts(
    found: ClipAttention, blocks: Sequence[str], room: int
) -> Iterator[int]:
    """Queries along each axis that may fit into so many bytes, most first."""
    costs, keys = {}, {}
    for name in blocks:
        view = _block_view(found, name, _SAMPLE)
        size = len(view["codes"]) + len(view["numbers"])
        costs[name] = size / len(_queries(found, name, _SAMPLE))
        keys[name] = view["num_keys"]
    for count in range(
        max(max(found.grid(name).shape) for name in blocks), 1, -1
    ):
        numbers = {name: len(_queries(found, name, count)) for name in blocks}
        expected = sum(costs[name] * numbers[name] for name in blocks)
        codes = sum(keys[name] * numbers[name] for name in blocks)
        if expected <= room and codes <= _MAX_CODES:
            yield count
    yield 1


def _queries(found: ClipAttention, block: str, count: int) -> np.ndarray:
    """Positions `(Q, 3)` of a block, spread evenly."""
    return np.array(list(itertools.product(*_axes(found, block, count))))


def _axes(found: ClipAttention, block: str, count: int) -> list[np.ndarray]:
    """At most `count` positions along each axis, in the middle of its parts."""
    axes = []
    for size in found.grid(block).shape:
        parts = min(size, count)
        axes.append(((np.arange(parts) + 0.5) * size / parts).astype(int))
    return axes


def _block_view(
    found: ClipAttention,
    block: str,
    count: int,
    bar: keras.utils.Progbar | None = None,
) -> dict:
    """What a page holds of a block, with `count` queries along an axis."""
    grid, keys = found.grid(block), found.key_grid(block)
    positions = _queries(found, block, count)
    signed = found.layer(block).mode == "dot_product"
    compressor = zlib.compressobj(9)
    codes, numbers = [], []
    step = max(_MAX_PAIRS // math.prod(keys.shape), 1)
    for first in range(0, len(positions), step):
        part = positions[first : first + step]
        maps = found.positions(block, part)
        seen = maps.seen
        chunk, ends = quantize(
            maps.weights[seen].reshape(len(part), -1), signed
        )
        codes.append(compressor.compress(chunk.tobytes()))
        same = np.abs(keys.times - grid.times[part[:, :1]])
        same = same < keys.stride[0] / 2
        numbers.append(_numbers(maps.weights, ends, same, seen))
        if bar is not None:
            bar.add(len(part))
    codes.append(compressor.flush())
    ts, ys, xs = _axes(found, block, count)
    return {
        "name": _text(block),
        "about": _about_block(found.layer(block), maps),
        "unit": _unit(maps),
        "even": "the uniform weight"
        if maps.is_distribution
        else "the mean absolute weight",
        "num_keys": maps.num_keys,
        "window": _box(seen[0]),
        "field": grid.size,
        "queries": _places(
            dataclasses.replace(
                grid,
                times=grid.times[ts],
                rows=grid.rows[ys],
                columns=grid.columns[xs],
            )
        ),
        **_packed(keys, signed, b"".join(codes), np.concatenate(numbers)),
    }


def _numbers(
    weights: np.ndarray,
    ends: np.ndarray,
    same: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """What the page says of queries, float32 `(Q, 8)`.

    Args:
        weights: `(Q, T', H', W')`.
        ends: Least and greatest of them, as of `quantize`.
        same: Which keys' times are those of the query, `(Q, T')`.
        seen: Which keys each query sees, booleans of the weights' shape.

    Returns:
        Least and greatest weight; number of the strongest key; sum of the
        absolute weights; of these as shares of their sum the entropy and the
        share at the query's time; what uniform weights have there; and number
        of the first key that the query sees.
    """
    uniform = seen / seen.sum(axis=(1, 2, 3), keepdims=True)
    first = seen.reshape(len(seen), -1).argmax(axis=1)
    sizes = np.abs(weights.astype("float64"))
    best = sizes.reshape(len(sizes), -1).argmax(axis=1)
    totals = sizes.sum(axis=(1, 2, 3))
    shares = sizes / np.where(totals > 0, totals, 1)[:, None, None, None]
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(axis=(1, 2, 3))
    here, even = (
        (values.sum(axis=(2, 3)) * same).sum(axis=1)
        for values in (shares, uniform)
    )
    found = np.stack([best, totals, entropy, here, even, first], axis=1)
    return np.concatenate([ends, found], axis=1)


def _box(seen: np.ndarray) -> list[int]:
    """Times, rows and columns of the keys `(T', H', W')` that a query sees."""
    rests = ((1, 2), (0, 2), (0, 1))
    return [int(seen.any(axis=rest).sum()) for rest in rests]


def _class_view(name: str, cam: GradCam) -> dict:
    """What a page holds of a class."""
    heat = cam.heat[np.newaxis]
    codes, ends = quantize(heat.reshape(1, -1), signed=False)
    # A class has no query: no frame is its own.
    same = np.zeros((1, len(cam.heat)))
    numbers = _numbers(heat, ends, same, np.ones(heat.shape, bool))
    return {
        "name": name,
        "about": [
            f"Features of the layer {_text(cam.layer)}. What speaks against "
            "the class is cut off."
        ],
        "unit": "Heat as a share of the largest in the clip for this class.",
        "even": "",
        "num_keys": heat.size,
        "window": cam.heat.shape,
        "field": cam.keys.size,
        "queries": {"times": [0], "rows": [0], "columns": [0]},
        **_packed(cam.keys, False, _deflate(codes), numbers),
    }


def _packed(
    keys: ReceptiveField, signed: bool, codes: bytes, numbers: np.ndarray
) -> dict:
    return {
        "signed": signed,
        "last_code": _LAST_CODE,
        "keys": _places(keys),
        "codes": _base64(codes),
        "numbers": _base64(_deflate(numbers.astype("<f4"))),
    }


def _places(field: ReceptiveField) -> dict[str, list[float]]:
    return {
        name: np.round(getattr(field, name), 4).tolist()
        for name in ("times", "rows", "columns")
    }


def _about_block(layer: NonLocal, maps: AttentionMaps) -> list[str]:
    """Which keys a block's queries see, and what its weights are."""
    windows = {
        "spacetime": "A query sees all frames.",
        "space": "A query sees its own frame alone: weights elsewhere are 0.",
        "time": "A query sees the same place in all frames: weights elsewhere "
        "are 0.",
    }
    window = windows[layer.attention_axes]
    if layer.temporal_group is not None:
        window = (
            f"A query sees the {layer.temporal_group} positions in time of its "
            "own group: weights elsewhere are 0."
        )
    modes = {
        "dot_product": "Dot product: weights have signs and do not sum to 1; "
        "shares and entropy are of their absolute values.",
        "concatenation": "Concatenation: weights are not negative and do not "
        "sum to 1; shares and entropy are of weights over their sum.",
    }
    mode = modes.get(
        maps.mode,
        f"{maps.mode.replace('_', ' ').capitalize()}: a softmax, the weights "
        "of a query sum to 1.",
    )
    return [f"{window} {maps.num_keys} keys.", mode]


def _unit(maps: AttentionMaps) -> str:
    if maps.is_distribution:
        return (
            "Weight relative to uniform: 1 × is 1 / "
            f"{maps.num_keys}, what every key would get if all were alike."
        )
    kind = "Signed weight" if maps.mode == "dot_product" else "Weight"
    return f"{kind} relative to the query's mean absolute weight."


_NOTES = {
    "attention": [
        "Heat is a block's weight f(x, x') / C(x) of every key for the query, "
        "linear between the centres of what the keys are computed from. "
        "All frames have one scale.",
        "A click asks the nearest stored query, which may be in another frame; "
        "the ring is at the centre of what that query is computed from, in "
        "every frame that is nearest to it.",
        "The outline is around the strongest keys of the clip: 5 % of those "
        "that the query sees, at most 20.",
        "Weights are stored in 8 bits, wrong by at most "
        f"{quantization_error(False):.2%} of the difference between the "
        "query's least and greatest weight. The numbers are of exact weights.",
        "The dashed box is the receptive field of the query, by convolutions "
        "and poolings, without earlier blocks; it may reach beyond the clip.",
    ],
    "grad_cam": [
        "Grad-CAM (Selvaraju et al. 2017) of the best classes: features of a "
        "layer, each weighted by how much it adds to the class's score.",
        "Heat is linear between the centres of what the features are computed "
        "from; all frames have one scale. The outline is around the hottest "
        "places of the clip: 5 % of them, at most 20.",
    ],
}


def _clip_notes(clip: VideoClip) -> list[str]:
    number, height, width = clip.frames.shape[:3]
    first, last = int(clip.numbers.min()), int(clip.numbers.max())
    return [
        f"The clip: {number} frames of {width} × {height} pixels, from the "
        f"frames {first} to {last} of the video. Places are counted from 0, as "
        "attention_maps takes them."
    ]


def _has_blocks(model: keras.Model) -> bool:
    return any(isinstance(op, NonLocal) for op in calls.operations(model))


def _blocks(
    found: ClipAttention, block: str | Sequence[str] | None
) -> Sequence[str]:
    if block is None:
        return found.blocks
    blocks = [block] if isinstance(block, str) else _listed(block)
    if (
        not blocks
        or any(name not in found.blocks for name in blocks)
        or len(set(blocks)) < len(blocks)
    ):
        raise ValueError(
            "`block` must be one or several, each once, of "
            f"{list(found.blocks)}. Received: block={block!r}"
        )
    return blocks


def _entry(model: keras.Model, frames: np.ndarray) -> np.ndarray:
    """Frames as the model takes them, without the batch axis."""
    if len(model.inputs[0].shape) == 4 and len(frames) == 1:
        frames = frames[0]
    is_first = layout(model) == "channels_first"
    return np.moveaxis(frames, -1, 0) if is_first else frames


def _scores(
    model: keras.Model, scores: Any, names: str | Sequence[str] | None
) -> dict:
    """The best classes; none if the model gives no scores."""
    if isinstance(scores, (dict, list, tuple)) or np.ndim(scores) != 1:
        return {"top": [], "are_probabilities": False}
    _check_finite("scores", scores)
    names = _all_names(names, len(scores))
    top = labels.decode_predictions(scores[None], _TOP, names)[0]
    return {
        "top": [(_text(name), score) for _, name, score in top],
        "are_probabilities": _gives_probabilities(model),
    }


def _all_names(names: str | Sequence[str] | None, count: int) -> Sequence[str]:
    """A name for each class; none is made up for those that are not known."""
    if names is None:
        return [f"class {number}" for number in range(count)]
    if isinstance(names, str):
        names = _packaged_names(names)
    given, names = names, _listed(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "`class_names` must be a list of names, or the name of a data set. "
            f"Received: class_names={given!r}"
        )
    if len(names) != count:
        raise ValueError(
            f"`class_names` must be {count} names, one for each score of the "
            f"model. Received: {len(names)}"
        )
    return names


def _listed(values: Any) -> list:
    """Values as a list; an empty one of what has none."""
    return list(values) if np.iterable(values) else []


def _packaged_names(dataset: str) -> Sequence[str]:
    try:
        return labels.class_names(dataset)
    except ValueError as error:
        raise ValueError(
            "`class_names` must be a list of names, or a data set whose names "
            "are in the package, as 'kinetics400'. Received: "
            f"class_names={dataset!r}"
        ) from error


def _gives_probabilities(model: keras.Model) -> bool:
    """Whether the model says that its scores are probabilities."""
    # What is in a list or a dictionary, even alone, says nothing.
    if not isinstance(model.output, keras.KerasTensor):
        return False
    return outputs_of(model) in ("softmax", "sigmoid")


def _check_finite(what: str, numbers: Any) -> None:
    numbers = np.asarray(numbers)
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"The network's {what} must be finite numbers: the clip or the "
            "model's weights may hold a NaN. Received: "
            f"{numbers[~np.isfinite(numbers)][0]}"
        )


def _jpegs(frames: np.ndarray, room: int) -> list[bytes]:
    """Pictures of all frames that take so many bytes, if that can be."""
    while True:
        for quality in _QUALITIES:
            found = [
                tf.io.encode_jpeg(frame, quality=quality, optimize_size=True)
                for frame in frames
            ]
            jpegs = [picture.numpy() for picture in found]
            if sum(map(len, jpegs)) * 4 / 3 <= room:
                return jpegs
        if min(frames.shape[1:3]) < 2 * _MIN_SIDE:
            return jpegs
        height, width = (size // 2 for size in frames.shape[1:3])
        halved = tf.image.resize(frames, (height, width), "area")
        frames = np.rint(halved.numpy()).astype("uint8")


def _deflate(values: np.ndarray) -> bytes:
    return zlib.compress(values.tobytes(), 9)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _digest(text: str) -> str:
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"


def _text(name: str) -> str:
    """A name as text: those of files may hold bytes that are none."""
    return name.encode("utf-8", "replace").decode()


def _json(value: Any) -> str:
    """JSON in which no character means anything to HTML."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
