"""Write docs/plan-schema.md from glmplan/schemas/plan-1.json: every property, its type and what it says.

    python scripts/docs_schema.py            # rewrites docs/plan-schema.md

tests/contract/test_docs.py fails when the file is not current.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from glmplan.plan_schema import schema

PAGE: Final = Path(__file__).parents[1] / "docs" / "plan-schema.md"
HEAD: Final = """\
# The plan file

Written by `python scripts/docs_schema.py` from `glmplan/schemas/plan-1.json`: change the schema, not this page.

`glmplan plan --json` prints a plan, `glmplan plan -o plan.json` writes one; `run`, `bench`, `report`, `export` and
`doctor` read it. The schema is JSON Schema 2020-12. Units are in the names; bytes are integers; an unknown property is
an error; `null` means not known. Adding an optional property keeps version 1, anything else is version 2.

Two rules are beyond the schema and hold for every plan: on each device usable = weights + KV cache + compute +
overhead + margin, to the byte, and each estimate has low <= value <= high.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *section("The document", schema())]
    for name, rules in schema()["$defs"].items():
        if "properties" in rules:
            parts += section(name, rules)
        else:
            parts += [f"## {name}\n", f"{rules['description']} {sentence(rules)}\n"]
    return "\n".join(parts)


def section(name: str, rules: dict[str, Any]) -> Iterator[str]:
    """An object: its properties as a table, then the objects within it."""
    yield f"## {name}\n"
    if name in schema()["$defs"] and "description" in rules:
        yield f"{rules['description']}\n"
    yield from table(rules)
    for inner, part in rules["properties"].items():
        within = part.get("items", part)
        if "properties" in within:
            yield f"### {inner}{' (each)' if 'items' in part else ''}\n"
            yield from table(within)


def table(rules: dict[str, Any]) -> Iterator[str]:
    """Name, type, whether it may be absent, meaning."""
    rows = ["| property | type | meaning |", "|---|---|---|"]
    for name, part in rules["properties"].items():
        may_lack = "" if name in rules["required"] else " (optional)"
        rows.append(f"| `{name}` | {type_of(part)}{may_lack} | {part['description']} |")
    yield "\n".join(rows) + "\n"


def type_of(part: dict[str, Any]) -> str:
    """A type in words, with a link where it is told elsewhere."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join("null" if value is None else f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {type_of(part['items'])}"
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    limits = f", {part['minimum']} or more" if "minimum" in part else ""
    return " or ".join(kinds) + limits


def sentence(rules: dict[str, Any]) -> str:
    """What a definition without properties allows."""
    return f"{type_of(rules)[:1].upper()}{type_of(rules)[1:]}."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
