"""Answers of commands that depend on one file alone, kept in the cache folder until that file changes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from glmplan.noun import noun
from glmplan.paths import cache_folder, write_atomic


@noun
class Answer:
    """What a command printed and returned."""

    returncode: int
    stdout: str
    stderr: str


def key_of(argv: Sequence[str], path: str) -> str | None:
    """A name for `argv` run with `path` as it is now (size and time of change); None when it is absent."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    text = "\0".join([*argv, path, str(status.st_size), str(status.st_mtime_ns)])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def recall(key: str) -> Answer | None:
    """The kept answer, or None."""
    try:
        kept = json.loads(_path(key).read_text(encoding="utf-8"))
        return Answer(returncode=int(kept["returncode"]), stdout=str(kept["stdout"]), stderr=str(kept["stderr"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(key: str, answer: Answer) -> None:
    """Keep an answer; a cache that cannot be written is no reason to stop."""
    document = {"returncode": answer.returncode, "stdout": answer.stdout, "stderr": answer.stderr}
    try:
        write_atomic(_path(key), json.dumps(document))
    except OSError:
        return


def _path(key: str) -> Path:
    return cache_folder() / "answers" / f"{key}.json"
