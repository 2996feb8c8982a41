"""An audit as one HTML page that needs nothing else.

File names, class names and messages come from strangers: whatever is put on
the page goes through `_text`.
"""

import base64
import collections
import dataclasses
import html
import os
import string
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from keras_nonlocal.data.auditing.checks import SEVERITIES
from keras_nonlocal.data.auditing.checks import Finding
from keras_nonlocal.data.auditing.checks import class_counts
from keras_nonlocal.data.auditing.video import VideoFacts
from keras_nonlocal.data.videos import VideoList

# Bounds that keep the page below 5 MB; `audit.json` has all.
_MAX_ROWS = 1000
_MAX_ROWS_OF_A_KIND = 100
_MAX_CLASSES = 40
_MAX_TEXT = 300
_MAX_PICTURE_BYTES = 2_500_000

_NUM_BINS = 24
_PAGE = string.Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of $title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 68rem;
       padding: 1rem 1.25rem 4rem; color: #1c1c1c; background: #fff; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.4rem; }
h3 { margin: 1.2rem 0 .3rem; font-size: 1rem; }
table { border-collapse: collapse; width: 100%; }
.wide { overflow-x: auto; }
th, td { padding: .4rem .9rem .4rem 0; text-align: left;
         vertical-align: top; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #ddd; }
td.number, th.number { text-align: right; white-space: nowrap;
                       font-variant-numeric: tabular-nums; }
td.where, td.detail { overflow-wrap: anywhere; }
.error { color: #a40000; } .warning { color: #8a5300; }
.note { color: #3c5a78; } .fine { color: #00664a; }
.badge { font-weight: 600; white-space: nowrap; }
.small { color: #555; font-size: .92rem; }
.kinds { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; }
.kinds button { font: inherit; font-size: .92rem; padding: .25rem .7rem;
                border: 1px solid #999; border-radius: 1rem;
                background: #fff; color: inherit; cursor: pointer; }
.kinds button[aria-pressed=true] { background: #1c1c1c; color: #fff; }
.figures { display: grid; gap: 1rem 2rem;
           grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
figure { margin: 0; } figcaption { font-size: .92rem; }
svg { width: 100%; height: auto; display: block; }
.bar { display: grid; gap: .7rem; align-items: center; font-size: .92rem;
       grid-template-columns: minmax(6rem, 14rem) 1fr 4rem; }
.bar span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar i { display: block; height: .8rem; background: #3c5a78; }
.bar b { font-weight: 400; text-align: right;
         font-variant-numeric: tabular-nums; }
.gallery { display: grid; gap: .8rem;
           grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.gallery figcaption { font-size: .75rem; overflow-wrap: anywhere; }
img { display: block; max-width: 144px; height: auto; }
td img { max-width: 96px; max-height: 72px; }
.gallery img { max-width: 100%; }
@media (max-width: 40rem) {
  .findings thead { display: none; }
  .findings tr, .findings td { display: block; border: 0; padding: 0; }
  .findings tr { border-bottom: 1px solid #ddd; padding: .6rem 0; }
  .findings tr[hidden] { display: none; }
  .findings td:nth-child(-n+2) { display: inline; padding-right: .6rem; }
}
</style>
<h1>Audit of $title</h1>
$body
<script>
for (const button of document.querySelectorAll(".kinds button"))
  button.onclick = () => {
    for (const other of document.querySelectorAll(".kinds button"))
      other.setAttribute("aria-pressed", other === button);
    for (const row of document.querySelectorAll(".findings tbody tr"))
      row.hidden = button.value !== "" && row.dataset.kind !== button.value;
  };
</script>
</html>
"""
)


def make(
    splits: Mapping[str, VideoList],
    videos: Mapping[str, VideoFacts],
    findings: Sequence[Finding],
    thumbnails: Mapping[str, bytes],
) -> str:
    """The page.

    Args:
        splits: The lists that were looked at.
        videos: What is known of each file, by its path.
        findings: What is wrong, in the order to show it in.
        thumbnails: JPEGs of some of the videos, by path.

    Returns:
        HTML.
    """
    overview = _overview(splits, videos)
    folder = _common_folder(videos)

    def short(path: str) -> str:
        return path.removeprefix(folder)

    videos = {short(path): video for path, video in videos.items()}
    # Each is shown once: with its first finding, or else at the end.
    pictures = {short(p): x for p, x in _within_bounds(thumbnails).items()}
    rows = [dataclasses.replace(x, where=short(x.where)) for x in findings]
    sections = [
        _verdict(findings),
        overview,
        f'<p class="small">Files are in {_text(folder)}</p>' if folder else "",
        "<h2>Findings</h2>",
        _findings(rows, pictures),
        "<h2>Sizes</h2>",
        _histograms(videos.values()),
        "<h2>Classes</h2>",
        *(_classes(split, listed) for split, listed in splits.items()),
        _gallery(videos, pictures),
    ]
    title = _text(", ".join(splits))
    return _PAGE.substitute(title=title, body="\n".join(sections))


def printable(text: str) -> str:
    r"""Text that can be shown: odd characters as escapes, and not too long.

    >>> printable("a\u202eb.mp4")
    'a\\u202eb.mp4'
    """
    if len(text) > _MAX_TEXT:
        text = f"{text[: _MAX_TEXT // 2]} ... {text[-_MAX_TEXT // 2 :]}"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def _text(text: str) -> str:
    return html.escape(printable(text), quote=True)


def _common_folder(paths: Iterable[str]) -> str:
    """The folder that all files are in, with a slash; "" if there is none."""
    try:
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # No files, or some relative and some absolute.
        return ""
    return os.path.join(folder, "") if folder.strip(os.sep) else ""


def _within_bounds(thumbnails: Mapping[str, bytes]) -> dict[str, bytes]:
    kept, size = {}, 0
    for path, picture in thumbnails.items():
        size += len(picture)
        if size <= _MAX_PICTURE_BYTES:
            kept[path] = picture
    return kept


def _verdict(findings: Sequence[Finding]) -> str:
    counts = collections.Counter(x.severity for x in findings)
    if not counts:
        return '<p class="badge fine">Nothing was found to be wrong.</p>'
    parts = (
        f'<span class="badge {severity}">{counts[severity]:,} '
        f"{severity}{'s' if counts[severity] > 1 else ''}</span>"
        for severity in SEVERITIES
        if counts[severity]
    )
    return f"<p>{', '.join(parts)}.</p>"


def _overview(
    splits: Mapping[str, VideoList], videos: Mapping[str, VideoFacts]
) -> str:
    rows = []
    for split, listed in splits.items():
        files = [videos[path] for path in dict.fromkeys(listed.paths)]
        rows.append(
            (
                split,
                f"{len(listed):,}",
                f"{len(files):,}",
                f"{sum(not x.fault for x in files):,}",
                f"{len(listed.class_names):,}",
                _duration(sum(x.seconds for x in files)),
                f"{sum(x.num_frames for x in files):,}",
                _bytes(sum(x.size for x in files)),
            )
        )
    header = "split,videos,files,fine,classes,length,frames,size".split(",")
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are set as numbers."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        kinds = ["", *[' class="number"'] * (len(texts) - 1)]
        return "".join(
            f"<{tag}{kind}>{_text(text)}</{tag}>"
            for kind, text in zip(kinds, texts, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    head = f"<tr>{cells('th', header)}</tr>"
    return f'<div class="wide"><table>\n{head}\n{body}</table></div>'


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{seconds:02}"


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"


def _findings(findings: Sequence[Finding], pictures: dict[str, bytes]) -> str:
    """The table; takes out of `pictures` what it shows."""
    if not findings:
        return "<p>None.</p>"
    counts = collections.Counter(x.kind for x in findings)
    severities = {x.kind: x.severity for x in reversed(findings)}
    buttons = ['<button value="" aria-pressed="true">all</button>']
    buttons += [
        f'<button value="{_text(kind)}" aria-pressed="false" '
        f'class="{severities[kind]}">{_text(kind)} {count:,}</button>'
        for kind, count in counts.items()
    ]
    rows: list[str] = []
    left_out = 0
    shown: collections.Counter[str] = collections.Counter()
    for finding in findings:
        if len(rows) == _MAX_ROWS or shown[finding.kind] == _MAX_ROWS_OF_A_KIND:
            left_out += 1
            continue
        shown[finding.kind] += 1
        rows.append(_finding(finding, pictures.pop(finding.where, None)))
    more = ""
    if left_out:
        more = (
            f'<p class="small">{left_out:,} more are in <code>audit.json'
            f"</code>; at most {_MAX_ROWS_OF_A_KIND} of a kind are shown.</p>"
        )
    return (
        f'<div class="kinds">{"".join(buttons)}</div>\n'
        '<table class="findings"><thead><tr><th></th><th>what</th>'
        "<th>where</th><th>detail</th><th></th></tr></thead>\n"
        f"<tbody>{''.join(rows)}</tbody></table>\n{more}"
    )


def _finding(finding: Finding, picture: bytes | None) -> str:
    image = "" if picture is None else _image(picture, finding.where)
    return (
        f'<tr data-kind="{_text(finding.kind)}">'
        f'<td class="badge {finding.severity}">{finding.severity}</td>'
        f"<td>{_text(finding.kind)}</td>"
        f'<td class="where">{_text(finding.where)}</td>'
        f'<td class="detail">{_text(finding.detail)}</td>'
        f"<td>{image}</td></tr>\n"
    )


def _image(jpeg: bytes, path: str) -> str:
    data = base64.b64encode(jpeg).decode()
    return (
        f'<img alt="A frame of {_text(path)}" loading="lazy" '
        f'src="data:image/jpeg;base64,{data}">'
    )


def _histograms(videos: Iterable[VideoFacts]) -> str:
    readable = [x for x in videos if x.num_frames]
    if not readable:
        return "<p>No video could be opened.</p>"
    series = {
        "length in seconds": [x.seconds for x in readable if x.seconds],
        "frames": [x.num_frames for x in readable],
        "frames per second": [x.fps for x in readable if x.fps],
        "shorter side in pixels": [min(x.height, x.width) for x in readable],
        "width / height": [x.width / x.height for x in readable],
        "kB per second": [
            x.size / x.seconds / 1000 for x in readable if x.seconds
        ],
    }
    figures = "".join(
        _histogram(name, np.array(values, float))
        for name, values in series.items()
        if values
    )
    return f'<div class="figures">{figures}</div>'


def _histogram(name: str, values: np.ndarray) -> str:
    """Bars over the range of the values; the ends and the median in words."""
    counts, edges = np.histogram(values, bins=_NUM_BINS)
    width, height, gap = 288, 88, 1
    step = width / _NUM_BINS
    bars = []
    for number, count in enumerate(counts):
        if not count:
            continue
        # One video among thousands is seen as well.
        tall = max(height * count / counts.max(), 1.5)
        label = f"{edges[number]:.4g} to {edges[number + 1]:.4g}: {count:,}"
        bars.append(
            f'<rect x="{number * step:.1f}" y="{height - tall:.1f}" '
            f'width="{step - gap:.1f}" height="{tall:.1f}" fill="#3c5a78">'
            f"<title>{label}</title></rect>"
        )
    axis = (
        f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="#999"/>'
    )
    low, middle, high = values.min(), np.median(values), values.max()
    summary = f"{low:.4g} to {high:.4g}, median {middle:.4g}"
    return (
        f"<figure><figcaption><b>{_text(name)}</b><br>{summary}</figcaption>"
        f'<svg viewBox="0 0 {width} {height + 1}" role="img" '
        f'aria-label="{_text(name)}: {summary}">{"".join(bars)}{axis}</svg>'
        "</figure>"
    )


def _classes(split: str, videos: VideoList) -> str:
    counts = class_counts(videos)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    note = ""
    if len(ranked) > _MAX_CLASSES:
        half = _MAX_CLASSES // 2
        note = f"the {half} largest and the {half} smallest of "
        ranked = ranked[:half] + ranked[-half:]
    largest = max(counts.values()) or 1
    bars = "".join(
        f'<div class="bar"><span title="{_text(name)}">{_text(name)}</span>'
        f'<i style="width: {100 * counts[name] / largest:.1f}%"></i>'
        f"<b>{counts[name]:,}</b></div>\n"
        for name in ranked
    )
    title = f"{split}: {note}{len(counts):,} classes"
    return f"<h3>{_text(title)}</h3>\n{bars}"


def _gallery(
    videos: Mapping[str, VideoFacts], pictures: Mapping[str, bytes]
) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f"<figure>{_image(picture, path)}"
        f"<figcaption>{_text(path)}<br>{_properties(videos[path])}"
        "</figcaption></figure>\n"
        for path, picture in pictures.items()
    )
    return f'<h2>Other videos</h2>\n<div class="gallery">{figures}</div>'


def _properties(video: VideoFacts) -> str:
    return (
        f"{video.width}x{video.height}, {video.fps:.4g} fps, "
        f"{video.seconds:.1f} s"
    )
