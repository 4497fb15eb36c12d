"""Typed reading of plain JSON answers: a field of another type is a field that is not there."""

from collections.abc import Mapping
from typing import Any, cast

Fields = Mapping[str, Any]


def fields(value: object) -> Fields:
    """`value` when it is an object, else an empty one."""
    return cast("Fields", value) if isinstance(value, dict) else {}


def items(value: object) -> tuple[Fields, ...]:
    """The objects in `value` when it is a list."""
    return tuple(cast("Fields", entry) for entry in sequence(value) if isinstance(entry, dict))


def sequence(value: object) -> tuple[object, ...]:
    """The members of `value` when it is a list, else none."""
    return tuple(cast("list[object]", value)) if isinstance(value, list) else ()


def integer(value: object) -> int | None:
    """`value` when it is a whole number (not a bool)."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: object) -> float | None:
    """`value` when it is a number (not a bool)."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def text(value: object) -> str | None:
    """`value` when it is text with something in it."""
    return value if isinstance(value, str) and value.strip() else None


def flag(value: object) -> bool | None:
    """`value` when it is true or false."""
    return value if isinstance(value, bool) else None


def digits(value: str | None) -> int | None:
    """The whole number written in `value`, or None."""
    stripped = (value or "").strip()
    return int(stripped) if stripped.isdecimal() and stripped.isascii() and len(stripped) <= 20 else None
