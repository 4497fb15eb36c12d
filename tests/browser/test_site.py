"""The documentation site, built with warnings as errors and looked at in Chromium."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from looking import SIZES, looking
from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
DOCS: Final = Path(__file__).parents[2] / "docs"
PAGES: Final = sorted(path.stem for path in DOCS.glob("*.md"))
# A page for each kind of content is kept as a picture: prose, commands, tables, long files.
PICTURED: Final = {"index", "quickstart", "troubleshooting", "plan-schema", "export-examples"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(folder / "html")]
    done = subprocess.run([*build, "-d", str(folder / "cache")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_the_screen_and_loads_nothing_from_elsewhere(
    size: str, site: Path, browser: Browser, pictures: Path
) -> None:
    with looking(browser, size) as seen:
        for name in PAGES:
            seen.open(site / f"{name}.html")
            if name in PICTURED:
                seen.picture(pictures / f"site-{name}-{size}.png")
            assert seen.complaints == [], name
            assert seen.asked_elsewhere == [], name
            assert seen.overflow_px == 0, name
            assert seen.page.locator("h1").first.is_visible(), name


def test_the_tree_beside_each_page_lists_every_page(site: Path, browser: Browser) -> None:
    with looking(browser, "desktop") as seen:
        seen.open(site / "index.html")
        links = seen.page.locator(".sidebar-tree a").evaluate_all("nodes => nodes.map((node) => node.href)")
        assert sorted(Path(link).stem for link in links) == [name for name in PAGES if name != "index"]


def test_links_of_the_doctor_lead_to_their_part_of_the_page(site: Path, browser: Browser) -> None:
    with looking(browser, "phone") as seen:
        seen.open(site / "troubleshooting.html")
        seen.page.goto(f"{(site / 'troubleshooting.html').as_uri()}#ollama-full-kv")
        top = "document.querySelector('#ollama-full-kv h3').getBoundingClientRect().top"
        # The page scrolls there smoothly.
        seen.page.wait_for_function(f"{top} >= 0 && {top} < {SIZES['phone'][1]}", timeout=10_000)


def test_the_site_can_be_searched(site: Path, browser: Browser) -> None:
    with looking(browser, "desktop") as seen:
        seen.open(site / "search.html")
        seen.page.goto(f"{(site / 'search.html').as_uri()}?q=quantised")
        seen.page.wait_for_selector("ul.search li", timeout=10_000)
        assert seen.page.locator("ul.search li").count() >= 2
        assert seen.asked_elsewhere == []
