"""One self-contained HTML page about a training run."""

import base64
import html
import string
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

_PAGE = string.Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem;
       padding: 1rem 1.25rem 4rem; color: #1c1c1c; background: #fff; }
h1 { margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; }
.wide { overflow-x: auto; } p { overflow-wrap: anywhere; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #ddd; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; display: block; }
figure { margin: 1.4rem 0; } figure img { width: 100%; }
figcaption { font-size: .92rem; }
.right { color: #00664a; } .wrong { color: #b23c00; }
.note { color: #555; font-size: .92rem; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto;
      font-size: .85rem; }
</style>
<h1>$title</h1>
$body
</html>
"""
)


def page(title: str, sections: Sequence[str]) -> str:
    """An HTML page of sections that are HTML already."""
    return _PAGE.substitute(title=html.escape(title), body="\n".join(sections))


def paragraph(text: str, note: bool = False) -> str:
    """A paragraph of plain text; a note is set smaller."""
    kind = ' class="note"' if note else ""
    return f"<p{kind}>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{html.escape(text)}</h2>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are set as numbers."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        kinds = ["", *[' class="number"'] * (len(texts) - 1)]
        return "".join(
            f"<{tag}{kind}>{html.escape(text)}</{tag}>"
            for kind, text in zip(kinds, texts, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    head = f"<tr>{cells('th', header)}</tr>"
    return f'<div class="wide"><table>\n{head}\n{body}</table></div>'


def picture(png: bytes, description: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode()
    alt = html.escape(description, quote=True)
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def prediction(
    strip: bytes,
    name: str,
    truth: Sequence[str],
    class_names: Sequence[str],
    scores: Mapping[str, np.ndarray],
) -> str:
    """A clip with what each network takes it for.

    Args:
        strip: PNG of the clip's frames.
        name: Of the video.
        truth: Its class, or all of its classes.
        class_names: Of the scores.
        scores: For each network `(classes,)`.
    """
    classes = html.escape(", ".join(truth) or "no class")
    lines = [f"<b>{html.escape(name)}</b>: {classes}"]
    for network, values in scores.items():
        best = int(np.argmax(values))
        is_right = class_names[best] in truth
        mark = "right" if is_right else "wrong"
        sign = "\N{CHECK MARK}" if is_right else "\N{MULTIPLICATION X}"
        lines.append(
            f'{html.escape(network)}: <span class="{mark}">{sign} '
            f"{html.escape(class_names[best])} {values[best]:.0%}</span>"
        )
    caption = "<br>".join(lines)
    image = picture(strip, f"Frames of {name}, in order of time")
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def code(text: str) -> str:
    """Text set as it is."""
    return f"<pre>{html.escape(text)}</pre>"
