"""The Chromium that this machine has, driven without a window."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A headless browser; tests that ask for it fail where there is none."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("GLMPLAN_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    assert program, "no Chromium: apt-get install -y chromium, or name one in GLMPLAN_CHROMIUM"
    with sync_playwright() as playwright:
        # Containers give a browser neither user namespaces nor much shared memory.
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go: the folder in GLMPLAN_SCREENSHOTS, for people who want to look."""
    folder = Path(os.environ.get("GLMPLAN_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
