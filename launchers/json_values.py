"""Reading JSON whose shape a server decides: absent or of another type reads as empty."""

import json
from typing import Any, TypeGuard


def mapping(value: object) -> dict[str, Any]:
    """`value` if it is an object, otherwise an empty one."""
    return value if _is_object(value) else {}


def listing(value: object) -> list[Any]:
    """`value` if it is an array, otherwise an empty one."""
    return value if _is_array(value) else []


def document(text: str) -> dict[str, Any]:
    """The object in `text`; empty when it is no JSON object."""
    try:
        return mapping(json.loads(text))
    except ValueError:
        return {}


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
