"""Pages in a headless Chromium."""

import contextlib
import pathlib

import pytest

CHROMIUM = pathlib.Path("/usr/bin/chromium")
_NETWORK = ("http:", "https:", "ws:", "wss:")


@contextlib.contextmanager
def chromium():
    """A browser; skips, saying so, where there is none.

    For a fixture of a module's scope: it takes a second to start.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def quiet_page(browser, local=(), **options):
    """A page that must stay quiet.

    Afterwards fails if it logged a warning or an error, or asked anything
    of a network.

    Args:
        browser: Of `chromium`.
        local: Beginnings of addresses that it may ask.
        **options: Of playwright's `Browser.new_page`, as `viewport`,
            `has_touch` or `color_scheme`.
    """
    page = browser.new_page(**options)
    complaints, asked = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("request", lambda request: asked.append(request.url))
    try:
        yield page
    finally:
        page.close()
    assert complaints == []
    assert [
        url
        for url in asked
        if url.startswith(_NETWORK) and not url.startswith(tuple(local))
    ] == []


def has_sideways_scroll(page):
    """Whether anything is wider than the window."""
    return page.evaluate(
        "document.documentElement.scrollWidth > window.innerWidth"
    )
