"""One blob into the cache: resumed where an earlier run ended, verified, and only then given its name."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from glmplan.errors import FetchError
from glmplan.fetched import FetchPhase
from glmplan.launchers.fetch.cache import RepositoryCache
from glmplan.launchers.fetch.checksum import is_the_blob
from glmplan.launchers.fetch.hub import Blob, Hub
from glmplan.launchers.fetch.limits import Interrupted, Patience
from glmplan.launchers.fetch.pace import Tally
from glmplan.launchers.fetch.transfer import receive
from glmplan.noun import noun
from glmplan.units import format_bytes


@noun
class Came:
    """What a download brought over the network, and what an earlier one had left."""

    fetched_bytes: int = 0
    resumed_from_bytes: int = 0


def download(hub: Hub, blob: Blob, cache: RepositoryCache, tally: Tally, say: Callable[[str], None]) -> Came:
    """Have `blob` in `cache`, whole and verified; partial bytes stay for the next run when this one ends early.

    Raises:
        GlmplanError: the server refuses, fails again and again, or serves something else than the hub told.
        OSError: the disk does not take it.
    """
    with cache.locked(blob.etag, say):
        if cache.has(blob.etag, blob.size_bytes):
            tally.end_file(blob.size_bytes)
            return Came()
        partial = cache.incomplete(blob.etag)
        partial.parent.mkdir(parents=True, exist_ok=True)
        came = _fill_and_check(hub, blob, partial, tally, say)
        partial.replace(cache.blob(blob.etag))
        _sync_folder(partial.parent)
    tally.end_file(blob.size_bytes)
    return came


def _fill_and_check(hub: Hub, blob: Blob, partial: Path, tally: Tally, say: Callable[[str], None]) -> Came:
    """Bytes until the checksum is right; what an earlier run left is given up when it proves wrong."""
    resumed_from = _usable_bytes(partial, blob)
    if resumed_from:
        here = f"{format_bytes(resumed_from)} of {format_bytes(blob.size_bytes)}"
        say(f"{blob.file.file}: {here} are here already: going on")
    fetched = _fill(hub, blob, partial, tally, say)
    if _check(blob, partial, tally):
        return Came(fetched_bytes=fetched, resumed_from_bytes=resumed_from)
    partial.unlink()
    if resumed_from:
        say(f"{blob.file.file}: what an earlier run had left does not fit: beginning anew")
        fetched += _fill(hub, blob, partial, tally, say)
        if _check(blob, partial, tally):
            return Came(fetched_bytes=fetched)
        partial.unlink()
    message = f"{blob.file.reference} came with other content than the hub announced (checksum {blob.etag[:12]}...)"
    raise FetchError(
        message,
        hint="the server or a proxy before it is at fault: try again later or another mirror (HF_ENDPOINT)",
        facts={"expected": blob.etag, "bytes": blob.size_bytes},
    )


def _usable_bytes(partial: Path, blob: Blob) -> int:
    """Bytes an earlier run left; more than the file has are none of it."""
    if not partial.is_file():
        return 0
    left = partial.stat().st_size
    if left > blob.size_bytes:
        partial.unlink()
        return 0
    return left


def _fill(hub: Hub, blob: Blob, partial: Path, tally: Tally, say: Callable[[str], None]) -> int:
    """Append until the length is right; how many bytes came."""
    tally.begin(blob.file.file, FetchPhase.FETCHING)
    patience = Patience(hub.limits, say)
    with partial.open("ab") as stream:
        began = stream.tell()
        while (before := stream.tell()) < blob.size_bytes:
            try:
                receive(hub, blob, stream, lambda came: tally.at(stream.tell(), came))
            except Interrupted as interrupted:
                if stream.tell() - before >= hub.limits.progress_bytes:
                    patience.progressed()
                patience.wait(interrupted)
        _sync(stream)
        return stream.tell() - began


def _check(blob: Blob, partial: Path, tally: Tally) -> bool:
    tally.begin(blob.file.file, FetchPhase.CHECKING)
    position = 0

    def read(n_bytes: int) -> None:
        nonlocal position
        position += n_bytes
        tally.at(position, n_bytes)

    return is_the_blob(partial, blob, read)


def _sync(stream: BinaryIO) -> None:
    """Onto the disk before the name says it is whole."""
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """The new name onto the disk; some network file systems have no such thing."""
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)
