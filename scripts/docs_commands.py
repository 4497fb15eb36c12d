"""Write docs/commands.md from what `--help` is made of: names, meanings, ranges and defaults of every command.

    python scripts/docs_commands.py            # rewrites docs/commands.md
    python scripts/docs_commands.py --print    # shows it

tests/contract/test_docs.py fails when the file is not current.
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

from typer.models import ArgumentInfo, OptionInfo

from glmplan.cli import application

app = application()

PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD: Final = """\
# Commands

Written by `python scripts/docs_commands.py`: change the commands, not this page. `glmplan COMMAND --help` says the
same; `glmplan --version` prints the version.

With `--json` exactly one JSON document is on standard output and talk is on standard error; units are in the names
(`_bytes`, `_ms`, `_tokens_per_s`) and `null` means not known. An error is then
`{"error": {"type", "message", "hint", "facts"}}`. No command asks the network unless it is given an
address or told to download.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | not done, for a reason the message names, such as a full disk; `doctor`: something is wrong here |
| 2 | bad input: an option, a plan file, a model file |
| 3 | nothing feasible; the message and `facts` name the nearest misses |
| 4 | the engine: not found, died, not healthy, port taken |
| 5 | the plan was made for another machine or engine build |
| 6 | a measurement failed |
| 70 | a bug in glmplan; the message says where the traceback is |
| 130 | interrupted |
"""
VALUES: Final[dict[object, str]] = {str: "TEXT", int: "N", float: "X", Path: "PATH"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    parts += [section(name, callback) for name, callback in commands()]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command by the words that call it, those of groups included, in the order of the alphabet."""
    groups = [("", app), *((f"{group.name or group.typer_instance.info.name} ", group.typer_instance)
                           for group in app.registered_groups if group.typer_instance)]  # fmt: skip
    found: dict[str, Callable[..., Any]] = {}
    for prefix, group in groups:
        for command in group.registered_commands:
            assert command.name is not None
            assert command.callback is not None
            found[f"{prefix}{command.name}"] = command.callback
    yield from sorted(found.items())


def section(name: str, callback: Callable[..., Any]) -> str:
    """One command: its usage, what it does, its arguments and options."""
    hints = typing.get_type_hints(callback, include_extras=True)
    words, rows = [f"glmplan {name}"], list[str]()
    for parameter in inspect.signature(callback).parameters.values():
        annotation, info = typing.get_args(hints[parameter.name])[:2]
        if isinstance(info, ArgumentInfo):
            words.append(info.metavar or parameter.name.upper())
            rows.append(row(words[-1], info, parameter.default))
        else:
            rows.append(row(spelling(parameter.name, annotation, info), info, parameter.default))
    usage = " ".join([words[0], "[OPTIONS]", *words[1:]])
    about = inspect.cleandoc(callback.__doc__ or "")
    table = ["| | | default |", "|---|---|---|", *rows]
    return "\n".join([f"## {name}", "", f"`{usage}`", "", about, "", *table, ""])


def spelling(name: str, annotation: object, info: OptionInfo) -> str:
    """`-o, --output PATH`."""
    # In `Annotated[...]` the first name sits where other spellings have the default.
    names = [item for item in (info.default, *(info.param_decls or ())) if isinstance(item, str)]
    option = name.replace("_", "-")
    if annotation is bool and not names:
        return f"--{option}/--no-{option}"
    value = info.metavar or value_of(annotation)
    return f"{', '.join(names) or f'--{option}'} {value}".rstrip()


def value_of(annotation: object) -> str:
    """What stands for the value: `N`, `PATH`, `on|off`; nothing for a switch."""
    options = [part for part in typing.get_args(annotation) if part is not types.NoneType]
    if isinstance(annotation, types.UnionType):
        return value_of(options[0])
    if typing.get_origin(annotation) is list:
        return f"{value_of(options[0])} ..."
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(choice.value) for choice in annotation)
    return "" if annotation is bool else VALUES[annotation]


def row(name: str, info: ArgumentInfo | OptionInfo, default: object) -> str:
    """A line of the table."""
    cells = [f"`{name}`", f"{info.help or ''}{range_of(info)}", shown(default)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def range_of(info: ArgumentInfo | OptionInfo) -> str:
    """The bounds of a number."""
    if info.max is not None:
        return f" {info.min} to {info.max}."
    return f" {info.min} or more." if info.min is not None else ""


def shown(default: object) -> str:
    """A default; nothing for what is left out or off."""
    if default is inspect.Parameter.empty:
        return "required"
    if default is None or default is False or default == "":
        return ""
    if default is True:
        return "on"
    return f"`{default.value if isinstance(default, Enum) else default}`"


def outdated() -> Iterator[str]:
    """Lines of the page that are not what they should be."""
    wanted, there = page().splitlines(), PAGE.read_text(encoding="utf-8").splitlines()
    yield from (f"- {line}" for line in there if line not in wanted)
    yield from (f"+ {line}" for line in wanted if line not in there)


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
