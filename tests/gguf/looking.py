"""What a reader would see of a page, asked of the browser: errors, requests, widths, boxes, contrast."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, cast

from playwright.sync_api import Browser, Page

SIZES: Final = {"phone": (390, 844), "desktop": (1440, 900)}
# WCAG 2.1, 1.4.3 (AA): text against what is behind it.
CONTRAST: Final = 4.5

# Relative luminance and contrast as WCAG defines them, of every element that has text of its own.
_TOO_FAINT: Final = """
(least) => {
  const part = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("h1, h2, p, li, th, td, dt, dd, small, b, span, figcaption, code, a")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const box = node.getBoundingClientRect();
    if (!own || !box.width || node.closest("svg") || getComputedStyle(node).visibility === "hidden") continue;
    const [one, other] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < least) found.push(`${node.tagName} ${contrast.toFixed(2)} ${node.textContent.slice(0, 40)}`);
  }
  return found;
}
"""
# Elements that stick out of the screen and are not inside something that scrolls by itself.
_STICKING_OUT: Final = """
() => [...document.body.querySelectorAll("*")].filter((node) => {
  const box = node.getBoundingClientRect();
  if (box.right <= document.documentElement.clientWidth + 1 || !box.width || node.closest("svg")) return false;
  for (let at = node.parentElement; at; at = at.parentElement) {
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(at).overflowX)) return false;
  }
  return true;
}).map((node) => `${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`)
"""


class Seen:
    """An open page, and what it complained about and asked for since it was opened."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, file: Path) -> "Seen":
        """Go to a page on disk and wait until nothing moves."""
        self.page.goto(file.resolve().as_uri(), wait_until="load")
        self.page.wait_for_timeout(100)
        return self

    @property
    def asked_elsewhere(self) -> list[str]:
        """Requests for anything but files on this disk."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    @property
    def overflow_px(self) -> int:
        """How much wider the document is than the screen."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def sticking_out(self) -> list[str]:
        """Elements beyond the right edge of the screen."""
        return cast("list[str]", self.page.evaluate(_STICKING_OUT))

    def too_faint(self) -> list[str]:
        """Texts whose contrast is too low to read."""
        return cast("list[str]", self.page.evaluate(_TOO_FAINT, CONTRAST))

    def picture(self, path: Path) -> None:
        """A screenshot of the whole page."""
        self.page.screenshot(path=path, full_page=True)


@contextmanager
def looking(browser: Browser, size: str, scheme: Literal["light", "dark"] = "light") -> Generator[Seen, None, None]:
    """A new page of one of `SIZES` in light or dark."""
    width, height = SIZES[size]
    options: dict[str, Any] = {"has_touch": True, "is_mobile": True} if size == "phone" else {}
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    try:
        yield Seen(context.new_page())
    finally:
        context.close()
