"""Our own readers of the grammars we write, as the programs that read them document them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import dropwhile, pairwise
from typing import Final

_INI_KEY: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*(.*)")
_ASSIGNMENT: Final = re.compile("[A-Z_][A-Z0-9_]*=")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "s": " ", "\\": "\\", '"': '"', "'": "'"}


def shell_words(text: str) -> list[str]:
    """Words of a shell command that may run over several lines, without comments and without assignments before it."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = shlex.split("\n".join(lines).replace("\\\n", " "))
    return list(dropwhile(_ASSIGNMENT.match, words))


def shell_exports(text: str) -> dict[str, str]:
    """Variables of `export NAME=value` lines; what a shell would compute stays as it is written."""
    words = shlex.split(text, comments=True)
    pairs = (word.partition("=") for before, word in pairwise(words) if before == "export")
    return {name: value for name, _, value in pairs}


def env_file(text: str) -> dict[str, str]:
    """Variables of an environment file, as systemd.exec(5) describes EnvironmentFile=.

    Raises:
        ValueError: a line that is neither a comment nor an assignment, or a quote that is not closed.
    """
    variables: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        if not equals:
            message = f"no assignment: {line!r}"
            raise ValueError(message)
        variables[name.strip()] = "".join(shlex.split(value))
    return variables


def preset(text: str) -> dict[str, dict[str, str]]:
    """Sections of a llama-server preset file (llama.cpp common/preset.cpp): `;` and `#` cut values anywhere.

    Raises:
        ValueError: a line that is no section, assignment or comment.
    """
    sections: dict[str, dict[str, str]] = {}
    current = sections.setdefault("default", {})
    for line in text.split("\n"):
        body = re.split("[;#]", line, maxsplit=1)[0].strip(" \t")
        if not body:
            continue
        if body.startswith("[") and body.endswith("]"):
            current = sections.setdefault(body[1:-1].strip(" \t"), {})
        elif match := _INI_KEY.fullmatch(body):
            current[match[1]] = match[2].strip(" \t")
        else:
            message = f"neither a section nor an assignment: {line!r}"
            raise ValueError(message)
    return sections


def unit(text: str) -> dict[str, list[tuple[str, str]]]:
    """Sections of a unit file with their assignments in order (systemd.syntax(7)).

    Raises:
        ValueError: an assignment outside a section, or a line that is none.
    """
    sections: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] | None = None
    for line in text.replace("\\\n", " ").split("\n"):
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        if line.startswith("[") and line.rstrip().endswith("]"):
            current = sections.setdefault(line.strip()[1:-1], [])
            continue
        name, equals, value = line.partition("=")
        if current is None or not equals:
            message = f"no assignment in a section: {line!r}"
            raise ValueError(message)
        current.append((name.strip(), value.strip()))
    return sections


def unit_words(line: str, specifiers: Mapping[str, str] | None = None) -> list[str]:
    """Words of ExecStart= or Exec=, unquoted, `%%` and `$$` undone; `specifiers` by their letter.

    Raises:
        ValueError: a quote that is not closed, or an unknown escape, specifier or variable.
    """
    return [_expanded(word, specifiers or {}) for word in _unquoted_words(line)]


def _unquoted_words(line: str) -> Iterator[str]:
    word, quote, begun = "", "", False
    chars = iter(line)
    for char in chars:
        if char == "\\":
            word, begun = word + _unescaped(next(chars, "")), True
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'" and not word:
            quote, begun = char, True
        elif not quote and char in " \t":
            if begun:
                yield word
            word, begun = "", False
        else:
            word, begun = word + char, True
    if quote:
        message = f"a quote is not closed: {line!r}"
        raise ValueError(message)
    if begun:
        yield word


def _unescaped(char: str) -> str:
    if char not in _ESCAPES:
        message = f"unknown escape: \\{char}"
        raise ValueError(message)
    return _ESCAPES[char]


def _expanded(word: str, specifiers: Mapping[str, str]) -> str:
    known = {"%": "%", **specifiers}

    def specifier(match: re.Match[str]) -> str:
        if match[1] not in known:
            message = f"unknown specifier %{match[1]}"
            raise ValueError(message)
        return known[match[1]]

    without = re.sub(r"%(.?)", specifier, word)
    if re.search(r"(?<!\$)(?:\$\$)*\$(?!\$)", without):
        message = f"a variable in {word!r}"
        raise ValueError(message)
    return without.replace("$$", "$")


def powershell(text: str) -> list[str]:
    """Single-quoted literals of a PowerShell script, unquoted; apostrophes of all kinds are doubled within them.

    Raises:
        ValueError: a quote or bracket that is not closed.
    """
    literals: list[str] = []
    closing: list[str] = []
    rest = text.removeprefix("\ufeff")
    token = re.compile(
        r"(?P<comment>#[^\n]*)|(?P<literal>['\u2018-\u201b](?:[^'\u2018-\u201b]|['\u2018-\u201b]{2})*['\u2018-\u201b])"
        r"|(?P<string>\"(?:[^\"`]|`.|\"\")*\")|(?P<escape>`.)|(?P<open>[({\[])|(?P<close>[)}\]])|(?P<quote>['\"\u2018-\u201b])",
        re.DOTALL,
    )
    for match in token.finditer(rest):
        if match["literal"]:
            literals.append(re.sub("(['\u2018-\u201b])['\u2018-\u201b]", r"\1", match["literal"][1:-1]))
        elif match["open"]:
            closing.append({"(": ")", "{": "}", "[": "]"}[match["open"]])
        elif match["close"] and (not closing or closing.pop() != match["close"]):
            message = f"a bracket too many: {match['close']}"
            raise ValueError(message)
        elif match["quote"]:
            message = "a quote is not closed"
            raise ValueError(message)
    if closing:
        message = f"a bracket is not closed: {closing[-1]} is missing"
        raise ValueError(message)
    return literals
