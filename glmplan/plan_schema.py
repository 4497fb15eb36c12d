"""`schemas/plan-1.json` applied to a document: the keywords of JSON Schema that it uses, and no others."""

import functools
import json
import math
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any, Final

from glmplan.errors import JsonValue

_SHOWN: Final = 60
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


def violations(document: JsonValue) -> Iterator[str]:
    """What of a parsed plan file the schema refuses, each with its JSON path, in the order of the schema."""
    yield from _check(document, schema(), "")


@functools.cache
def schema() -> dict[str, Any]:
    """The schema of `glmplan/plan/1`."""
    text = resources.files("glmplan.schemas").joinpath("plan-1.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _check(value: JsonValue, rules: dict[str, Any], path: str) -> Iterator[str]:
    if "$ref" in rules:
        yield from _check(value, schema()["$defs"][rules["$ref"].rpartition("/")[2]], path)
    for keyword, wanted in rules.items():
        wrong = CHECKS[keyword](value, wanted) if keyword in CHECKS else None
        if wrong is not None:
            yield f"{path or 'the document'}: {wrong}"
            return
    if isinstance(value, dict):
        yield from _check_properties(value, rules, path)
    if isinstance(value, list) and "items" in rules:
        for index, item in enumerate(value):
            yield from _check(item, rules["items"], f"{path}[{index}]")


def _check_properties(value: dict[str, JsonValue], rules: dict[str, Any], path: str) -> Iterator[str]:
    known: dict[str, Any] = rules.get("properties", {})
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        if name in known:
            yield from _check(item, known[name], where)
        elif rules.get("additionalProperties") is False:
            yield f"{where}: unknown property"


def _shown(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _type(value: JsonValue, wanted: str | list[str]) -> str | None:
    names = [wanted] if isinstance(wanted, str) else wanted
    return None if any(_is(value, name) for name in names) else f"{_shown(value)} is not of type {' or '.join(names)}"


def _is(value: JsonValue, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float):
        # JSON has no NaN and no infinity, whatever parsers let through.
        return math.isfinite(value) and (name == "number" or (name == "integer" and value.is_integer()))
    return isinstance(value, _TYPES[name])


def _required(value: JsonValue, names: list[str]) -> str | None:
    missing = [name for name in names if isinstance(value, dict) and name not in value]
    return f"{', '.join(missing)} missing" if missing else None


def _enum(value: JsonValue, wanted: list[object]) -> str | None:
    return None if value in wanted else f"{_shown(value)} is not one of {', '.join(map(str, wanted))}"


def _const(value: JsonValue, wanted: object) -> str | None:
    return None if value == wanted else f"{_shown(value)} is not {wanted}"


def _minimum(value: JsonValue, least: float) -> str | None:
    below = isinstance(value, int | float) and not isinstance(value, bool) and value < least
    return f"{value} is less than {least}" if below else None


def _pattern(value: JsonValue, pattern: str) -> str | None:
    other = isinstance(value, str) and re.search(pattern, value) is None
    return f"{_shown(value)} does not match {pattern}" if other else None


def _min_items(value: JsonValue, least: int) -> str | None:
    return f"fewer than {least} items" if isinstance(value, list) and len(value) < least else None


CHECKS: Final[dict[str, Callable[[JsonValue, Any], str | None]]] = {
    "type": _type,
    "required": _required,
    "enum": _enum,
    "const": _const,
    "minimum": _minimum,
    "pattern": _pattern,
    "minItems": _min_items,
}
