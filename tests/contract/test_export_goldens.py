"""Every format of three plans, as files to be read in review; GLMPLAN_ACCEPT=1 rewrites them."""

import os
from pathlib import Path

import pytest
from export_plans import PLANS, request_of

from glmplan.errors import NotExpressible
from glmplan.launchers.export.formats import FORMATS, export

GOLDENS = Path(__file__).parents[1] / "goldens" / "exports"
ACCEPT = os.environ.get("GLMPLAN_ACCEPT") == "1"


def written(format_name: str, plan_name: str) -> tuple[str, str]:
    """The name of the golden file and what should be in it: the export with its warnings, or the refusal."""
    known = FORMATS[format_name]
    request = request_of(PLANS[plan_name](), port=known.port, use=known.use)
    try:
        exported = export(format_name, request)
    except NotExpressible as error:
        return f"{format_name}.refused", f"{error.message}\n  try: {error.hint}\n"
    losses = "".join(f"warning: {loss}\n" for loss in exported.losses)
    return f"{format_name}{exported.suffix}", exported.text + (f"==== standard error\n{losses}" if losses else "")


@pytest.mark.parametrize("plan_name", PLANS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_an_export_is_what_was_reviewed(format_name: str, plan_name: str) -> None:
    name, text = written(format_name, plan_name)
    golden = GOLDENS / plan_name / name
    if ACCEPT:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text, "read the difference; GLMPLAN_ACCEPT=1 rewrites the files"


def test_no_golden_file_is_left_over() -> None:
    expected = {f"{plan}/{written(format_name, plan)[0]}" for plan in PLANS for format_name in FORMATS}
    assert {str(path.relative_to(GOLDENS)) for path in GOLDENS.rglob("*") if path.is_file()} == expected
