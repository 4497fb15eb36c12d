"""Our own reading of Ollama's files: there is no dry run, and its parser is part of the program.

The grammar is that of ollama/ollama parser/parser.go (v0.33.0-rc2).
"""

import shlex
from collections.abc import Callable, Iterator
from typing import Final

from glmplan.launchers.export import targets
from glmplan.launchers.export.checks import grammars
from glmplan.launchers.export.checks.report import CheckReport, Tools
from glmplan.launchers.export.exported import Exported

_BOOLEANS: Final = frozenset({"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"})


def _is_boolean(text: str) -> str:
    if text not in _BOOLEANS:
        raise ValueError(text)
    return text


_READERS: Final[dict[str, Callable[[str], object]]] = {"int": int, "float": float, "bool": _is_boolean, "text": str}


def parse_modelfile(text: str) -> list[tuple[str, str]]:
    """Commands and their values, as Ollama reads them; parameters are named `parameter NAME`.

    Raises:
        ValueError: the line that Ollama would refuse, and why.
    """
    commands = list(_commands(text))
    if not any(name == "from" for name, _ in commands):
        message = "no FROM line"
        raise ValueError(message)
    return commands


def _commands(text: str) -> Iterator[tuple[str, str]]:
    known = targets.of("ollama")["instructions"]
    for number, line in enumerate(text.replace("\r", "\n").split("\n"), start=1):
        stripped = line.lstrip(" \t")
        if not stripped or stripped.startswith("#"):
            continue
        name, _, rest = stripped.replace("\t", " ").partition(" ")
        name = name.lower()
        if name not in known:
            message = f"line {number}: {name!r} is no instruction"
            raise ValueError(message)
        if name == "parameter":
            parameter, _, rest = rest.partition(" ")
            name = f"parameter {parameter}"
        yield name, _unquote("".join(char for char in rest if char.isprintable()).strip(), number)


def _unquote(text: str, number: int) -> str:
    for quote in ('"""', '"'):
        if text.startswith(quote):
            if len(text) >= 2 * len(quote) and text.endswith(quote):
                return text[len(quote) : -len(quote)]
            message = f"line {number}: a quote is not closed"
            raise ValueError(message)
    return text


def modelfile(exported: Exported, _: Tools) -> CheckReport:
    """Instructions, parameter names and the types of their values."""
    by = ("our reading of Ollama's Modelfile grammar",)
    try:
        commands = parse_modelfile(exported.text)
    except ValueError as error:
        return CheckReport(by=by, problems=(str(error),))
    types = targets.of("ollama")["parameters"]
    problems: list[str] = []
    for name, value in commands:
        if not name.startswith("parameter "):
            continue
        parameter = name.removeprefix("parameter ")
        if parameter not in types:
            problems.append(f"unknown parameter {parameter!r}")
            continue
        try:
            _READERS[types[parameter]](value)
        except ValueError:
            problems.append(f"invalid {types[parameter]} value {value!r} of {parameter}")
    return CheckReport(by=by, problems=tuple(problems))


def environment(exported: Exported, _: Tools) -> CheckReport:
    """Names of the variables against those that Ollama and its llama-server read."""
    return _names(lambda: grammars.shell_exports(exported.text))


def systemd_drop_in(exported: Exported, _: Tools) -> CheckReport:
    """The grammar of units, and the names."""
    return _names(lambda: drop_in_variables(exported.text))


def launchctl(exported: Exported, _: Tools) -> CheckReport:
    """The grammar of the shell, and the names."""
    return _names(lambda: launchctl_variables(exported.text))


def windows(exported: Exported, _: Tools) -> CheckReport:
    """The grammar of PowerShell, and the names."""
    return _names(lambda: windows_variables(exported.text))


def drop_in_variables(text: str) -> dict[str, str]:
    """Variables of a drop-in.

    Raises:
        ValueError: no unit file.
    """
    sections = grammars.unit(text)
    words = [grammars.unit_words(value.replace("$", "$$"))[0] for _, value in sections["Service"]]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def launchctl_variables(text: str) -> dict[str, str]:
    """Variables of `launchctl setenv NAME VALUE` lines."""
    words = shlex.split(text, comments=True)
    return {words[index + 2]: words[index + 3] for index in range(0, len(words), 4)}


def windows_variables(text: str) -> dict[str, str]:
    """Variables of calls of SetEnvironmentVariable.

    Raises:
        ValueError: a quote or bracket that is not closed.
    """
    literals = grammars.powershell(text)
    return dict(zip(literals[::3], literals[1::3], strict=True))


def _names(read: Callable[[], dict[str, str]]) -> CheckReport:
    by, facts = ("our table of Ollama's variables",), targets.of("ollama")
    try:
        names = list(read())
    except ValueError as error:
        return CheckReport(by=by, problems=(str(error),))
    known = {*facts["variables"], *facts["inherited"]}
    unknown = [name for name in names if name not in known]
    return CheckReport(by=by, problems=tuple(f"neither Ollama nor its llama-server reads {name}" for name in unknown))
