"""The documentation site: `python -m sphinx -W -b html docs build/site`.

Pages are the Markdown files beside this one, as they stand; docs/index.md orders them. A page that the index does not
name is put under its last heading, so that none is ever lost.
"""

import re
from pathlib import Path
from typing import Any

import glmplan

project = "glmplan"
author = "the glmplan authors"
version = release = glmplan.__version__
extensions = ["myst_parser"]
# Headings are link targets under the names that code hosts give them.
myst_heading_anchors = 4
html_theme = "furo"
html_title = "glmplan"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

_REST = "<!-- the rest -->"


def _with_the_rest(_app: Any, name: str, source: list[str]) -> None:  # noqa: ANN401 - Sphinx is imported by itself only
    """Put pages that no list of the index names where the index says."""
    if name == "index":
        named = set(re.findall(r"^([\w-]+)$", source[0], re.MULTILINE))
        pages = sorted(path.stem for path in Path(__file__).parent.glob("*.md"))
        source[0] = source[0].replace(_REST, "\n".join(page for page in pages if page not in {*named, "index"}))


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401
    """What Sphinx calls."""
    app.connect("source-read", _with_the_rest)
    return {"parallel_read_safe": True}
