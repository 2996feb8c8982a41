r"""A page on this machine: drop a video, see what a network sees in it.

    python -m keras_nonlocal.cli.app
    python -m keras_nonlocal.cli.app --model runs/mine/nl_i3d --port 8000

Shows predictions over time and, for a moment of the video, what each non-local
block attends to (click a point of a frame) or, for networks without blocks,
which places speak for a class. The page is served to this machine only and
loads nothing from elsewhere; what was uploaded is deleted after a day, or when
Ctrl-C ends the app. `--share` makes a public link by way of Gradio's servers.
Needs `pip install 'keras-nonlocal[app]'`.
"""

import dataclasses
import functools
import html
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
from absl import app
from absl import flags
from absl import logging

from keras_nonlocal.cli import show_own_notes_only
from keras_nonlocal.data.decode import VideoError
from keras_nonlocal.data.decode import scan
from keras_nonlocal.data.decode import time_limit
from keras_nonlocal.evaluation.models import OpenedModel
from keras_nonlocal.evaluation.models import open_model
from keras_nonlocal.models.inception_i3d import InceptionVariant
from keras_nonlocal.models.variants import Variant
from keras_nonlocal.prediction.predict import predict_video
from keras_nonlocal.prediction.timeline import Timeline
from keras_nonlocal.visualization.attention_report import attention_page
from keras_nonlocal.weights.catalogue import CATALOGUE
from keras_nonlocal.weights.catalogue import WeightsEntry

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "model",
    [],
    "A .keras file, the folder of an exported model or of a training run, or "
    "a name of published weights; repeat it for more of them.",
)
flags.DEFINE_integer(
    "port", 7860, "Port of the page.", lower_bound=1, upper_bound=65535
)
flags.DEFINE_boolean(
    "share", False, "Make a public link, by way of Gradio's servers."
)

# Of one video: bytes, seconds that it plays, and seconds to look at the file.
MAX_FILE_SIZE = 500 * 2**20
MAX_SECONDS = 600.0
_SCAN_LIMIT = 60.0
# What files without times are taken to have.
_USUAL_FPS = 25.0
_MAX_FPS = 240.0
_MIN_STRIDE = 0.1
# Longer errors, of Keras for example, list every layer.
_MAX_MESSAGE = 500
# Jobs that wait for the one that runs.
_MAX_WAITING = 8
# Seconds: uploads are looked at every hour and deleted after a day.
_CLEANING = (3600, 86400)
_PLACES = ("best", "second", "third")
_FILES = ("predictions.json", "predictions.csv", "predictions.srt")
_TITLE = "What does a network see in a video?"
_HINT = (
    "Drop a video, choose a model, and press Predict. Videos that the browser "
    "does not play can be predicted, too."
)
_CSS = """
.gradio-container {
  width: 100%; max-width: 1100px !important; margin: auto !important
}
p.error {border-left: 4px solid #d55e00; padding-left: 0.7em}
#status .wrap:not(.hide) {background: var(--body-background-fill)}
#attention iframe {width: 100%; height: min(95vh, 1000px); border: 0}
"""


def build(
    models: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    max_seconds: float = MAX_SECONDS,
) -> Any:
    """Makes the page.

    Args:
        models: Paths or names for `open_model`; the first is chosen at the
            start. The published weights are offered besides.
        folder: For the files to download; the caller deletes it at the end.
        max_seconds: Longest video that is taken.

    Returns:
        A `gradio.Blocks`, for `launch`.

    Raises:
        ImportError: If gradio is missing.
    """
    return _Page(models, folder, max_seconds).blocks


