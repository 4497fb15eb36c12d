"""Nouns to JSON and back; decoding is strict and its messages carry the JSON path."""

import dataclasses
import json
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from typing import Any, TypeVar, cast

from glmplan.errors import InputError

T = TypeVar("T")


def to_jsonable(value: object) -> Any:  # noqa: ANN401 - JSON is what it is
    """Dataclasses, enums, tuples and sets as plain JSON values; fields keep their order."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, (set, frozenset)):
        return sorted(to_jsonable(item) for item in cast("Set[object]", value))
    return value


def dumps(value: object) -> str:
    """`value` as an indented JSON document."""
    return json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)


def loads(kind: type[T], text: str, *, origin: str) -> T:
    """The noun `kind` from JSON `text`.

    Args:
        kind: the noun to read.
        text: a JSON document.
        origin: the file or option it came from, for messages.

    Raises:
        InputError: not JSON, an unknown or missing property, a wrong type: with its JSON path.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = f"{origin}: {where}: {first['msg']}{more}"
        raise InputError(message, hint=f"expected the JSON of a {kind.__name__}") from error
