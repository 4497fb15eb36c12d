"""SHA-256 of model files, remembered by path, size and time of change: hashing 17 GB takes a minute."""

import hashlib
import json
import re
from pathlib import Path
from typing import Final

from glmplan.launchers.json_values import document, mapping
from glmplan.paths import cache_folder, write_atomic

_PIECE_BYTES: Final = 4 * 2**20
_BLOB: Final = re.compile(r"sha256-([0-9a-f]{64})")


def sha256_of(path: Path) -> str:
    """The digest of a file; a blob of Ollama's store is named by it.

    Raises:
        OSError: it cannot be read.
    """
    named = _BLOB.fullmatch(path.name)
    if named is not None:
        return named[1]
    stat = path.stat()
    key, state = str(path.resolve()), f"{stat.st_size}-{stat.st_mtime_ns}"
    remembered = _read()
    known = mapping(remembered.get(key))
    if known.get("state") == state:
        return str(known["sha256"])
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    remembered[key] = {"state": state, "sha256": digest.hexdigest()}
    write_atomic(_file(), json.dumps(remembered, indent=2), mode=0o600)
    return digest.hexdigest()


def _file() -> Path:
    return cache_folder() / "sha256.json"


def _read() -> dict[str, object]:
    try:
        return document(_file().read_text(encoding="utf-8"))
    except OSError:
        return {}
