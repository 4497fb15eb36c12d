"""Values in the grammars of shells and configuration files: quoted so that they come back unchanged, or refused."""

import re
import shlex
from typing import Final

from glmplan.errors import NotExpressible

# PowerShell takes each of these for an apostrophe (about_Quoting_Rules; CharTraits.cs `IsSingleQuote`).
_POWERSHELL_APOSTROPHE: Final = re.compile("(['\u2018\u2019\u201a\u201b])")
# Windows PowerShell reads a file without this mark in the system's old code page.
BYTE_ORDER_MARK: Final = "\ufeff"
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_@:,./+=-]+")
_CONTROLS: Final = "".join(map(chr, (*range(32), 127)))


def shell(value: str) -> str:
    """One word of a POSIX shell."""
    return shlex.quote(value)


def key_in_shell(path: str) -> str:
    """The key in a key file (one per line, `#` begins a comment) as a word of a POSIX shell."""
    return f"\"$(grep -v '^#' {shell(path)} | head -n 1)\""


def powershell(value: str) -> str:
    """One argument of PowerShell; programs get quotes inside it differently from version to version.

    Raises:
        NotExpressible: it has a double quote or a control character.
    """
    refuse_characters(value, f'"{_CONTROLS}', "a PowerShell script")
    return "'" + _POWERSHELL_APOSTROPHE.sub(r"\1\1", value) + "'"


def ini(value: str) -> str:
    """A value of llama-server's preset file, whose grammar has no quotes (llama.cpp common/preset.cpp).

    Raises:
        NotExpressible: it would be cut at `;` or `#`, at a line break, or lose spaces at its ends.
    """
    refuse_characters(value, f";#{_CONTROLS}", "a preset file")
    if value != value.strip(" "):
        message = f"a preset file cannot hold spaces at the ends of {value!r}"
        raise NotExpressible(message, hint="rename the file", facts={"value": value})
    return value


def env_file(value: str) -> str:
    """A value that a shell, systemd's EnvironmentFile= and compose's env_file read alike.

    Raises:
        NotExpressible: they would not agree on it.
    """
    refuse_characters(value, _CONTROLS, "an environment file")
    if _PLAIN_WORD.fullmatch(value):
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    # Within double quotes all three know an escaped backslash; only some know an escaped dollar sign or quote.
    refuse_characters(value, '$`"', "an environment file that needs double quotes")
    escaped = value.replace("\\", "\\\\")
    return f'"{escaped}"'


def systemd_variable(name: str, value: str) -> str:
    """An assignment of Environment= in a unit: specifiers are expanded there, variables are not.

    Raises:
        NotExpressible: it has a control character.
    """
    refuse_characters(value, _CONTROLS, "a unit file")
    escaped = f"{name}={value}".replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return escaped if _PLAIN_WORD.fullmatch(value) else f'"{escaped}"'


def systemd_word(value: str) -> str:
    """One word of ExecStart= in a unit or Exec= in a quadlet: specifiers and variables are not expanded.

    Raises:
        NotExpressible: it has a control character.
    """
    refuse_characters(value, _CONTROLS, "a unit file")
    doubled = value.replace("%", "%%").replace("$", "$$")
    if _PLAIN_WORD.fullmatch(value):
        return doubled
    escaped = doubled.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def compose(value: str) -> str:
    """A text of a compose file: `$` begins a variable there."""
    return value.replace("$", "$$")


def refuse_characters(value: str, forbidden: str, where: str) -> str:
    """`value`, if it has none of the characters that `where` cuts, changes or cannot hold.

    Raises:
        NotExpressible: it has one.
    """
    found = next((char for char in value if char in forbidden), None)
    if found is not None:
        message = f"{where} cannot hold {found!r}, which is part of {value!r}"
        raise NotExpressible(message, hint="rename the file, or take a format that can", facts={"value": value})
    return value
