"""YAML in and out: the only door to the yaml library among the launchers.

What is written is a small, plain part of YAML: block style, texts in JSON's double quotes unless they are plain names.
So no value can turn into another type (`on`, `1e3`, `null`) and no library decides about line breaks: the same plan
gives the same bytes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard


def dump(document: Mapping[str, Any]) -> str:
    """`document` as YAML; values are texts, numbers, booleans, None, mappings and sequences."""
    return "\n".join(_mapping(document, "")) + "\n"


def dump_list(items: Sequence[Mapping[str, Any]]) -> str:
    """A YAML file that is a list of mappings."""
    return "\n".join(_sequence(items, "")) + "\n"


def load(text: str) -> Any:  # noqa: ANN401 - YAML is what it is
    """The values in `text`.

    Raises:
        ValueError: no YAML, or YAML with tags of other languages.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - the safe loader, in C where there is one
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _mapping(document: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in document.items():
        yield from _entry(f"{indent}{_scalar(key)}:", value, f"{indent}  ")


def _sequence(items: Sequence[Any], indent: str) -> Iterator[str]:
    for item in items:
        if _is_mapping(item) and item:
            first, *rest = _mapping(item, f"{indent}  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}- {_scalar(item)}"


def _entry(head: str, value: object, indent: str) -> Iterator[str]:
    if _is_mapping(value) and value:
        yield head
        yield from _mapping(value, indent)
    elif _is_sequence(value) and value:
        yield head
        yield from _sequence(value, indent)
    elif isinstance(value, str) and _fits_a_block(value):
        yield f"{head} |-"
        yield from (f"{indent}{line}" for line in value.split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _fits_a_block(text: str) -> bool:
    """Whether a text of several lines can stand as it is, indented as far as its first line is."""
    lines = text.split("\n")
    whole = all(line and line.isprintable() and line == line.rstrip() for line in lines)
    return len(lines) > 1 and whole and not lines[0].startswith(" ")


def _scalar(value: object) -> str:
    if isinstance(value, str) and _is_plain(value):
        return value
    return _json(value)


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 takes 5e-05 for a text
    # JSON leaves DEL, NEL, the C1 controls and lone halves as they are; YAML wants them escaped or not at all.
    return "".join(char if _may_stand(char) else f"\\u{ord(char):04x}" for char in text)


def _may_stand(char: str) -> bool:
    return " " <= char < "\x7f" or (
        char >= "\xa0" and not "\ud800" <= char <= "\udfff" and char not in "\u2028\u2029\ufeff\ufffe\uffff"
    )


def _is_plain(text: str) -> bool:
    """Whether every YAML reader takes `text` for a text without quotes: keys, names, paths."""
    begins = text.isascii() and (text[:1].isalpha() or text[:1] == "/")
    return begins and text.lower() not in _WORDS and all(char.isalnum() or char in "/_.-" for char in text)


# What YAML 1.1 reads as a boolean or nothing; `y` and `n` in some readers.
_WORDS = frozenset({"y", "yes", "n", "no", "true", "false", "on", "off", "null"})


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))
