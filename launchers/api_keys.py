"""API keys live in files of their owner only: never on a command line, in a log or in a plan."""

import secrets
from pathlib import Path
from typing import Final

from glmplan.errors import InputError
from glmplan.launchers.launch import first_key
from glmplan.paths import write_atomic

_BYTES: Final = 32


def generate(path: Path) -> str:
    """A new random key, written to `path`."""
    key = secrets.token_urlsafe(_BYTES)
    store(path, key)
    return key


def store(path: Path, key: str) -> None:
    """Write `key` to `path`, readable by its owner only."""
    write_atomic(path, key + "\n", mode=0o600)


def require_key(path: Path) -> None:
    """Prove that `path` holds a key.

    Raises:
        InputError: it cannot be read or holds none.
    """
    try:
        key = first_key(path)
    except OSError as error:
        message = f"cannot read the API key file {path}: {error.strerror}"
        raise InputError(message, hint="--api-key-file FILE with one key per line") from error
    if key is None:
        message = f"the API key file {path} holds no key"
        raise InputError(message, hint="write one key per line; lines that begin with # are comments")
