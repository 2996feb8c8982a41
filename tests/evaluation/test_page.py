import html.parser
import re

import numpy as np
import pytest

from keras_nonlocal.data.synthetic import write_video
from keras_nonlocal.evaluation.page import write_page
from keras_nonlocal.evaluation.protocols import Protocol
from tests.data import files


class Reader(html.parser.HTMLParser):
    """Collects text and links, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.fixture
def page(make, tmp_path):
    """The page of an evaluation of five videos, the fourth of them unread."""
    folder = tmp_path / "<b>"
    for number in (0, 1, 2, 4):
        write_video(folder / f"{number}.mp4", files.moving(number, 20))

    def write(scores, labels, **fields):
        names = ("ru$n", "jump & fall", "<i>")
        evaluation = make(
            scores, labels, names, skipped=[3], folder=str(folder), **fields
        )
        write_page(evaluation, tmp_path / "index.html")
        read = Reader((tmp_path / "index.html").read_text())
        assert read.open == []
        assert all(x.startswith("data:image/png;") for x in read.sources)
        text = re.sub(r"\s+", " ", " ".join(read.text))
        return text, len(read.sources)

    return write


SCORES = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.6, 0.3, 0.1], [0, 0.1, 0.9]]


def test_one_class_each(page):
    text, pictures = page(SCORES, [0, 1, 1, 0, 0])
    assert "net on set" in text and "Tested: 4 videos of 3 classes" in text
    assert "Could not be read: 1" in text and "count as wrong" in text
    # Side by side, with all videos last.
    assert "1 clip 0.0% (0) 0.0% to 49.0% - 0.0%" in text
    assert "2 clips 50.0% (2) 15.0% to 85.0% - 40.0%" in text
    # The worst class first, those without videos last.
    assert "ru$n 2 50.0% jump & fall 2 50.0% <i> 0 -" in text
    assert "ru$n, taken for <i> 1" in text
    # The surest mistake first, each with its pictures.
    assert "4.mp4 : ru$n net: \N{MULTIPLICATION X} <i> 90%" in text
    assert text.index("<i> 90%") < text.index("ru$n 60%")
    assert pictures == 1 + 2
    assert "3.mp4: no video" in text
    assert '"num_clips": 2' in text


def test_several_classes(page):
    labels = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    text, pictures = page(SCORES, labels)
    assert "rank last" in text and "2 clips 91.7% 91.7%" in text
    assert "jump & fall 2 83.3% ru$n 2 100.0% <i> 0 -" in text
    assert "1.mp4 : ru$n, jump & fall net:" in text
    assert "2.mp4 : no class net:" in text
    assert pictures == 4 and "Confusions" not in text


def test_logits_are_shown_as_probabilities(page):
    logits = np.log(np.clip(SCORES, 1e-9, 1)) + 5
    fields = {"protocol": Protocol("x", 2, average="logit")}
    text, _ = page(logits, [0, 1, 1, 0, 0], **fields)
    assert "<i> 90%" in text
    labels = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    text, _ = page(np.array(SCORES) - 0.9, labels, **fields)
    assert "<i> 50%" in text


def test_videos_that_are_gone_since(page, tmp_path):
    scores = [*SCORES[:3], [0, 1, 0]]
    text, pictures = page(scores, [0, 1, 1, 0, 1])
    assert pictures == 2
    (tmp_path / "<b>" / "2.mp4").unlink()
    text, pictures = page(scores, [0, 1, 1, 0, 1])
    assert pictures == 1 and "2.mp4: jump & fall, taken for ru$n." in text
    text, _ = page(np.eye(3)[[0, 1, 1, 1]], [0, 1, 1, 0, 1])
    assert "Most confident mistakes None." in text
