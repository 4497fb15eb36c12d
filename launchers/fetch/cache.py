"""The hub cache's layout on disk, as huggingface_hub and llama.cpp read it.

    models--ORG--NAME/blobs/ETAG                   the bytes, whole and verified
    models--ORG--NAME/blobs/ETAG.incomplete        the bytes so far
    models--ORG--NAME/snapshots/COMMIT/PATH        link to the blob
    models--ORG--NAME/refs/REVISION                the commit a branch or tag was at
    .locks/models--ORG--NAME/ETAG.lock             held while the blob is fetched, by huggingface_hub too

Sources: huggingface_hub file_download.py (`_hf_hub_download_to_cache_dir`), llama.cpp common/hf-cache.cpp.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from glmplan.noun import noun
from glmplan.paths import write_atomic

_POLL_S: Final = 0.2


@noun
class RepositoryCache:
    """The part of the cache folder `hub` that holds one repository."""

    hub: Path
    repo: str

    @property
    def _name(self) -> str:
        return f"models--{self.repo.replace('/', '--')}"

    @property
    def folder(self) -> Path:
        """Where blobs, snapshots and refs are."""
        return self.hub / self._name

    def blob(self, etag: str) -> Path:
        """Where a whole file is."""
        return self.folder / "blobs" / etag

    def incomplete(self, etag: str) -> Path:
        """Where a file is while it is not whole; kept from run to run."""
        return self.folder / "blobs" / f"{etag}.incomplete"

    def snapshot(self, commit: str, file: str) -> Path:
        """Where tools look for a file."""
        return self.folder / "snapshots" / commit / file

    def has(self, etag: str, size_bytes: int) -> bool:
        """Whether the whole file is here."""
        blob = self.blob(etag)
        return blob.is_file() and blob.stat().st_size == size_bytes

    def have_bytes(self, etag: str, size_bytes: int) -> int:
        """How much of a file is here: all of it, a part, or nothing."""
        if self.has(etag, size_bytes):
            return size_bytes
        partial = self.incomplete(etag)
        return min(partial.stat().st_size, size_bytes) if partial.is_file() else 0

    def unfinished(self) -> tuple[Path, ...]:
        """Files that some fetch has begun and not ended."""
        return tuple(sorted((self.folder / "blobs").glob("*.incomplete")))

    def link(self, commit: str, file: str, etag: str) -> Path:
        """Let tools find the blob under its name; on a file system without links the blob itself moves there."""
        place, blob = self.snapshot(commit, file), self.blob(etag)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        beside.unlink(missing_ok=True)
        try:
            beside.symlink_to(os.path.relpath(blob, place.parent))
        except OSError:
            if blob.is_file():
                blob.replace(place)
            return place
        beside.replace(place)
        return place

    def write_ref(self, revision: str, commit: str) -> None:
        """Remember which commit a branch or tag is at; a commit needs no such note."""
        if revision != commit:
            write_atomic(self.folder / "refs" / revision, commit)

    @contextlib.contextmanager
    def locked(self, etag: str, say: Callable[[str], None]) -> Generator[None, None, None]:
        """Be the only one who fetches a blob; who comes second is told so by `say` and waits.

        The lock goes with the process that holds it, however that ends.
        """
        path = self.hub / ".locks" / self._name / f"{etag}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = False
        while (held := _try_lock(path)) is None:
            if not waiting:
                say("another program is fetching this very file: waiting for it")
                waiting = True
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            os.close(held)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, None when somebody else has it."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock on a file that was deleted and made anew in between (filelock does that) protects nothing.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
