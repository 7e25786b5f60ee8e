"""Debian's Chromium without a window, driven by Playwright, or one sentence that says what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Set to a folder, such as ``docs/images``, to renew the pictures of the documentation.
SCREENSHOTS_VARIABLE = "SCREENSHOTS"
#: How many milliseconds a page may take to show something on a slow machine.
PATIENCE_MS = 90_000
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)


def chromium() -> str | None:
    """Return where Chromium is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def missing() -> str | None:
    """Return what has to be installed, as a sentence; ``None`` if nothing is missing."""
    if chromium() is None:
        return "The browser tests need Chromium: apt-get install -y chromium"
    if find_spec("playwright") is None:
        return "The browser tests need Playwright's Python client: make test-live installs it where Chromium is"
    return None


@contextmanager
def opened(width: int, height: int) -> Iterator[Page]:
    """Open an empty page in a browser with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=list(_FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height}, locale="en-US", timezone_id="UTC")
            page.set_default_timeout(PATIENCE_MS)
            yield page
        finally:
            browser.close()


def screenshots(fallback: Path) -> Path:
    """Return the folder for the pictures."""
    folder = Path(os.environ.get(SCREENSHOTS_VARIABLE) or fallback).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
