"""Whether a file is what the hub says it is."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from glmplan.launchers.fetch.hub import Blob

_PIECE_BYTES: Final = 4 * 2**20


def is_the_blob(path: Path, blob: Blob, on_bytes: Callable[[int], None]) -> bool:
    """Read the file back from the disk and compare its length and checksum with what the hub told.

    Small files carry git's name for them: SHA-1 over `blob LENGTH`, a zero byte and the content.
    """
    if blob.sha256 is not None:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % blob.size_bytes, usedforsecurity=False)
    n_bytes = 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            n_bytes += len(piece)
            on_bytes(len(piece))
    return n_bytes == blob.size_bytes and digest.hexdigest() == blob.etag
