import html.parser
import re

import pytest

from keras_nonlocal.data.auditing import page
from keras_nonlocal.data.auditing.checks import Finding
from keras_nonlocal.data.auditing.video import VideoFacts
from keras_nonlocal.data.videos import VideoList

EVIL = '<script>alert(1)</script>"onload="x'
FACTS = VideoFacts(1000, "", "mp4", "h264", 99, 32, 48, 0, 25.0, 4.0, True)


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


def make(paths=("a.mp4",), findings=(), thumbnails=None, names=("run",)):
    videos = VideoList(paths, [0] * len(paths), names)
    facts = dict.fromkeys(paths, FACTS)
    return page.make({"train": videos}, facts, findings, thumbnails or {})


@pytest.mark.parametrize("place", ["path", "class", "kind", "detail", "split"])
def test_text_of_strangers_is_text(place):
    paths = (f"videos/{EVIL}.mp4", "videos/b.mp4")
    if place == "split":
        videos = VideoList(paths, [0, 0], ("run",))
        text = page.make({EVIL: videos}, dict.fromkeys(paths, FACTS), [], {})
    else:
        finding = Finding(
            "error",
            EVIL if place == "kind" else "leak",
            paths[0] if place == "path" else "b.mp4",
            EVIL if place == "detail" else "",
        )
        names = (EVIL,) if place == "class" else ("run",)
        text = make(paths, [finding], dict.fromkeys(paths, b"jpeg"), names)
    reader = read(text)
    assert EVIL in "".join(reader.text)
    # The one script is the page's own.
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not any("onload" in attributes for _, attributes in reader.tags)


def test_odd_characters_are_shown_as_what_they_are():
    # The second would turn the rest of the line around; the last is a byte of
    # a file name that is no text.
    path = "a\n\u202egpj.exe\udcff"
    text = make((path,), [Finding("warning", "short", path)])
    text.encode("utf-8")
    assert r"a\n\u202egpj.exe\udcff" in text


def test_nothing_is_loaded_from_elsewhere():
    text = make(thumbnails={"a.mp4": b"jpeg"})
    sources = [
        value
        for _, attributes in read(text).tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset")
    ]
    assert sources == ["data:image/jpeg;base64,anBlZw=="]
    assert not re.search(r"https?:|url\(|@import|fetch\(", text)


def test_a_page_of_a_large_and_bad_data_set_is_small():
    paths = tuple(f"videos/{i:06}.mp4" for i in range(20_000))
    findings = [
        Finding("error", f"kind {number % 30}", path, "x" * 10_000)
        for number, path in enumerate(paths)
    ]
    names = tuple(f"class {i}" for i in range(700))
    text = make(paths, findings, dict.fromkeys(paths, bytes(20_000)), names)
    assert len(text) < 5_000_000
    assert "19,000 more are in <code>audit.json</code>" in text
    assert "20,000 errors" in text
    assert "the 20 largest and the 20 smallest of 700 classes" in text


def test_each_picture_is_shown_once():
    findings = [
        Finding("error", "truncated", "v/a.mp4"),
        Finding("warning", "short", "v/a.mp4"),
    ]
    pictures = {"v/a.mp4": b"first", "v/b.mp4": b"second"}
    text = make(("v/a.mp4", "v/b.mp4"), findings, pictures)
    assert text.count("data:image/jpeg") == 2
    assert text.index("data:image/jpeg") < text.index("Other videos")


def test_no_video_could_be_opened():
    videos = VideoList(("a.mp4",), [0], ("run",))
    facts = {"a.mp4": VideoFacts(fault="missing file")}
    finding = Finding("error", "missing file", "a.mp4")
    text = page.make({"train": videos}, facts, [finding], {})
    assert "No video could be opened" in text
