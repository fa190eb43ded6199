"""A headless browser, for the tests of pages."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = next((path for path in map(shutil.which, ("chromium", "google-chrome", "chromium-browser")) if path), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
]


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Yield a browser. Skip the test if there is none."""
    if BROWSER is None:
        pytest.skip("needs a browser: no chromium or google-chrome on the path (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, path: Path, size: dict[str, int], scheme: str = "light") -> Iterator[Any]:
    """Yield a page. Nothing but the page is loaded; fail at the end if it requested anything else or had an error."""
    wrong: list[str] = []
    context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
    context.set_default_timeout(120_000)  # WebGL without a graphics card, on a machine that is busy

    def answer(route):
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            wrong.append(f"requests {route.request.url[:100]}")
            route.abort()

    context.route("**/*", answer)
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert not wrong