def launch(blocks: Any, port: int, *, share: bool = False) -> str:
    """Serves the page in a thread, to this machine only.

    Args:
        blocks: What `build` returns.
        port: Where; 0 for one that is free.
        share: Makes a public link besides.

    Returns:
        Its address, the public one if there is one.

    Raises:
        OSError: If the port is taken.
    """
    gr = _require_gradio()
    blocks.queue(max_size=_MAX_WAITING, default_concurrency_limit=1)
    _, address, public = blocks.launch(
        server_name="127.0.0.1",
        server_port=port or None,
        share=share,
        prevent_thread_lock=True,
        max_file_size=MAX_FILE_SIZE,
        theme=gr.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ),
        css=_CSS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        quiet=True,
    )
    return public or address


class _Page:
    """The components of the page, and what happens when they are used."""

    def __init__(
        self,
        models: Sequence[str],
        folder: str | os.PathLike[str],
        max_seconds: float,
    ) -> None:
        gr = _require_gradio()
        self._folder = folder
        self._max_seconds = max_seconds
        with gr.Blocks(
            title=_TITLE, analytics_enabled=False, delete_cache=_CLEANING
        ) as self.blocks:
            gr.Markdown(f"# {_TITLE}")
            self._lay_out_questions(gr, models)
            self._status = gr.HTML(
                _words(_HINT),
                elem_id="status",
                min_height=80,  # Which the progress needs.
            )
            with gr.Column(visible=False) as self._results:
                self._lay_out_answers(gr)
            # Model, video and the beginnings of the windows.
            self._predicted = gr.State()
            self._connect()

    def _lay_out_questions(self, gr: ModuleType, models: Sequence[str]) -> None:
        choices = _choices(models)
        with gr.Row():
            self._video = gr.Video(
                label="Video", sources=["upload"], height=320, buttons=[]
            )
            with gr.Column():
                self._model = gr.Dropdown(
                    choices, value=_default(models), label="Model"
                )
                self._stride = gr.Number(
                    0,
                    label="Seconds from one prediction to the next",
                    info="0: one clip follows the other.",
                    minimum=0,
                )
                self._start = gr.Button("Predict", variant="primary")

    def _lay_out_answers(self, gr: ModuleType) -> None:
        self._strip = gr.Image(
            label="Predictions over time",
            show_label=False,  # On a phone it would cover the picture.
            type="filepath",
            buttons=["fullscreen"],
            alt_text="Scores of classes over time, as in the table",
        )
        self._table = gr.Dataframe(
            label="Predictions; choose a row to go to its moment",
            interactive=False,
            max_height=300,
            elem_id="table",
        )
        with gr.Row():
            self._files = [
                gr.DownloadButton(f"Download {pathlib.Path(name).suffix}")
                for name in _FILES
            ]
        with gr.Row(equal_height=True):
            self._moment = gr.Slider(
                0,
                1,
                label="Moment: where a clip begins, in seconds",
                scale=3,
                elem_id="moment",
            )
            self._look = gr.Button("Look at this moment")
        self._attention = gr.HTML(elem_id="attention")

    def _connect(self) -> None:
        import gradio as gr

        def go_to_row(predicted: tuple, event: gr.SelectData) -> float:
            return predicted[-1][event.index[0]]

        # One model works at a time, for all who look.
        job = {
            "concurrency_id": "job",
            "concurrency_limit": 1,
            "show_progress_on": self._status,
            "api_visibility": "private",
        }
        aside = {"queue": False, "api_visibility": "private"}
        looking = (self.look, [self._predicted, self._moment])
        self._start.click(
            self.predict,
            [self._video, self._model, self._stride],
            [
                self._status,
                self._results,
                self._strip,
                self._table,
                *self._files,
                self._moment,
                self._attention,
                self._predicted,
            ],
            **job,
        ).success(*looking, self._attention, **job)
        self._look.click(*looking, self._attention, **job)
        self._table.select(go_to_row, self._predicted, self._moment, **aside)

    def predict(
        self, path: str | None, name: str | None, stride: float
    ) -> dict:
        """Handles the button: values of the components that change."""
        import gradio as gr

        try:
            timeline = _predict(
                path, name, stride, self._max_seconds, gr.Progress()
            )
            strip, *files = _write(timeline, self._folder)
        except Exception as error:
            return {
                self._status: _failure(error, path),
                self._results: gr.update(visible=False),
                self._predicted: None,
            }
        starts = timeline.seconds[:, 0].round(3).tolist()
        best = int(timeline.scores.max(axis=1).argmax())
        return {
            self._status: _words(_summary(timeline)),
            self._results: gr.update(visible=True),
            self._strip: strip,
            self._table: _table(timeline),
            **dict(zip(self._files, files, strict=True)),
            # A slider of no length cannot be moved, nor drawn.
            self._moment: gr.update(
                maximum=max(starts[-1], 0.001), value=starts[best], step=0.001
            ),
            self._attention: "",
            self._predicted: (name, path, starts),
        }

    def look(self, predicted: tuple | None, moment: float) -> dict:
        """Handles the button: what the network attends to at a moment."""
        import gradio as gr

        if predicted is None:  # The prediction has failed, and has said so.
            return {self._attention: ""}
        name, path, _ = predicted
        try:
            gr.Progress()(0.0, f"Looking at the clip from {moment:.2f} s on")
            page = attention_page(
                _with_layers(name), path, start=moment, progress=False
            )
        except Exception as error:
            return {self._attention: _failure(error, path)}
        return {self._attention: _frame(page)}


