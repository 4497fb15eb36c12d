"""The nodes file of a cluster: YAML or JSON, a list of machines in any form that `--on` takes (docs/cluster.md)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

from glmplan.errors import InputError
from glmplan.jsonio import loads
from glmplan.machine import Machine
from glmplan.noun import noun
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.store import parse_yaml

_KEYS: Final = ("name", "machine", "ram", "gpus", "count")
_EXAMPLE: Final = "- {name: box, machine: 2x rtx-3090, ram: 64GiB, count: 2}"
_MOST: Final = 10_000


@noun
class ListedNode:
    """One entry: a machine, or `count` equal ones."""

    name: str
    count: int
    machine: Machine


def read_nodes(path: Path) -> tuple[ListedNode, ...]:
    """The nodes that the file at `path` lists, in its order; paths in it are relative to its folder.

    Raises:
        InputError: it cannot be read, an entry is malformed, or a name stands twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        message = f"cannot read the nodes file {path}: {why}"
        raise InputError(message, hint=f"a YAML or JSON list, for example: {_EXAMPLE}") from error
    document = parse_yaml(text, origin=str(path))
    entries = document.get("nodes") if _is_mapping(document) else document
    if not _is_list(entries) or not entries:
        message = f"{path} lists no nodes"
        raise InputError(message, hint=f"a YAML or JSON list, for example: {_EXAMPLE}")
    nodes = tuple(_nodes(entries, path))
    names = [node.name for node in nodes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"{path}: two nodes are called {twice!r}"
        raise InputError(message, hint="give each its own name, or say count: 2 for equal ones")
    return nodes


def _nodes(entries: Sequence[Any], path: Path) -> Iterator[ListedNode]:
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, node {number}"
        row = {"machine": entry} if isinstance(entry, str) else entry
        if not _is_mapping(row):
            message = f"{where}: {entry!r} is no machine"
            raise InputError(message, hint=f"for example: {_EXAMPLE}")
        unknown = [str(key) for key in row if key not in _KEYS]
        if unknown or not row.get("machine"):
            message = f"{where}: " + (f"unknown key {unknown[0]!r}" if unknown else "no machine")
            raise InputError(message, hint=f"the keys are {', '.join(_KEYS)}; for example: {_EXAMPLE}")
        yield ListedNode(
            name=str(row.get("name") or f"node{number}"),
            count=_count(row.get("count", 1), f"{where}: count"),
            machine=_machine(row, where, path.parent),
        )


def _machine(row: Mapping[str, Any], where: str, folder: Path) -> Machine:
    written, ram = row["machine"], row.get("ram")
    if _is_mapping(written):
        return loads(Machine, json.dumps(written), origin=f"{where}: machine")
    text = str(written).strip()
    gpus = _count(row["gpus"], f"{where}: gpus") if "gpus" in row else 1
    beside = folder / text
    if ":" not in text and beside.exists():
        text = str(beside.resolve())
    elif gpus > 1:
        text = _times(text, gpus)
    try:
        return resolve_machine(text, None if ram is None else str(ram))
    except InputError as error:
        message = f"{where}: {error.message}"
        raise type(error)(message, hint=error.hint, facts=error.facts) from error


def _times(text: str, gpus: int) -> str:
    """`gpus` times the GPU that `text` names."""
    kind, mark, sizes = text.partition(":")
    if mark and kind.strip().lower() == "gpu":
        return f"gpu:{','.join([sizes] * gpus)}"
    return f"{gpus}x {text}"


def _count(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        message = f"{where}: {value!r} is no number from 1 to {_MOST}"
        raise InputError(message, hint=f"for example: {_EXAMPLE}")
    return value


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
