"""A small JSON Schema validator: the keywords that the shipped schemas use, so that checking needs no other package."""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

_TYPES: Final[dict[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, (list, tuple)),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool) and isinstance(value, (int, float)) and value == int(value),
}


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The shipped schema `name`; where it comes from stands in its `$comment`."""
    text = Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def problems(document: object, by: dict[str, Any]) -> tuple[str, ...]:
    """What the schema `by` finds wrong with `document`, each with its path."""
    return tuple(_Reading(by).problems(document, by, "$"))


class _Reading:
    """One schema at work; references are looked up in its root."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._judges: dict[str, Callable[[Any, Any, Mapping[str, Any], str], Iterator[str]]] = {
            "$ref": self._reference,
            "type": self._type,
            "enum": self._enum,
            "const": self._const,
            "required": self._required,
            "properties": self._properties,
            "patternProperties": self._properties_by_pattern,
            "additionalProperties": self._other_properties,
            "propertyNames": self._names,
            "items": self._items,
            "uniqueItems": self._unique,
            "minItems": lambda value, bound, _, path: _shorter(value if _is_array(value) else None, bound, path),
            "minLength": lambda value, bound, _, path: _shorter(value if isinstance(value, str) else None, bound, path),
            "minimum": self._minimum,
            "maximum": self._maximum,
            "pattern": self._pattern,
            "anyOf": self._any,
            "oneOf": self._one,
            "allOf": self._all,
            "not": self._not,
        }

    def problems(self, value: object, rules: object, path: str) -> Iterator[str]:
        """What `rules`, a part of the schema, finds wrong with `value` at `path`."""
        if isinstance(rules, bool):
            if not rules:
                yield f"{path}: nothing may stand here"
        elif _is_object(rules):
            for keyword, rule in rules.items():
                judge = self._judges.get(keyword)
                if judge is not None:
                    yield from judge(value, rule, rules, path)

    def _fits(self, value: object, rules: object, path: str) -> bool:
        return next(self.problems(value, rules, path), None) is None

    def _reference(self, value: object, rule: str, _: object, path: str) -> Iterator[str]:
        target: Any = self._root
        for part in rule.removeprefix("#").strip("/").split("/"):
            if part:
                target = target[int(part) if _is_array(target) else part.replace("~1", "/").replace("~0", "~")]
        return self.problems(value, target, path)

    def _type(self, value: object, rule: str | Sequence[str], _: object, path: str) -> Iterator[str]:
        kinds = [rule] if isinstance(rule, str) else list(rule)
        if not any(_TYPES[kind](value) for kind in kinds):
            yield f"{path}: {value!r} is no {' or '.join(kinds)}"

    def _enum(self, value: object, rule: Sequence[object], _: object, path: str) -> Iterator[str]:
        if not any(_same(value, allowed) for allowed in rule):
            yield f"{path}: {value!r} is none of {', '.join(map(str, rule))}"

    def _const(self, value: object, rule: object, _: object, path: str) -> Iterator[str]:
        if not _same(value, rule):
            yield f"{path}: {value!r} is not {rule!r}"

    def _required(self, value: object, rule: Sequence[str], _: object, path: str) -> Iterator[str]:
        if _is_object(value):
            yield from (f"{path}: {name!r} is missing" for name in rule if name not in value)

    def _properties(self, value: object, rule: Mapping[str, Any], _: object, path: str) -> Iterator[str]:
        if _is_object(value):
            for name in rule.keys() & value.keys():
                yield from self.problems(value[name], rule[name], f"{path}.{name}")

    def _properties_by_pattern(self, value: object, rule: Mapping[str, Any], _: object, path: str) -> Iterator[str]:
        if _is_object(value):
            for name, pattern in ((name, pattern) for name in value for pattern in rule if re.search(pattern, name)):
                yield from self.problems(value[name], rule[pattern], f"{path}.{name}")

    def _other_properties(self, value: object, rule: object, rules: Mapping[str, Any], path: str) -> Iterator[str]:
        if not _is_object(value):
            return
        patterns: list[str] = list(rules.get("patternProperties", ()))
        for name in value.keys() - rules.get("properties", {}).keys():
            if any(re.search(pattern, name) for pattern in patterns):
                continue
            if rule is False:
                yield f"{path}: no property {name!r} is known"
            else:
                yield from self.problems(value[name], rule, f"{path}.{name}")

    def _names(self, value: object, rule: object, _: object, path: str) -> Iterator[str]:
        if _is_object(value):
            for name in value:
                yield from self.problems(name, rule, f"{path}.{name}")

    def _items(self, value: object, rule: object, _: object, path: str) -> Iterator[str]:
        if _is_array(value):
            for index, item in enumerate(value):
                yield from self.problems(item, rule, f"{path}[{index}]")

    def _unique(self, value: object, rule: object, _: object, path: str) -> Iterator[str]:
        if rule and _is_array(value) and len({json.dumps(item, sort_keys=True) for item in value}) < len(value):
            yield f"{path}: an entry stands twice"

    def _minimum(self, value: object, rule: float, _: object, path: str) -> Iterator[str]:
        if _is_number(value) and value < rule:
            yield f"{path}: {value} is below {rule}"

    def _maximum(self, value: object, rule: float, _: object, path: str) -> Iterator[str]:
        if _is_number(value) and value > rule:
            yield f"{path}: {value} is above {rule}"

    def _pattern(self, value: object, rule: str, _: object, path: str) -> Iterator[str]:
        if isinstance(value, str) and re.search(rule, value) is None:
            yield f"{path}: {value!r} does not match {rule}"

    def _any(self, value: object, rule: Sequence[object], _: object, path: str) -> Iterator[str]:
        if not any(self._fits(value, option, path) for option in rule):
            yield from self._nearest(value, rule, path)

    def _one(self, value: object, rule: Sequence[object], _: object, path: str) -> Iterator[str]:
        fitting = sum(self._fits(value, option, path) for option in rule)
        if fitting == 0:
            yield from self._nearest(value, rule, path)
        elif fitting > 1:
            yield f"{path}: {fitting} alternatives fit, not one"

    def _nearest(self, value: object, rule: Sequence[object], path: str) -> list[str]:
        """The complaints of the alternative that got furthest into the document."""
        found = [list(self.problems(value, option, path)) for option in rule]
        return max(found, key=lambda said: max(len(line.partition(":")[0]) for line in said))

    def _all(self, value: object, rule: Sequence[object], _: object, path: str) -> Iterator[str]:
        for option in rule:
            yield from self.problems(value, option, path)

    def _not(self, value: object, rule: object, _: object, path: str) -> Iterator[str]:
        if self._fits(value, rule, path):
            yield f"{path}: {value!r} may not stand here"


def _shorter(value: Sequence[object] | None, bound: int, path: str) -> Iterator[str]:
    if value is not None and len(value) < bound:
        yield f"{path}: shorter than {bound}"


def _same(left: object, right: object) -> bool:
    """Equal as JSON: `true` is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_array(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
