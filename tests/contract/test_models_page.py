"""docs/models.md is what the catalog and the planner say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("docs_models", ROOT / "scripts" / "docs_models.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "models.md").read_text() == script.page(), "python scripts/docs_models.py"
