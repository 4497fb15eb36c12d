"""All files of a model from a hub into the cache: asked for, given room, downloaded, and linked last."""

import contextlib
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final

from glmplan.errors import FetchError
from glmplan.fetched import FetchedFile, FetchProgress, FetchReport, HubFile
from glmplan.launchers.fetch.cache import RepositoryCache
from glmplan.launchers.fetch.download import Came, download
from glmplan.launchers.fetch.hub import Blob, Hub
from glmplan.launchers.fetch.limits import FetchLimits
from glmplan.launchers.fetch.pace import Tally
from glmplan.units import format_bytes

_STORE: Final = "huggingface"


def fetch(
    hub: Hub,
    file: HubFile,
    cache_folder: Path,
    *,
    say: Callable[[str], None],
    on_progress: Callable[[FetchProgress], None],
) -> FetchReport:
    """Bring `file`, with all parts if it is split, into the hub cache at `cache_folder`.

    Nothing is seen under the model's name until every part is whole and verified; the first part, by which tools
    find a model, is linked last.

    Raises:
        InputError: unreachable, refused, or not there.
        FetchError: no room, a server that lies or breaks off again and again, or a cache that cannot be written.
    """
    cache = RepositoryCache(hub=cache_folder, repo=file.repo)
    blobs = [hub.blob(part, say) for part in file.parts]
    # The parts of one model come from one commit, even when the branch moves on in between.
    pinned = [blobs[0]] + [
        blob if blob.commit == blobs[0].commit else hub.blob(_at(blob.file, blobs[0].commit), say) for blob in blobs[1:]
    ]
    with _cache_errors(cache_folder):
        require_room(cache, pinned, hub.limits)
        tally = Tally(sum(blob.size_bytes for blob in pinned), on_progress)
        came = [download(hub, blob, cache, tally, say) for blob in pinned]
        paths = [cache.link(blob.commit, blob.file.file, blob.etag) for blob in reversed(pinned)]
        cache.write_ref(file.revision, pinned[0].commit)
        notes = _left_over(cache)
    return FetchReport(
        path=str(paths[-1]),
        store=_STORE,
        files=tuple(map(_fetched, pinned, reversed(paths), came)),
        notes=notes,
    )


def _at(file: HubFile, commit: str) -> HubFile:
    return HubFile(repo=file.repo, file=file.file, revision=commit)


def _fetched(blob: Blob, path: Path, came: Came) -> FetchedFile:
    return FetchedFile(
        path=str(path),
        bytes=blob.size_bytes,
        fetched_bytes=came.fetched_bytes,
        resumed_from_bytes=came.resumed_from_bytes,
        sha256=blob.sha256,
        reference=blob.file.reference,
        commit=blob.commit,
    )


def require_room(cache: RepositoryCache, blobs: Sequence[Blob], limits: FetchLimits) -> None:
    """Prove, before the first byte, that the file system of the cache can take what is still missing.

    Raises:
        FetchError: it cannot; says how much is missing.
    """
    needed = sum(blob.size_bytes - cache.have_bytes(blob.etag, blob.size_bytes) for blob in blobs)
    free = free_bytes(cache.hub)
    if needed == 0 or needed + limits.spare_bytes <= free:
        return
    message = (
        f"not enough room in {cache.hub}: {format_bytes(needed)} are still to come, {format_bytes(free)} are free "
        f"({format_bytes(limits.spare_bytes)} of it stay free)"
    )
    raise FetchError(
        message,
        hint="make room, or put the cache on another disk with HF_HUB_CACHE=FOLDER",
        facts={"needed_bytes": needed, "free_bytes": free, "spare_bytes": limits.spare_bytes},
    )


def free_bytes(folder: Path) -> int:
    """Free bytes of the file system that `folder` is on, or will be on once it is made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _left_over(cache: RepositoryCache) -> tuple[str, ...]:
    """Other unfinished files in the repository's folder: nobody may ever finish them."""
    left = cache.unfinished()
    if not left:
        return ()
    size = format_bytes(sum(path.stat().st_size for path in left if path.is_file()))
    return (f"{len(left)} unfinished downloads of other files or versions hold {size} in {left[0].parent}",)


@contextlib.contextmanager
def _cache_errors(folder: Path) -> Generator[None, None, None]:
    """What the disk refuses, as an error a user can act on."""
    try:
        yield
    except OSError as error:
        free = free_bytes(folder)
        message = f"cannot write to the model cache {folder}: {error.strerror or error} ({free:,} bytes are free)"
        raise FetchError(
            message,
            hint="make room or mend its permissions, or put the cache elsewhere with HF_HUB_CACHE=FOLDER; "
            "what has come so far is kept",
            facts={"free_bytes": free},
        ) from error
