"""Write docs/export-examples.md: one plan in every format, as the exporters write it.

    python scripts/docs_exports.py            # rewrites docs/export-examples.md

The plan is the one of tests/goldens/exports/full-gpu. tests/contract/test_docs.py fails when the file is not current.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "gguf"))

from export_plans import full_gpu, request_of  # noqa: E402 - tests/gguf is not a package

from glmplan.launchers.export.formats import FORMATS, Format, export  # noqa: E402

PAGE: Final = ROOT / "docs" / "export-examples.md"
# A file longer than LONG is shown by its first SHOWN lines.
LONG, SHOWN = 70, 45
# Highlighters by the end of a name; what is cut short is plain text, because it is not whole.
LANGUAGES: Final = {
    ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".ini": "ini", ".service": "ini", ".container": "ini",
    ".conf": "ini", ".sh": "sh", ".ps1": "powershell", ".plist": "xml",
}  # fmt: skip
HEAD: Final = """\
# Every export, with an example

Written by `python scripts/docs_exports.py` with the real exporters: change those, not this page. The plan is q4_K_M
with 65,536 tokens of context on one RTX 5090; `glmplan export FORMAT plan.json -o FILE` writes your own.
[exports.md](exports.md) tells options, judges, and what each format loses. Long files are cut here.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(part for known in FORMATS.values() for part in section(known))])


def section(known: Format) -> Iterator[str]:
    """A format: what it is, the command, what to do with the file, and the file."""
    exported = export(known.name, request_of(full_gpu(), port=known.port, use=known.use))
    lines = exported.text.splitlines()
    is_cut = len(lines) > LONG
    shown = lines[:SHOWN] if is_cut else lines
    language = "text" if is_cut else LANGUAGES.get(Path(exported.suffix).suffix or exported.suffix, "text")
    yield f"## {known.name}\n\nThis is: {known.title}.\n"
    yield f"- `glmplan export {known.name} plan.json -o FILE`"
    yield f"- {use(known.how)}\n"
    yield "\n".join([f"```{language}", *shown, "```", ""])
    if is_cut:
        yield f"({len(lines) - SHOWN} more lines)\n"
    for loss in exported.losses:
        yield f"- warned of: {loss}"
    if exported.losses:
        yield ""


def use(how: str) -> str:
    """What to do with the file: run a command, or put it somewhere."""
    if how.endswith(" in the project"):
        return f"goes to `{how.removesuffix(' in the project')}` in the project"
    if how.startswith(("/", "~")):
        return f"goes to `{how}`"
    if how.startswith("below "):
        return f"goes below `{how.removeprefix('below ')}`"
    return how if how == "read it" else f"`{how}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
