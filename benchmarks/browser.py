"""The browser that tests and benchmarks look with: Chromium, with no network of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SCREENSHOTS = "FRONTIER_SCREENSHOTS"
"""Environment variable: the folder for screenshots; without it none is taken."""


@contextmanager
def browser_page(*, width: int = 1280, height: int = 900, scripts: bool = True) -> Iterator[Page]:
    """Gives an empty page of a browser of its own.

    Args:
        width: Of the page, in pixels.
        height: Likewise.
        scripts: Whether JavaScript is on.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_page(viewport={"width": width, "height": height}, java_script_enabled=scripts)
        browser.close()


def screenshot(page: Page, name: str) -> None:
    """Saves a screenshot for people to look at, where one is asked for."""
    folder = os.environ.get(SCREENSHOTS)
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
