import html.parser

import numpy as np

from keras_nonlocal.visualization import report


class Reader(html.parser.HTMLParser):
    """Collects text, links and whether every element is closed."""

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
        self.text.append(data)


def test_page_is_whole_and_holds_everything_itself():
    strip = b"\x89PNG"
    text = report.page(
        "A <title>",
        [
            report.heading("One & two"),
            report.paragraph("x < y", note=True),
            report.table(("a", "b"), [("<b>", "1"), ("c", "2")]),
            report.picture(strip, 'a "picture"'),
            report.prediction(
                strip,
                "v<1>.mp4",
                ("same",),
                ("different", "same"),
                {"good": np.array([0.1, 0.9]), "bad": np.array([0.8, 0.2])},
            ),
            report.code("{1 < 2}"),
        ],
    )
    page = Reader(text)
    assert page.open == []
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    words = " ".join(page.text)
    for expected in ("A <title>", "One & two", "x < y", "v<1>.mp4", "{1 < 2}"):
        assert expected in words
    assert "\N{CHECK MARK} same 90%" in words
    assert "\N{MULTIPLICATION X} different 80%" in words