def _predict(
    path: str | None,
    name: str | None,
    stride: float,
    max_seconds: float,
    progress: Callable[..., Any],
) -> Timeline:
    if not path:
        raise ValueError("There is no video yet: drop one, or press Upload.")
    if not name:
        raise ValueError("There is no model yet: choose one.")
    if stride and not stride >= _MIN_STRIDE:
        raise ValueError(
            "The seconds from one prediction to the next must be 0 or at least "
            f"{_MIN_STRIDE:g}. Received: {stride:g}"
        )
    progress(0.0, "Looking at the file")
    total = _checked_length(path, max_seconds)
    progress(0.0, f"Loading {pathlib.PurePath(name).name}")
    opened = _opened(name)
    timeline = predict_video(
        opened,
        path,
        stride=stride or None,
        progress=False,
        on_window=lambda window: progress(
            min(window.end / total, 1.0),
            f"Predicting: {window.end:.1f} of {total:.1f} s",
        ),
    )
    return dataclasses.replace(
        timeline,
        about={**timeline.about, "video": pathlib.PurePath(path).name},
        problems=tuple(_bare(text, path) for text in timeline.problems),
    )


def _checked_length(path: str, max_seconds: float) -> float:
    """Seconds of a video, which are not more than those."""
    with time_limit(_SCAN_LIMIT):
        index = scan(path)
    if len(index.times):
        seconds = float(index.times[-1])
    else:
        seconds = index.num_frames / (index.fps or _USUAL_FPS)
    # A header may claim any rate.
    seconds = max(seconds, index.num_frames / _MAX_FPS)
    if seconds > max_seconds:
        raise ValueError(
            f"The video must be at most {max_seconds:g} s long; the command "
            "line (keras_nonlocal.cli.predict) takes longer ones. Received: "
            f"{seconds:.0f} s"
        )
    return max(seconds, 0.01)


@functools.cache
def _opened(name: str) -> OpenedModel:
    """A model, loaded when it is first asked for."""
    return open_model(name)


def _with_layers(name: str) -> OpenedModel:
    opened = _opened(name)
    if not isinstance(opened.model, keras.Model):
        raise ValueError(
            f"What {opened.name} looks at cannot be shown: it was exported as "
            "a function, without layers. Choose the model.keras of its run."
        )
    return opened


def _write(timeline: Timeline, folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the picture and of the files to download."""
    run = pathlib.Path(tempfile.mkdtemp(dir=folder))
    paths = [run / name for name in ("strip.png", *_FILES)]
    paths[0].write_bytes(timeline.strip())
    timeline.write_json(paths[1])
    timeline.write_csv(paths[2])
    timeline.write_srt(paths[3])
    return [os.fspath(path) for path in paths]


def _table(timeline: Timeline) -> dict:
    """A row for every window: when, and the classes that score highest."""
    rows = []
    for (start, end), best in zip(
        timeline.seconds.tolist(), timeline.top(len(_PLACES)), strict=True
    ):
        cells = [f"{name} ({score:.1%})" for _, name, score in best]
        cells += [""] * (len(_PLACES) - len(cells))
        rows.append([f"{start:.2f}", f"{end:.2f}", *cells])
    return {"headers": ["from (s)", "to (s)", *_PLACES], "data": rows}


def _summary(timeline: Timeline) -> str:
    ((_, name, score),) = timeline.mean_top(1)
    number = len(timeline.scores)
    clips = "1 clip" if number == 1 else f"{number:,} clips"
    text = f"{name}: {score:.1%}, the mean of {clips}."
    if timeline.problems:
        text += f" Not all can be read: {'; '.join(timeline.problems)}"
    return text


def _frame(page: str) -> str:
    """A page in a page, which cannot reach out of it."""
    source = html.escape(page)
    return (
        f'<iframe title="What the network attends to" srcdoc="{source}" '
        'sandbox="allow-scripts"></iframe>'
    )


def _words(text: str, is_error: bool = False) -> str:
    kind = ' class="error"' if is_error else ""
    return f'<p role="status"{kind}>{html.escape(text)}</p>'


def _failure(error: Exception, path: str | None) -> str:
    """What went wrong, in the words of the error."""
    if not isinstance(error, ValueError | OSError | ImportError):
        logging.exception("The app has failed.")
        error = RuntimeError(
            f"This has failed; the terminal says where ({type(error).__name__})"
        )
    text = str(error)
    if isinstance(error, VideoError):
        text = f"The video cannot be read. {text}"
    if path:
        text = _bare(text, path)
    if len(text) > _MAX_MESSAGE:
        text = f"{text[:_MAX_MESSAGE]}..."
    return _words(text, is_error=True)


def _bare(text: str, path: str) -> str:
    """A message about an upload without the folder that uploads are in."""
    return text.replace(path, pathlib.PurePath(path).name)


def _choices(models: Sequence[str]) -> list[tuple[str, str]]:
    """What is shown of every model, and its name."""
    published = [
        (f"{entry.name} (published, {entry.licence})", entry.name)
        for entry in CATALOGUE.values()
        if _classifies_videos(entry) and entry.name not in models
    ]
    return [(name, name) for name in models] + published


def _classifies_videos(entry: WeightsEntry) -> bool:
    is_video = isinstance(entry.network, Variant | InceptionVariant)
    return is_video and entry.classes is not None


def _default(models: Sequence[str]) -> str | None:
    """The first model given, or weights that need no download."""
    here = (
        entry.name
        for entry in CATALOGUE.values()
        if _classifies_videos(entry)
        and entry.package is not None
        and importlib.util.find_spec(entry.package) is not None
    )
    return models[0] if models else next(here, None)


def _require_gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "The app needs gradio: pip install 'keras-nonlocal[app]'"
        ) from error
    return gradio


def main(argv: list[str]) -> None:
    show_own_notes_only()
    if argv[1:]:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    try:
        _require_gradio()
        for name in FLAGS.model:
            _opened(name)
    except (ImportError, OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="keras_nonlocal_app") as folder:
        # Uploads too: otherwise they would stay, for all users to read.
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(FLAGS.model, folder)
        try:
            address = launch(page, FLAGS.port, share=FLAGS.share)
        except OSError as error:
            raise app.UsageError(f"--port: {error}") from error
        print(f"The page: {address} (until Ctrl-C)", flush=True)
        page.block_thread()


if __name__ == "__main__":
    app.run(main)
